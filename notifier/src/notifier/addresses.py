"""What counts as one bare e-mail address, for the sender in the settings and the recipient in an event."""

import unicodedata
from email.errors import MessageError
from email.headerregistry import Address

import idna

_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}


def one_line(text: str) -> str:
    """The text without line breaks and control characters: nothing in it can begin a header of its own."""
    return " ".join("".join(" " if unicodedata.category(c) in _UNPRINTABLE else c for c in text).split())


def bare_address(text: str) -> Address:
    """Reads `local@domain` (RFC 5321, RFC 6531). Raises ValueError for lists, names, comments and line breaks.

    The domain comes in its ASCII form (RFC 5891), so that only a local part needs a server that speaks SMTPUTF8.
    """
    # the standard library's parser knows no international local parts: it reads a shadow of the same length
    shadow = "".join(c if c.isascii() else "x" for c in text)
    try:
        read = Address(addr_spec=shadow)
    except (MessageError, IndexError) as fault:
        raise ValueError("is no bare e-mail address") from fault
    if read.addr_spec != shadow or not read.domain or one_line(text) != text:
        raise ValueError("is no bare e-mail address")
    local, _, domain = text.rpartition("@")
    ascii_domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
    return Address(username=read.username if local.isascii() else local, domain=ascii_domain)
