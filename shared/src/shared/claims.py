"""What an access token says. Auth-service writes it, the gateway reads it (RFC 9068's `at+jwt`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from shared.roles import ADMIN

ISSUER = "gowebbo"
AUDIENCE = "gowebbo-api"
ADMIN_AUDIENCE = "gowebbo-admin"
"""Of the platform's admin: good where a person's token is not, and nowhere else."""
TOKEN_TYPE = "at+jwt"  # noqa: S105 - the header's `typ`, no secret
ALGORITHM = "EdDSA"
REQUIRED = ("iss", "aud", "sub", "exp", "iat", "jti", "sid", "practice", "role")


class ClaimsError(ValueError):
    """A claim is missing or of the wrong type."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """A person working in a practice during a session; or the platform's admin, who has no practice.

    Never a database name or a server. Times in unix seconds.
    """

    person_id: str
    practice_id: str
    session_id: str
    role: str
    token_id: str
    issued_at: int
    expires_at: int
    scope: str = ""
    """The permissions it is limited to, separated by spaces; empty: whatever the role allows (RFC 8693, 4.2)."""

    def payload(self) -> dict[str, Any]:
        """The JWT's payload."""
        limits = {"scope": self.scope} if self.scope else {}
        return {
            **limits,
            "iss": ISSUER,
            "aud": ADMIN_AUDIENCE if self.role == ADMIN else AUDIENCE,
            "sub": self.person_id,
            "practice": self.practice_id,
            "sid": self.session_id,
            "role": self.role,
            "jti": self.token_id,
            "iat": self.issued_at,
            "exp": self.expires_at,
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Self:
        """Reads a verified payload. Raises ClaimsError."""
        texts = [payload.get(name) for name in ("sub", "practice", "sid", "role", "jti")]
        scope = payload.get("scope", "")
        times = [payload.get(name) for name in ("iat", "exp")]
        if not all(isinstance(text, str) and text.isascii() and text.isprintable() for text in (*texts, scope)):
            raise ClaimsError("a claim is no text")
        if not all(isinstance(at, int) and not isinstance(at, bool) for at in times):
            raise ClaimsError("a claim is no time")
        return cls(*texts, *times, scope)  # type: ignore[arg-type,call-arg]  # checked just above
