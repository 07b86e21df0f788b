"""Shard names and shard passwords: the grammar that tenant-service writes and everybody else reads."""

import hmac
import re
import secrets
from hashlib import sha256
from typing import NamedTuple, Self

_GRAMMAR = re.compile(r"([a-z][a-z0-9-]{0,30})/(shard_[a-z0-9]{8,40})")
PRACTICE_STAMP = "gowebbo.practice_id"
"""Database setting that names the practice a shard belongs to."""
FLEET_STAMP = "gowebbo.fleet_id"
"""Database setting that names the directory a shard belongs to."""


class ShardNameError(ValueError):
    """No shard is named, or the name isn't `<server>/<database>`."""


class ShardName(NamedTuple):
    """Where a practice's data is: the key of a server and the name of a database there."""

    server: str
    database: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `<server>/shard_<random>`. Raises ShardNameError: there is no default shard."""
        found = _GRAMMAR.fullmatch(text)
        if not found:
            raise ShardNameError("no shard is named" if not text else "malformed shard name")
        return cls(found[1], found[2])

    def __str__(self) -> str:
        return f"{self.server}/{self.database}"


def new_database_name() -> str:
    """A name that tells nothing of its practice; it is also the name of the shard's login role."""
    return f"shard_{secrets.token_hex(10)}"


def shard_password(key: bytes, database: str) -> str:
    """The password of a shard's role: derived (256 bits), stored nowhere."""
    return hmac.new(key, b"gowebbo shard password\n" + database.encode(), sha256).hexdigest()
