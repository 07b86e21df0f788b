"""The service's settings."""

from pydantic import Field

from shared.settings import ServiceSettings, SigningSecret, split_secrets

RESERVED_CONNECTIONS = 30
"""Of a server's max_connections: for the central database's clients, tenant-service's admin and the operator."""
MOST_PER_PRACTICE = 4
"""Half of what a shard's role may have: the rest is for a process that is being replaced, and tenant-service."""


class Settings(ServiceSettings):
    """What patient-service is told by its environment."""

    port: int = Field(default=5003, description="TCP port to listen on.")
    tenant_service_url: str = Field(
        pattern=r"^(https?://|unix:/)", description="Where tenant-service is: `http://host:port` or `unix:/path`."
    )
    shard_secret: SigningSecret = Field(
        description="Shard roles' passwords are derived from it; a comma-separated list, newest first, rotates it."
    )
    shard_connections: int | None = Field(
        default=None,
        ge=1,
        description="Connections that this process may hold to one shard server. "
        f"Default: (its max_connections - {RESERVED_CONNECTIONS}) / PATIENT_PROCESSES.",
    )
    patient_processes: int = Field(default=1, ge=1, description="Processes of patient-service that share the servers.")
    connections_per_practice: int | None = Field(
        default=None,
        ge=1,
        le=MOST_PER_PRACTICE,
        description="Connections that this process may hold for one practice; more than one are used while "
        f"it is alone. Default: {MOST_PER_PRACTICE} / PATIENT_PROCESSES.",
    )
    practice_queue: int = Field(
        default=256, ge=1, description="Calls of one practice that may wait for its connection; more are refused."
    )
    practice_wait_ms: int = Field(
        default=1800,
        ge=1,
        le=5000,
        description="How long a call waits for a connection, in milliseconds; refused then, so within two seconds.",
    )
    idle_connection_s: int = Field(
        default=900, ge=1, description="A connection that was not used for this long is closed, in seconds."
    )

    @property
    def shard_secrets(self) -> tuple[bytes, ...]:
        """Keys that shard passwords are derived from, newest first."""
        return split_secrets(self.shard_secret)

    @property
    def per_practice(self) -> int:
        """Connections that this process may hold for one practice."""
        return self.connections_per_practice or max(1, MOST_PER_PRACTICE // self.patient_processes)

    def budget(self, max_connections: int) -> int:
        """Connections that this process may hold to a server that allows so many in all."""
        share = (max_connections - RESERVED_CONNECTIONS) // self.patient_processes
        return self.shard_connections or max(1, share)
