"""Where a measurement ran: the machine, and the versions of what took part."""

import os
import platform
import re
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from limits import nginx_program

from gowebbo_stack.binaries import postgres_install

_PACKAGES = (
    "uvicorn", "uvloop", "httptools", "fastapi", "starlette", "pydantic", "sqlalchemy", "psycopg2-binary", "orjson",
    "pyjwt", "cryptography", "bcrypt", "httpx",
)  # fmt: skip


def described() -> list[str]:
    """Lines for the head of a report."""
    cores = len(os.sched_getaffinity(0))
    memory_gb = int(_first("/proc/meminfo", "MemTotal").split()[0]) / 2**20
    programs = {
        f"Python ({_optimised()})": platform.python_version(),
        "PostgreSQL": _printed(postgres_install() / "bin/postgres", "-V"),
        "nginx": _printed(nginx_program(), "-v"),
        "wrk": _printed("wrk", "-v"),
        **{package: version(package) for package in _PACKAGES},
    }
    where = f"{_first('/proc/cpuinfo', 'model name')}, {cores} cores, {memory_gb:.0f} GB"
    system = f"{platform.system()} {platform.release()}"
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {where}, {system}. The load runs on the same machine.",
        "",
        ", ".join(f"{name} {number}" for name, number in programs.items()) + ".",
    ]


def _first(file: str, key: str) -> str:
    """The value of the first line `key: value`."""
    lines = Path(file).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "unknown")


def _optimised() -> str:
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    if sys.base_prefix == "/usr":
        return "the system's"  # which hides how it was built; Debian's is, with PGO and LTO
    return "built with PGO" if "--enable-optimizations" in arguments else "built without PGO"


def _printed(program: str | Path | None, option: str) -> str:
    """The version that a program prints for this option, on whatever stream and with whatever code."""
    if program is None:
        return "(not installed)"
    printed = subprocess.run([program, option], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", printed.stdout + printed.stderr)
    return found[0] if found else "unknown"
