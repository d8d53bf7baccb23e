"""A client of the gateway before it has a worker: its handshakes, its waiting, its refusal."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import cast

from imagewright.servers.http2 import (
    NO_ERROR,
    NotHttp2,
    Opening,
    goaway,
    settings,
    settings_ack,
    trailers,
)
from imagewright.servers.splice import BUFFER, End, Pipe

FAREWELL_SECONDS = 5.0
"""How long a client that was refused may take to understand it and go."""
ALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
"""A machine that vanished holds a slot for a minute, and no longer."""


class Guest(asyncio.BufferedProtocol):
    """One client. `welcome` is called once when it knocks, `lost` when it goes by itself."""

    def __init__(self, welcome: Callable[["Guest"], None]) -> None:
        self.lost: Callable[[], object] = lambda: None
        self.peer = ""
        self.known = self.spliced = False
        self._welcome = welcome
        self._transport = cast("asyncio.Transport", None)
        self._opening = Opening()
        self._refusal: tuple[int, str] | None = None
        self._gone = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handshake(self, tls: ssl.SSLContext) -> dict[str, str]:
        """TLS, and HTTP/2 up to where the client knows our settings; whom its certificate names.

        Raises OSError where either fails.
        """
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(self._transport, self, tls, server_side=True)
        if transport is None:
            raise ConnectionResetError("gone")
        self._transport = transport
        self._transport.write(settings())
        await self._ready
        self.known = True
        return subject_of(self._transport)

    def splice(self, worker: End) -> Pipe:
        """Join the client to a worker, which gets all that was held for it."""
        self.spliced = True
        return Pipe(self._transport, worker, self._opening.all())

    async def send_away(self, status: int, message: str) -> None:
        """Answer every request with a failure that clients print, until the client goes."""
        self._refusal = (status, message)
        self._transport.write(settings_ack())
        self._refuse()
        # From here on its going is what is waited for, and no end of the task that waits.
        self.lost = self._gone.set
        await self._leaving()
        if not self._gone.is_set():
            self._transport.write(goaway(NO_ERROR))
            self._transport.close()
            await self._leaving()

    async def _leaving(self) -> None:
        """Until it is gone, or has had its time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._gone.wait()

    def abort(self) -> None:
        """Hang up; a client that was spliced is its pipe's."""
        if not self.spliced:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing before TLS does."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.pause_reading()
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        own = transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ALIVE.items():
            own.setsockopt(socket.IPPROTO_TCP, option, value)
        self._welcome(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Where the loop reads into."""
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Hold what the worker is to get; answer what cannot wait for it."""
        try:
            answers = self._opening.feed(BUFFER[:nbytes])
        except NotHttp2 as error:
            if not self._ready.done():
                self._ready.set_exception(ConnectionAbortedError(f"no HTTP/2: {error}"))
            self._transport.abort()
            return
        if answers:
            self._transport.write(answers)
        if self._opening.acknowledged and not self._ready.done():
            self._ready.set_result(None)
        self._refuse()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """It went, in whatever state it was."""
        self.lost()

    def _refuse(self) -> None:
        if self._refusal is not None:
            for stream in self._opening.streams:
                self._transport.write(trailers(stream, *self._refusal))
            self._opening.streams.clear()


def subject_of(transport: asyncio.Transport) -> dict[str, str]:
    """The subject of the certificate that the peer has shown, by attribute; the first counts."""
    found = transport.get_extra_info("peercert") or {}
    names: dict[str, str] = {}
    for relative in found.get("subject", ()):
        for name, value in relative:
            names.setdefault(name, value)
    return names
