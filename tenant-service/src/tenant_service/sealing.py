"""What decrypts backups lies encrypted in the central database: a stolen copy of it reads no backup.

The first secret seals, every one opens, and what an older one sealed is sealed anew (`BackupKeys.reseal`).
"""

import base64
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_LABEL = b"gowebbo backup keys, Fernet, 1"


class UnsealableError(Exception):
    """Sealed with a secret that is no longer known, or damaged."""


class Sealing:
    """Seals and opens short texts. Without backups nothing is sealed, and nothing of cryptography's is loaded."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)

    @cached_property
    def _keys(self) -> "list[Fernet]":
        from cryptography.fernet import Fernet  # noqa: PLC0415 - 6 MB that few processes need

        return [Fernet(_derived(secret)) for secret in self._secrets]

    def seal(self, text: str) -> str:
        """What may be stored."""
        return self._keys[0].encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """The text. Raises UnsealableError."""
        return _opened(self._keys, sealed)

    def is_outdated(self, sealed: str) -> bool:
        """Whether an older secret sealed it."""
        try:
            _opened(self._keys[:1], sealed)
        except UnsealableError:
            return True
        return False


def _opened(keys: "Sequence[Fernet]", sealed: str) -> str:
    from cryptography.fernet import InvalidToken, MultiFernet  # noqa: PLC0415 - see above

    try:
        return MultiFernet(keys).decrypt(sealed).decode()
    except InvalidToken as fault:
        raise UnsealableError from fault


def _derived(secret: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return base64.urlsafe_b64encode(HKDF(SHA256(), 32, salt=None, info=_LABEL).derive(secret))
