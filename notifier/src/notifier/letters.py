"""Which event becomes which mail, and how it is written. Nothing is sent here."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from css_inline import CSSInliner
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from notifier.addresses import bare_address, one_line
from notifier.exceptions import UnmailableEventError
from shared.events import (
    DEVICE_SEEN,
    EMAIL_UNVERIFIED,
    PASSWORD_CHANGED,
    PASSWORD_FORGOTTEN,
    PRACTICE_REGISTERED,
    STAFF_INVITED,
    Event,
)


@dataclass(frozen=True, slots=True)
class LetterKind:
    """A kind of mail: `<template>.txt` and `<template>.html`; subject and templates use the payload's texts."""

    template: str
    subject: str
    needs: tuple[str, ...]
    """The payload's members, all of them texts; `email` is where the mail goes."""
    may_have: tuple[str, ...] = ()
    """Further texts that the templates do without: an event may be older than this code."""
    page: str | None = None
    """The gateway's page that the mail's link leads to; the token follows it as a fragment."""


LETTERS: dict[str, LetterKind] = {
    PRACTICE_REGISTERED: LetterKind(
        template="welcome",
        subject="Welcome to GoWebbo, {name}",
        needs=("name", "email"),
        may_have=("token",),
        page="/account/verify",
    ),
    EMAIL_UNVERIFIED: LetterKind(
        template="verify",
        subject="Please confirm your e-mail address",
        needs=("name", "email", "token"),
        page="/account/verify",
    ),
    PASSWORD_FORGOTTEN: LetterKind(
        template="reset",
        subject="Reset your GoWebbo password",
        needs=("name", "email", "token"),
        page="/account/reset",
    ),
    PASSWORD_CHANGED: LetterKind(
        template="password_changed",
        subject="Your GoWebbo password was changed",
        needs=("name", "email", "at", "address"),
    ),
    DEVICE_SEEN: LetterKind(
        template="device",
        subject="A new device logged in to your GoWebbo account",
        needs=("name", "email", "at", "address", "device"),
    ),
    STAFF_INVITED: LetterKind(
        template="invitation",
        subject="{inviter} invites you to {practice}",
        needs=("email", "practice", "inviter", "role", "token"),
        page="/account/join",
    ),
}
"""A further mail is a further row and its two templates."""

_EVENT_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail ready to be sent to one bare address."""

    recipient: str
    message: EmailMessage


class LetterWriter:
    """Writes the mail of an event."""

    def __init__(self, *, sender: str, public_url: str) -> None:
        self._sender = bare_address(sender)
        self._public_url = public_url
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._inliner = CSSInliner(load_remote_stylesheets=False)

    def write(self, event: Event) -> Letter:
        """The event's mail; the same event always gets the same Message-ID. Raises UnmailableEventError."""
        kind = LETTERS.get(event.type)
        if kind is None:
            raise UnmailableEventError("unknown event type")
        if not _EVENT_ID.fullmatch(event.id):
            raise UnmailableEventError("the event's id is malformed")
        texts = _texts(event.payload, kind)
        recipient = _address(event.payload["email"])
        message = EmailMessage(policy=SMTP)
        message["Subject"] = kind.subject.format_map(texts)
        message["From"] = self._sender
        message["To"] = recipient
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<{event.id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notice comes back
        values = {**texts, "public_url": self._public_url, "link": None}
        if kind.page and texts.get("token"):
            # a fragment is sent to no server: the token stands in no log and in no Referer
            values["link"] = f"{self._public_url}{kind.page}#{texts['token']}"
        message.set_content(self._templates.get_template(f"{kind.template}.txt").render(values), cte="quoted-printable")
        page = self._templates.get_template(f"{kind.template}.html").render(values)
        message.add_alternative(self._inliner.inline(page), subtype="html", cte="quoted-printable")
        return Letter(recipient=recipient.addr_spec, message=message)


def _texts(payload: dict[str, Any], kind: LetterKind) -> dict[str, str]:
    texts = {name: payload.get(name) for name in kind.needs}
    texts |= {name: payload[name] for name in kind.may_have if name in payload}
    if not all(isinstance(text, str) and text for text in texts.values()):
        raise UnmailableEventError("the event lacks a text that the mail needs")
    return {name: one_line(str(text)) for name, text in texts.items()}


def _address(text: str) -> Address:
    try:
        return bare_address(text)
    except ValueError as fault:
        raise UnmailableEventError("the address is malformed") from fault
