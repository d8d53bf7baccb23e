"""A server that takes whoever comes and never answers: what speaks to it is held where it is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Silent:
    """`came` is set by the first to connect; `talkers` are those whose connection is open."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.talkers: set[asyncio.StreamWriter] = set()
        self.address = ""

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep one until it goes by itself."""
        self.talkers.add(writer)
        self.came.set()
        try:
            while await reader.read(1 << 16):
                continue
        except ConnectionError:
            # Gone is gone, politely or not.
            return
        finally:
            self.talkers.discard(writer)
            writer.close()


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
        for writer in tuple(held.talkers):
            writer.close()
