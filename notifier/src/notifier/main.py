"""Wires the stream's consumer to a process that can be asked how it is.

Pure ASGI: a web framework would only cost memory here.
"""

import asyncio
import threading
from functools import partial

import orjson
from redis import Redis
from redis.exceptions import RedisError
from starlette.types import ASGIApp, Receive, Scope, Send

from notifier.config import Settings
from notifier.consumer import Consumer
from notifier.metrics import StreamMetrics
from notifier.storage import MailRecord, connect
from notifier.tasks import create_celery, queue_mail
from shared.context import ContextVerifier
from shared.door import Door
from shared.errors import MethodNotAllowedError, NotFoundError
from shared.metrics import MEDIA_TYPE, RequestMetrics

_JSON = "application/json"
_STOP_TIMEOUT_S = 6.0


def create_app(settings: Settings) -> ASGIApp:
    """Health and metrics behind a Door; the consumer's thread lives as long. Nothing connects here."""
    redis = connect(settings.redis_url)
    record = MailRecord(redis, lock_s=settings.sending_lock_s)
    consumer = Consumer(
        redis,
        partial(queue_mail, create_celery(settings)),
        record=record,
        reclaim_after_s=settings.reclaim_after_s,
    )
    metrics = RequestMetrics()
    metrics.registry.register(StreamMetrics(redis, consumer, record))
    return Door(NotifierApp(redis, consumer, metrics), verifier=ContextVerifier(settings.gateway_keys), metrics=metrics)


class NotifierApp:
    """`/livez`, `/readyz`, `/metrics`, and the consumer's life."""

    def __init__(self, redis: Redis, consumer: Consumer, metrics: RequestMetrics) -> None:
        self._redis = redis
        self._consumer = consumer
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        answers = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._show_metrics}
        answer = answers.get(scope["path"])
        if answer is None:
            raise NotFoundError
        if scope["method"] not in {"GET", "HEAD"}:
            raise MethodNotAllowedError(headers={"Allow": "GET, HEAD"})
        # both ask Redis, which may be slow to answer
        status, media_type, body = await asyncio.to_thread(answer)
        headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _live(self, receive: Receive, send: Send) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=self._consumer.run, args=(stop,), name="consumer", daemon=True)
        await receive()
        thread.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        stop.set()
        await asyncio.to_thread(thread.join, _STOP_TIMEOUT_S)
        await send({"type": "lifespan.shutdown.complete"})

    def _livez(self) -> tuple[int, str, bytes]:
        return 200, _JSON, b'{"status":"alive"}'

    def _readyz(self) -> tuple[int, str, bytes]:
        try:
            self._redis.ping()
        except RedisError:
            return 503, _JSON, orjson.dumps({"status": "not ready", "missing": {"redis": "does not answer"}})
        return 200, _JSON, b'{"status":"ready"}'

    def _show_metrics(self) -> tuple[int, str, bytes]:
        return 200, MEDIA_TYPE, self._metrics.text()
