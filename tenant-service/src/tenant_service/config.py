"""What the environment tells this service and its commands. Nothing is read from it anywhere else."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import AfterValidator, Field, SecretStr, create_model

from shared.settings import EnvironmentSettings, ServiceSettings, SigningSecret, split_secrets

SERVER_KEY = r"[a-z][a-z0-9-]{0,30}"
_SERVER = re.compile(rf"({SERVER_KEY})=([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]|/[A-Za-z0-9_./-]+):(\d{{1,5}})")
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
"""libpq's, from the weakest to the strongest."""


class ServerAddress(NamedTuple):
    """A shard server as SHARD_SERVERS names it."""

    key: str
    host: str
    port: int


class Credentials(NamedTuple):
    """The admin role of a shard server."""

    user: str
    password: str


def safe_sslmode(host: str) -> SslMode:
    """What a connection to this host needs unless somebody says otherwise: proof who it is, beyond this machine."""
    if host.startswith("/") or host == "localhost":
        return "prefer"
    try:
        return "prefer" if ip_address(host).is_loopback else "verify-full"
    except ValueError:
        return "verify-full"


def parse_servers(text: str) -> tuple[ServerAddress, ...]:
    """Reads `a=host:port,b=host:port`; a host may be the folder of a unix socket. Raises ValueError."""
    servers = []
    for part in filter(None, map(str.strip, text.split(","))):
        found = _SERVER.fullmatch(part)
        if not found:
            raise ValueError("is no list of shard servers: write it like a=db1:5432,b=db2:5432")
        servers.append(ServerAddress(found[1], found[2].strip("[]"), int(found[3])))
    if len({server.key for server in servers}) != len(servers):
        raise ValueError("names a key twice")
    return tuple(servers)


def _server_list(text: str | None) -> str | None:
    if text is not None:
        parse_servers(text)
    return text


class ServerLocation(EnvironmentSettings):
    """Where a PostgreSQL server is and how the connection to it is protected."""

    db_host: str = Field(description="Host of the PostgreSQL server that holds the central database.")
    db_port: int = Field(default=5432, description="Its port.")
    db_sslmode: str = Field(
        default="prefer", description="libpq's sslmode, for shard servers too; verify-full beyond a private network."
    )
    db_sslrootcert: str | None = Field(default=None, description="File of the authority that signed its certificate.")


class DatabaseSettings(ServerLocation):
    """The central database, as this service's own role sees it."""

    db_name: str = Field(default="gowebbo", description="The central database.")
    db_user: str = Field(default="gowebbo_tenant", description="Login role that owns the schema `tenant`.")
    db_pass: SecretStr = Field(description="Its password.")


class Settings(ServiceSettings, DatabaseSettings):
    """The settings of the running service."""

    port: int = Field(default=5002, description="Port to listen on.")
    shard_secret: SigningSecret = Field(description="Shard roles' passwords are derived from it; newest first.")
    shard_servers: Annotated[str | None, AfterValidator(_server_list)] = Field(
        default=None, description="Shard servers, `a=host:port,b=host:port`; one with the key a at DB_HOST if absent."
    )
    clones_in_parallel: int = Field(
        default=2, ge=1, le=3, description="Databases made at once by one process; other sign-ups wait, up to 8 s."
    )
    shard_warm_pool: int = Field(
        default=4,
        ge=0,
        le=100,
        description="Shards kept ready on each open server, up to 8 times as many while sign-ups are frequent.",
    )
    migrations_per_server: int = Field(
        default=2, ge=1, le=16, description="Shards of one server that are migrated at once."
    )
    copies_kept_hours: float = Field(
        default=72, gt=0, le=24 * 366, description="How long a copy beside the live shard is kept, in hours."
    )
    backup_secret: SigningSecret | None = Field(
        default=None, description="Encrypts the practices' backup keys; newest first. SHARD_SECRET if absent."
    )
    backup_dir: Path | None = Field(
        default=None, description="Folder for scheduled backups, one in it for each practice; none are taken if absent."
    )
    backup_every_hours: float = Field(
        default=24, gt=0, le=24 * 31, description="Between two scheduled backups of a practice, in hours."
    )
    backup_keep_hourly: int = Field(default=24, ge=0, description="Hours that keep their newest scheduled backup.")
    backup_keep_daily: int = Field(default=7, ge=0, description="Days that keep theirs.")
    backup_keep_weekly: int = Field(default=5, ge=0, description="Weeks that keep theirs.")
    reconcile_every_s: float = Field(
        default=10,
        gt=0,
        le=60,
        description="Pause between two comparisons of the servers with the directory, in seconds.",
    )

    @property
    def shard_keys(self) -> tuple[bytes, ...]:
        """Secrets of the shard passwords, newest first."""
        return split_secrets(self.shard_secret)

    @property
    def backup_secrets(self) -> tuple[bytes, ...]:
        """What seals the backup keys, newest first. The shard secrets open too: they sealed before there was an own."""
        return (*(split_secrets(self.backup_secret) if self.backup_secret else ()), *self.shard_keys)

    @property
    def servers(self) -> tuple[ServerAddress, ...]:
        """The shard servers that the environment names."""
        return parse_servers(self.shard_servers or "") or (ServerAddress("a", self.db_host, self.db_port),)

    def admin_of(self, key: str) -> Credentials:
        """The admin's SERVER_<KEY>_USER and SERVER_<KEY>_PASS (or _FILE), else DB_USER and DB_PASS; read at each call.

        Raises UnreadableSecretError.
        """
        prefix = f"server_{key.replace('-', '_')}"
        model = create_model(  # type: ignore[call-overload]  # the names are known only now
            "AdminCredentials",
            __base__=EnvironmentSettings,
            **{f"{prefix}_user": (str, self.db_user), f"{prefix}_pass": (SecretStr, self.db_pass)},
        )
        found = cast("EnvironmentSettings", model()).model_dump()
        return Credentials(found[f"{prefix}_user"], found[f"{prefix}_pass"].get_secret_value())


class PrepareServerSettings(ServerLocation):
    """What `prepare-server` needs: a superuser, used by this command only."""

    db_superuser: str = Field(default="postgres", description="A superuser of the server.")
    db_superuser_pass: SecretStr = Field(description="The superuser's password.")
    tenant_db_pass: SecretStr = Field(description="Password that the role gowebbo_tenant gets.")


class PrepareSettings(PrepareServerSettings):
    """What `prepare` needs."""

    db_name: str = Field(default="gowebbo", description="The central database; made if absent.")
    auth_db_pass: SecretStr = Field(description="Password that the role gowebbo_auth gets.")
