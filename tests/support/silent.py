"""A server that takes whoever comes and never answers: what speaks to it is held where it is."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LEFT_SECONDS = 30


class Silent:
    """`came` is set by the first to say something; `talkers` did so and are connected still.

    Who only connects does not count: a client that is told to stop while it connects may keep the
    connection for later.
    """

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.talkers: set[asyncio.StreamWriter] = set()
        self.connected: set[asyncio.StreamWriter] = set()
        self._news = asyncio.Condition()
        self.address = ""

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep one until it goes by itself."""
        self.connected.add(writer)
        try:
            while await reader.read(1 << 16):
                self.talkers.add(writer)
                self.came.set()
        except ConnectionError:
            # Gone is gone, politely or not.
            return
        finally:
            self.connected.discard(writer)
            self.talkers.discard(writer)
            writer.close()
            async with self._news:
                self._news.notify_all()

    async def left(self) -> float:
        """The moment (monotonic) at which no talker was left. Raises TimeoutError."""
        async with asyncio.timeout(LEFT_SECONDS), self._news:
            await self._news.wait_for(lambda: not self.talkers)
            return time.monotonic()


@asynccontextmanager
async def silent() -> AsyncIterator[Silent]:
    """One on a port of its own, at `address`; whoever is left at the end is let go."""
    held = Silent()
    server = await asyncio.start_server(held.hold, "127.0.0.1", 0)
    held.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield held
    finally:
        server.close()
        for writer in tuple(held.connected):
            writer.close()
