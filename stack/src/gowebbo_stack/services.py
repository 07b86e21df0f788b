"""What each service is told and how it is started: commands, environment, sockets. Nothing is started here."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from gowebbo_stack.launching import Launch, Process
from gowebbo_stack.settings import Settings
from gowebbo_stack.supervision import Program

CENTRAL_DATABASE = "gowebbo"
_EMBEDDED_DEFAULTS = {
    "BCRYPT_COST": "10",
    "SIGNUPS_PER_ADDRESS": "0",
    "PASSWORD_MAILS_PER_ADDRESS": "0",
    "LOGIN_FAILURES_PER_ADDRESS": "100",  # everybody on this machine has one address
}
_EMBEDDED_SENDER = "mail@gowebbo.example"
_CAUGHT_MAIL_DEFAULTS = {
    "EMAIL_FROM": _EMBEDDED_SENDER,
    # The catcher answers at once: what a killed process left is taken up again sooner than a real server would allow.
    "EMAIL_TIMEOUT_S": "5",
    "RECLAIM_AFTER_S": "10",
}

# In which rank each stops, and how long it may take: with Redis (4) less than all may take (stack.py), so that
# PostgreSQL (5) has some seconds even then.
_STOPPING = {
    "gateway": (1, 2.5),
    "auth-service": (2, 2.5),
    "tenant-service": (2, 2.5),
    "patient-service": (2, 2.5),
    "notifier": (2, 2.5),
    "notifier-worker": (3, 2.5),
    "mailbox": (4, 2.0),
}


@dataclass(frozen=True)
class Addresses:
    """Where everything listens in this run."""

    postgres: Mapping[str, tuple[str, int]]  # host and port, by the server's key
    redis_port: int
    smtp_port: int
    sockets: Path  # folder of the services' unix sockets

    def service(self, name: str) -> str:
        """Return a service's URL, or the one of one of its processes."""
        return f"unix:{self.sockets / name}.sock"

    @property
    def shard_servers(self) -> str:
        """The PostgreSQL servers as tenant-service reads them."""
        return ",".join(f"{key}={host}:{port}" for key, (host, port) in self.postgres.items())


def common_environment(settings: Settings) -> dict[str, str]:
    """Return what every service is told, none of it secret."""
    defaults = _EMBEDDED_DEFAULTS | {"PUBLIC_URL": settings.public_url}
    # The working directory is the data's folder (no service reads the user's `.env` there) and must not be one to
    # import from.
    return defaults | settings.handed_through() | {"PYTHONSAFEPATH": "1"}


