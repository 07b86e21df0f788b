"""The Celery application that consumer and worker share: how a task travels. What it does is the worker's affair."""

from dataclasses import asdict
from typing import Any

from celery import Celery

from notifier.config import Settings
from shared.events import Event

SEND_MAIL = "notifier.send_mail"
QUEUE = "mail"
KEY_PREFIX = "gowebbo:celery:"

_SOCKET_TIMEOUT_S = 3
_CONNECT_TIMEOUT_S = 1
_RESTORE_INTERVAL_S = 5
_HEALTH_CHECK_INTERVAL_S = 5


def create_celery(settings: Settings) -> Celery:
    """Connects on first use.

    Celery only executes; the durable intent is the outbox. So there are no results, no remote control and no events,
    and a task that is lost is no mail that is lost.
    """
    app = Celery("notifier", set_as_current=False)
    app.conf.update(
        broker_url=settings.redis_url,
        broker_pool_limit=1,
        broker_connection_timeout=_CONNECT_TIMEOUT_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # for ever: Redis comes back
        broker_transport_options={
            "global_keyprefix": KEY_PREFIX,
            "visibility_timeout": settings.redelivery_after_s,
            # without these a killed worker's task comes back only after minutes
            "unacked_restore_interval": _RESTORE_INTERVAL_S,
            "unacked_restore_throttle": 1,
            "socket_timeout": _SOCKET_TIMEOUT_S,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            "socket_keepalive": True,
            "health_check_interval": _HEALTH_CHECK_INTERVAL_S,
        },
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # the solo pool, our default, knows no limits and keeps to deadline.py; these bind any other pool
        task_soft_time_limit=settings.sending_lock_s,
        task_time_limit=settings.redelivery_after_s,
        worker_pool="solo",
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


def queue_mail(app: Celery, event: Event) -> None:
    """Queues the event's mail. Raises kombu's OperationalError when Redis doesn't take it: the caller has to wait."""
    task: dict[str, Any] = {"args": [asdict(event)], "retry": False, "ignore_result": True}
    app.send_task(SEND_MAIL, **task)
