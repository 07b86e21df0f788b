"""The form of API keys: recognised by secret scanners, and a typing error is found without asking anybody.

`gwk_`, 256 random bits in base64url, and a CRC-32 of both in hexadecimal. Auth-service makes them and stores their
digest; the gateway asks for keys by digest.
"""

import re
from hashlib import sha256
from secrets import token_urlsafe
from zlib import crc32

PREFIX = "gwk_"
SHOWN_CHARACTERS = 12
"""So much of a key's beginning may be shown, to tell it from others."""
_SECRET_BYTES = 32
_FORM = re.compile(r"gwk_[A-Za-z0-9_-]{43}[0-9a-f]{8}")
_CHECKSUM_CHARACTERS = 8


def new_key() -> str:
    """A key that nobody has."""
    body = PREFIX + token_urlsafe(_SECRET_BYTES)
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Whether this could be a key."""
    return bool(_FORM.fullmatch(key)) and key.endswith(_checksum(key[:-_CHECKSUM_CHARACTERS]))


def digest_of(key: str) -> bytes:
    """What is stored of a key, and asked for. It can't be guessed, so a plain SHA-256 is as good as a slow hash."""
    return sha256(key.encode()).digest()


def _checksum(body: str) -> str:
    return f"{crc32(body.encode()):08x}"
