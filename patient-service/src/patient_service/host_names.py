"""Which addresses a host name has. The system's look-up runs in a few threads that all names share (libuv: two)."""

import asyncio
import socket

PATIENCE_S = 1.0
"""For a name that was known before: after this its last addresses have to do."""

Name = tuple[str, int]
"""Host and port."""
Addresses = list[str]


class HostNames:
    """Looks names up, one look-up at a time for each: those of a dead zone must not take all the threads."""

    def __init__(self) -> None:
        self._known: dict[Name, Addresses] = {}
        self._asked: dict[Name, asyncio.Task[Addresses]] = {}

    async def addresses(self, host: str, port: int) -> Addresses:
        """The name's addresses, as they are now or were at last. Raises OSError for one that was never known."""
        name = host, port
        question = self._asked.get(name)
        if question is None:
            question = self._asked[name] = asyncio.create_task(_look_up(name))
            question.add_done_callback(lambda done: self._learn(name, done))
        known = self._known.get(name)
        await asyncio.wait((question,), timeout=PATIENCE_S if known else None)
        if known and not (question.done() and not question.exception()):
            return known
        return question.result()

    def _learn(self, name: Name, question: "asyncio.Task[Addresses]") -> None:
        del self._asked[name]
        if not question.cancelled() and not question.exception():
            self._known[name] = question.result()


async def _look_up(name: Name) -> Addresses:
    found = await asyncio.get_running_loop().getaddrinfo(*name, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
