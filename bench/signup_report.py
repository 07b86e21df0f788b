"""bench/signup.md from what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from goals import Verdict
from measured import Measured
from tables import figure, table

MORE_THAN_A_HASH_MS = 15.0
SUSTAINED_PER_SECOND = 15.0


@dataclass(frozen=True)
class Step:
    """What was measured beside so many shards: tenant-service's part, a bare hash, and whole sign-ups."""

    shards: int
    warm: Mapping[str, Measured]
    cold: Mapping[str, Measured]


@dataclass
class Signups:
    """What `make bench-signup` measured."""

    machine: Sequence[str]
    alone: int
    in_a_row: int
    clients: int
    crowds: int
    steps: list[Step] = field(default_factory=list)
    bare_per_second: float = 0.0
    """Bare bcrypt on all cores."""


def verdicts(step: Step) -> list[Verdict]:
    """The goals, with shards made ahead."""
    warm = step.warm
    assert warm["alone"].p50_ms
    assert warm["hash"].p50_ms
    more_ms, rate, crowd = warm["alone"].p50_ms - warm["hash"].p50_ms, warm["row"].per_second, warm["crowd"]
    failed = crowd.failed + warm["row"].failed
    return [
        Verdict(
            f"sign-up alone, p50 ≤ one hash + {MORE_THAN_A_HASH_MS:.0f} ms",
            f"+ {more_ms:.1f} ms",
            more_ms <= MORE_THAN_A_HASH_MS,
        ),
        Verdict(f"in a row ≥ {SUSTAINED_PER_SECOND:.0f}/s", f"{rate:.1f}/s", rate >= SUSTAINED_PER_SECOND),
        Verdict("none fails", f"{failed} of {crowd.calls + warm['row'].calls:,}", failed == 0),
    ]


def rendered(found: Signups) -> str:
    """The page."""
    return "\n\n".join("\n".join(part(found)) for part in (_head, _goals, _alone, _under_load)) + "\n"


def _head(found: Signups) -> list[str]:
    return [
        "# Sign-ups, measured",
        "",
        "Written by `make bench-signup`; [docs/operations.md](../docs/operations.md) says what it means.",
        "",
        *found.machine,
        "",
        f"One PostgreSQL server; bcrypt at cost 10 (bare, on all cores: {found.bare_per_second:.0f} a second).",
        "“Warm”: `SHARD_WARM_POOL=4`, “cold”: 0.",
    ]


def _goals(found: Signups) -> list[str]:
    rows = (
        [f"{step.shards:,}", one.goal, one.measured, "yes" if one.reached else "**no**"]
        for step in found.steps
        for one in verdicts(step)
    )
    return ["## Goals", "", *table(["shards on the server", "goal, warm", "measured", "reached"], rows)]


def _alone(found: Signups) -> list[str]:
    head = ["database part, p50 ms", "p99 ms", "whole sign-up, p50 ms", "p99 ms", "one hash, p50 ms"]
    rows = (
        [
            f"{step.shards:,}",
            name,
            *(figure(value) for key in ("part", "alone") for value in (measured[key].p50_ms, measured[key].p99_ms)),
            figure(measured["hash"].p50_ms),
        ]
        for step in found.steps
        for name, measured in (("warm", step.warm), ("cold", step.cold))
    )
    return [
        "## Alone",
        "",
        f"{found.alone} of each, in turn, each when the pool was full again. The database part is",
        "tenant-service's: `PUT /internal/shards/{practice_id}`.",
        "",
        *table(["shards on the server", "", *head], rows),
    ]


def _under_load(found: Signups) -> list[str]:
    head = ["in a row, per second", "p50 ms", "p99 ms", "failed", "50 at once, per second", "failed"]
    rows = (
        [
            f"{step.shards:,}",
            name,
            *(figure(value) for value in (row.per_second, row.p50_ms, row.p99_ms)),
            str(row.failed),
            figure(crowd.per_second),
            str(crowd.failed),
        ]
        for step in found.steps
        for name, row, crowd in (
            ("warm", step.warm["row"], step.warm["crowd"]),
            ("cold", step.cold["row"], step.cold["crowd"]),
        )
    )
    return [
        "## Under load",
        "",
        f"In a row: {found.in_a_row} sign-ups by {found.clients} clients, each again when it has its answer.",
        f"50 at once: {found.crowds} times.",
        "",
        *table(["shards on the server", "", *head], rows),
    ]
