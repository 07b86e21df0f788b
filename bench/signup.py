"""`make bench-signup`: what a sign-up costs, with and without shards made ahead. Writes bench/signup.md."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
import httpx
import machine
import practices
from cases import BCRYPT_COST, CROWD
from limits import checkpw
from measured import Measured, of_latencies
from signup_report import Signups, Step, rendered
from stand import Stand, running_stack, temporary_home

from shared.context import Caller, ContextSigner
from shared.ids import new_id

REPORT = Path(__file__).with_name("signup.md")
ALONE, IN_A_ROW, CROWDS = 40, 200, 3
CLIENTS = 8
"""In a row: so many sign up at once, each again when it has its answer."""
POOL = 4
"""SHARD_WARM_POOL's default."""
SHARD_BYTES = 7_800_000
_REFILL_S = 60.0
_LOOKS = 3


def main() -> None:
    """Measures and writes."""
    options = _options()
    found = Signups(machine.described(), ALONE, IN_A_ROW, CLIENTS, CROWDS)
    with temporary_home() as home:
        for shards in options.shards:
            with running_stack(home, SHARD_WARM_POOL=0) as stand:
                _add_shards(stand, shards)
                cold = _measured(stand, f"cold-{shards}", pool=0)
                _write_out(stand)
            with running_stack(home, SHARD_WARM_POOL=POOL) as stand:
                warm = _measured(stand, f"warm-{shards}", pool=POOL)
                _write_out(stand)
            found.steps.append(Step(shards, warm, cold))
        found.bare_per_second = checkpw(cost=BCRYPT_COST, seconds=10).per_second
    REPORT.write_text(rendered(found))
    sys.stdout.write(REPORT.read_text())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=[0, 1000, 3000], help="on the server (0 1000 3000)")
    return parser.parse_args()


def _measured(stand: Stand, group: str, *, pool: int) -> dict[str, Measured]:
    """All at once; in a row; and one after the other, each with the pool full again."""
    crowds = [
        _when_full(stand, pool, lambda n=n: practices.sign_up(stand, f"{group}-crowd-{n}", range(CROWD), clients=CROWD))
        for n in range(CROWDS)
    ]
    calls = sum(one.calls for one in crowds)
    return {
        "crowd": Measured(
            calls / sum(one.calls / one.per_second for one in crowds), calls, failed=sum(one.failed for one in crowds)
        ),
        "row": _when_full(
            stand, pool, lambda: practices.sign_up(stand, f"{group}-row", range(IN_A_ROW), clients=CLIENTS)
        ),
        **_alone(stand, group, pool),
    }


def _alone(stand: Stand, group: str, pool: int) -> dict[str, Measured]:
    """In turn: tenant-service's part, a bare hash, and a whole sign-up."""
    numbers, tenants = iter(range(ALONE)), _Tenants(stand)

    def sign_up() -> None:
        made = practices.sign_up(stand, f"{group}-alone", [next(numbers)], clients=1)
        if made.failed:
            raise SystemExit("a sign-up failed")

    deeds: dict[str, Callable[[], object]] = {"part": tenants.add_shard, "hash": _hash, "alone": sign_up}
    latencies_s: dict[str, list[float]] = {name: [] for name in deeds}
    for _ in range(ALONE):
        for name, deed in deeds.items():
            _wait_full(stand, pool)
            started = time.perf_counter()
            deed()
            latencies_s[name].append(time.perf_counter() - started)
    return {name: of_latencies(taken_s, seconds=sum(taken_s)) for name, taken_s in latencies_s.items()}


def _when_full(stand: Stand, pool: int, deed: Callable[[], Measured]) -> Measured:
    _wait_full(stand, pool)
    stand.wait_idle()
    return deed()


def _wait_full(stand: Stand, pool: int) -> None:
    """Until nothing is being made ahead, at three looks: the next is begun soon after one is ready."""
    if not pool:
        return
    deadline, looks = time.monotonic() + _REFILL_S, 0
    with stand.sql("gowebbo") as cursor:
        while looks < _LOOKS:
            if time.monotonic() > deadline:
                raise SystemExit("the pool was not refilled")
            time.sleep(0.05)
            cursor.execute("SELECT count(*) FILTER (WHERE state = 'ready'), count(*) FROM tenant.warm_shards")
            ready, there = cursor.fetchone()
            looks = looks + 1 if ready == there >= pool else 0


def _hash() -> None:
    bcrypt.hashpw(b"a password", bcrypt.gensalt(BCRYPT_COST))


def _add_shards(stand: Stand, count: int) -> None:
    """Until the server has so many. Raises SystemExit where that fails."""
    with stand.sql("gowebbo") as cursor:
        cursor.execute("SELECT count(*) FROM tenant.shards")
        missing = count - cursor.fetchone()[0]
    if missing > 0 and shutil.disk_usage(stand.home).free < missing * SHARD_BYTES:
        raise SystemExit(f"{missing:,} shards need {missing * SHARD_BYTES / 1e9:.0f} GB of free disk (TMPDIR)")
    tenants = _Tenants(stand)
    for _ in range(missing):
        tenants.add_shard()


def _write_out(stand: Stand) -> None:
    """What a slow disk would not take in the time that the stack has to stop."""
    with stand.sql("postgres") as cursor:
        cursor.execute("CHECKPOINT")


class _Tenants:
    """tenant-service, as auth-service calls it in the middle of a sign-up."""

    def __init__(self, stand: Stand) -> None:
        secrets = json.loads((stand.home / "data/secrets.json").read_text())
        self._signer = ContextSigner([secrets["GATEWAY_SECRET"].split(",")[0].encode()])
        path = str(stand.status["tenant-service"]["url"]).removeprefix("unix:")
        self._client = httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://tenant", timeout=30)

    def add_shard(self) -> None:
        """The shard of a new practice."""
        headers = self._signer.headers(Caller(role="service:auth-service"))
        answer = self._client.put(
            f"/internal/shards/{new_id()}", headers={name.decode(): value.decode() for name, value in headers}
        )
        if answer.status_code != httpx.codes.CREATED:
            raise SystemExit(f"no shard was made: {answer.text}")


if __name__ == "__main__":
    main()
