"""bench/growth.md and bench/growth.svg from what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from measured import Measured
from plot import log_x_plot
from practices import PATIENTS_EACH
from processes import PRACTICES, Choice
from rounds import LOAD, taken_by_others
from tables import figure, table

KINDS = ("list of 20", "list of 20, late page", "read one", "insert")
Sizes = Mapping[int, Mapping[str, Measured]]
"""By patients in the practice, by kind."""
_PARTS = ("gateway", "patient-service", "postgres")


@dataclass(frozen=True)
class Step:
    """So many practices in one stack."""

    practices: int
    connections_allowed: int
    """PostgreSQL's max_connections."""
    cold: Measured
    """First calls by one client, each of a practice whose connection is not open."""
    warm: Measured
    """The same calls once more."""
    opened: Measured | None
    """First calls of the other practices, by 32 clients."""
    uniform: Measured
    skewed: Measured
    connections: int
    memory: Mapping[str, float]
    busy_at_rest: float
    """Cores."""


@dataclass
class Growth:
    """What `make bench-growth` measured."""

    machine: Sequence[str]
    rounds: int
    seconds: float
    steps: list[Step] = field(default_factory=list)
    practice_disk_mb: float = 0.0
    stopped_s: float | None = None
    """What the stop took right after the last step's load, with all its practices."""
    again_ready_s: float | None = None
    """The last step's stack started again with all its practices."""
    sizes: Sizes = field(default_factory=dict)
    choices: Sequence[Choice] = ()


def rendered(growth: Growth) -> str:
    """The page; what is not measured yet is left out."""
    parts = [_head]
    parts += [_throughput, _opening, _memory] if growth.steps else []
    parts += [_patients] if growth.sizes else []
    parts += [_processes] if growth.choices else []
    return "\n\n".join("\n".join(part(growth)) for part in parts) + "\n"


def plotted(growth: Growth) -> str:
    """Throughput against practices, as far as all their connections can be open. There must be one such step."""
    warm = [step for step in growth.steps if step.connections_allowed > step.practices]
    lines = {
        "all practices alike": [(step.practices, step.uniform.per_second) for step in warm],
        "skewed (Zipf, exponent 1)": [(step.practices, step.skewed.per_second) for step in warm],
    }
    return log_x_plot(
        "Lists of 20 patients, 32 clients, all connections open",
        lines,
        x_label="practices, each a database",
        y_label="calls a second",
    )


def _head(growth: Growth) -> list[str]:
    return [
        "# Growth, measured",
        "",
        "Written by `make bench-growth`; [docs/performance.md](../docs/performance.md) says how to read it.",
        "",
        *growth.machine,
        "",
        "wrk with 32 clients in a closed loop unless a column says otherwise;",
        f"medians of {growth.rounds} rounds of {growth.seconds:.0f} s, in which the rows alternate.",
    ]


def _throughput(growth: Growth) -> list[str]:
    def cells(step: Step) -> list[str]:
        runs = [step.cold, step.warm, step.uniform, step.skewed, *([step.opened] if step.opened else [])]
        failed = sum(one.failed for one in runs)
        return [*_named(step), *_speed(step.uniform), *_speed(step.skewed), str(failed)]

    return [
        "## More practices",
        "",
        "Lists of 20 patients. Skewed: Zipf with exponent 1, the second practice is asked half as often as the first.",
        "",
        *table([*_NAMED, *_speeds("uniform"), *_speeds("skewed"), "failed"], map(cells, growth.steps)),
        "",
        "![throughput against the number of practices](growth.svg)",
    ]


def _opening(growth: Growth) -> list[str]:
    def cells(step: Step) -> list[str]:
        opened = figure(step.opened.per_second) if step.opened else ""
        return [*_named(step), *_speed(step.cold)[1:], *_speed(step.warm)[1:], opened]

    head = [
        *_NAMED,
        "first call, p50 ms",
        "p99 ms",
        "second call, p50 ms",
        "p99 ms",
        "first calls a second, 32 clients",
    ]
    return [
        "## A practice's first call",
        "",
        "One client, one practice after the other: the first call opens the practice's connection, the second finds it",
        "open. Then the first calls of further practices, by 32 clients.",
        "",
        *table(head, map(cells, growth.steps)),
        *_stopping(growth),
    ]


def _stopping(growth: Growth) -> list[str]:
    stopped_s, again_s = growth.stopped_s, growth.again_ready_s
    stopped = [] if stopped_s is None else [f"With all of them, the stack stopped within {stopped_s:.1f} s."]
    again = [] if again_s is None else [f"Started again, it was ready after {again_s:.1f} s."]
    return ["", *stopped, *again] if stopped or again else []


def _memory(growth: Growth) -> list[str]:
    def cells(step: Step) -> list[str]:
        parts = [step.memory[part] for part in _PARTS] + [sum(step.memory.values())]
        used_us = [step.uniform.cpu_s.get(part, 0.0) / step.uniform.calls * 1e6 for part in (*_PARTS, LOAD)]
        figures = [step.connections, *parts, 100 * step.busy_at_rest, *used_us]
        return [*_named(step), *(figure(value, 0) for value in figures)]

    share = taken_by_others(run for step in growth.steps for run in (step.uniform, step.skewed))
    head = [*_NAMED, "connections held", *(f"{part} MB" for part in (*_PARTS, "whole stack"))]
    head += ["at rest, % of a core", *(f"{part} µs" for part in (*_PARTS, LOAD))]
    return [
        "## What it takes",
        "",
        "Memory (PSS) after the load; microseconds of the processors' time for one call, uniform.",
        f"A practice with {PATIENTS_EACH} patients takes {figure(growth.practice_disk_mb)} MB of disk.",
        f"Of all that the processors did, programs that had no part in it took {share:.0%}.",
        "",
        *table(head, map(cells, growth.steps)),
    ]


def _patients(growth: Growth) -> list[str]:
    def cells(size: int) -> list[str]:
        speeds = [_speed(growth.sizes[size][kind]) for kind in KINDS]
        return [figure(size, 0), *(shown for speed in speeds for shown in (speed[0], speed[2]))]

    head = ["patients", *(name for kind in KINDS for name in (f"{kind}, a second", "p99 ms"))]
    failed = sum(one.failed for rows in growth.sizes.values() for one in rows.values())
    return [
        "## More patients in one practice",
        "",
        f"The late page stands behind nine tenths of all patients. Failed calls: {failed}.",
        "",
        *table(head, map(cells, growth.sizes)),
    ]


def _processes(growth: Growth) -> list[str]:
    def cells(choice: Choice) -> list[str]:
        failed = choice.listed.failed + choice.inserted.failed
        counts = [str(choice.gateways), str(choice.patient_services)]
        speeds = [*_speed(choice.listed), *_speed(choice.inserted)]
        return [*counts, *speeds, str(failed)]

    head = ["GATEWAY_PROCESSES", "PATIENT_PROCESSES", *_speeds("list of 20"), *_speeds("insert")]
    return [
        "## More processes",
        "",
        f"Stacks side by side, {PRACTICES} practices each, all asked as often.",
        "",
        *table([*head, "failed"], map(cells, growth.choices)),
    ]


_NAMED = ["practices", "max_connections"]


def _named(step: Step) -> list[str]:
    return [figure(step.practices, 0), figure(step.connections_allowed, 0)]


def _speeds(name: str) -> list[str]:
    return [f"{name}, a second", "p50 ms", "p99 ms"]


def _speed(one: Measured) -> list[str]:
    return [figure(one.per_second), figure(one.p50_ms), figure(one.p99_ms)]
