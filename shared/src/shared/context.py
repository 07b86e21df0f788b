"""The signed context: who calls, for which practice, on which shard. The gateway signs it, every service verifies it.

The seven signed headers and a time are covered by one HMAC-SHA256 in `X-Gateway-Signature: <unix time>.<hex>`.
"""

import hmac
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass
from hashlib import sha256
from operator import itemgetter
from typing import NamedTuple

SIGNED_HEADERS = (
    b"x-practice-id",
    b"x-shard",
    b"x-user-id",
    b"x-session-id",
    b"x-role",
    b"x-scope",
    b"x-client-address",
)
SIGNATURE_HEADER = b"x-gateway-signature"
REQUEST_ID_HEADER = b"x-request-id"

MAX_AGE_S = 60
MAX_AHEAD_S = 5
REUSE_S = 15
"""A signature is used again for the same caller this long: well inside its age limit, and free on the hot path."""
CACHE_ENTRIES = 20_000

ANONYMOUS = "anonymous"
SERVICE_PREFIX = "service:"

Header = tuple[bytes, bytes]


class SignatureError(Exception):
    """The context is unsigned, forged, incomplete, repeated or out of its time."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Empty strings where a part doesn't apply (an anonymous caller has no practice)."""

    practice_id: str = ""
    shard: str = ""
    user_id: str = ""
    session_id: str = ""
    role: str = ANONYMOUS
    scope: str = ""
    client_address: str = ""

    @property
    def is_service(self) -> bool:
        """Whether another service calls, on its own behalf."""
        return self.role.startswith(SERVICE_PREFIX)


def _mac(key: bytes, at: bytes, values: Iterable[bytes]) -> bytes:
    return hmac.new(key, b"\n".join((b"v1", at, *values)), sha256).hexdigest().encode()


class ContextSigner:
    """Makes the signed headers of a caller; the same caller gets the same headers for some seconds."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._key = keys[0]
        self._cache: dict[Caller, _SignedHeaders] = {}

    def headers(self, caller: Caller) -> tuple[Header, ...]:
        """The signed headers and their signature. Raises SignatureError for a value with a line break."""
        return self._sign(caller).headers

    def lines(self, caller: Caller) -> bytes:
        """The same as lines of an HTTP head."""
        return self._sign(caller).lines

    def _sign(self, caller: Caller) -> "_SignedHeaders":
        now = time.time()
        cached = self._cache.get(caller)
        if cached and 0 <= now - cached.at < REUSE_S:
            return cached
        values = tuple(value.encode("latin-1") for value in astuple(caller))
        if any(byte in value for value in values for byte in (b"\n", b"\r", b"\0")):
            raise SignatureError("a line break or NUL in the context")
        at = str(int(now)).encode()
        signature = at + b"." + _mac(self._key, at, values)
        headers = (*zip(SIGNED_HEADERS, values, strict=True), (SIGNATURE_HEADER, signature))
        if len(self._cache) >= CACHE_ENTRIES:
            self._cache.clear()
        signed = self._cache[caller] = _SignedHeaders(
            now, headers, b"".join(b"%b: %b\r\n" % header for header in headers)
        )
        return signed


class Signed(NamedTuple):
    """A caller, as it was signed at a unix time."""

    at: int
    caller: Caller


class _SignedHeaders(NamedTuple):
    """A caller's headers, in both of their shapes."""

    at: float
    headers: tuple[Header, ...]
    lines: bytes


class ContextVerifier:
    """Turns signed headers into a Caller. Known bytes are recognised; their age is checked each time."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)
        self._cache: dict[tuple[bytes, ...], Signed] = {}

    def verify(self, headers: Collection[Header]) -> Caller:
        """The caller of a request with these (lower-case) headers. Raises SignatureError."""
        return self.admit(self.read(headers))

    def read(self, headers: Collection[Header]) -> "Signed":
        """What these headers say, whenever they were signed. Raises SignatureError."""
        sent = dict(headers)
        if len(sent) != len(headers):
            _refuse_repeated(headers)
        try:
            values = _context_of(sent)
        except KeyError:
            raise SignatureError("the context is incomplete") from None
        return self._cache.get(values) or self._check(values)

    def admit(self, signed: "Signed") -> Caller:
        """Whose context it is, if it is of now. Raises SignatureError."""
        if not -MAX_AHEAD_S <= time.time() - signed.at <= MAX_AGE_S:
            raise SignatureError("the context is out of its time")
        return signed.caller

    def _check(self, values: tuple[bytes, ...]) -> "Signed":
        at, _, mac = values[-1].partition(b".")
        if not (at.isdigit() and len(at) < 12):  # noqa: PLR2004 - a unix time has ten digits until 2286
            raise SignatureError("the signature is malformed")
        # every key is tried, so that the answer's time doesn't tell which one matched
        if not any([hmac.compare_digest(_mac(key, at, values[:-1]), mac) for key in self._keys]):  # noqa: C419
            raise SignatureError("the signature is wrong")
        caller = Caller(*(value.decode("latin-1") for value in values[:-1]))
        if len(self._cache) >= CACHE_ENTRIES:
            self._cache.clear()
        signed = self._cache[values] = Signed(int(at), caller)
        return signed


def _refuse_repeated(headers: Iterable[Header]) -> None:
    names = [name for name, _ in headers if name in _CONTEXT_HEADERS]
    if len(names) != len(set(names)):
        raise SignatureError("a context header is repeated")


_CONTEXT_HEADERS = frozenset((*SIGNED_HEADERS, SIGNATURE_HEADER))
_context_of = itemgetter(*SIGNED_HEADERS, SIGNATURE_HEADER)
"""The values in their order; a KeyError if one is missing. Three times as fast as a loop over the headers."""
