"""Where everything will be in this run: folders, ports, sockets. Made once, before the first process starts."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gowebbo_stack.launching import Identity
from gowebbo_stack.ports import free_port, listen_tcp, listen_unix
from gowebbo_stack.postgres import Postgres
from gowebbo_stack.services import Addresses
from gowebbo_stack.settings import Settings
from gowebbo_stack.valkey import Valkey

SERVICES = ("auth-service", "tenant-service", "patient-service", "notifier")


@dataclass(frozen=True)
class Plan:
    """All servers and all listening sockets. The supervisor holds these: clients wait while a child restarts."""

    postgres: Mapping[str, Postgres]  # by the server's key
    redis: Valkey
    gateway: socket.socket
    listeners: Mapping[str, socket.socket]  # by process; a gateway's is its own one, beside the public one of all
    smtp: socket.socket
    page: socket.socket
    sockets: Path
    gateway_url: str
    mailbox: Path

    @property
    def addresses(self) -> Addresses:
        """What services are told of it."""
        return Addresses(
            postgres={key: (server.host, server.port) for key, server in self.postgres.items()},
            redis_port=self.redis.port,
            smtp_port=self.smtp.getsockname()[1],
            sockets=self.sockets,
        )

    @property
    def mailbox_url(self) -> str:
        """The page to read caught mails on."""
        return f"http://127.0.0.1:{self.page.getsockname()[1]}"

    @property
    def entries(self) -> dict[str, dict[str, str]]:
        """The entries of `status`, without pids."""
        return {
            "gateway": {"url": self.gateway_url},
            **{name: {"url": self.addresses.service(name)} for name in SERVICES},
            "notifier-worker": {},
            **{postgres_name(key): {"dsn": server.dsn()} for key, server in self.postgres.items()},
            "redis": {"url": self.redis.url},
            "mailbox": {"path": str(self.mailbox), "url": self.mailbox_url},
        }

    @property
    def ports(self) -> dict[str, int]:
        """The ports that the next run prefers."""
        return {
            **{postgres_name(key): server.port for key, server in self.postgres.items()},
            "redis": self.redis.port,
            "smtp": self.smtp.getsockname()[1],
            "mailbox": self.page.getsockname()[1],
        }


def postgres_name(key: str) -> str:
    """Return the name of a PostgreSQL server in `status` and in the logs."""
    return "postgres" if key == "a" else f"postgres-{key}"


def make_plan(
    settings: Settings,
    secrets: Mapping[str, str],
    *,
    gateway: socket.socket,
    identity: Identity,
    preferred_ports: Mapping[str, int],
) -> Plan:
    """Choose ports (the last run's, where they are still free) and bind the services' sockets."""

    def port(name: str) -> int:
        return free_port(preferred=preferred_ports.get(name))

    def server(key: str) -> Postgres:
        return Postgres(
            data=settings.home.postgres(key),
            port=port(postgres_name(key)),
            password=secrets["POSTGRES_PASSWORD"],
            max_connections=settings.max_connections,
            identity=identity,
        )

    sockets = settings.home.run_folder()
    listening = ("auth-service", "tenant-service", "notifier", *settings.patient_services, *settings.gateways)
    return Plan(
        postgres={key: server(key) for key in settings.server_keys},
        redis=Valkey(settings.home.redis, port("redis"), secrets["REDIS_PASS"]),
        gateway=gateway,
        listeners={name: listen_unix(sockets / f"{name}.sock") for name in listening},
        smtp=listen_tcp("127.0.0.1", port("smtp")),
        page=listen_tcp("127.0.0.1", port("mailbox")),
        sockets=sockets,
        gateway_url=settings.public_url,
        mailbox=settings.home.mailbox,
    )
