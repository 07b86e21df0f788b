"""The service's settings. Nothing else reads the environment."""

import os

from pydantic import Field, SecretStr

from shared.settings import DurationS, ServiceSettings, SigningSecret, split_secrets

_HOUR_S = 3600
_DAY_S = 86_400


class DatabaseSettings(ServiceSettings):
    """What reaching the central database takes."""

    db_host: str = Field(description="Host of the PostgreSQL server with the central database.")
    db_port: int = Field(default=5432, ge=1, le=65535, description="Its TCP port.")
    db_name: str = Field(default="gowebbo", min_length=1, description="Name of the central database.")
    db_user: str = Field(default="gowebbo_auth", min_length=1, description="Login role that owns the schema `auth`.")
    db_pass: SecretStr = Field(description="Its password.")
    db_sslmode: str = Field(default="prefer", description="libpq's sslmode; verify-full beyond a private network.")
    db_sslrootcert: str | None = Field(default=None, description="File of the authority that signed its certificate.")


class Settings(DatabaseSettings):
    """Settings of auth-service."""

    port: int = Field(default=5001, ge=1, le=65535, description="TCP port to listen on.")
    jwt_secret: SigningSecret = Field(description="Access and refresh tokens are signed with keys derived from it.")
    token_expire_in: DurationS = Field(
        default=_HOUR_S, le=_DAY_S, description="Life of an access token; seconds or `1hr`, `30m`; a day at most."
    )
    refresh_expire_in: DurationS = Field(
        default=30 * _DAY_S, description="Life of a refresh token from its issue; seconds or `30d`."
    )
    bcrypt_cost: int = Field(
        default=12, ge=10, le=16, description="log2 of bcrypt's rounds; 12 or more outside of demos. Each step doubles."
    )
    hash_workers: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2,
        ge=1,
        le=64,
        description="Passwords hashed at the same time; default: one for each processor.",
    )
    login_failures_per_address: int = Field(
        default=50, ge=1, description="Failed log-ins of one client address in 10 minutes before it has to wait."
    )
    signups_per_address: int = Field(
        default=100, ge=0, description="Sign-ups from one client address in an hour; 0: as many as it likes."
    )
    password_mails_per_address: int = Field(
        default=30, ge=0, description="Mails for a new password asked for from one address in an hour; 0: any number."
    )
    unverified_may_work: bool = Field(
        default=True, description="Whether people may log in before their e-mail address is verified."
    )
    close_grace: DurationS = Field(
        default=30 * _DAY_S, description="How long the closing of a practice can be undone; seconds or `30d`."
    )
    tenant_service_url: str = Field(
        pattern=r"^(https?://|unix:/)", description="tenant-service: `http://host:port` or `unix:/path`."
    )
    redis_host: str = Field(default="127.0.0.1", description="Host of the Redis-protocol server with the event stream.")
    redis_port: int = Field(default=6379, ge=1, le=65535, description="Its TCP port.")
    redis_pass: SecretStr = Field(default=SecretStr(""), description="Its password; empty for none.")

    @property
    def jwt_secrets(self) -> tuple[bytes, ...]:
        """Newest first: the first signs, every one verifies."""
        return split_secrets(self.jwt_secret)
