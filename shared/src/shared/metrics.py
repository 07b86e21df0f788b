"""Request counts and durations for Prometheus, labelled by route template: never by practice, path or person."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class RequestMetrics(Collector):
    """Plain dictionaries that the request path adds to; the text is built only when Prometheus asks."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[tuple[str, str], float] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def observe(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Adds one answered request."""
        key = (method, route, status)
        self._counts[key] = self._counts.get(key, 0) + 1
        timed = (method, route)
        self._seconds[timed] = self._seconds.get(timed, 0.0) + duration_s

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        requests = CounterMetricFamily("gowebbo_requests", "Answered requests.", labels=["method", "route", "status"])
        for (method, route, status), count in self._counts.items():
            requests.add_metric([method, route, str(status)], count)
        seconds = CounterMetricFamily("gowebbo_request_seconds", "Time spent on them.", labels=["method", "route"])
        for timed, total_s in self._seconds.items():
            seconds.add_metric(list(timed), total_s)
        return (requests, seconds)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
