"""One event, one mail: whatever is repeated, refused or unanswered on the way to the receipt."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from celery.exceptions import Retry
from notifier_rig import Mailbox, ReceiptBook, registered, settings, smtp_server
from redis import Redis

from gowebbo_stack.ports import free_port
from notifier.config import Settings
from notifier.delivery import Delivery
from notifier.exceptions import MailServerError, ReceiptNotTakenError, SendingElsewhereError, UntrustedServerError
from notifier.storage import DEAD_LETTERS, MailRecord
from notifier.worker import RETRY_DELAYS_S, create_delivery, perform
from shared.events import Event


@pytest.fixture
def facts(redis_environment: dict[str, str], book: ReceiptBook, mailbox: Mailbox) -> Iterator[Settings]:
    with smtp_server(mailbox) as port:
        yield settings(AUTH_SERVICE_URL=book.url, EMAIL_PORT=port, **redis_environment)


@pytest.fixture
def delivery(facts: Settings) -> Delivery:
    return create_delivery(facts)


def test_copies_of_an_event_send_one_mail_and_a_receipt_each(delivery: Delivery, mailbox: Mailbox, book: ReceiptBook):
    event = registered()
    for _ in range(3):
        delivery.deliver(event)
    assert len(mailbox.mails) == 1
    assert book.outcomes(event.id) == ["delivered"] * 3


def test_a_receipt_that_is_not_taken_sends_no_second_mail(delivery: Delivery, mailbox: Mailbox, book: ReceiptBook):
    event = registered()
    book.status = 503
    for _ in range(2):
        with pytest.raises(ReceiptNotTakenError):
            delivery.deliver(event)
    book.status = 200
    delivery.deliver(event)
    assert len(mailbox.mails) == 1
    assert book.outcomes(event.id) == ["delivered"]


def test_an_outbox_that_does_not_know_the_event_is_left_alone(delivery: Delivery, mailbox: Mailbox, book: ReceiptBook):
    book.status = 404
    delivery.deliver(registered())
    assert len(mailbox.mails) == 1


def test_receipts_are_signed(delivery: Delivery, book: ReceiptBook):
    delivery.deliver(registered())
    assert (len(book.receipts), book.unsigned) == (1, 0)


def test_auth_service_down_is_worth_another_try(facts: Settings, mailbox: Mailbox):
    lonely = facts.model_copy(update={"auth_service_url": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(ReceiptNotTakenError):
        create_delivery(lonely).deliver(registered())
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize("fault", ["550", "unknown type", "bad address"])
def test_a_mail_that_can_never_be_sent_is_a_dead_letter_once(
    delivery: Delivery, redis: Redis, mailbox: Mailbox, book: ReceiptBook, fault: str
):
    event = registered()
    if fault == "550":
        mailbox.answers["RCPT"] = ["550 no such user"]
    elif fault == "unknown type":
        event = replace(event, type="practice.unheard-of")
    else:
        event = replace(event, payload={"name": "Oak", "email": "a@b.example, c@d.example"})
    delivery.deliver(event)
    delivery.deliver(event)
    assert not mailbox.mails
    assert book.outcomes(event.id) == ["dead", "dead"]
    assert redis.xlen(DEAD_LETTERS) == 1


def test_a_dead_letter_that_is_replayed_is_sent(
    delivery: Delivery, redis: Redis, mailbox: Mailbox, book: ReceiptBook, facts: Settings
):
    event = registered()
    mailbox.answers["RCPT"] = ["550 no such user"]
    delivery.deliver(event)
    record = MailRecord(redis, lock_s=facts.sending_lock_s)
    letter = record.dead_letters()[0]
    record.replay(letter, event_id=event.id)
    mailbox.answers.clear()
    delivery.deliver(Event.from_fields(letter.fields))
    assert book.outcomes(event.id) == ["dead", "delivered"]
    assert record.dead_letters() == []


def test_two_workers_are_never_at_one_event_together(
    delivery: Delivery, redis: Redis, mailbox: Mailbox, facts: Settings
):
    event = registered()
    with MailRecord(redis, lock_s=facts.sending_lock_s).at_work_on(event.id):
        with pytest.raises(SendingElsewhereError):
            delivery.deliver(event)
        delivery.deliver(registered())
    delivery.deliver(event)
    assert len(mailbox.mails) == 2


def test_a_failed_try_leaves_no_mark(delivery: Delivery, mailbox: Mailbox, book: ReceiptBook):
    event = registered()
    mailbox.answers["DATA"] = ["451 later", "250 taken"]
    with pytest.raises(MailServerError):
        delivery.deliver(event)
    assert book.outcomes(event.id) == []
    delivery.deliver(event)
    assert book.outcomes(event.id) == ["delivered"]


class Trying:
    """The part of Celery's task that `perform` uses, on its n-th try."""

    def __init__(self, retries: int) -> None:
        self.request = SimpleNamespace(retries=retries)
        self.delays: list[float] = []

    def retry(self, *, exc: Exception, countdown: float) -> Retry:
        self.delays.append(countdown)
        return Retry(exc=exc)


@pytest.mark.parametrize("fault", [MailServerError("451 to DATA"), UntrustedServerError("TLS failed")])
def test_transient_faults_are_tried_again_soon_and_then_left_to_the_outbox(fault: Exception):
    class Failing:
        def deliver(self, event: Event) -> None:
            raise fault

    for retries, longest_s in enumerate(RETRY_DELAYS_S):
        trying = Trying(retries)
        with pytest.raises(Retry):
            perform(trying, registered(), Failing())
        assert longest_s / 2 <= trying.delays[0] <= longest_s
    perform(Trying(len(RETRY_DELAYS_S)), registered(), Failing())
