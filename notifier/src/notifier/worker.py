"""The Celery worker (`python -m notifier.worker`): runs the delivery rule as a task and decides on another try."""

import random
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from celery import Celery, Task, signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.worker.request import Request
from redis.exceptions import RedisError

from notifier.config import Settings
from notifier.deadline import shorten
from notifier.delivery import Delivery
from notifier.exceptions import TransientError, UntrustedServerError
from notifier.letters import LetterWriter
from notifier.mail import Mailer
from notifier.receipts import Receipts
from notifier.storage import MailRecord, connect
from notifier.tasks import SEND_MAIL, create_celery
from shared.events import Event
from shared.logs import configure_logs, get_logger
from shared.settings import load

RETRY_DELAYS_S = (2, 8)
"""Two short tries more, over before the outbox publishes the event again, which it does later and later."""
ALIVE_EVERY_S = 10
STOP_WITHIN_S = 4
"""A running SMTP dialogue may take this long after SIGTERM; with its receipt the process ends within 8 s."""

_log = get_logger()


class _SettledRequest(Request):  # type: ignore[misc]  # Celery has no types
    """A task whose acknowledgement must arrive: if Redis is gone by then, the worker connects anew.

    Celery would log that and go on, and its transport would wait for ever for the acknowledgement before it takes
    another task. The task itself comes back when Redis does.
    """

    def __init__(self, *parts: Any, connection_errors: object = None, **more: Any) -> None:  # noqa: ARG002 - left out
        super().__init__(*parts, connection_errors=(), **more)


def create_worker(settings: Settings) -> Celery:
    """The Celery application with its one task. Connects on first use."""
    app = create_celery(settings)
    delivery = create_delivery(settings)

    @app.task(name=SEND_MAIL, bind=True, max_retries=None, Request=_SettledRequest)  # type: ignore[untyped-decorator]  # Celery has no types
    def send_mail(task: Task, event: dict[str, Any]) -> None:
        perform(task, Event.from_dict(event), delivery)

    return app


def create_delivery(settings: Settings) -> Delivery:
    """The delivery rule with its real parts."""
    return Delivery(
        writer=LetterWriter(sender=settings.sender, public_url=settings.public_url),
        mailer=Mailer(settings),
        record=MailRecord(connect(settings.redis_url), lock_s=settings.sending_lock_s),
        receipts=Receipts.to(settings),
    )


def perform(task: Task, event: Event, delivery: Delivery) -> None:
    """One try. A transient fault is tried again soon, at most twice; what remains is the outbox's."""
    with structlog.contextvars.bound_contextvars(request_id=event.request_id, event_id=event.id):
        try:
            delivery.deliver(event)
        except (TransientError, RedisError) as fault:
            reason = fault.reason if isinstance(fault, TransientError) else type(fault).__name__
            tries = task.request.retries + 1
            log = _log.error if isinstance(fault, UntrustedServerError) else _log.warning
            if tries > len(RETRY_DELAYS_S):
                log("event_left_to_outbox", reason=reason, tries=tries)
                return
            log("event_not_settled_yet", reason=reason, tries=tries)
            delay_s = RETRY_DELAYS_S[tries - 1]
            raise task.retry(exc=fault, countdown=random.uniform(delay_s / 2, delay_s)) from fault


def _keep_our_logs(**_: Any) -> None:
    """Being connected to the signal is all: Celery leaves logging alone then."""


def _hurry(**_: Any) -> None:
    shorten(STOP_WITHIN_S)


def _touch_from_now_on(path: Path, *, sender: Any, **_: Any) -> None:
    """Shows that the worker's loop goes round. Called anew when Redis is back: Celery drops its timers then."""
    path.touch()
    sender.timer.call_repeatedly(ALIVE_EVERY_S, path.touch)


def main() -> None:
    """Runs until SIGTERM: the running task is finished, the rest stays in Redis."""
    settings = load(Settings)
    configure_logs("notifier-worker", level=settings.log_level)
    # accepting JSON only, the worker is as harmless under root as any other process
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # it would cancel running tasks when Redis is gone; ours finish, and their mark keeps copies from sending
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    signals.setup_logging.connect(_keep_our_logs)
    signals.worker_shutting_down.connect(_hurry)
    if settings.worker_alive_file:
        touch = partial(_touch_from_now_on, Path(settings.worker_alive_file))
        signals.worker_ready.connect(touch, weak=False)
    worker = create_worker(settings).Worker(
        quiet=True, without_gossip=True, without_mingle=True, without_heartbeat=True
    )
    worker.start()
    raise SystemExit(worker.exitcode)


if __name__ == "__main__":
    main()
