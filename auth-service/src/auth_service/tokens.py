"""The tokens' form: keys derived from JWT_SECRET, access tokens (EdDSA), refresh tokens (opaque). No state here."""

import base64
import binascii
import hmac
import struct
import time
from collections.abc import Sequence
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth_service.exceptions import InvalidRefreshTokenError
from shared.claims import ALGORITHM, ISSUER, TOKEN_TYPE, AccessClaims
from shared.ids import new_id
from shared.roles import ADMIN

_ACCESS_LABEL = b"gowebbo access token, Ed25519, 1"
_REFRESH_LABEL = b"gowebbo refresh token, HMAC-SHA256, 1"
ADMIN_LIFE_S = 15 * 60
DELETION_TYPE = "deletion-record+jwt"
_KEY_BYTES = 32
_REFRESH_FORM = struct.Struct(">16sI")
"""Session id and generation; an HMAC-SHA256 follows."""


def derive_key(secret: bytes, label: bytes) -> bytes:
    """A key for one purpose (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=label).derive(secret)


def new_secret() -> str:
    """An opaque token of 256 random bits, for a mail or a machine. Only its digest is stored."""
    return token_urlsafe(_KEY_BYTES)


def digest_of(secret: str) -> bytes:
    """What is stored of such a token. It can't be guessed, so a plain SHA-256 is as good as a slow hash."""
    return sha256(secret.encode()).digest()


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class AccessTokens:
    """Signs access tokens with the newest secret's key and publishes the keys of all secrets."""

    def __init__(self, secrets: Sequence[bytes], *, life_s: int) -> None:
        self.life_s = life_s
        keys = [Ed25519PrivateKey.from_private_bytes(derive_key(secret, _ACCESS_LABEL)) for secret in secrets]
        publics = [key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) for key in keys]
        self._key = keys[0]
        self.key_id = _key_id(publics[0])
        """Of the key that signs."""
        self._key_set = {"keys": [_as_jwk(public) for public in publics]}

    def issue(self, *, person_id: UUID, practice_id: UUID, session_id: UUID, role: str, scope: str = "") -> str:
        """A token for a person working in a practice (RFC 9068); a scope limits what the role allows."""
        now = int(time.time())
        claims = AccessClaims(
            person_id=str(person_id),
            practice_id=str(practice_id),
            session_id=str(session_id),
            role=role,
            token_id=str(new_id()),
            issued_at=now,
            expires_at=now + self.life_s,
            scope=scope,
        )
        return self._sign(claims)

    def issue_admin(self, session_id: UUID) -> str:
        """A token for the platform's admin, with an audience of its own and a short life."""
        now = int(time.time())
        claims = AccessClaims(
            person_id=ADMIN,
            practice_id="",
            session_id=str(session_id),
            role=ADMIN,
            token_id=str(new_id()),
            issued_at=now,
            expires_at=now + ADMIN_LIFE_S,
        )
        return self._sign(claims)

    def sign_deletion(self, facts: dict[str, Any]) -> str:
        """A record of what was destroyed (JWS, RFC 7515), which never passes for a token: it has a type of its own."""
        headers = {"typ": DELETION_TYPE, "kid": self.key_id}
        return jwt.encode({"iss": ISSUER, **facts}, self._key, algorithm=ALGORITHM, headers=headers)

    def _sign(self, claims: AccessClaims) -> str:
        headers = {"typ": TOKEN_TYPE, "kid": self.key_id}
        return jwt.encode(claims.payload(), self._key, algorithm=ALGORITHM, headers=headers)

    def key_set(self) -> dict[str, list[dict[str, Any]]]:
        """The public keys (RFC 7517, RFC 8037), newest first."""
        return self._key_set


class RefreshTokens:
    """A session and a generation, sealed. The same ones always give the same token, so that replicas agree."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._keys = [derive_key(secret, _REFRESH_LABEL) for secret in secrets]

    def write(self, session_id: UUID, generation: int) -> str:
        """The token of a session's generation."""
        content = _REFRESH_FORM.pack(session_id.bytes, generation)
        return _base64url(content + hmac.digest(self._keys[0], content, sha256))

    def read(self, token: str) -> tuple[UUID, int]:
        """Session and generation. Raises InvalidRefreshTokenError."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as fault:
            raise InvalidRefreshTokenError from fault
        content, seal = raw[: _REFRESH_FORM.size], raw[_REFRESH_FORM.size :]
        if len(seal) != sha256().digest_size or _base64url(raw) != token:
            raise InvalidRefreshTokenError
        # every key is tried, so that the answer's time doesn't tell which one matched
        if not any([hmac.compare_digest(hmac.digest(key, content, sha256), seal) for key in self._keys]):  # noqa: C419
            raise InvalidRefreshTokenError
        session_id, generation = _REFRESH_FORM.unpack(content)
        return UUID(bytes=session_id), generation


def _key_id(public: bytes) -> str:
    return sha256(public).hexdigest()[:16]


def _as_jwk(public: bytes) -> dict[str, str]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "alg": ALGORITHM,
        "kid": _key_id(public),
        "x": _base64url(public),
    }
