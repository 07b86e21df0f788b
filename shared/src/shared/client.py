"""Calls between services: httpx, signed as `service:<name>`, over TCP or a unix socket."""

import ssl
from collections.abc import Generator, Sequence

import httpx
import structlog

from shared.context import SERVICE_PREFIX, Caller, ContextSigner
from shared.service_urls import CONNECT_TIMEOUT_S, split_url

CALL_TIMEOUT_S = 10.0
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: services speak plain HTTP among themselves. httpx would load the web's authorities, 1 MB and 35 ms."""


class _SignedAs(httpx.Auth):
    def __init__(self, name: str, keys: Sequence[bytes]) -> None:
        self._caller = Caller(role=f"{SERVICE_PREFIX}{name}")
        self._signer = ContextSigner(keys)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        for name, value in self._signer.headers(self._caller):
            request.headers[name.decode()] = value.decode("latin-1")
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        if request_id:
            request.headers["X-Request-Id"] = request_id
        yield request


def service_client(url: str, *, name: str, keys: Sequence[bytes], timeout_s: float = CALL_TIMEOUT_S) -> httpx.Client:
    """A blocking client that signs as `service:<name>`; thread-safe, pooled. The caller closes it."""
    base_url, socket_path = split_url(url)
    return httpx.Client(
        base_url=base_url,
        transport=httpx.HTTPTransport(verify=_NO_TLS, uds=socket_path, limits=httpx.Limits(max_connections=100)),
        auth=_SignedAs(name, keys),
        timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
    )


def async_service_client(
    url: str, *, name: str, keys: Sequence[bytes], timeout_s: float = CALL_TIMEOUT_S
) -> httpx.AsyncClient:
    """The same for coroutines."""
    base_url, socket_path = split_url(url)
    return httpx.AsyncClient(
        base_url=base_url,
        transport=httpx.AsyncHTTPTransport(verify=_NO_TLS, uds=socket_path, limits=httpx.Limits(max_connections=100)),
        auth=_SignedAs(name, keys),
        timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
    )
