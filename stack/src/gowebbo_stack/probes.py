"""Asking a process over HTTP whether it is ready. No library: one request, one status line."""

import asyncio

_TIMEOUT_S = 2.0


async def http_get(url: str, path: str) -> tuple[int, str]:
    """Return status and body of an answer from `http://host:port` or `unix:/path`; (0, reason) if there is none."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await _get(url, path)
    except TimeoutError:
        return 0, "no answer"
    except (OSError, ValueError, IndexError) as error:
        return 0, str(error)


async def _get(url: str, path: str) -> tuple[int, str]:
    if url.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix:"))
    else:
        host, _, port = url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read(65536)).decode(errors="replace")
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split(" ", 2)[1]), body
