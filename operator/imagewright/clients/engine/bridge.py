"""A unix socket that is the engine's BuildKit: gRPC dials sockets, and cannot upgrade one."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from imagewright.clients.engine.address import Address, Tls
from imagewright.clients.engine.errors import EngineError
from imagewright.clients.engine.upgrade import BUFFER, Upgraded, upgrade

PIECE = 256 << 10
OURS = 0o600


@asynccontextmanager
async def bridge(address: Address, tls: Tls | None = None) -> AsyncGenerator[str]:
    """The address of a socket whose connections reach the engine's BuildKit.

    Each one is carried by a connection of its own, and is closed where the engine refuses it. When
    the context is left, all are closed. Only this user can reach the socket.
    """
    folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="imagewright-")
    try:
        path = Path(folder.name) / "buildkit.sock"
        async with _Bridge(address, tls).listening(path):
            yield f"unix://{path}"
    finally:
        await asyncio.to_thread(folder.cleanup)


class _Bridge:
    def __init__(self, address: Address, tls: Tls | None) -> None:
        self._address = address
        self._tls = tls
        self._carrying: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncGenerator[None]:
        """Carry what comes to that socket, until the context is left."""
        server = await asyncio.start_unix_server(self._take, path, limit=BUFFER)
        # The folder is ours alone already; so the socket is never open to others.
        await asyncio.to_thread(path.chmod, OURS)
        try:
            yield
        finally:
            server.close()
            for task in self._carrying:
                task.cancel()
            await asyncio.gather(*self._carrying, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Tasks of our own: those that asyncio starts for a server cannot be waited for.
        task = asyncio.create_task(self._carry(Upgraded(reader, writer)))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry(self, near: Upgraded) -> None:
        try:
            far = await upgrade(self._address, self._tls)
        except EngineError:
            # gRPC tells its caller that the connection closed, and tries again after a pause.
            await near.close()
            return
        except asyncio.CancelledError:
            await near.close()
            raise
        try:
            await _both(near, far)
        finally:
            await asyncio.gather(near.close(), far.close())


async def _both(near: Upgraded, far: Upgraded) -> None:
    """Move bytes both ways until one side is done: HTTP/2 has no use for half a connection."""
    ways = [
        asyncio.create_task(_move(near.reader, far.writer)),
        asyncio.create_task(_move(far.reader, near.writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Move bytes until the end, no faster than they are taken."""
    try:
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    except OSError:
        # The other side is gone; so is this one, then.
        return
