"""The page that shows caught mails. A mail is a stranger's text: all of it is escaped, its HTML is shut in a sandbox.

A few dozen lines of HTTP instead of a web framework: the page must not cost more memory than the mails.
"""

import asyncio
import email.policy
import ipaddress
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from html import escape
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

_MAX_HEAD_BYTES = 16_384
_TIMEOUT_S = 10.0
_LISTED = 200
_KEY = re.compile(r"[A-Za-z0-9_.,:=+-]{1,200}")
_LINK = re.compile(r"""(https?://[^\s<>"]*[^\s<>".,;:!?)])""")

_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# What a mail brings may show itself, and nothing else: no script, no form, no request to anywhere.
_MAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"

_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1, td, pre {{ overflow-wrap: anywhere }}
h1 {{ font-size: 1.5rem; line-height: 1.25 }}
h2 {{ font-size: 1.125rem }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; vertical-align: top; padding: .5rem 1rem .5rem 0; border-bottom: 1px solid #8884 }}
th {{ white-space: nowrap; font-weight: 600 }}
pre {{ white-space: pre-wrap; background: #8881; padding: 1rem }}
iframe {{ box-sizing: border-box; width: 100%; height: 32rem; border: 1px solid #8888; background: #fff }}
@media (max-width: 40rem) {{
  .list th {{ display: none }}
  .list td {{ display: block; padding: 0; border: 0 }}
  .list tr {{ display: block; padding: .75rem 0; border-bottom: 1px solid #8884 }}
}}
</style></head><body>{body}</body></html>"""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: HTTPStatus
    body: str
    content_type: str = "text/html; charset=utf-8"
    policy: str = _PAGE_POLICY

    def encode(self, *, with_body: bool) -> bytes:
        """Return it as it goes over the wire."""
        body = self.body.encode("utf-8", "replace")
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\nContent-Security-Policy: {self.policy}\r\n"
            "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (body if with_body else b"")


class Page:
    """Answers requests for the list of mails and for one mail."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def answer(self, path: str) -> Answer:
        """Return the answer for a path."""
        match path.strip("/").split("/"):
            case [""]:
                return self._list()
            case ["livez"]:
                return Answer(HTTPStatus.OK, "ok\n", "text/plain")
            case ["mail", key]:
                return self._with_mail(key, _mail_page)
            case ["mail", key, "html"]:
                return self._with_mail(key, _mail_html)
        return _NOT_FOUND

    def _list(self) -> Answer:
        rows = [
            f'<tr><td><a href="/mail/{escape(file.name)}">{escape(_header(mail, "subject") or "(no subject)")}</a></td>'
            f"<td>{escape(_header(mail, 'to'))}</td><td>{escape(_header(mail, 'date'))}</td></tr>"
            for file in self._newest_files()
            if (mail := _read(file, headers_only=True)) is not None  # a mail without headers is false
        ]
        table = f"<table class='list'><tr><th>Subject</th><th>To</th><th>Date</th></tr>{''.join(rows)}</table>"
        return _page("Caught mail", f"<h1>Caught mail</h1>{table if rows else '<p>No mail yet.</p>'}")

    def _newest_files(self) -> list[Path]:
        files = [file for folder in ("new", "cur") for file in (self._directory / folder).glob("*")]
        # The names begin with the second of arrival and count on within it.
        return sorted(files, key=lambda file: file.name, reverse=True)[:_LISTED]

    def _with_mail(self, key: str, show: Callable[[str, EmailMessage], Answer]) -> Answer:
        if _KEY.fullmatch(key):
            for folder in ("new", "cur"):
                mail = _read(self._directory / folder / key)
                if mail is not None:
                    return show(key, mail)
        return _NOT_FOUND


def _read(file: Path, *, headers_only: bool = False) -> EmailMessage | None:
    try:
        content = file.read_bytes()
    except OSError:
        return None
    mail = BytesParser(policy=email.policy.default).parsebytes(content, headersonly=headers_only)
    assert isinstance(mail, EmailMessage)
    return mail


def _header(mail: EmailMessage, name: str) -> str:
    try:
        return str(mail.get(name, ""))
    except (ValueError, IndexError, LookupError):  # the parser stumbles over some broken headers
        return "(unreadable)"


def _part(mail: EmailMessage, kind: str) -> str | None:
    part = mail.get_body((kind,))
    if part is None:
        return None
    try:
        return str(part.get_content())
    except (LookupError, ValueError):
        return "(unreadable)"


def _mail_page(key: str, mail: EmailMessage) -> Answer:
    heads = "".join(
        f"<tr><th>{name}</th><td>{escape(_header(mail, name))}</td></tr>" for name in ("From", "To", "Date")
    )
    subject = _header(mail, "subject") or "(no subject)"
    views = "".join(_views(key, mail))
    return _page(subject, f'<p><a href="/">All mail</a></p><h1>{escape(subject)}</h1><table>{heads}</table>{views}')


def _views(key: str, mail: EmailMessage) -> Iterator[str]:
    text = _part(mail, "plain")
    if text is not None:
        yield f"<h2>Text</h2><pre>{_with_links(text)}</pre>"
    if _part(mail, "html") is not None:
        yield f'<h2>HTML</h2><iframe sandbox="" title="HTML" src="/mail/{escape(key)}/html"></iframe>'


def _with_links(text: str) -> str:
    """Escape a text; addresses of the web can be followed, which the sandbox of a mail's HTML doesn't let them be."""
    parts = enumerate(map(escape, _LINK.split(text)))  # every second one is an address
    return "".join(f'<a href="{part}">{part}</a>' if number % 2 else part for number, part in parts)


def _mail_html(_key: str, mail: EmailMessage) -> Answer:
    html = _part(mail, "html")
    return _NOT_FOUND if html is None else Answer(HTTPStatus.OK, html, policy=_MAIL_POLICY)


def _page(title: str, body: str, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, _FRAME.format(title=escape(title), body=body))


_NOT_FOUND = _page("Not found", '<p>Not found. <a href="/">All mail</a></p>', HTTPStatus.NOT_FOUND)


def _is_local_name(host: str) -> bool:
    """Tell whether a Host header names this machine: another site's name that resolves to it must not read mails."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name != "" and "." not in name  # localhost, or a container's name
    return True


def respond(head: str, page: Page) -> bytes:
    """Return the whole answer to a request's head."""
    request, *lines = head.split("\r\n")
    method, _, rest = request.partition(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if method not in {"GET", "HEAD"}:
        answer = _page("Not allowed", "<p>Only reading is possible here.</p>", HTTPStatus.METHOD_NOT_ALLOWED)
    elif not _is_local_name(headers.get("host", "")):
        answer = _page("Wrong name", "<p>Call this page by its address.</p>", HTTPStatus.MISDIRECTED_REQUEST)
    else:
        answer = page.answer(unquote(urlsplit(rest.partition(" ")[0]).path))
    return answer.encode(with_body=method != "HEAD")


async def serve_page(directory: Path, listener: socket.socket) -> asyncio.Server:
    """Serve the page on a socket until the server is closed."""
    page = Page(directory)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(respond(head.decode("latin-1"), page))
                await writer.drain()
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that went away or speaks no HTTP
        finally:
            writer.close()

    return await asyncio.start_server(converse, sock=listener, limit=_MAX_HEAD_BYTES)
