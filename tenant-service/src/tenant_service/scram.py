"""SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677) made here, so that no password is ever sent to a server or its log."""

import base64
import hashlib
import hmac
import secrets

ADMIN_ITERATIONS = 4096
"""RFC 7677's minimum, and PostgreSQL's own default."""
DERIVED_ITERATIONS = 1
"""Stretching adds nothing to 256 random bits, and each opening of a shard would pay for it."""
_SALT_BYTES = 16


class UnsuitablePasswordError(ValueError):
    """A password that clients might normalise in different ways (RFC 4013)."""


def scram_verifier(password: str, *, iterations: int) -> str:
    """What PostgreSQL stores for this password. Raises UnsuitablePasswordError unless it is printable ASCII."""
    if not (password and password.isascii() and password.isprintable()):
        raise UnsuitablePasswordError("a database password must be printable ASCII and not empty")
    salt = secrets.token_bytes(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${iterations}:{salt64}${stored64}:{server64}"
