"""One composition of docker-compose.yml: driven by Compose's command, looked into by the `docker` SDK."""

import email.policy
import io
import ipaddress
import json
import os
import secrets
import shlex
import subprocess
import tarfile
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container
from e2e_stack import free_port

ROOT = Path(__file__).parents[1]
COMMAND = shlex.split(os.environ.get("COMPOSE_COMMAND", "docker compose"))
BUILD_TIMEOUT_S = 1800
UP_TIMEOUT_S = 240
STOP_TIMEOUT_S = 30
MAILS = "/mails"
"""Where the mail catcher's volume is mounted."""

_PSQL = 'PGPASSWORD="$(cat /run/secrets/db_superuser_pass)" exec psql -h 127.0.0.1 -U postgres -AtX'


@dataclass(frozen=True)
class FurtherServer:
    """A PostgreSQL server that is reached as one on another machine is: by an address and a port."""

    container: Container
    host: str
    port: str
    superuser_password: str

    def is_ready(self) -> bool:
        """Whether it answers by TCP: while the image initialises its data, it does so on its socket only."""
        return self.container.exec_run(["pg_isready", "--quiet", "--host", "127.0.0.1"]).exit_code == 0


class Composition:
    """The project's services under a name, ports and secrets of their own, with the profile that catches mail."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.port, self.mailbox_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "PORT": str(self.port),
            "MAILBOX_PORT": str(self.mailbox_port),
            "SECRETS_DIR": str(folder),
            "GOWEBBO_TAG": "e2e",
        }
        self._secrets = folder
        self._further: list[Container] = []
        self._docker = docker.from_env()

    def make_secrets(self) -> None:
        """The step that comes before the first `up`."""
        subprocess.run([ROOT / "deploy/compose/make-secrets"], env=self.environment, check=True, capture_output=True)

    def secret(self, name: str) -> str:
        """What a secret's file holds."""
        return (self._secrets / name).read_text()

    def compose(self, *words: str, timeout_s: float = UP_TIMEOUT_S, **settings: str) -> str:
        """Runs a Compose command, with further settings for this once; it must succeed."""
        done = subprocess.run(
            [*COMMAND, "--project-name", self.name, "--profile", "dev", *words],
            cwd=ROOT,
            env={**self.environment, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"compose {' '.join(words)}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def build(self) -> None:
        """Builds all images, and waits until they are on the disk: a commit beside that could take minutes."""
        self.compose("build", timeout_s=BUILD_TIMEOUT_S)
        os.sync()

    def up(self) -> None:
        """Starts what isn't running and waits until everything is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(UP_TIMEOUT_S), timeout_s=UP_TIMEOUT_S + 60)

    def kill(self, service: str) -> None:
        """`docker compose kill`."""
        self.compose("kill", service)

    def start_further_server(self) -> FurtherServer:
        """A PostgreSQL that is none of the project's services; it ends with them."""
        password = secrets.token_hex(12)
        address, *_ = self._docker.networks.get("bridge").attrs["IPAM"]["Config"]  # a second one would be IPv6
        host = address.get("Gateway") or str(next(ipaddress.ip_network(address["Subnet"]).hosts()))
        container = self._docker.containers.run(
            os.environ.get("POSTGRES_IMAGE", "postgres:18"),
            ["postgres", "-c", "max_connections=1000"],
            environment={"POSTGRES_PASSWORD": password},
            ports={"5432/tcp": (host, 0)},
            detach=True,
        )
        self._further.append(container)
        container.reload()
        [binding] = container.ports["5432/tcp"]
        return FurtherServer(container, host, binding["HostPort"], password)

    def down(self) -> None:
        """Ends everything and forgets its data."""
        for container in self._further:
            container.remove(v=True, force=True)
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", str(STOP_TIMEOUT_S))
        self._docker.close()

    def configuration(self) -> dict[str, Any]:
        """What Compose made of the file."""
        whole: dict[str, Any] = json.loads(self.compose("config", "--format", "json"))
        return whole

    def containers(self) -> dict[str, Container]:
        """Every container of the project, by service."""
        found = self._docker.containers.list(all=True, filters={"label": f"com.docker.compose.project={self.name}"})
        return {one.labels["com.docker.compose.service"]: one for one in found}

    def mails(self) -> list[EmailMessage]:
        """Every mail that the catcher holds."""
        packed, _ = self.containers()["mailbox"].get_archive(MAILS)
        with tarfile.open(fileobj=io.BytesIO(b"".join(packed))) as archive:
            files = [
                archive.extractfile(one) for one in archive if one.isfile() and Path(one.name).parent.name == "new"
            ]
            parser = BytesParser(EmailMessage, policy=email.policy.default)
            return [parser.parse(file) for file in files if file]

    def mailed(self) -> set[str]:
        """The addresses that mail has reached."""
        return {str(mail["To"]) for mail in self.mails()}

    def query(self, statement: str) -> list[str]:
        """The words that psql prints in PostgreSQL's own container: no other way leads there."""
        code, printed = self.containers()["postgres"].exec_run(
            ["sh", "-c", f'{_PSQL} -d postgres -c "$1"', "psql", statement]
        )
        assert code == 0, printed
        return list(printed.decode().split())

    def logs(self) -> str:
        """What all services wrote."""
        return self.compose("logs", "--no-color")
