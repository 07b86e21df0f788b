"""The report on sign-ups shows every step, and says of every goal whether it is reached."""

from measured import Measured
from signup_report import Signups, Step, rendered


def page(*, alone_ms: float = 60.0, per_second: float = 20.0, failed: int = 0) -> str:
    measured = {
        "part": Measured(200.0, 60, 4.0, 9.0),
        "hash": Measured(20.0, 60, 50.0, 55.0),
        "alone": Measured(15.0, 60, alone_ms, 90.0),
        "row": Measured(per_second, 300, 400.0, 900.0),
        "crowd": Measured(16.0, 150, failed=failed),
    }
    found = Signups(["A machine."], alone=60, in_a_row=300, clients=8, crowds=3, bare_per_second=40.0)
    found.steps = [Step(shards, measured, measured) for shards in (0, 3000)]
    return rendered(found)


def test_every_step_is_shown_warm_and_cold():
    text = page()
    for shards in ("0", "3,000"):
        for kind in ("warm", "cold"):
            assert f"| {shards} | {kind} | 4.0 | 9.0 | 60.0 | 90.0 | 50.0 |" in text
            assert f"| {shards} | {kind} | 20.0 | 400.0 | 900.0 | 0 | 16.0 | 0 |" in text


def test_a_goal_is_reached_or_not():
    assert "**no**" not in page()
    assert "+ 20.0 ms | **no** |" in page(alone_ms=70.0)
    assert "14.0/s | **no** |" in page(per_second=14.0)
    assert "1 of 450 | **no** |" in page(failed=1)
