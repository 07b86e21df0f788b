"""Access tokens: what is checked before anybody is let in by one (RFC 7519, RFC 8725, RFC 9068).

PyJWT checks signature and claims. It accepts any `typ` and follows nothing, so the header is checked here: exactly
`alg`, `typ` and `kid`, with our values. A key that a token brings or points to is never looked at.
"""

import re
import time
from collections.abc import Callable

import jwt

from gateway.exceptions import InvalidTokenError
from gateway.keys import KeyRing
from gateway.revocations import Revocations
from shared.claims import ADMIN_AUDIENCE, ALGORITHM, AUDIENCE, ISSUER, REQUIRED, TOKEN_TYPE, AccessClaims, ClaimsError
from shared.context import ANONYMOUS, SERVICE_PREFIX
from shared.roles import ADMIN

MAX_TOKEN_BYTES = 4096
"""Ours have about 600."""
MAX_ENTRIES = 20_000
CLOCK_SKEW_S = 5
"""How far auth-service's clock may be ahead. `exp` gets no such grace."""

_COMPACT = re.compile(rb"[A-Za-z0-9_-]{1,512}\.[A-Za-z0-9_-]{1,3584}\.[A-Za-z0-9_-]{86}")
_KID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HEADER_MEMBERS = frozenset({"alg", "typ", "kid"})
CHALLENGE = 'Bearer realm="gowebbo"'


def invalid_token(description: str) -> InvalidTokenError:
    """The 401 for a token that was sent and isn't good (RFC 6750, 3.1)."""
    challenge = f'{CHALLENGE}, error="invalid_token", error_description="{description}"'
    return InvalidTokenError(f"{description}.", headers={"WWW-Authenticate": challenge})


class TokenVerifier:
    """Turns a token into claims. A verified one is recognised by its bytes; `exp` and revocation are checked always."""

    def __init__(
        self,
        keys: KeyRing,
        revocations: Revocations,
        *,
        clock: Callable[[], float] = time.time,
        entries: int = MAX_ENTRIES,
    ) -> None:
        self._keys = keys
        self._revocations = revocations
        self._clock = clock
        self._entries = entries
        self._known: dict[bytes, AccessClaims] = {}
        self._generation = keys.generation

    async def verify(self, token: bytes) -> AccessClaims:
        """The claims of a good token. Raises InvalidTokenError, or UnavailableError while no key is known."""
        if self._generation != self._keys.generation:
            self._known.clear()
            self._generation = self._keys.generation
        claims = self._known.get(token)
        if claims is None:
            claims = await self._check(token)
        if claims.expires_at <= self._clock():
            self._known.pop(token, None)
            raise invalid_token("The access token expired")
        if self._revocations.refuses(claims):
            has_ended = self._revocations.has_ended(claims.session_id)
            raise invalid_token("The session has ended" if has_ended else "The session changed: refresh the token")
        return claims

    def recall(self, token: bytes) -> AccessClaims | None:
        """The claims of a token that was verified before and is still good."""
        claims = self._known.get(token)
        if (
            claims is None
            or claims.expires_at <= self._clock()
            or self._revocations.refuses(claims)
            or self._generation != self._keys.generation
        ):
            return None
        return claims

    async def _check(self, token: bytes) -> AccessClaims:
        kid = _kid_of(token)
        key = await self._keys.key(kid) if kid else None
        if key is None:
            raise invalid_token("The access token is not valid")
        generation = self._keys.generation
        try:
            payload = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                leeway=CLOCK_SKEW_S,
                options={"require": list(REQUIRED), "verify_aud": False},
            )
            claims = AccessClaims.from_payload(payload)
            audience = payload["aud"]
        except jwt.ExpiredSignatureError as fault:
            raise invalid_token("The access token expired") from fault
        except (jwt.PyJWTError, ClaimsError, ValueError, RecursionError) as fault:
            raise invalid_token("The access token is not valid") from fault
        _require_holder(claims, audience)
        self._remember(token, claims, generation)
        return claims

    def _remember(self, token: bytes, claims: AccessClaims, generation: int) -> None:
        if generation != self._generation:
            return
        if len(self._known) >= self._entries:
            del self._known[next(iter(self._known))]
        self._known[token] = claims


def _kid_of(token: bytes) -> str | None:
    """The `kid` of a token whose header is one of ours, None for every other."""
    if len(token) > MAX_TOKEN_BYTES or not _COMPACT.fullmatch(token):
        return None
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    if header.keys() != _HEADER_MEMBERS or header["alg"] != ALGORITHM or header["typ"] != TOKEN_TYPE:
        return None
    kid = header["kid"]
    return kid if isinstance(kid, str) and _KID.fullmatch(kid) else None


def _require_holder(claims: AccessClaims, audience: object) -> None:
    """A token speaks for a person in a practice or, with an audience of its own, for the admin: for nobody else."""
    if audience == ADMIN_AUDIENCE:
        if claims.role != ADMIN or claims.person_id != ADMIN or not _UUID.fullmatch(claims.session_id):
            raise invalid_token("The access token is not valid")
        return
    if audience != AUDIENCE:
        raise invalid_token("The access token is not valid")
    if not all(_UUID.fullmatch(one) for one in (claims.person_id, claims.practice_id, claims.session_id)):
        raise invalid_token("The access token is not valid")
    if claims.role in {ADMIN, ANONYMOUS} or claims.role.startswith(SERVICE_PREFIX):
        raise invalid_token("The access token is not valid")
