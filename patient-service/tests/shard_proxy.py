"""What lies between the service and a shard server in the tests: a network that cuts, holds back or swallows bytes."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from gowebbo_stack.testing import PostgresServer


class ShardProxy:
    """A port that leads to a PostgreSQL server, and may be disturbed while it does."""

    def __init__(self, server: PostgresServer) -> None:
        self.port = 0
        self.largest_piece = 65536
        """Answers arrive in pieces of random sizes up to this."""
        self.answer_bytes: int | None = None
        """So many bytes of answers still arrive, then nothing until it is raised; None: all of them."""
        self.swallows_requests = False
        self.connections = 0
        """So many were made."""
        self._server = server
        self._dice = random.Random(11)
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["ShardProxy"]:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.create_task(self._carry(reader, writer)))

        listener = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def let_through(self, answer_bytes: int | None = None) -> None:
        """So many more bytes of answers, all by default."""
        self.answer_bytes = answer_bytes
        self._changed.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        from_server, to_server = await asyncio.open_connection(self._server.host, self._server.port)
        with contextlib.closing(writer), contextlib.closing(to_server):
            directions = [
                asyncio.create_task(self._requests(reader, to_server)),
                asyncio.create_task(self._answers(from_server, writer)),
            ]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.swallows_requests:
                to_server.write(data)
                await to_server.drain()

    async def _answers(self, from_server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await from_server.read(65536):
            while data:
                size = await self._allowed(self._dice.randint(1, self.largest_piece))
                piece, data = data[:size], data[size:]
                if self.answer_bytes is not None:
                    self.answer_bytes -= len(piece)
                writer.write(piece)
                await writer.drain()
                if self.largest_piece < 65536:
                    await asyncio.sleep(0)  # so that the pieces arrive one by one

    async def _allowed(self, size: int) -> int:
        while self.answer_bytes is not None and self.answer_bytes <= 0:
            self._changed.clear()
            await self._changed.wait()
        return size if self.answer_bytes is None else min(size, self.answer_bytes)
