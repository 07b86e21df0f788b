"""What the user and the machine decide: the environment beats `.env`, `.env` beats generated secrets.

Also decides which process is told what: a secret goes only to those that need it.
"""

import ipaddress
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gowebbo_stack.home import Home, write_private

SIGNING_SECRETS = ("JWT_SECRET", "SHARD_SECRET", "GATEWAY_SECRET")
_GENERATED = {
    **dict.fromkeys((*SIGNING_SECRETS, "POSTGRES_PASSWORD", "AUTH_DB_PASS", "TENANT_DB_PASS", "REDIS_PASS"), 32),
    "ADMIN_PASSWORD": 12,
}
_OURS_ALONE = ("POSTGRES_PASSWORD", "AUTH_DB_PASS", "TENANT_DB_PASS", "REDIS_PASS")  # no user's value is asked for
_FILE_SECRETS = frozenset((*SIGNING_SECRETS, "ADMIN_USER_NAME", "ADMIN_PASSWORD", "EMAIL_USER", "EMAIL_PASS"))
MIN_ADMIN_PASSWORD = 12
_MOST_PROCESSES = 99  # of one service; the sockets' folder is chosen for names of this length

# Set by the stack, or secret: none of these is handed through from the user's environment.
_NOT_HANDED_THROUGH = re.compile(
    r"^(DB_\w+|REDIS_\w+|\w*_DB_PASS|JWT_SECRET|SHARD_SECRET|GATEWAY_SECRET|ADMIN_USER_NAME|ADMIN_PASSWORD|EMAIL_\w+|SERVER_\w+_(USER|PASS)"
    r"|POSTGRES_PASSWORD|PORT|HOST|SERVICE_FD|METRICS_FD|METRICS_PORT|SHARD_SERVERS|\w+_SERVICE_URL)(_FILE)?$"
)


class SettingsError(RuntimeError):
    """Settings that can't be used; the message lists every fault."""


@dataclass(frozen=True)
class Settings:
    """The stack's settings, read once at the start."""

    home: Home
    given: Mapping[str, str]  # the environment over `.env`, NAME_FILE resolved, empty values left out
    host: str
    port: int
    max_connections: int
    servers: int
    gateway_processes: int
    patient_processes: int

    @property
    def server_keys(self) -> list[str]:
        """Keys of the PostgreSQL servers for shards; the first also holds the central database."""
        keys = [chr(ord("a") + number) for number in range(26)]
        # A server that has been made holds practices: it is started even when fewer are asked for now.
        return [key for number, key in enumerate(keys) if number < self.servers or self.home.postgres(key).exists()]

    @property
    def gateways(self) -> list[str]:
        """Names of the gateway's processes."""
        return _numbered("gateway", self.gateway_processes)

    @property
    def patient_services(self) -> list[str]:
        """Names of patient-service's processes."""
        return _numbered("patient-service", self.patient_processes)

    @property
    def public_url(self) -> str:
        """Where people on this machine reach the gateway."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 -- compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def handed_through(self) -> dict[str, str]:
        """Return what every process is given: the user's settings without secrets and addresses."""
        return {name: value for name, value in self.given.items() if not _NOT_HANDED_THROUGH.match(name)}

    def only(self, pattern: str) -> dict[str, str]:
        """Return the user's settings whose whole name matches."""
        return {name: value for name, value in self.given.items() if re.fullmatch(pattern, name)}


def _numbered(service: str, processes: int) -> list[str]:
    return [service, *(f"{service}-{number}" for number in range(2, processes + 1))]


def base_folder() -> Path:
    """Return the checkout this program was installed from, else the working directory."""
    checkout = Path(__file__).resolve().parents[3]
    return checkout if (checkout / "stack" / "pyproject.toml").is_file() else Path.cwd()


def read_given(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the user's settings as services read theirs: the environment, then NAME_FILE, then `.env`."""
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in {**_dotenv(), **_without_empty(environment)}.items() if value}
    for name_file, path in list(given.items()):
        name = name_file.removesuffix("_FILE")
        if name == name_file or environment.get(name):
            continue
        if name in _FILE_SECRETS:
            given[name] = _content(name_file, path)
        else:
            given.pop(name, None)  # the service that knows it reads the file
    return given


