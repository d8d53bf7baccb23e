"""A proxy before a BuildKit daemon that counts the operator's calls, and strikes at one of them.

It passes bytes on, frame by frame (RFC 9113, section 4.1): a call begins with the first HEADERS
frame of a stream, and what it asks for need not be known.
"""

import asyncio
import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.strike import Strike

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET = 0, 1, 3
ANSWERS = {DATA, HEADERS, RESET}
PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame, as it came."""

    kind: int
    stream: int
    content: bytes


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, some: bytes) -> Iterator[Frame]:
        """The frames that are complete now."""
        self._rest += some
        while len(self._rest) >= 9:
            length = int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < 9 + length:
                return
            kind, _, stream = struct.unpack_from(">BBI", self._rest, 3)
            yield Frame(kind, stream & 0x7FFFFFFF, bytes(self._rest[: 9 + length]))
            del self._rest[: 9 + length]


class DaemonProxy:
    """A unix socket that leads to a daemon's; a context manager."""

    def __init__(self, daemon: str, socket: Path) -> None:
        self._daemon = daemon.removeprefix("unix://")
        self._socket = socket
        self._connections: set[Connection] = set()
        self.address = f"unix://{socket}"
        self.calls = 0
        """So many calls the operator has begun."""
        self.strike: Strike | None = None
        """At a call."""
        self.struck = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._join, self._socket)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self._server.close()
        self.sever()
        await self._server.wait_closed()

    def sever(self) -> None:
        """Break every connection."""
        for connection in tuple(self._connections):
            connection.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._daemon)
        connection = Connection(self, (reader, writer), (far_reader, far_writer))
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            connection.abort()


Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connection:
    """One connection of the operator's: two ways for frames."""

    def __init__(self, proxy: DaemonProxy, near: Wire, far: Wire) -> None:
        self._proxy, self._near, self._far = proxy, near, far
        self._newest = 0
        self._awaited = 0
        """The stream whose answer the strike waits for."""

    def abort(self) -> None:
        """Break it on both sides."""
        for _, writer in (self._near, self._far):
            writer.transport.abort()

    async def run(self) -> None:
        """Pass frames on until either side hangs up."""
        ways = [asyncio.ensure_future(self._there()), asyncio.ensure_future(self._back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for way in ways:
                with contextlib.suppress(asyncio.CancelledError, OSError, EOFError):
                    await way

    async def _there(self) -> None:
        (reader, _), (_, writer) = self._near, self._far
        writer.write(await reader.readexactly(len(PREFACE)))
        frames = Frames()
        while some := await reader.read(PIECE):
            for frame in frames.feed(some):
                if self._strikes_on_the_way(frame):
                    return
                if writer.is_closing():
                    return
                writer.write(frame.content)
            await writer.drain()

    async def _back(self) -> None:
        (_, writer), (reader, _) = self._near, self._far
        frames = Frames()
        while some := await reader.read(PIECE):
            for frame in frames.feed(some):
                if frame.stream == self._awaited != 0 and frame.kind in ANSWERS:
                    self._hit()
                    return
                if writer.is_closing():
                    return
                writer.write(frame.content)
            await writer.drain()

    def _strikes_on_the_way(self, frame: Frame) -> bool:
        """Whether the operator was struck at this frame, which then goes nowhere."""
        if frame.kind == RESET and frame.stream == self._awaited:
            # It has given the call up, and will never see an answer.
            self._hit()
            return True
        if frame.kind != HEADERS or frame.stream <= self._newest:
            return False
        self._newest = frame.stream
        self._proxy.calls += 1
        strike = self._proxy.strike
        if strike is None or strike.number != self._proxy.calls:
            return False
        if strike.before:
            self._hit()
            return True
        self._awaited = frame.stream
        return False

    def _hit(self) -> None:
        self._awaited = 0
        strike = self._proxy.strike
        assert strike is not None
        strike.act()
        self._proxy.struck.set()
