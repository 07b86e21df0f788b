"""wrk's closed loop: so many clients, each sending its next request when the answer to the last one is in.

A closed loop hides stalls: while the server pauses, no client asks. load.py's open loop shows what that hides.
"""

import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measured import Measured

CLIENTS = 32
_SCRIPT = Path(__file__).with_name("wrk.lua")
_ORDER_LENGTH = 100_000
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def require() -> None:
    """Raises SystemExit where wrk is missing."""
    if not shutil.which("wrk"):
        raise SystemExit("bench needs wrk, the load generator (Debian, Ubuntu: apt-get install wrk)")


def run(
    port: int, requests: Sequence[bytes], *, order: Sequence[int] = (), seconds: float, clients: int = CLIENTS
) -> Measured:
    """Loads 127.0.0.1:port with these raw requests, by their indexes in `order` or else in turn."""
    with tempfile.TemporaryDirectory(prefix="gowebbo-wrk-") as folder:
        prepared, numbers = Path(folder, "requests"), Path(folder, "order")
        prepared.write_bytes(b"".join(request + b"\0" for request in requests))
        numbers.write_text("".join(f"{index + 1}\n" for index in order))
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:.0f}s", "--latency", "--timeout", "15s"]
        text = subprocess.check_output(
            [*command, "-s", _SCRIPT, f"http://127.0.0.1:{port}", "--", prepared, numbers], text=True
        )
    return read_report(text)


def uniform(among: int) -> list[int]:
    """An order of so many requests: all as often."""
    return weighted([1.0] * among)


def skewed(among: int) -> list[int]:
    """An order as Zipf's law has it, exponent 1: the second half as often as the first, the third a third."""
    return weighted([1 / (rank + 1) for rank in range(among)])


def weighted(weights: Sequence[float]) -> list[int]:
    """A random order, the same in every run."""
    return random.Random(1).choices(range(len(weights)), weights, k=_ORDER_LENGTH)


def read_report(text: str) -> Measured:
    """What wrk printed. Failed: answers that are no 2xx or 3xx, broken connections, time-outs."""
    refused = _numbers(text, r"Non-2xx or 3xx responses: (\d+)")
    broken = _numbers(text, r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
    return Measured(
        per_second=_numbers(text, r"Requests/sec:\s+([\d.]+)")[0],
        calls=int(_numbers(text, r"(\d+) requests in")[0]),
        p50_ms=_latency_ms(text, 50),
        p99_ms=_latency_ms(text, 99),
        failed=int(sum(refused + broken)),
    )


def _numbers(text: str, pattern: str) -> list[float]:
    found = re.search(pattern, text)
    return [float(number) for number in found.groups()] if found else []


def _latency_ms(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    assert found
    return float(found[1]) * _UNITS_MS[found[2]]
