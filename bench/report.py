"""bench/results.md from what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from goals import verdicts
from load import OpenLoop
from measured import Measured, median_of, percentile
from rounds import LOAD, OTHERS, Rounds, taken_by_others
from rows import Row
from tables import figure, table

Memory = Mapping[str, float]
"""MB (PSS) by part."""
_SPLIT = (Row.LIST_20, Row.LIST_1000, Row.READ, Row.INSERT_EIGHT, Row.JOURNEY, Row.MANY_UNIFORM)
_SPLIT_PARTS = ("gateway", "patient-service", "postgres", LOAD)


@dataclass
class Findings:
    """What `make bench` measured."""

    machine: Sequence[str]
    seconds: float
    rounds: int
    practices: int
    nginx: bool
    first_ready_s: Sequence[float] = ()
    again_ready_s: Sequence[float] = ()
    measured: Rounds = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    """At which moment. The first is at rest."""
    connections: dict[str, int] = field(default_factory=dict)
    """To PostgreSQL, by the same moments."""
    generator_per_second: float | None = None
    """What the open loop's generator can send to nginx; None without nginx."""
    open_loop: Sequence[OpenLoop] = ()


def rendered(findings: Findings) -> str:
    """The page."""
    parts = (_head, _goals, _throughput, _open_loop, _processor, _start_and_memory)
    return "\n\n".join("\n".join(part(findings)) for part in parts) + "\n"


def _head(findings: Findings) -> list[str]:
    how = f"Medians of {findings.rounds} rounds of {findings.seconds:.0f} s, in which the rows of a group alternate"
    load = "wrk with 32 clients in a closed loop unless the row says otherwise"
    lines = [
        "# Measured",
        "",
        "Written by `make bench`; [docs/performance.md](../docs/performance.md) says how to read it.",
        "",
        *findings.machine,
        "",
        f"{how}; {load}. “All practices” are {findings.practices:,}.",
    ]
    return lines if findings.nginx else [*lines, "", "nginx is not installed here: the rows against it are missing."]


def _goals(findings: Findings) -> list[str]:
    ready_s, at_rest = percentile(findings.first_ready_s, 50), next(iter(findings.memory.values()))
    words = {True: "yes", False: "**no**", None: "not measured"}
    found = verdicts(findings.measured, ready_s=ready_s, at_rest_mb=sum(at_rest.values()))
    lines = table(["goal", "measured", "reached"], [[one.goal, one.measured, words[one.reached]] for one in found])
    return ["## Goals", "", *lines, "", "Ratios are medians of the rounds' own ratios."]


def _throughput(findings: Findings) -> list[str]:
    rounds = findings.measured

    def cells(row: Row, one: Measured) -> list[str]:
        return [row, figure(one.per_second), figure(one.p50_ms), figure(one.p99_ms), str(one.failed)]

    rows = [cells(row, median_of(rounds[row])) for row in Row if row in rounds]
    return [
        "## Throughput and latency",
        "",
        *table(["", "per second", "p50 ms", "p99 ms", "failed"], rows),
        "",
        "“Again”: measured beside the rows below it, while the connections of all practices are open.",
    ]


def _open_loop(findings: Findings) -> list[str]:
    can = findings.generator_per_second
    rows = [
        [figure(one.asked_per_second, 0), figure(one.per_second, 0)]
        + [figure(value, 2) for value in (one.p50_ms, one.p99_ms, one.p999_ms, one.late_p99_ms)]
        + [str(one.failed)]
        for one in findings.open_loop
    ]
    how = "in; latency counts from the moment a call is due. The generator is a Python process of its own weight"
    return [
        "## Open loop",
        "",
        "List of 20, one practice, at constant rates (25, 50, 75 % of the closed loop's), whether or not answers are",
        how + (f": against nginx it sends {figure(can, 0)} a second at most." if can else "."),
        "",
        *table(["asked a second", "sent", "p50 ms", "p99 ms", "p99.9 ms", "generator late, p99 ms", "failed"], rows),
    ]


def _processor(findings: Findings) -> list[str]:
    rounds = findings.measured

    def cells(row: Row, one: Measured) -> list[str]:
        used = [one.cpu_s.get(part, 0.0) for part in _SPLIT_PARTS]
        used.append(sum(cpu_s for part, cpu_s in one.cpu_s.items() if part != OTHERS))
        return [row, *(figure(cpu_s / one.calls * 1e6, 0) for cpu_s in used)]

    known = {row: median_of(rounds[row]) for row in _SPLIT if row in rounds}
    rows, share = [cells(row, one) for row, one in known.items()], taken_by_others(known.values())
    return [
        "## Processor",
        "",
        "Microseconds of the processors' time for one call; “all” also counts the stack's other parts.",
        f"Of all that was used during these rows, programs that had no part in it took {share:.0%}.",
        "",
        *table(["", *_SPLIT_PARTS, "all"], rows),
    ]


def _start_and_memory(findings: Findings) -> list[str]:
    moments = list(findings.memory.values())
    parts = [[part, *(figure(moment.get(part, 0), 0) for moment in moments)] for part in moments[0]]
    sums = ["**all**", *(f"**{figure(sum(moment.values()), 0)}**" for moment in moments)]
    held = ["connections to PostgreSQL", *(figure(number, 0) for number in findings.connections.values())]
    first_s, again_s = (percentile(times, 50) for times in (findings.first_ready_s, findings.again_ready_s))
    return [
        "## Start and memory",
        "",
        f"Ready (`/readyz` is 200) after {first_s:.1f} s with no data, after {again_s:.1f} s when it starts again.",
        "",
        *table(["MB (PSS)", *findings.memory], [*parts, sums, held]),
    ]
