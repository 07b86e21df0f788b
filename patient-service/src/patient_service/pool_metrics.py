"""What Prometheus is told of the connections to shards, by server: practices are no labels."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from patient_service.shard_pool import ShardPool


class PoolMetrics(Collector):
    """Reads the pool when Prometheus asks."""

    def __init__(self, pool: ShardPool) -> None:
        self._pool = pool

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        connections = GaugeMetricFamily(
            "gowebbo_shard_connections", "Connections to shards.", labels=["server", "state"]
        )
        evicted = CounterMetricFamily("gowebbo_shard_evictions", "Idle connections closed.", labels=["server"])
        for key, slots in self._pool.slots.items():
            connections.add_metric([key, "idle"], slots.idle)
            connections.add_metric([key, "in use"], slots.at_work)
            connections.add_metric([key, "budget"], slots.budget)
            evicted.add_metric([key], slots.evicted)
        opened = CounterMetricFamily("gowebbo_shard_openings", "Connections opened.", value=self._pool.opened)
        waiting = GaugeMetricFamily("gowebbo_shard_waiting", "Calls in queues.", value=self._pool.waiting)
        return (connections, evicted, opened, waiting)
