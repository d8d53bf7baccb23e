"""Frames of HTTP/2 (RFC 9113) as bytes, and the little of HPACK (RFC 7541) that a server writes.

Nothing here knows of connections or streams beyond their numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from hpack import Decoder, HPACKError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9
SMALLEST_FRAME = 16384
"""Bytes of payload that every peer must take, and that we take at most (RFC 9113, 4.2)."""
LARGEST_FRAME = (1 << 24) - 1
LARGEST_WINDOW = (1 << 31) - 1
FIRST_WINDOW = 65535
MAX_HEADERS = 1 << 20
"""Bytes of one list of headers. A daemon sends the patterns of a whole .dockerignore in it."""

END_STREAM, ACK = 0x1, 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20


class Kind(IntEnum):
    """What a frame is; a frame of any other kind is ignored."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """The settings that mean something between a gRPC client and us."""

    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113, 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ProtocolError(Exception):
    """The peer broke HTTP/2: the connection is over. Its text is a sentence."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came, its padding included."""

    kind: int
    flags: int
    stream: int
    payload: bytes


EXACT = {Kind.PRIORITY: 5, Kind.RST_STREAM: 4, Kind.PING: 8, Kind.WINDOW_UPDATE: 4}
OF_STREAMS = frozenset(
    (Kind.DATA, Kind.HEADERS, Kind.PRIORITY, Kind.RST_STREAM, Kind.CONTINUATION)
)
OF_CONNECTIONS = frozenset((Kind.SETTINGS, Kind.PING, Kind.GOAWAY))


def head(size: int, kind: Kind, flags: int, stream: int) -> bytes:
    """What stands before a payload of `size` bytes."""
    return (size << 8 | kind).to_bytes(4, "big") + bytes((flags,)) + stream.to_bytes(4, "big")


def frame(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return head(len(payload), kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    pairs = (key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
    return frame(Kind.SETTINGS, 0, 0, b"".join(pairs))


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame: the peer may send `size` bytes more."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reset(stream: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last_stream: int, error: ProtocolError) -> bytes:
    """A GOAWAY frame that tells the peer what it did."""
    reason = last_stream.to_bytes(4, "big") + error.code.to_bytes(4, "big")
    return frame(Kind.GOAWAY, 0, 0, reason + str(error).encode()[:1024])


class FrameReader:
    """Cuts a client's bytes into frames, however they come, the preface first."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._missing = PREFACE

    def feed(self, received: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Raises ProtocolError for one that cannot be."""
        self._buffer += received
        if self._missing and not self._greeted():
            return
        while len(self._buffer) >= HEAD:
            size = int.from_bytes(self._buffer[:3], "big")
            if size > SMALLEST_FRAME:
                raise ProtocolError("A frame is too long.", ErrorCode.FRAME_SIZE_ERROR)
            if len(self._buffer) < HEAD + size:
                return
            found = Frame(
                kind=self._buffer[3],
                flags=self._buffer[4],
                # The first bit is reserved and ignored.
                stream=int.from_bytes(self._buffer[5:9], "big") & LARGEST_WINDOW,
                payload=bytes(self._buffer[HEAD : HEAD + size]),
            )
            del self._buffer[: HEAD + size]
            _check(found)
            yield found

    def _greeted(self) -> bool:
        seen = self._buffer[: len(PREFACE)]
        if not PREFACE.startswith(seen):
            raise ProtocolError("The peer does not speak HTTP/2.")
        if len(seen) < len(PREFACE):
            return False
        del self._buffer[: len(PREFACE)]
        self._missing = b""
        return True


def _check(found: Frame) -> None:
    """Rules about a frame that need no memory."""
    if found.kind == Kind.PUSH_PROMISE:
        raise ProtocolError("A client must not push.")
    if len(found.payload) != EXACT.get(found.kind, len(found.payload)):  # type: ignore[call-overload]
        raise ProtocolError("A frame has a wrong length.", ErrorCode.FRAME_SIZE_ERROR)
    if found.kind in OF_STREAMS and not found.stream:
        raise ProtocolError("A frame of a stream came without one.")
    if found.kind in OF_CONNECTIONS and found.stream:
        raise ProtocolError("A frame of the connection came on a stream.")


def content(found: Frame) -> bytes:
    """The payload of DATA or HEADERS without padding and priority."""
    payload = found.payload
    if found.flags & PADDED:
        # The first byte is the length of the padding, which must leave room for that byte itself.
        if not payload or payload[0] >= len(payload):
            raise ProtocolError("The padding is longer than its frame.")
        payload = payload[1 : len(payload) - payload[0]]
    if found.kind == Kind.HEADERS and found.flags & PRIORITIZED:
        if len(payload) < EXACT[Kind.PRIORITY]:
            raise ProtocolError("A frame is too short.", ErrorCode.FRAME_SIZE_ERROR)
        payload = payload[EXACT[Kind.PRIORITY] :]
    return payload


def parse_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Keys and values of a SETTINGS frame. Raises ProtocolError for a value out of its range."""
    if len(payload) % 6:
        raise ProtocolError("A frame has a wrong length.", ErrorCode.FRAME_SIZE_ERROR)
    for at in range(0, len(payload), 6):
        key, value = int.from_bytes(payload[at : at + 2], "big"), payload[at + 2 : at + 6]
        number = int.from_bytes(value, "big")
        if key == Setting.INITIAL_WINDOW_SIZE and number > LARGEST_WINDOW:
            raise ProtocolError("A window is too large.", ErrorCode.FLOW_CONTROL_ERROR)
        if key == Setting.MAX_FRAME_SIZE and not SMALLEST_FRAME <= number <= LARGEST_FRAME:
            raise ProtocolError("A size of frames is out of range.")
        yield key, number


class HeaderReader:
    """Headers of one connection: HPACK has a memory, so every block must pass here, in order."""

    def __init__(self) -> None:
        self._decoder: Any = Decoder(max_header_list_size=MAX_HEADERS)

    def read(self, block: bytes) -> dict[str, list[str]]:
        """All values of each header, in order. Raises ProtocolError for what is not HPACK."""
        headers: dict[str, list[str]] = {}
        try:
            for name, value in self._decoder.decode(block, raw=True):
                # Old daemons send paths as they are; undecodable bytes survive as in file names.
                text = value.decode("utf-8", "surrogateescape")
                headers.setdefault(name.decode("utf-8", "replace"), []).append(text)
        except HPACKError as error:
            raise ProtocolError(
                f"The headers cannot be read: {error}.", ErrorCode.COMPRESSION_ERROR
            ) from error
        return headers


def literal(name: str, value: str) -> bytes:
    """A header that uses none of HPACK's memory, so it means the same wherever it is sent."""
    return b"\0" + _string(name) + _string(value)


def _string(text: str) -> bytes:
    encoded = text.encode("ascii")
    return _integer(len(encoded)) + encoded


def _integer(number: int) -> bytes:
    """With seven bits in the first byte, where the eighth says that there is no Huffman code."""
    if number < 0x7F:
        return bytes((number,))
    rest, found = number - 0x7F, bytearray((0x7F,))
    while rest > 0x7F:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)
