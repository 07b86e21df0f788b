"""What decrypts backups lies encrypted in the central database: a stolen copy of it reads no backup.

The first secret seals, every one opens, and what an older one sealed is sealed anew (`BackupKeys.reseal`).
"""

import base64
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_LABEL = b"gowebbo backup keys, Fernet, 1"


class UnsealableError(Exception):
    """Sealed with a secret that is no longer known, or damaged."""


class Sealing:
    """Seals and opens short texts."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        keys = [Fernet(_derived(secret)) for secret in secrets]
        self._newest, self._all = keys[0], MultiFernet(keys)

    def seal(self, text: str) -> str:
        """What may be stored."""
        return self._newest.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """The text. Raises UnsealableError."""
        try:
            return self._all.decrypt(sealed).decode()
        except InvalidToken as fault:
            raise UnsealableError from fault

    def is_outdated(self, sealed: str) -> bool:
        """Whether an older secret sealed it."""
        try:
            self._newest.decrypt(sealed)
        except InvalidToken:
            return True
        return False


def _derived(secret: bytes) -> bytes:
    return base64.urlsafe_b64encode(HKDF(SHA256(), 32, salt=None, info=_LABEL).derive(secret))
