"""The SMTP dialogue, and which of its faults are worth another try."""

import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage

from notifier.config import Settings
from notifier.deadline import deadline
from notifier.exceptions import MailRefusedError, MailServerError, UntrustedServerError

_QUIT_TIMEOUT_S = 1.0
_AUTHENTICATION_CODES = frozenset({530, 534, 535, 538})
"""RFC 4954: the server wants another log-in. That is our set-up, not this mail."""


class Mailer:
    """Sends one mail in one connection. Certificates are always checked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tls = ssl.create_default_context()

    def send(self, message: EmailMessage, recipient: str) -> None:
        """Returns when the server has taken the mail (250 after DATA).

        Raises MailServerError or UntrustedServerError (nothing was taken, try again) or MailRefusedError (never).
        Main thread only.
        """
        with _faults_named(), deadline(self._settings.email_timeout_s):
            smtp = self._connect()
            try:
                self._secure(smtp)
                smtp.send_message(message, self._settings.sender, [recipient])
            except BaseException:
                smtp.close()
                raise
        _leave(smtp)

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        # the default name of this host would come from a DNS query that can hang
        name, timeout_s = socket.gethostname(), settings.email_timeout_s
        if settings.email_security == "tls":
            return smtplib.SMTP_SSL(
                settings.email_host, settings.email_port, name, timeout=timeout_s, context=self._tls
            )
        return smtplib.SMTP(settings.email_host, settings.email_port, name, timeout=timeout_s)

    def _secure(self, smtp: smtplib.SMTP) -> None:
        settings = self._settings
        if settings.email_security == "none":
            return
        if settings.email_security == "starttls":
            try:
                smtp.starttls(context=self._tls)
            except (smtplib.SMTPNotSupportedError, smtplib.SMTPResponseException) as fault:
                raise UntrustedServerError("the server offers no STARTTLS") from fault
        if settings.email_user:
            try:
                smtp.login(settings.email_user, settings.email_pass.get_secret_value())
            except smtplib.SMTPNotSupportedError as fault:  # our set-up, not this mail
                raise MailServerError("the server takes no log-in") from fault


@contextmanager
def _faults_named() -> Iterator[None]:
    try:
        yield
    except smtplib.SMTPRecipientsRefused as fault:
        code, _ = next(iter(fault.recipients.values()))
        raise _refusal("RCPT", code) from fault
    except smtplib.SMTPSenderRefused as fault:
        raise _refusal("MAIL", fault.smtp_code) from fault
    except smtplib.SMTPDataError as fault:
        raise _refusal("DATA", fault.smtp_code) from fault
    except smtplib.SMTPNotSupportedError as fault:
        raise MailRefusedError("the server takes no such address (SMTPUTF8)") from fault
    except smtplib.SMTPResponseException as fault:
        raise MailServerError(f"{fault.smtp_code} before the mail") from fault
    except ssl.SSLError as fault:
        raise UntrustedServerError(f"TLS failed: {fault.reason or type(fault).__name__}") from fault
    except (smtplib.SMTPException, OSError) as fault:
        raise MailServerError(type(fault).__name__) from fault


def _refusal(command: str, code: int) -> MailRefusedError | MailServerError:
    if 500 <= code < 600 and code not in _AUTHENTICATION_CODES:  # noqa: PLR2004 - SMTP's permanent answers
        return MailRefusedError(f"{code} to {command}")
    return MailServerError(f"{code} to {command}")


def _leave(smtp: smtplib.SMTP) -> None:
    """The mail is taken: whatever happens now must not look like a failure, or it would be sent twice."""
    with suppress(smtplib.SMTPException, OSError):
        if smtp.sock is not None:
            smtp.sock.settimeout(_QUIT_TIMEOUT_S)
        smtp.quit()
    smtp.close()
