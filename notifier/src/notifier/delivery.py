"""From an event to its mail and receipt: at least once, and twice only when a worker dies between 250 and the mark."""

from notifier.exceptions import PermanentError
from notifier.letters import LetterWriter
from notifier.mail import Mailer
from notifier.receipts import Receipts
from notifier.storage import MailRecord
from shared.events import DEAD, DELIVERED, Event, Outcome
from shared.logs import get_logger

_log = get_logger()


class Delivery:
    """The rule, with the parts it needs."""

    def __init__(self, *, writer: LetterWriter, mailer: Mailer, record: MailRecord, receipts: Receipts) -> None:
        self._writer = writer
        self._mailer = mailer
        self._record = record
        self._receipts = receipts

    def deliver(self, event: Event) -> None:
        """Sees to it that the event's mail is sent or buried, then reports that.

        Raises TransientError or redis-py's RedisError when this has to be tried again; nothing is lost then.
        """
        with self._record.at_work_on(event.id):
            outcome, detail = self._record.outcome(event.id), "already known"
            if outcome is None:
                outcome, detail = self._send_or_bury(event)
        self._receipts.send(event.id, outcome, detail=detail)

    def _send_or_bury(self, event: Event) -> tuple[Outcome, str]:
        try:
            letter = self._writer.write(event)
            self._mailer.send(letter.message, letter.recipient)
        except PermanentError as fault:
            _log.error("event_dead", event_id=event.id, type=event.type, reason=fault.reason)
            fields = {name.encode(): value for name, value in event.to_fields().items()}
            self._record.bury(fields, event_id=event.id, reason=fault.reason)
            return DEAD, fault.reason
        self._record.note_sent(event.id)
        _log.info("mail_sent", event_id=event.id, type=event.type)
        return DELIVERED, ""