class Services:
    """Makes the launches of all services from settings, secrets and addresses."""

    def __init__(
        self,
        settings: Settings,
        secrets: Mapping[str, str],
        addresses: Addresses,
        *,
        start: Callable[[Launch], Process],
    ) -> None:
        """`start` starts a Python program."""
        self._settings = settings
        self._secrets = secrets
        self._addresses = addresses
        self._start = start

    def prepare(self, key: str) -> Launch:
        """Return the step that makes databases and roles on a server: the only one that knows the superuser."""
        first = key == next(iter(self._addresses.postgres))
        return self._launch(
            "tenant_service.cli",
            ["prepare" if first else "prepare-server"],
            self._secret("AUTH_DB_PASS", "TENANT_DB_PASS")
            | self._place(key)
            | {
                "DB_NAME": CENTRAL_DATABASE,
                "DB_SUPERUSER": "postgres",
                "DB_SUPERUSER_PASS": self._secrets["POSTGRES_PASSWORD"],
            },
            log="prepare" if first else f"prepare-{key}",
        )

    def migrations(self) -> list[Launch]:
        """Return the migrations of the central database by the service that owns them."""
        return [
            self._launch("auth_service.cli", ["migrate"], self._auth(), log="migrate-auth"),
            self._launch("tenant_service.cli", ["migrate"], self._tenant(), log="migrate-tenant"),
        ]

    def gateway(self, name: str, listener: socket, own: socket) -> Program:
        """Return a process of the one service that the world may reach: on the socket of all, and on one of its own."""
        environment = self._secret("GATEWAY_SECRET", "ADMIN_USER_NAME", "ADMIN_PASSWORD") | {
            "PORT": str(self._settings.port),
            "AUTH_SERVICE_URL": self._addresses.service("auth-service"),
            "TENANT_SERVICE_URL": self._addresses.service("tenant-service"),
            "PATIENT_SERVICE_URL": ",".join(map(self._addresses.service, self._settings.patient_services)),
            "METRICS_FD": str(own.fileno()),
        }
        return self._program(name, "gateway", environment, [listener, own], entry="gateway")

    def auth(self, listener: socket) -> Program:
        """Return auth-service."""
        return self._program("auth-service", "auth_service", self._auth(), [listener])

    def tenant(self, listener: socket) -> Program:
        """Return tenant-service."""
        return self._program("tenant-service", "tenant_service", self._tenant(), [listener])

    def patient(self, name: str, listener: socket) -> Program:
        """Return a process of patient-service."""
        environment = self._secret("GATEWAY_SECRET", "SHARD_SECRET") | {
            "TENANT_SERVICE_URL": self._addresses.service("tenant-service"),
            "PATIENT_PROCESSES": str(self._settings.patient_processes),
        }
        return self._program(name, "patient_service", environment, [listener], entry="patient-service")

    def notifier(self, listener: socket) -> Program:
        """Return the reader of the event stream."""
        return self._program("notifier", "notifier", self._mail(), [listener])

    def worker(self) -> Program:
        """Return the Celery worker that sends the mails."""
        return self._program("notifier-worker", "notifier.worker", self._mail(), [])

    def mailbox(self, smtp: socket, page: socket) -> Program:
        """Return the catcher of mails."""
        environment = {
            "MAILBOX_DIRECTORY": os.fspath(self._settings.home.mailbox),
            "SMTP_FD": str(smtp.fileno()),
            "HTTP_FD": str(page.fileno()),
        }
        return self._program("mailbox", "gowebbo_stack.mailbox", environment, [smtp, page])

    def _auth(self) -> dict[str, str]:
        return (
            self._secret("GATEWAY_SECRET", "JWT_SECRET")
            | self._database("gowebbo_auth", "AUTH_DB_PASS")
            | self._redis()
            | {"TENANT_SERVICE_URL": self._addresses.service("tenant-service")}
        )

    def _tenant(self) -> dict[str, str]:
        return (
            # Administrators of servers that were added by hand; the embedded ones have the one of DB_USER.
            self._settings.only(r"SERVER_\w+_(USER|PASS)(_FILE)?")
            | self._secret("GATEWAY_SECRET", "SHARD_SECRET")
            | self._database("gowebbo_tenant", "TENANT_DB_PASS")
            | {"SHARD_SERVERS": self._addresses.shard_servers}
        )

    def _mail(self) -> dict[str, str]:
        given = self._settings.only(r"EMAIL_\w+|RECLAIM_AFTER_S")
        if "EMAIL_HOST" not in given:  # caught here: no user's mail account is involved
            given = {name: given.get(name, default) for name, default in _CAUGHT_MAIL_DEFAULTS.items()} | {
                "EMAIL_HOST": "127.0.0.1",
                "EMAIL_PORT": str(self._addresses.smtp_port),
                "EMAIL_SECURITY": "none",
            }
        return (
            given
            | self._secret("GATEWAY_SECRET")
            | self._redis()
            | {"AUTH_SERVICE_URL": self._addresses.service("auth-service")}
        )

    def _database(self, user: str, password: str) -> dict[str, str]:
        return self._place(next(iter(self._addresses.postgres))) | {
            "DB_NAME": CENTRAL_DATABASE,
            "DB_USER": user,
            "DB_PASS": self._secrets[password],
        }

    def _place(self, key: str) -> dict[str, str]:
        host, port = self._addresses.postgres[key]
        return {"DB_HOST": host, "DB_PORT": str(port)}

    def _redis(self) -> dict[str, str]:
        return {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self._addresses.redis_port),
            "REDIS_PASS": self._secrets["REDIS_PASS"],
        }

    def _secret(self, *names: str) -> dict[str, str]:
        return {name: self._secrets[name] for name in names}

    def _program(
        self, name: str, module: str, environment: Mapping[str, str], sockets: list[socket], *, entry: str = ""
    ) -> Program:
        if sockets:
            environment = {**environment, "SERVICE_FD": str(sockets[0].fileno())}
        rank, timeout_s = _STOPPING[entry or name]
        return Program(
            name,
            self._launch(module, [], environment, log=name, sockets=sockets),
            entry,
            stop_rank=rank,
            stop_timeout_s=timeout_s,
            start=self._start,
        )

    def _launch(
        self,
        module: str,
        words: list[str],
        environment: Mapping[str, str],
        *,
        log: str,
        sockets: list[socket] | None = None,
    ) -> Launch:
        return Launch(
            command=[sys.executable, "-m", module, *words],
            environment={**common_environment(self._settings), **environment},
            working_directory=self._settings.home.path,
            log=self._settings.home.logs / f"{log}.log",
            descriptors=[socket.fileno() for socket in sockets or []],
        )
