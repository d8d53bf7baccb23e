"""A wire before a daemon that can be cut without a word: bytes stop, connections stay."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

CHUNK = 1 << 16


class Wire:
    """Passes bytes between a port of loopback and a unix socket, until it is cut.

    A cut wire is what a firewall that drops packets looks like: nobody is told anything, and who
    connects anew is met with silence.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """From now on nothing passes, either way."""
        self._whole.clear()

    def mend(self) -> None:
        """What was held back passes, and all that follows."""
        self._whole.set()

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        own = asyncio.current_task()
        assert own is not None
        self._tasks.add(own)
        own.add_done_callback(self._tasks.discard)
        with contextlib.suppress(asyncio.CancelledError):
            await self._joined(near, back)

    async def _joined(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        far, forth = await asyncio.open_unix_connection(self._path)
        try:
            await asyncio.gather(self._pass(near, forth), self._pass(far, back))
        finally:
            for writer in (back, forth):
                writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(CHUNK):
                await self._whole.wait()
                sink.write(data)
                await sink.drain()
            await self._whole.wait()
            sink.write_eof()
