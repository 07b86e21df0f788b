"""The report renders whatever was measured, and says of every goal whether it is reached."""

import re

import pytest
from load import OpenLoop
from measured import Measured, of_latencies
from report import Findings, rendered
from rounds import LOAD, OTHERS
from rows import Row


def findings(*, nginx: bool = True) -> Findings:
    """Everything takes as long as everything else, but nginx three times less."""
    cpu_s = {"gateway": 0.3, "patient-service": 0.3, "postgres": 0.2, LOAD: 0.1, OTHERS: 0.1}
    rounds = [Measured(1000.0, 4000, 4.0, 9.0, 0, cpu_s)] * 3
    measured = {row: rounds for row in Row if nginx or "nginx" not in row}
    if nginx:
        measured[Row.LIST_20_NGINX] = [Measured(3000.0, 12000, 1.0, 2.0)] * 3
    return Findings(
        ["A machine."],
        seconds=4,
        rounds=3,
        practices=2000,
        nginx=nginx,
        first_ready_s=[3, 4, 5],
        again_ready_s=[2, 2, 2],
        measured=measured,
        memory={"at rest": {"gateway": 150.0, "postgres": 260.5}, "warm": {"gateway": 160.0, "postgres": 3000.0}},
        connections={"at rest": 9, "warm": 2009},
        open_loop=[OpenLoop(250, 249.9, 1.0, 2.0, 3.0, 0.1, failed=0)],
    )


def line(text: str, start: str) -> str:
    (found,) = [one for one in text.splitlines() if one.startswith(f"| {start}")]
    return found


def test_a_goal_is_reached_or_not():
    text = rendered(findings())

    assert line(text, "list of 20 ≥ 0.30").endswith("| 0.33 | yes |")
    assert line(text, "p99 of the list").endswith("| 2.2 times | yes |")
    assert line(text, "at rest").endswith("| 410 MB | **no** |")


def test_every_row_is_shown_with_its_figures():
    text = rendered(findings())

    for row in set(Row) - {Row.LIST_20_NGINX}:
        assert f"| {row} | 1,000 | 4.0 | 9.0 | 0 |" in text
    assert "had no part in it took 10%" in text
    assert re.search(r"\| read one, one practice \| 75 \| 75 \| 50 \| 25 \| 225 \|", text)


def test_without_nginx_the_report_says_so():
    text = rendered(findings(nginx=False))

    assert "nginx is not installed here" in text
    assert line(text, "list of 20 ≥ 0.30").endswith("| not measured | not measured |")


def test_a_percentile_of_few_values_is_one_of_them():
    measured = of_latencies([0.001, 0.002, 0.009], seconds=1)

    assert (measured.p50_ms, measured.p99_ms) == (pytest.approx(2), pytest.approx(9))
