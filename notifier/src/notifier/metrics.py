"""What Prometheus learns about events and mails; read from Redis when it asks."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError

from notifier.consumer import Consumer
from notifier.storage import DEAD_LETTERS, MailRecord
from notifier.tasks import KEY_PREFIX, QUEUE
from shared.events import STREAM


class StreamMetrics(Collector):
    """This consumer's counts, and what all of them share. Without Redis only the former."""

    def __init__(self, redis: Redis, consumer: Consumer, record: MailRecord) -> None:
        self._redis = redis
        self._consumer = consumer
        self._record = record

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        consumer = self._consumer
        yield _counter("gowebbo_events_queued", "Events handed to the mail queue.", consumer.queued)
        yield _counter("gowebbo_events_dead", "Stream entries that became dead letters here.", consumer.dead)
        yield _counter("gowebbo_consumer_failures", "Faults that made the consumer pause.", consumer.failures)
        try:
            yield from list(self._shared())
        except RedisError:
            return

    def _shared(self) -> Iterable[Metric]:
        mails = CounterMetricFamily("gowebbo_mails", "Mails of all workers by outcome.", labels=["outcome"])
        for outcome, count in self._record.counts().items():
            mails.add_metric([outcome], count)
        yield mails
        yield _gauge("gowebbo_stream_entries", "Events not queued yet.", self._redis.xlen(STREAM))
        queued = self._redis.llen(f"{KEY_PREFIX}{QUEUE}")
        yield _gauge("gowebbo_mail_queue_tasks", "Tasks waiting for a worker.", queued)
        yield _gauge("gowebbo_dead_letters", "Dead letters waiting for a person.", self._redis.xlen(DEAD_LETTERS))


def _counter(name: str, help_text: str, value: int) -> Metric:
    family = CounterMetricFamily(name, help_text)
    family.add_metric([], value)
    return family


def _gauge(name: str, help_text: str, value: int) -> Metric:
    family = GaugeMetricFamily(name, help_text)
    family.add_metric([], value)
    return family
