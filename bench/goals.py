"""What the product is to reach on one machine, as ratios within one run, and what a run says about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from measured import median_of, ratio
from rounds import Rounds
from rows import Row

READY_S = 6.0
AT_REST_MB = 400.0


@dataclass(frozen=True)
class Verdict:
    """A goal beside what was measured; `reached` is None where its limit was not measured."""

    goal: str
    measured: str
    reached: bool | None


_RATIOS = (
    ("list of 20 ≥ 0.30 of nginx proxying the same bytes", Row.LIST_20, Row.LIST_20_NGINX, 0.30),
    ("list of 1,000, one practice ≥ 0.80 of pgbench with our statement, 4 clients",
     Row.LIST_1000, Row.LIST_1000_SQL_ALONE, 0.80),
    ("list of 1,000, 8 practices ≥ 0.80 of pgbench with our statement, 8 clients",
     Row.LIST_1000_EIGHT, Row.LIST_1000_SQL, 0.80),
    ("list of 1,000, 8 practices ≥ 0.80 of pgbench with `json_build_object`, 8 clients",
     Row.LIST_1000_EIGHT, Row.LIST_1000_USUAL_SQL, 0.80),
    ("insert, one practice ≥ 0.40 of pgbench, 4 clients", Row.INSERT, Row.INSERT_SQL_ALONE, 0.40),
    ("insert, 8 practices ≥ 0.40 of pgbench, 8 clients", Row.INSERT_EIGHT, Row.INSERT_SQL, 0.40),
    ("all practices, warm, alike ≥ 0.65 of one practice", Row.MANY_UNIFORM, Row.MANY_ONE, 0.65),
    ("log-in ≥ 0.90 of bare bcrypt", Row.LOG_IN, Row.LOG_IN_BARE, 0.90),
)  # fmt: skip


def verdicts(rounds: Rounds, *, ready_s: float, at_rest_mb: float) -> list[Verdict]:
    """All goals."""
    return [
        *(_ratio(rounds, goal, subject, limit, bound) for goal, subject, limit, bound in _RATIOS),
        _tail(rounds),
        _faultless(rounds, "all practices: no error", [Row.MANY_UNIFORM, Row.MANY_SKEWED]),
        _faultless(rounds, "50 sign-ups at once: none fails", [Row.SIGN_UP_CROWD]),
        Verdict(f"ready ≤ {READY_S:.0f} s", f"{ready_s:.1f} s", ready_s <= READY_S),
        Verdict(f"at rest ≤ {AT_REST_MB:.0f} MB", f"{at_rest_mb:.0f} MB", at_rest_mb <= AT_REST_MB),
    ]


def _ratio(rounds: Rounds, goal: str, subject: Row, limit: Row, bound: float) -> Verdict:
    if subject not in rounds or limit not in rounds:
        return Verdict(goal, "not measured", None)
    reached = ratio(rounds[subject], rounds[limit])
    return Verdict(goal, f"{reached:.2f}", reached >= bound)


def _tail(rounds: Rounds) -> Verdict:
    listed = median_of(rounds[Row.LIST_20])
    assert listed.p50_ms
    assert listed.p99_ms
    times = listed.p99_ms / listed.p50_ms
    return Verdict("p99 of the list ≤ 3 times its p50", f"{times:.1f} times", times <= 3)  # noqa: PLR2004 -- the goal's


def _faultless(rounds: Rounds, goal: str, rows: Sequence[Row]) -> Verdict:
    known = [median_of(rounds[row]) for row in rows if row in rounds]
    if not known:
        return Verdict(goal, "not measured", None)
    failed, calls = sum(one.failed for one in known), sum(one.calls for one in known)
    return Verdict(goal, f"{failed} of {calls:,}", failed == 0)
