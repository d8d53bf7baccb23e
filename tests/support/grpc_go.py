"""The daemon's half of a session, for tests: an HTTP/2 client that says what it is told to.

It is written against RFC 9113 by itself, apart from the frames' encoding, and does what grpc-go
does: preface, SETTINGS, streams with odd numbers, windows. Nothing of it waits for time to pass.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hpack import Decoder, Encoder

from imagewright.clients.buildkit.frames import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    Kind,
    frame,
    window_update,
)
from imagewright.clients.buildkit.http2 import Connection

T = TypeVar("T")
SECONDS = 2
"""What waits longer than this waits for ever."""


@dataclass(slots=True)
class Answer:
    """What has come on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    reset: int | None = None
    ended: bool = False

    @property
    def status(self) -> int:
        """The gRPC status; -1 before it has come."""
        return int((self.trailers or self.headers).get("grpc-status", -1))

    @property
    def message(self) -> str:
        """The text of the status, as it came."""
        return (self.trailers or self.headers).get("grpc-message", "")

    @property
    def messages(self) -> list[bytes]:
        """The whole messages that have come."""
        found, at = [], 0
        while at + 5 <= len(self.body):
            size = int.from_bytes(self.body[at + 1 : at + 5], "big")
            if at + 5 + size > len(self.body):
                break
            found.append(bytes(self.body[at + 5 : at + 5 + size]))
            at += 5 + size
        return found


class GrpcGo:
    """The client. `feed` takes what it says; what it hears is given to `hear()`."""

    def __init__(self, feed: Callable[[bytes], object], *, generous: bool = True) -> None:
        self.feed = feed
        self.generous = generous
        """Whether what has come is given back to the windows at once."""
        self.answers: dict[int, Answer] = {}
        self.frames: list[tuple[int, int, int, bytes]] = []
        self._encoder: Any = Encoder()
        self._decoder: Any = Decoder()
        self._buffer = bytearray()

    def greet(self, settings: bytes = b"") -> None:
        """The preface, SETTINGS and the ACK of the server's."""
        self.feed(PREFACE + frame(Kind.SETTINGS, 0, 0, settings) + frame(Kind.SETTINGS, 1, 0))

    def block(self, path: str, metadata: Iterable[tuple[str, str]] = ()) -> bytes:
        """Headers of a request, in HPACK with all that belongs to it."""
        fixed = [(":method", "POST"), (":scheme", "http"), (":path", path)]
        more = [("content-type", "application/grpc"), ("te", "trailers"), *metadata]
        encoded: bytes = self._encoder.encode([*fixed, *more])
        return encoded

    def open(self, number: int, path: str, metadata: Iterable[tuple[str, str]] = ()) -> None:
        """Begin a call."""
        self.feed(frame(Kind.HEADERS, END_HEADERS, number, self.block(path, metadata)))

    def say(self, number: int, *messages: bytes, end: bool = False) -> None:
        """Send messages, all in frames of the size that every peer takes."""
        rest = b"".join(b"\0" + len(m).to_bytes(4, "big") + m for m in messages)
        while len(rest) > 16384:
            self.feed(frame(Kind.DATA, 0, number, rest[:16384]))
            rest = rest[16384:]
        self.feed(frame(Kind.DATA, END_STREAM * end, number, rest))

    def ask(self, number: int, path: str, message: bytes = b"") -> None:
        """A whole unary call."""
        self.open(number, path)
        self.say(number, message, end=True)

    def answer(self, number: int) -> Answer:
        """What has come on a stream so far."""
        return self.answers.setdefault(number, Answer())

    def hear(self, heard: bytes) -> None:
        """Take bytes of the server."""
        self._buffer += heard
        while len(self._buffer) >= 9:
            size = int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < 9 + size:
                return
            kind, flags = self._buffer[3], self._buffer[4]
            number = int.from_bytes(self._buffer[5:9], "big")
            payload = bytes(self._buffer[9 : 9 + size])
            del self._buffer[: 9 + size]
            self.frames.append((kind, flags, number, payload))
            self._take(kind, flags, number, payload)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        answer = self.answer(number)
        if kind == Kind.HEADERS:
            headers = dict(self._decoder.decode(payload))
            if answer.headers:
                answer.trailers = headers
            else:
                answer.headers = headers
        elif kind == Kind.DATA:
            answer.body += payload
            if self.generous and payload:
                self.feed(window_update(0, len(payload)) + window_update(number, len(payload)))
        elif kind == Kind.RST_STREAM:
            answer.reset = int.from_bytes(payload, "big")
        if kind in (Kind.HEADERS, Kind.DATA) and flags & END_STREAM:
            answer.ended = True


class Talk(GrpcGo):
    """The client on a Connection, without a pipe between them."""

    def __init__(self, connection: Connection, *, generous: bool = True) -> None:
        super().__init__(connection.feed, generous=generous)
        self.connection = connection

    async def until(self, met: Callable[[], object]) -> None:
        """Listen until something is true."""
        while not met():
            self.hear(await in_time(self.connection.outgoing()))

    async def ended(self, number: int) -> Answer:
        """Listen until a call is over."""
        await self.until(lambda: self.answer(number).ended)
        return self.answer(number)

    async def quiet(self) -> None:
        """Listen until the server has nothing more to say."""
        for _ in range(50):
            await asyncio.sleep(0)
            while self.connection._out.backlog:
                self.hear(await in_time(self.connection.outgoing()))


async def in_time(waited: Awaitable[T]) -> T:
    """What is awaited, or TimeoutError where nothing comes."""
    async with asyncio.timeout(SECONDS):
        return await waited
