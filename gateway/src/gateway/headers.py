"""Which headers pass: strip first, add afterwards. Nothing a client sends can look like the gateway's own context."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shared.context import Header
from shared.ids import request_id_of

_INTERNAL_FAMILY = (
    b"x-practice",
    b"x-shard",
    b"x-user",
    b"x-role",
    b"x-scope",
    b"x-session",
    b"x-client",
    b"x-gateway",
    b"x-forwarded",
    b"x-request-id",
    b"forwarded",
)
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_OURS = frozenset({b"authorization", b"content-length", b"expect", b"host"})
"""Read or replaced by the gateway itself. Services never see a token: they get the signed context."""
_READ = frozenset({b"authorization", b"connection", b"content-length", b"expect", b"transfer-encoding"}) | {
    b"x-request-id",
    b"x-forwarded-for",
}
_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close"})
_NOT_ANSWERED = _HOP_BY_HOP | {b"date", b"server", b"x-request-id", b"x-content-type-options"}

NO_STORE = (b"cache-control", b"no-store")
CLOSE = (b"connection", b"close")
NO_SNIFF = (b"x-content-type-options", b"nosniff")

_MAX_KNOWN_NAMES = 1024
_passes: dict[bytes, bool] = {}
"""What was decided about a header's name; bounded, since names come from outside."""
_shown: dict[bytes, bytes] = {}
"""The same about the names of answers."""


@dataclass(slots=True)
class Head:
    """A request's headers, sorted: what passes, and what the gateway reads itself."""

    passing: list[Header]
    request_id: bytes = b""
    authorizations: list[bytes] = field(default_factory=list)
    forwarded_for: list[bytes] = field(default_factory=list)
    content_length: int = 0
    chunked: bool = False
    waits: bool = False
    """Whether the client waits to be told to go on before it sends its body (RFC 9110, 10.1.1)."""

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.chunked or self.content_length > 0


def passes(name: bytes) -> bool:
    """Whether a client's header with this lower-case name may reach a service. `_` counts as `-`."""
    known = _passes.get(name)
    if known is None:
        spelling = name.replace(b"_", b"-")
        known = not (spelling.startswith(_INTERNAL_FAMILY) or spelling in _HOP_BY_HOP or spelling in _OURS)
        if len(_passes) < _MAX_KNOWN_NAMES:
            _passes[name] = known
    return known


def read_head(headers: Sequence[Header]) -> Head:
    """Sorts a request's headers (names in lower case, as ASGI has them)."""
    head = Head([header for header in headers if passes(header[0])])
    sent_id = None
    for name, value in headers:
        if name not in _READ:
            continue
        if name == b"authorization":
            head.authorizations.append(value)
        elif name == b"connection":
            _drop_named(head, value)
        elif name == b"content-length":
            head.content_length = int(value)  # digits only, and only once: the HTTP parser refuses anything else
        elif name == b"transfer-encoding":
            head.chunked = True
        elif name == b"expect":
            head.waits = value.lower() == b"100-continue"
        elif name == b"x-forwarded-for":
            head.forwarded_for.append(value)
        else:
            sent_id = value
    head.request_id = request_id_of(sent_id)
    return head


def _drop_named(head: Head, connection: bytes) -> None:
    """`Connection: X` makes X a matter of this connection only (RFC 9110, 7.6.1)."""
    value = connection.lower()
    if value not in _PLAIN_CONNECTION:
        named = {part.strip() for part in value.split(b",")}
        head.passing = [header for header in head.passing if header[0] not in named]


def answer_headers(headers: Iterable[Header], request_id: bytes) -> list[Header]:
    """A service's headers as the client gets them, and the request's id."""
    return [*shown_headers(headers), (b"x-request-id", request_id)]


def shown_headers(headers: Iterable[Header]) -> list[Header]:
    """A service's headers as the client gets them. The service's own Cache-Control stands, if it set one."""
    answered, policy = [], NO_STORE
    for name, value in headers:
        shown = _shown.get(name)
        if shown is None:
            shown = _show(name)
        if shown == b"cache-control":
            policy = (shown, value)
        elif shown:
            answered.append((shown, value))
    answered += (policy, NO_SNIFF)
    return answered


def _show(name: bytes) -> bytes:
    """The name in lower case as ASGI wants it, empty for a header that isn't passed on."""
    shown = name.lower()
    if shown in _NOT_ANSWERED:
        shown = b""
    if len(_shown) < _MAX_KNOWN_NAMES:
        _shown[name] = shown
    return shown
