"""Secrets that have to be read again lie encrypted in the central database: a stolen copy of it tells none of them.

The key is derived from JWT_SECRET, so the list that rotates one rotates the other: the first secret seals, every one
opens, and what an older one sealed is sealed anew (`second_factor.SecondFactors.reseal`).
"""

import base64
from collections.abc import Sequence
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from auth_service.tokens import derive_key

_LABEL = b"gowebbo second factor, Fernet, 1"


class UnsealableError(Exception):
    """Sealed with a secret that is no longer known, damaged, or another person's."""


class Sealing:
    """Seals a text for a person."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        keys = [Fernet(base64.urlsafe_b64encode(derive_key(secret, _LABEL))) for secret in secrets]
        self._newest = keys[0]
        self._all = MultiFernet(keys)

    def seal(self, text: str, person_id: UUID) -> str:
        """What may be stored."""
        return self._newest.encrypt(f"{person_id}:{text}".encode()).decode()

    def open(self, sealed: str, person_id: UUID) -> str:
        """The text. Raises UnsealableError."""
        try:
            owner, _, text = self._all.decrypt(sealed).decode().partition(":")
        except InvalidToken as fault:
            raise UnsealableError from fault
        if owner != str(person_id):
            raise UnsealableError
        return text

    def is_outdated(self, sealed: str) -> bool:
        """Whether an older secret sealed it."""
        try:
            self._newest.decrypt(sealed)
        except InvalidToken:
            return True
        return False
