"""Settings every service reads the same way: environment, then `NAME_FILE`, then `.env`.

No service's own setting lives here.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

MIN_SECRET_BYTES = 32
EX_CONFIG = 78
"""Exit status for a faulty configuration (sysexits.h)."""

_SAMPLE = re.compile(r"^(your_|change|example|sample|secret|test|password|admin_?pass)", re.IGNORECASE)
_DURATION = re.compile(r"^\s*(\d+)\s*(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)?\s*$", re.IGNORECASE)
_UNIT_S: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration_s(text: object) -> int:
    """Seconds in `900`, `30m`, `1hr`, `7d`; a bare number is seconds. Raises ValueError for anything else."""
    found = _DURATION.match(str(text))
    if not found or int(found[1]) == 0:
        raise ValueError("is no duration: write it like 900, 30m, 1hr or 7d")
    return int(found[1]) * _UNIT_S[(found[2] or "s")[0].lower()]


def looks_like_sample(text: str) -> bool:
    """Whether somebody forgot to replace what a document shows."""
    return bool(_SAMPLE.match(text))


def split_secrets(value: SecretStr) -> tuple[bytes, ...]:
    """The secrets of a comma-separated list, newest first. The first signs, every one verifies."""
    return tuple(part.strip().encode() for part in value.get_secret_value().split(",") if part.strip())


def _signing_secret(value: SecretStr) -> SecretStr:
    secrets = split_secrets(value)
    if not secrets:
        raise ValueError("is empty")
    for secret in secrets:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"has a secret shorter than {MIN_SECRET_BYTES} bytes; make one with: openssl rand -hex 32")
        if looks_like_sample(secret.decode(errors="replace")) or len(set(secret)) < 8:  # noqa: PLR2004 - see message
            raise ValueError("looks like a sample, not a secret; make one with: openssl rand -hex 32")
    return value


SigningSecret = Annotated[SecretStr, AfterValidator(_signing_secret)]
"""One or more secrets of at least 32 bytes, comma-separated, newest first."""

LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda text: str(text).upper())]

DurationS = Annotated[int, BeforeValidator(parse_duration_s)]


class _SecretFileSource(PydanticBaseSettingsSource):
    """Reads `NAME_FILE=/path` for a setting NAME, as container platforms hand secrets over."""

    def __init__(self, settings_type: type[BaseSettings], *sources: EnvSettingsSource) -> None:
        super().__init__(settings_type)
        self._sources = sources

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the base's signature
        for source in self._sources:
            path = source.env_vars.get(f"{field_name}_file")
            if path:
                try:
                    return Path(path).read_text().strip(), field_name, False
                except OSError as fault:
                    raise UnreadableSecretError(f"{field_name.upper()}_FILE: {fault.strerror}: {path}") from fault
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class UnreadableSecretError(Exception):
    """A `NAME_FILE` that can't be read."""


class EnvironmentSettings(BaseSettings):
    """Where settings come from: for services and for commands alike. Field names are the environment's names."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced by NAME_FILE
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(env_settings, EnvSettingsSource)
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        files = _SecretFileSource(settings_cls, env_settings, dotenv_settings)
        return init_settings, env_settings, files, dotenv_settings


class ServiceSettings(EnvironmentSettings):
    """The settings that all services share."""

    host: str = Field(default="0.0.0.0", description="Address to listen on.")  # noqa: S104 - containers publish by port
    service_fd: int | None = Field(default=None, description="Inherited listening socket; wins over host and port.")
    log_level: LogLevel = Field(default="INFO", description="The least that is logged: DEBUG, INFO, WARNING, ERROR.")
    gateway_secret: SigningSecret = Field(description="Signs the context headers between gateway and services.")

    @property
    def gateway_keys(self) -> tuple[bytes, ...]:
        """HMAC keys of the signed context, newest first."""
        return split_secrets(self.gateway_secret)


_Settings = TypeVar("_Settings", bound=BaseSettings)


def load(settings_type: type[_Settings]) -> _Settings:
    """The settings, or a list of every fault on standard error and exit status 78. Values are never shown."""
    try:
        return settings_type()
    except UnreadableSecretError as fault:
        _refuse([str(fault)])
    except ValidationError as faults:
        _refuse(
            [
                f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg'].removeprefix('Value error, ')}"
                for e in faults.errors()
            ]
        )


def _refuse(faults: list[str]) -> NoReturn:
    sys.stderr.write("Not started, the settings are faulty:\n" + "".join(f"  {fault}\n" for fault in faults))
    raise SystemExit(EX_CONFIG)
