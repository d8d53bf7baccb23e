"""TLS of one connection, in memory: all that the kernel has of it is opened in one go.

asyncio's own takes each frame through two protocols, and a build that finds everything in its
cache is some eighty small frames; OpenSSL at the socket itself reads a large context record by
record, with two calls for each. This has neither cost.
"""

import ssl
from typing import cast


class Seal:
    """`feed` and then `read` what came; `write`, and then send what is `sealed`."""

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool = False, name: str | None = None
    ) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side, name)
        self._ended = False

    def shaken(self) -> bool:
        """Whether the handshake is done; it may have something to send. Raises ssl.SSLError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def certificate(self) -> dict[str, object]:
        """What the peer has shown, as ssl describes it."""
        return dict(self._tls.getpeercert() or {})

    def feed(self, data: memoryview) -> None:
        """Take in bytes that the peer has sent."""
        self._in.write(data)

    def read(self, into: memoryview) -> int | None:
        """Bytes that could be opened; None: none yet; 0: the peer has ended.

        Raises ssl.SSLError.
        """
        filled = 0
        try:
            while not self._ended and filled < len(into):
                # With a buffer it returns a count, which its stub does not know.
                count = cast("int", self._tls.read(len(into) - filled, into[filled:]))
                filled, self._ended = filled + count, not count
                if self.empty:
                    break
        except ssl.SSLWantReadError:
            return filled or None
        return filled

    @property
    def empty(self) -> bool:
        """Whether `read` would find nothing: asking costs less than the exception that says so."""
        return not (self._ended or self._in.pending or self._tls.pending())

    def write(self, data: bytes | memoryview) -> None:
        """Seal bytes for the peer."""
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                sent += self._tls.write(view[sent:])

    def sealed(self) -> bytes:
        """What is to be sent; it is handed out once."""
        return self._out.read()

    def end(self) -> None:
        """Tell the peer that nothing more comes."""
        # The peer's own end is not waited for; or the handshake never was done.
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            return
