"""Every way in which a mail server can fail: refused for good, worth another try, or not to be trusted."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import AuthResult
from notifier_rig import Mailbox, registered, self_signed, settings, smtp_server

from gowebbo_stack.ports import free_port
from notifier.exceptions import MailRefusedError, MailServerError, UntrustedServerError
from notifier.letters import LetterWriter
from notifier.mail import Mailer


def send(port: int, **changes: object) -> None:
    letter = LetterWriter(sender="mail@gowebbo.example", public_url="https://gowebbo.example").write(registered())
    Mailer(settings(EMAIL_PORT=port, **changes)).send(letter.message, letter.recipient)


def test_a_mail_is_sent(mailbox: Mailbox):
    with smtp_server(mailbox) as port:
        send(port)
    assert mailbox.recipients == ["owner@oak.example"]


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("code", ["550", "552", "554"])
def test_a_5xx_is_for_good(mailbox: Mailbox, command: str, code: str):
    mailbox.answers[command] = [f"{code} owner@oak.example is not welcome"]
    with smtp_server(mailbox) as port, pytest.raises(MailRefusedError) as fault:
        send(port)
    assert fault.value.reason == f"{code} to {command}"


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("code", ["421", "450", "451", "452"])
def test_a_4xx_is_worth_another_try(mailbox: Mailbox, command: str, code: str):
    mailbox.answers[command] = [f"{code} later"]
    with smtp_server(mailbox) as port, pytest.raises(MailServerError):
        send(port)
    assert not mailbox.mails


def test_a_server_that_wants_another_log_in_is_no_reason_to_give_a_mail_up(mailbox: Mailbox):
    mailbox.answers["MAIL"] = ["530 authentication required"]
    with smtp_server(mailbox) as port, pytest.raises(MailServerError):
        send(port)


def test_a_server_that_is_down_is_worth_another_try():
    with pytest.raises(MailServerError):
        send(free_port())


def test_a_host_that_does_not_exist_is_worth_another_try():
    with pytest.raises(MailServerError):
        send(25, EMAIL_HOST="mail.invalid")


@pytest.fixture
def dripping_server() -> Iterator[int]:
    """Sends a byte of an endless greeting again and again, each well within a socket's time-out."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                while not stop.wait(0.1):
                    try:
                        connection.send(b"2")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        stop.set()
        thread.join(10)


def test_a_slow_server_is_left_after_the_time_for_the_whole_dialogue(dripping_server: int):
    with pytest.raises(MailServerError):
        send(dripping_server, EMAIL_TIMEOUT_S=1)


def test_a_server_that_hangs_after_data_is_left(mailbox: Mailbox):
    mailbox.hang.set()
    with smtp_server(mailbox) as port, pytest.raises(MailServerError):
        send(port, EMAIL_TIMEOUT_S=1)


def test_a_failing_goodbye_does_not_undo_a_mail_that_was_taken(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch):
    """250 was said: raising now would send it twice."""

    async def cut(server, *_: object) -> None:
        server.transport.abort()

    monkeypatch.setattr("aiosmtpd.smtp.SMTP.smtp_QUIT", cut)
    with smtp_server(mailbox) as port:
        send(port)
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_bad_certificate_means_no_mail(mailbox: Mailbox, tmp_path: Path, security: str):
    tls = self_signed(tmp_path)
    how = {"tls": tls} if security == "tls" else {"tls_context": tls}
    with smtp_server(mailbox, **how) as port, pytest.raises(UntrustedServerError):
        send(port, EMAIL_SECURITY=security)
    assert mailbox.dialogues == 0


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_certificate_for_another_host_means_no_mail(
    mailbox: Mailbox, tmp_path: Path, security: str, monkeypatch: pytest.MonkeyPatch
):
    tls = self_signed(tmp_path, host="elsewhere.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    how = {"tls": tls} if security == "tls" else {"tls_context": tls}
    with smtp_server(mailbox, **how) as port, pytest.raises(UntrustedServerError):
        send(port, EMAIL_SECURITY=security, EMAIL_HOST="localhost")
    assert mailbox.dialogues == 0


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_trusted_server_gets_log_in_and_mail(
    mailbox: Mailbox, tmp_path: Path, security: str, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[bytes, bytes]] = []

    def authenticator(server, session, envelope, mechanism, data) -> AuthResult:
        seen.append((data.login, data.password))
        return AuthResult(success=True)

    tls = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    how = {"tls": tls} if security == "tls" else {"tls_context": tls}
    with smtp_server(mailbox, authenticator=authenticator, auth_require_tls=security == "starttls", **how) as port:
        send(port, EMAIL_SECURITY=security, EMAIL_HOST="localhost", EMAIL_USER="user", EMAIL_PASS="pass")
    assert seen == [(b"user", b"pass")]
    assert len(mailbox.mails) == 1


def test_a_refused_log_in_is_worth_another_try(mailbox: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tls = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with (
        smtp_server(
            mailbox, tls_context=tls, authenticator=lambda *_: AuthResult(success=False, handled=False)
        ) as port,
        pytest.raises(MailServerError, match="535"),
    ):
        send(port, EMAIL_SECURITY="starttls", EMAIL_HOST="localhost", EMAIL_USER="user", EMAIL_PASS="pass")


def test_a_server_that_knows_no_log_in_is_no_reason_to_give_a_mail_up(
    mailbox: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tls = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with (
        smtp_server(mailbox, tls_context=tls, auth_exclude_mechanism=["LOGIN", "PLAIN"]) as port,
        pytest.raises(MailServerError),
    ):
        send(port, EMAIL_SECURITY="starttls", EMAIL_HOST="localhost", EMAIL_USER="user", EMAIL_PASS="pass")
    assert not mailbox.mails


def test_an_international_domain_needs_no_modern_server(mailbox: Mailbox):
    writer = LetterWriter(sender="mail@gowebbo.example", public_url="https://gowebbo.example")
    letter = writer.write(registered(address="owner@bücher.example"))
    with smtp_server(mailbox, enable_SMTPUTF8=False) as port:
        Mailer(settings(EMAIL_PORT=port)).send(letter.message, letter.recipient)
    assert mailbox.recipients == ["owner@xn--bcher-kva.example"]


def test_a_server_without_starttls_gets_no_mail_and_no_password(mailbox: Mailbox):
    """Someone on the way may have struck the offer out."""
    with smtp_server(mailbox) as port, pytest.raises(UntrustedServerError):
        send(port, EMAIL_SECURITY="starttls", EMAIL_USER="user", EMAIL_PASS="pass")
    assert mailbox.dialogues == 0


def test_without_encryption_nobody_logs_in(mailbox: Mailbox):
    asked: list[object] = []
    with smtp_server(mailbox, authenticator=lambda *all_: asked.append(all_), auth_require_tls=False) as port:
        send(port, EMAIL_USER="user", EMAIL_PASS="pass")
    assert not asked
    assert len(mailbox.mails) == 1
