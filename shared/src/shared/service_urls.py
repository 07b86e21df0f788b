"""How a service's address is written, for every client: the gateway's own one must not load the others' library."""

CONNECT_TIMEOUT_S = 1.0


def split_url(url: str) -> tuple[str, str | None]:
    """`(base URL, socket path or None)` of `http://host:port` or `unix:/path`."""
    if url.startswith("unix:"):
        return "http://service", url.removeprefix("unix:")
    return url.rstrip("/"), None