def _without_empty(settings: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if value}


def _dotenv() -> Mapping[str, str | None]:
    path = base_folder() / ".env"
    if not path.is_file():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415 -- only who has the file pays for the reader

    return dotenv_values(path)


def _content(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{name}: {error.strerror}: {path}") from error


def home_of(given: Mapping[str, str]) -> Home:
    """Return GOWEBBO_HOME, default `.gowebbo` beside the Makefile."""
    chosen = given.get("GOWEBBO_HOME")
    return Home(Path(chosen).expanduser().absolute() if chosen else base_folder() / ".gowebbo")


def read_settings(given: Mapping[str, str]) -> Settings:
    """Return the settings; raises SettingsError with all faults at once."""
    faults: list[str] = []
    port = _number(given, "PORT", 5000, range(1, 65536), faults)
    connections = _number(given, "EMBEDDED_MAX_CONNECTIONS", 1000, range(40, 100_001), faults)
    servers = _number(given, "EMBEDDED_SERVERS", 1, range(1, 27), faults)
    gateways = _number(given, "GATEWAY_PROCESSES", 1, range(1, _MOST_PROCESSES + 1), faults)
    patient_services = _number(given, "PATIENT_PROCESSES", 1, range(1, _MOST_PROCESSES + 1), faults)
    faults += _secret_faults(given)
    if faults:
        raise SettingsError("Not started, the settings are faulty:\n" + "\n".join(f"  {fault}" for fault in faults))
    return Settings(
        home_of(given),
        given,
        _host(given.get("HOST", "")),
        port,
        max_connections=connections,
        servers=servers,
        gateway_processes=gateways,
        patient_processes=patient_services,
    )


def _host(text: str) -> str:
    """Return the address to listen on. Some shells and build tools put a machine's name into HOST: it is not meant."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return "127.0.0.1"


def _number(given: Mapping[str, str], name: str, default: int, allowed: range, faults: list[str]) -> int:
    try:
        value = int(given.get(name, default))
    except ValueError:
        value = allowed.start - 1
    if value not in allowed:
        faults.append(f"{name}: must be a whole number from {allowed.start} to {allowed.stop - 1}")
        return default
    return value


def _secret_faults(given: Mapping[str, str]) -> list[str]:
    """Check the user's own secrets by the rules that the services apply too."""
    signing = {name: given[name] for name in SIGNING_SECRETS if name in given}
    password = given.get("ADMIN_PASSWORD")
    if not signing and password is None:
        return []
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 -- heavy, and rarely needed here

    from shared.settings import SigningSecret, looks_like_sample  # noqa: PLC0415

    faults = []
    if password is not None and len(password) < MIN_ADMIN_PASSWORD:
        faults.append(f"ADMIN_PASSWORD: must have at least {MIN_ADMIN_PASSWORD} characters")
    elif password is not None and looks_like_sample(password):
        faults.append("ADMIN_PASSWORD: looks like a sample, not a password")
    for name, secret in signing.items():
        try:
            TypeAdapter(SigningSecret).validate_python(secret)
        except ValidationError as error:
            faults += [f"{name}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()]
    return faults


def load_secrets(settings: Settings) -> dict[str, str]:
    """Return all secrets: the user's where there are some, else those of the first run, made now if this is it."""
    file = settings.home.secrets
    try:
        kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError as error:
        raise SettingsError(f"{file} is damaged; put a good copy back, or start anew with: make clean-data") from error
    if not kept and settings.home.postgres("a").exists():
        raise SettingsError(
            f"{file} is missing, but there is data that needs its secrets. "
            "Put the file back, or start anew with: make clean-data"
        )
    made = {name: secrets.token_hex(size) for name, size in _GENERATED.items() if name not in kept}
    if made:
        kept = {"ADMIN_USER_NAME": "admin"} | kept | made
        write_private(file, json.dumps(kept, indent=1))
    chosen = {name: settings.given.get(name, "") for name in kept if name not in _OURS_ALONE}
    return kept | {name: value for name, value in chosen.items() if value}
