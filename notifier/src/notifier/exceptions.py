"""What can go wrong with a mail. The one question is whether trying again can help."""


class TransientError(Exception):
    """Trying again may help. `reason` is safe to log: no address, no server's words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MailServerError(TransientError):
    """The mail server is down, slow, busy or not set up for us."""


class UntrustedServerError(MailServerError):
    """The mail server has no certificate that we trust, or no encryption where it is asked for. Nothing was sent."""


class SendingElsewhereError(TransientError):
    """Another worker is at the same event right now."""


class ReceiptNotTakenError(TransientError):
    """Auth-service did not take the receipt."""


class PermanentError(Exception):
    """This mail can never be sent as it is. `reason` is safe to log and to store."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MailRefusedError(PermanentError):
    """The mail server refused this mail for good (5xx, RFC 5321 section 4.2.1)."""


class UnmailableEventError(PermanentError):
    """No mail can be made of this event."""
