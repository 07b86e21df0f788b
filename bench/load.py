"""A closed-loop HTTP load: so many clients, each sending its next request when the answer to the last one is in.

A closed loop hides stalls: while the server pauses, no client asks. Read its latencies with that in mind.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Request = Callable[[int], bytes]
"""The raw request a client sends as its n-th."""


@dataclass
class Load:
    """What a run measured. Latencies in seconds."""

    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers of any status, each second."""
        return sum(self.statuses.values()) / self.seconds

    @property
    def failed(self) -> int:
        """Answers that were no 2xx."""
        return sum(count for status, count in self.statuses.items() if not 200 <= status < 300)  # noqa: PLR2004

    def percentile_ms(self, percent: int) -> float:
        """The latency that so many percent of the answers stayed under."""
        return statistics.quantiles(self.latencies_s, n=100)[percent - 1] * 1000


def get(path: str, token: str) -> bytes:
    """A GET as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: gowebbo\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def post(path: str, body: bytes, token: str | None = None) -> bytes:
    """A POST of JSON as bytes."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: gowebbo\r\n{authorization}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def run(port: int, request: Request, *, clients: int, seconds: float) -> Load:
    """Loads 127.0.0.1:port with this many clients for this long."""
    load = Load()
    ends = time.perf_counter() + seconds
    started = time.perf_counter()
    await asyncio.gather(*(_client(port, request, index=i, step=clients, ends=ends, load=load) for i in range(clients)))
    load.seconds = time.perf_counter() - started
    return load


async def _client(port: int, request: Request, *, index: int, step: int, ends: float, load: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    n = index
    while (sent := time.perf_counter()) < ends:
        writer.write(request(n))
        status = await _answer(reader)
        load.latencies_s.append(time.perf_counter() - sent)
        load.statuses[status] = load.statuses.get(status, 0) + 1
        n += step
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> int:
    """Reads one answer whole; returns its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        while (size := int(await reader.readline(), 16)) > 0:
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    else:
        start = lowered.index(b"content-length:") + 15
        await reader.readexactly(int(lowered[start : lowered.index(b"\r", start)]))
    return int(head[9:12])
