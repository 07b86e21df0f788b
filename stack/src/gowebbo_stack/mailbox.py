"""The mail catcher: SMTP in, Maildir and a page to read it out. For development and tests, never for real mail.

It runs as a process of the embedded stack (sockets inherited) or alone (`gowebbo mailbox`, a container).
"""

import asyncio
import contextlib
import mailbox
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from gowebbo_stack.mailpage import serve_page
from gowebbo_stack.ports import listen_tcp

MAX_MAIL_BYTES = 10_000_000


class Catcher:
    """Takes every mail for every address. Says 250 only when the mail is on disk."""

    def __init__(self, directory: Path) -> None:
        for folder in ("tmp", "new", "cur"):  # Maildir's own `create` does nothing when the directory is there
            (directory / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._maildir = mailbox.Maildir(directory)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 -- aiosmtpd's
        """Keep a mail as it came, after lines that say from whom and to whom its envelope was."""
        trace = [f"Return-Path: <{envelope.mail_from or ''}>", *(f"Delivered-To: {to}" for to in envelope.rcpt_tos)]
        content = envelope.content
        body = content if isinstance(content, bytes) else str(content or "").encode()
        self._maildir.add("".join(f"{line}\r\n" for line in trace).encode() + body)
        return "250 Message kept"


@dataclass(frozen=True)
class Doors:
    """The catcher's two listening sockets."""

    smtp: socket.socket
    page: socket.socket


def inherited_doors() -> Doors:
    """Return the sockets that the supervisor has bound."""
    return Doors(*(socket.socket(fileno=int(os.environ[name])) for name in ("SMTP_FD", "HTTP_FD")))


def own_doors(host: str, *, smtp_port: int, http_port: int) -> Doors:
    """Bind sockets for a catcher that runs alone."""
    return Doors(listen_tcp(host, smtp_port), listen_tcp(host, http_port))


async def serve(directory: Path, doors: Doors) -> None:
    """Catch mails until SIGTERM or SIGINT."""
    os.umask(0o077)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    catcher = Catcher(directory)

    def smtp_protocol() -> SMTP:
        return SMTP(catcher, data_size_limit=MAX_MAIL_BYTES, enable_SMTPUTF8=True, ident="GoWebbo", loop=loop)

    smtp = await loop.create_server(smtp_protocol, sock=doors.smtp)
    page = await serve_page(directory, doors.page)
    await stop.wait()
    smtp.close()
    page.close()


def main(directory: Path | None = None, doors: Doors | None = None) -> None:
    """Run the catcher; without arguments as a child of the supervisor."""
    directory = directory or Path(os.environ["MAILBOX_DIRECTORY"])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(directory, doors or inherited_doors()))


if __name__ == "__main__":
    main()
