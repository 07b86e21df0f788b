"""What one round measured, and how several rounds become one figure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measured:
    """One round. `cpu_s`: what each part used of the processors meanwhile; latencies are None where none were taken."""

    per_second: float
    calls: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    failed: int = 0
    cpu_s: Mapping[str, float] = field(default_factory=dict)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all stay at or under: of few values the largest."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def of_latencies(latencies_s: Sequence[float], *, seconds: float, failed: int = 0) -> Measured:
    """A round whose every latency is known."""
    p50_ms, p99_ms = (percentile(latencies_s, percent) * 1000 for percent in (50, 99))
    return Measured(len(latencies_s) / seconds, len(latencies_s), p50_ms, p99_ms, failed)


def median_of(rounds: Sequence[Measured]) -> Measured:
    """Medians of all figures; failures and processor's time are sums."""
    return Measured(
        statistics.median(one.per_second for one in rounds),
        sum(one.calls for one in rounds),
        _median([one.p50_ms for one in rounds]),
        _median([one.p99_ms for one in rounds]),
        sum(one.failed for one in rounds),
        {part: sum(one.cpu_s.get(part, 0) for one in rounds) for part in rounds[0].cpu_s},
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratio(subject: Sequence[Measured], limit: Sequence[Measured]) -> float:
    """Subject by limit in each round, of that the median: what slows a whole round cancels out."""
    return statistics.median(one.per_second / other.per_second for one, other in zip(subject, limit, strict=True))
