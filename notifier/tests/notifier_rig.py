"""Real servers at the notifier's edges: an SMTP server that misbehaves on demand, and a receiver of receipts."""

import asyncio
import contextlib
import email
import email.policy
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gowebbo_stack.ports import free_port
from notifier.config import Settings
from shared.context import ContextVerifier, SignatureError
from shared.events import PRACTICE_REGISTERED, Event
from shared.ids import new_id

GATEWAY_SECRET = "b7c1f0e4a95d4c3e8f2a6d1b0c9e8f7a5b4c3d2e1f0a9b8c"
DEADLINE_S = 60


def eventually(holds: Callable[[], Any], *, within_s: float = DEADLINE_S, what: str = "") -> Any:
    """Polls until it holds; fails with `what` when the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        value = holds()
        if value:
            return value
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


def registered(name: str = "Oak Lane Surgery", address: str = "owner@oak.example", **changes: Any) -> Event:
    """A `practice.registered` event."""
    facts: dict[str, Any] = {
        "id": str(new_id()),
        "type": PRACTICE_REGISTERED,
        "practice_id": str(new_id()),
        "occurred_at": "2026-11-22T10:00:00Z",
        "request_id": "req-12345678",
        "payload": {"name": name, "email": address},
    }
    return Event(**{**facts, **changes})


@dataclass
class Mailbox:
    """Handler of aiosmtpd: keeps what it takes, refuses what it is told to refuse."""

    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    dialogues: int = 0
    answers: dict[str, list[str]] = field(default_factory=dict)
    """Answers to give instead, for each command (MAIL, RCPT, DATA); the last one stays."""
    hang: threading.Event = field(default_factory=threading.Event)
    """While it is set, DATA gets no answer."""
    started: threading.Event = field(default_factory=threading.Event)

    def _instead(self, command: str) -> str | None:
        answers = self.answers.get(command)
        if not answers:
            return None
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def handle_MAIL(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        self.dialogues += 1
        instead = self._instead("MAIL")
        if instead:
            return instead
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        instead = self._instead("RCPT")
        if instead:
            return instead
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.started.set()
        while self.hang.is_set():  # noqa: ASYNC110 - the test sets it from another thread
            await asyncio.sleep(0.02)
        instead = self._instead("DATA")
        if instead and not instead.startswith("2"):
            return instead
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        self.recipients.extend(envelope.rcpt_tos)
        return "250 taken"

    def ids(self) -> list[str]:
        return [str(mail["Message-ID"]) for mail in self.mails]


class _SmtpServer(Controller):
    def __init__(self, mailbox: Mailbox, port: int, **smtp: Any) -> None:
        self._smtp = smtp
        super().__init__(mailbox, hostname="127.0.0.1", port=port, ready_timeout=20, ssl_context=smtp.pop("tls", None))

    def factory(self):
        return SMTP(self.handler, **{"enable_SMTPUTF8": True, **self._smtp})


@contextlib.contextmanager
def smtp_server(mailbox: Mailbox, *, port: int | None = None, **smtp: Any) -> Iterator[int]:
    """Runs an SMTP server; yields its port. `tls=` is implicit TLS, `tls_context=` STARTTLS."""
    server = _SmtpServer(mailbox, port or free_port(), **smtp)
    server.start()
    try:
        yield server.port
    finally:
        mailbox.hang.clear()
        server.stop()


def self_signed(folder: Path, *, host: str = "localhost") -> ssl.SSLContext:
    """A server's TLS context whose certificate nobody knows; the certificate is `folder/cert.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(*private))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@dataclass
class ReceiptBook:
    """What auth-service would have noted."""

    port: int
    receipts: list[dict[str, Any]] = field(default_factory=list)
    request_ids: list[str | None] = field(default_factory=list)
    status: int = 200
    unsigned: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def outcomes(self, event_id: str) -> list[str]:
        return [one["outcome"] for one in self.receipts if one["event_id"] == event_id]


@contextlib.contextmanager
def receipt_book() -> Iterator[ReceiptBook]:
    """A small auth-service that takes receipts and checks the signature."""
    book = ReceiptBook(port=0)
    verifier = ContextVerifier([GATEWAY_SECRET.encode()])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                caller = verifier.verify([(k.lower().encode(), v.encode("latin-1")) for k, v in self.headers.items()])
                assert caller.role == "service:notifier"
            except (SignatureError, AssertionError):
                book.unsigned += 1
                self._answer(401)
                return
            if book.status == 200:
                assert self.path == "/internal/receipts"
                book.receipts.append(json.loads(body))
                book.request_ids.append(self.headers["X-Request-Id"])
            self._answer(book.status)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    book.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield book
    finally:
        server.shutdown()
        server.server_close()


def environment(**changes: Any) -> dict[str, str]:
    """The environment of a notifier's process, without anything of the machine's own settings."""
    plain = {
        "PATH": os.environ["PATH"],
        "GATEWAY_SECRET": GATEWAY_SECRET,
        "EMAIL_FROM": "mail@gowebbo.example",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_SECURITY": "none",
        "EMAIL_TIMEOUT_S": "3",
        "RECLAIM_AFTER_S": "2",
        "PUBLIC_URL": "https://gowebbo.example",
    }
    return {**plain, **{name: str(value) for name, value in changes.items()}}


def settings(**changes: Any) -> Settings:
    """The same as a Settings object."""
    names = {"path"}
    values = {name.lower(): value for name, value in environment(**changes).items() if name.lower() not in names}
    return Settings(_env_file=None, **values)


class Process:
    """A process of the notifier, its log in a file."""

    def __init__(
        self,
        module: str,
        env: dict[str, str],
        folder: Path,
        *,
        arguments: Sequence[str] = (),
        descriptor: int | None = None,
    ) -> None:
        self.log_path = folder / f"{module}-{time.monotonic_ns()}.log"
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=env,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=() if descriptor is None else (descriptor,),
            )
        self.pid = self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self, within_s: float = DEADLINE_S) -> int:
        """The exit status."""
        return self._process.wait(within_s)

    def end(self) -> None:
        if self.running:
            self.kill()


def listening_socket() -> socket.socket:
    """A socket as the stack hands one over."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    listener.set_inheritable(True)
    return listener
