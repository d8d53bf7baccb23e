"""One call inside an HTTP/2 connection: its messages, its windows, its end."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence

from imagewright.clients.buildkit.calls import CallFailed, Code, percent_encoded
from imagewright.clients.buildkit.frames import (
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    LARGEST_WINDOW,
    SMALLEST_FRAME,
    ErrorCode,
    Kind,
    ProtocolError,
    frame,
    head,
    literal,
    reset,
    window_update,
)

WINDOW = 1 << 20
"""Bytes of one stream that may wait to be read; twice the longest message and more."""
MAX_MESSAGE = 512 << 10
"""Bytes. All that a daemon says to a client are requests, and they are short."""
BACKLOG = 4 << 20
"""Bytes that wait to be taken before writers have to wait."""
PIECE = 1 << 20
"""Bytes that are taken at once."""
PREFIX = 5
"""Bytes before each message: whether it is compressed, and its length (gRPC over HTTP/2)."""

OPENING = b"\x88" + literal("content-type", "application/grpc")
"""Headers of every answer; the first byte is `:status: 200` in HPACK's static table."""


class Outgoing:
    """Bytes for the peer, in order, and how much DATA it is ready for."""

    def __init__(self) -> None:
        self.window = FIRST_WINDOW
        self.max_frame = SMALLEST_FRAME
        self.backlog = 0
        self._parts: deque[bytes | memoryview] = deque()
        self._ready, self._moved = asyncio.Event(), asyncio.Event()

    def send(self, *parts: bytes | memoryview) -> None:
        """Put bytes behind all that wait to be taken."""
        self._parts.extend(parts)
        self.backlog += sum(map(len, parts))
        self._ready.set()

    async def take(self) -> bytes:
        """The next bytes, about a MiB at most; waits until there are some."""
        while not self._parts:
            self._ready.clear()
            await self._ready.wait()
        parts, size = [], 0
        while self._parts and size < PIECE:
            parts.append(self._parts.popleft())
            size += len(parts[-1])
        self.backlog -= size
        self.moved()
        return b"".join(parts)

    def room(self) -> int:
        """Bytes that one more frame of DATA may hold now, as far as its stream lets it."""
        return min(self.window, self.max_frame) if self.backlog < BACKLOG else 0

    def moved(self) -> None:
        """Wake up all that wait for a window or for room."""
        self._moved.set()

    async def wait(self) -> None:
        """Until something has moved."""
        self._moved.clear()
        await self._moved.wait()


class Call:
    """One call: what has come of it, and what may be sent of the answer."""

    def __init__(
        self,
        outgoing: Outgoing,
        number: int,
        metadata: Mapping[str, Sequence[str]],
        window: int,
    ) -> None:
        self.number = number
        self.metadata = metadata
        self.window = window
        self.task: asyncio.Task[None] | None = None
        self._outgoing = outgoing
        self._inbox: deque[bytes] = deque()
        self._partial = bytearray()
        self._ended = self._answered = False
        self._failure: CallFailed | None = None
        self._arrived, self._writing = asyncio.Event(), asyncio.Lock()
        self._credit, self._owed = WINDOW, 0

    async def read(self) -> bytes | None:
        """The next message, or None after the last."""
        while not self._inbox:
            if self._failure:
                raise self._failure
            if self._ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        message = self._inbox.popleft()
        self._give_back(PREFIX + len(message))
        return message

    async def write(self, *messages: bytes) -> None:
        """Send messages; they leave as fast as the peer's windows allow."""
        parts = [part for message in messages for part in (_prefix(message), message)]
        async with self._writing:
            if not self._answered:
                self._answered = True
                self._outgoing.send(frame(Kind.HEADERS, END_HEADERS, self.number, OPENING))
            rest = memoryview(b"".join(parts))
            while rest:
                rest = rest[await self._send(rest) :]

    async def _send(self, rest: memoryview) -> int:
        """Send one frame of DATA as soon as there is room for one; how many bytes it holds."""
        while (size := min(len(rest), self.window, self._outgoing.room())) <= 0:
            await self._outgoing.wait()
        self.window -= size
        self._outgoing.window -= size
        self._outgoing.send(head(size, Kind.DATA, 0, self.number), rest[:size])
        return size

    def receive(self, data: bytes, padding: int) -> None:
        """Take the content of a frame of DATA. Padding counts as if it had been read."""
        if self._ended:
            raise ProtocolError("Data came after the end of a stream.", ErrorCode.STREAM_CLOSED)
        self._credit -= len(data) + padding
        if self._credit < 0:
            raise ProtocolError("A stream's window is full.", ErrorCode.FLOW_CONTROL_ERROR)
        self._give_back(padding)
        if not self._failure:
            self._partial += data
            self._cut()
        self._arrived.set()

    def end(self) -> None:
        """The peer will send no more."""
        self._ended = True
        if self._partial and not self._failure:
            self._failure = CallFailed(Code.INTERNAL, "The call ended within a message.")
        self._arrived.set()

    def close(self, status: CallFailed) -> None:
        """Send the status, which is the last thing."""
        trailer = literal("grpc-status", str(int(status.code)))
        if status.message:
            trailer += literal("grpc-message", percent_encoded(status.message))
        block = trailer if self._answered else OPENING + trailer
        self._outgoing.send(frame(Kind.HEADERS, END_HEADERS | END_STREAM, self.number, block))
        if not self._ended:
            self._outgoing.send(reset(self.number, ErrorCode.NO_ERROR))

    def _cut(self) -> None:
        """Move whole messages to the inbox."""
        partial = self._partial
        while len(partial) >= PREFIX and not self._failure:
            size = int.from_bytes(partial[1:PREFIX], "big")
            if partial[0]:
                self._failure = CallFailed(Code.UNIMPLEMENTED, "Compression is not understood.")
            elif size > MAX_MESSAGE:
                self._failure = CallFailed(Code.RESOURCE_EXHAUSTED, "A message is too long.")
            elif len(partial) < PREFIX + size:
                return
            else:
                self._inbox.append(bytes(partial[PREFIX : PREFIX + size]))
                del partial[: PREFIX + size]

    def _give_back(self, size: int) -> None:
        """Let the peer send what has been read; not for each few bytes.

        What is owed, and the longest message, always leave some of the window: nobody gets stuck.
        """
        self._owed += size
        if self._owed >= WINDOW // 4 and not self._ended:
            self._outgoing.send(window_update(self.number, self._owed))
            self._credit += self._owed
            self._owed = 0


def _prefix(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big")


def widened(window: int, size: int) -> int:
    """A window that the peer has opened further."""
    if window + size > LARGEST_WINDOW:
        raise ProtocolError("A window is too large.", ErrorCode.FLOW_CONTROL_ERROR)
    return window + size
