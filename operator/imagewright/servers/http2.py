"""As much of HTTP/2 as it takes to keep a gRPC client waiting, or to send it away with a sentence.

The facts are those of RFC 9113. A client takes a connection for good once it has the server's
first SETTINGS frame (3.4), and Go's gRPC gives up after 20 s without it; so we send an empty one
at once, before there is a worker. The worker's own comes later, as SETTINGS may at any time (6.5).
Each is acknowledged, in order (6.5.3). The worker would get one acknowledgement too many: Go's
net/http hangs up on that, so the first one is left out. Everything else reaches the worker as it
was sent: until its SETTINGS arrive, the client keeps to the initial values (6.5.2), which hold
for every server.
"""

from dataclasses import dataclass, field
from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client begins with (3.4)."""
HEADERS, SETTINGS, PING, GOAWAY = 0x1, 0x4, 0x6, 0x7
ACK = 0x1
END_STREAM, END_HEADERS = 0x1, 0x4
NO_ERROR, ENHANCE_YOUR_CALM = 0x0, 0xB
FRAME_HEADER = 9
LARGEST_FRAME = 1 << 14
"""Bytes of payload that may be sent to a server that has allowed no more (4.2)."""
LAST_STREAM = (1 << 31) - 1
MOST_HELD = 256 << 10
"""Bytes. A client may send 65,535 of data before it is allowed more (6.9.2), and headers."""
LONGEST_MESSAGE = 1000
PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class NotHttp2(Exception):
    """The bytes are no HTTP/2, or more of it than a client may send."""


@dataclass(slots=True)
class Opening:
    """The first bytes of a client, until there is a worker for them.

    `held` is what the worker has to get. `acknowledged` says that the client knows our SETTINGS;
    before that nothing may be forwarded as it stands. `streams` are the requests that were begun.
    """

    held: bytearray = field(default_factory=bytearray)
    streams: list[int] = field(default_factory=list)
    acknowledged: bool = False
    _rest: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take bytes in, and return what is to be answered. Raises NotHttp2."""
        self._rest += data
        if not self.held and not self._greeted():
            return b""
        answers = bytearray()
        while (frame := self._next()) is not None:
            kind, flags = frame[3], frame[4]
            if kind == SETTINGS and flags & ACK and not self.acknowledged:
                self.acknowledged = True
            elif kind == PING and not flags & ACK:
                answers += frame_of(PING, ACK, 0, frame[FRAME_HEADER:])
            else:
                self.held += frame
                if kind == HEADERS:
                    self.streams.append(int.from_bytes(frame[5:FRAME_HEADER]) & LAST_STREAM)
        if len(self.held) > MOST_HELD:
            raise NotHttp2("more than a client may send unasked")
        return bytes(answers)

    def all(self) -> bytes:
        """What the worker has to get, with the half of a frame that came last."""
        return bytes(self.held + self._rest)

    def _greeted(self) -> bool:
        """Whether the client's preface is there whole; it is held from then on."""
        if not PREFACE.startswith(self._rest[: len(PREFACE)]):
            raise NotHttp2("no preface of HTTP/2")
        if len(self._rest) < len(PREFACE):
            return False
        self.held += PREFACE
        del self._rest[: len(PREFACE)]
        return True

    def _next(self) -> bytes | None:
        if len(self._rest) < FRAME_HEADER:
            return None
        length = int.from_bytes(self._rest[:3])
        if length > LARGEST_FRAME:
            raise NotHttp2(f"a frame of {length} bytes")
        end = FRAME_HEADER + length
        if len(self._rest) < end:
            return None
        frame = bytes(self._rest[:end])
        del self._rest[:end]
        return frame


def frame_of(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame (4.1)."""
    head = (len(payload).to_bytes(3), kind.to_bytes(1), flags.to_bytes(1), stream.to_bytes(4))
    return b"".join(head) + payload


def settings() -> bytes:
    """SETTINGS that change nothing."""
    return frame_of(SETTINGS, 0, 0)


def settings_ack() -> bytes:
    """That the peer's SETTINGS are known."""
    return frame_of(SETTINGS, ACK, 0)


def goaway(code: int, text: str = "") -> bytes:
    """No new requests on this connection; those that were begun may end (6.8)."""
    payload = LAST_STREAM.to_bytes(4) + code.to_bytes(4) + text.encode()
    return frame_of(GOAWAY, 0, 0, payload)


def trailers(stream: int, status: int, message: str) -> bytes:
    """The whole answer to a gRPC request that fails: a status code, and a sentence.

    gRPC calls it Trailers-Only. Fields are literals that no table takes up (RFC 7541, 6.2.2), so
    what the client remembers of headers is what the worker will assume.
    """
    text = quote(message[:LONGEST_MESSAGE], safe=PRINTABLE)
    block = b"\x88" + b"".join(
        _literal(name, value)
        for name, value in (
            ("content-type", "application/grpc"),
            ("grpc-status", str(status)),
            ("grpc-message", text),
        )
    )
    return frame_of(HEADERS, END_STREAM | END_HEADERS, stream, block)


def _literal(name: str, value: str) -> bytes:
    return b"\x00" + _string(name) + _string(value)


def _string(text: str) -> bytes:
    raw = text.encode("ascii")
    return _length(len(raw)) + raw


def _length(number: int) -> bytes:
    """An integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if number < 0x7F:
        return bytes([number])
    rest, coded = number - 0x7F, bytearray([0x7F])
    while rest >= 0x80:
        coded.append(rest & 0x7F | 0x80)
        rest >>= 7
    coded.append(rest)
    return bytes(coded)
