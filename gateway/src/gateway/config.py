"""The gateway's settings."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from shared.settings import ServiceSettings, looks_like_sample

MIN_ADMIN_PASSWORD_CHARACTERS = 12
_URL_SCHEMES = ("http://", "unix:/")

Network = IPv4Network | IPv6Network


def _networks(text: object) -> tuple[Network, ...]:
    if not isinstance(text, str):
        raise TypeError("is no list of networks")
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as fault:
        raise ValueError("is no comma-separated list of networks like 10.0.0.0/8,fd00::/8") from fault


def _urls(text: object) -> tuple[str, ...]:
    """The addresses of a comma-separated list, in an order of their own: all gateways must number them alike."""
    if not isinstance(text, str):
        raise TypeError("is no list of addresses")
    urls = tuple(sorted(part.strip() for part in text.split(",")))
    if not all(url.startswith(_URL_SCHEMES) for url in urls):
        raise ValueError("must be http://host:port or unix:/path, or several of them, comma-separated")
    if len(set(urls)) < len(urls):
        raise ValueError("names an address twice")
    return urls


class Settings(ServiceSettings):
    """What the gateway needs to know. Field names in lower case are the environment's names."""

    port: int = Field(default=5000, ge=0, le=65535, description="Port to listen on; the product's only public one.")
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for this process's /metrics, /livez and /readyz; none: not shown.",
    )
    metrics_fd: int | None = Field(
        default=None, description="Inherited listening socket for these; wins over the port."
    )
    auth_service_url: str = Field(description="auth-service: http://host:port or unix:/path.")
    tenant_service_url: str = Field(description="tenant-service: http://host:port or unix:/path.")
    patient_service_url: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_urls)] = Field(
        description="patient-service: http://host:port or unix:/path. Of several processes the addresses of all, "
        "comma-separated: a practice's calls go to one of them always."
    )
    admin_user_name: str = Field(default="admin", min_length=1, description="The platform admin's name (HTTP Basic).")
    admin_password: SecretStr = Field(description="The platform admin's password, 12 characters at least.")
    admin_failures_per_address: int = Field(
        default=10, ge=1, description="Wrong admin passwords from one address in 10 min before it has to wait."
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = Field(
        default="",
        validate_default=True,
        description="Networks (CIDR, comma-separated) whose X-Forwarded-For is believed; empty: nobody's.",
    )
    call_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds a call may take until a service's answer begins; then 504."
    )

    @field_validator("auth_service_url", "tenant_service_url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if not url.startswith(_URL_SCHEMES):
            raise ValueError("must be http://host:port or unix:/path")
        return url

    @field_validator("admin_password")
    @classmethod
    def _long_enough(cls, password: SecretStr) -> SecretStr:
        if len(password.get_secret_value()) < MIN_ADMIN_PASSWORD_CHARACTERS:
            raise ValueError(f"has fewer than {MIN_ADMIN_PASSWORD_CHARACTERS} characters")
        if looks_like_sample(password.get_secret_value()):
            raise ValueError("looks like a sample, not a password")
        return password

    @field_validator("admin_user_name")
    @classmethod
    def _without_colon(cls, name: str) -> str:
        if ":" in name:
            raise ValueError("can't have a colon: HTTP Basic ends the name there")
        return name
