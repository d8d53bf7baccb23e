"""A proxy before a BuildKit daemon that counts the operator's calls, and strikes at one of them.

It passes bytes on, frame by frame (RFC 9113, section 4.1): a call begins with the first HEADERS
frame of a stream, whose path names it.
"""

import asyncio
import contextlib
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hpack import Decoder, Encoder

from tests.faults.strike import Strike

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET = 0, 1, 3
ANSWERS = {DATA, HEADERS, RESET}
END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x01, 0x04, 0x08, 0x20
HEAD = 9
"""Bytes before a frame's payload."""
PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame, as it came."""

    kind: int
    flags: int
    stream: int
    content: bytes

    @property
    def ends(self) -> bool:
        """Whether nothing of its stream comes after it."""
        last = self.kind in {DATA, HEADERS} and self.flags & END_STREAM
        return bool(last) or self.kind == RESET

    @property
    def block(self) -> bytes:
        """The packed headers of a HEADERS frame."""
        payload = self.content[HEAD:]
        if self.flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        return payload[5:] if self.flags & PRIORITY else payload

    def with_block(self, block: bytes) -> bytes:
        """The bytes of the same HEADERS frame with other headers."""
        flags = self.flags & END_STREAM | END_HEADERS
        head = struct.pack(">BBI", self.kind, flags, self.stream)
        return len(block).to_bytes(3, "big") + head + block


@dataclass(slots=True)
class Call:
    """A call of the operator's, and when it began and ended, in seconds of the monotonic clock."""

    name: str
    begun: float
    over: float = float("inf")


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, some: bytes) -> Iterator[Frame]:
        """The frames that are complete now."""
        self._rest += some
        while len(self._rest) >= HEAD:
            size = HEAD + int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < size:
                return
            kind, flags, stream = struct.unpack_from(">BBI", self._rest, 3)
            yield Frame(kind, flags, stream & 0x7FFFFFFF, bytes(self._rest[:size]))
            del self._rest[:size]


class DaemonProxy:
    """A unix socket that leads to a daemon's; a context manager."""

    def __init__(self, daemon: str, socket: Path) -> None:
        self._daemon = daemon.removeprefix("unix://")
        self._socket = socket
        self._connections: set[Connection] = set()
        self.address = f"unix://{socket}"
        self.calls: list[Call] = []
        """Those that the operator has begun, in their order."""
        self.strike: Strike | None = None
        """At a call."""
        self.sight: tuple[bytes, Strike] | None = None
        """At the first frame of the daemon's that holds these bytes."""
        self.struck = asyncio.Event()
        self.endless = ""
        """The name of calls whose answers never end; to be set before anybody connects."""
        self.withheld = 0
        """How many ends of such answers were kept back."""

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

    def strikes(self, call: Call) -> Strike | None:
        """The strike, where it is at this call, which is counted here."""
        self.calls.append(call)
        strike = self.strike
        if strike is None or strike.name not in {"", call.name}:
            return None
        number = sum(strike.name in {"", one.name} for one in self.calls)
        return strike if number == strike.number else None

    def hit(self, strike: Strike) -> None:
        """Strike, once."""
        self.strike = self.sight = None
        strike.act()
        self.struck.set()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await asyncio.open_unix_connection(self._daemon)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(self, (reader, writer), far)
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
        self._headers: Any = Decoder()
        self._answers: Any = Decoder()
        self._anew: Any = Encoder()
        self._open: dict[int, Call] = {}
        self._awaited: dict[int, Strike] = {}
        """The stream whose answer a strike waits for."""

    def abort(self) -> None:
        """Break it on both sides; that is the answer to whatever waits for one."""
        for stream in tuple(self._open):
            self._hits(self._awaited.get(stream))
        for _, writer in (self._near, self._far):
            writer.transport.abort()
        for stream in tuple(self._open):
            self._ended(stream)

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
                if self._strikes_on_the_way(frame) or writer.is_closing():
                    return
                writer.write(frame.content)
            await writer.drain()

    async def _back(self) -> None:
        (_, writer), (reader, _) = self._near, self._far
        frames = Frames()
        while some := await reader.read(PIECE):
            for frame in frames.feed(some):
                passed = self._without_ends(frame) if self._proxy.endless else frame.content
                if self._strikes_on_the_way_back(frame) or writer.is_closing():
                    return
                writer.write(passed)
            await writer.drain()

    def _without_ends(self, frame: Frame) -> bytes:
        """What the operator gets of the frame: nothing, where it would end an endless answer.

        Headers are packed with what those before them have told, so all are packed anew here.
        """
        call = self._open.get(frame.stream)
        kept = call is not None and call.name == self._proxy.endless and frame.ends
        self._proxy.withheld += kept
        headers = self._answers.decode(frame.block) if frame.kind == HEADERS else ()
        if kept:
            return b""
        return frame.with_block(self._anew.encode(headers)) if headers else frame.content

    def _strikes_on_the_way(self, frame: Frame) -> bool:
        """Whether the operator was struck at this frame, which then goes nowhere."""
        if frame.kind == RESET:
            self._ended(frame.stream)
            # It has given the call up, and will never see an answer.
            return self._hits(self._awaited.get(frame.stream))
        if frame.kind != HEADERS or frame.stream <= self._newest:
            return False
        self._newest = frame.stream
        call = Call(self._name(frame), time.monotonic())
        strike = self._proxy.strikes(call)
        if strike is not None and strike.before:
            call.over = call.begun
            return self._hits(strike)
        self._open[frame.stream] = call
        if strike is not None:
            self._awaited[frame.stream] = strike
        return False

    def _strikes_on_the_way_back(self, frame: Frame) -> bool:
        if frame.ends:
            self._ended(frame.stream)
        sight = self._proxy.sight
        if sight is not None and sight[0] in frame.content:
            return self._hits(sight[1])
        return frame.kind in ANSWERS and self._hits(self._awaited.get(frame.stream))

    def _hits(self, strike: Strike | None) -> bool:
        if strike is not None:
            self._awaited.clear()
            self._proxy.hit(strike)
        return strike is not None

    def _ended(self, stream: int) -> None:
        call = self._open.pop(stream, None)
        if call is not None:
            call.over = time.monotonic()

    def _name(self, frame: Frame) -> str:
        """The last part of the path: Solve, Status, Session and so on."""
        headers = dict(self._headers.decode(frame.block))
        return str(headers[":path"]).rpartition("/")[2]
