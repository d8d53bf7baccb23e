"""A client of the gateway before it has a worker: its handshakes, its waiting, its refusal."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any, cast

from imagewright.servers.http2 import (
    NO_ERROR,
    NotHttp2,
    Opening,
    goaway,
    settings,
    settings_ack,
    trailers,
)
from imagewright.servers.seal import Seal
from imagewright.servers.splice import Pipe
from imagewright.servers.wire import Wire, secured

FAREWELL_SECONDS = 5.0
"""How long a client that was refused may take to understand it and go."""
ALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
"""A machine that vanished holds a slot for a minute, and no longer."""


class Guest:
    """One client; `lost` is called when it goes by itself after its handshakes."""

    def __init__(self, own: socket.socket, peer: str) -> None:
        self.lost: Callable[[], object] = lambda: None
        self.peer = peer
        self.known = self.spliced = False
        self._socket, self._wire = own, cast("Wire", None)
        self._opening = Opening()
        self._refusal: tuple[int, str] | None = None
        self._gone = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handshake(self, tls: ssl.SSLContext) -> dict[str, str]:
        """TLS, and HTTP/2 up to where the client knows our settings; whom its certificate names.

        Raises OSError where either fails.
        """
        for option, value in ALIVE.items():
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
        seal = Seal(tls, server_side=True)
        self._wire = await secured(self._socket, seal)
        self._wire.write(settings())
        self._wire.join(self)
        await self._ready
        self.known = True
        return subject_of(seal.certificate())

    def splice(self, worker: Wire) -> Pipe:
        """Join the client to a worker, which gets all that was held for it."""
        self.spliced = True
        return Pipe(self._wire, worker, self._opening.all())

    async def send_away(self, status: int, message: str) -> None:
        """Answer every request with a failure that clients print, until the client goes."""
        self._refusal = (status, message)
        self._wire.write(settings_ack())
        self._refuse()
        # From here on its going is what is waited for, and no end of the task that waits.
        self.lost = self._gone.set
        await self._leaving()
        if not self._gone.is_set():
            self._wire.write(goaway(NO_ERROR))
            self._wire.close()
            await self._leaving()

    async def _leaving(self) -> None:
        """Until it is gone, or has had its time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._gone.wait()

    def abort(self) -> None:
        """Hang up; a client that was spliced is its pipe's."""
        if self._wire is None:
            self._socket.close()
        elif not self.spliced:
            self._wire.abort()

    def heard(self, data: memoryview) -> None:
        """Hold what the worker is to get; answer what cannot wait for it."""
        try:
            answers = self._opening.feed(data)
        except NotHttp2 as error:
            if not self._ready.done():
                self._ready.set_exception(ConnectionAbortedError(f"no HTTP/2: {error}"))
            self._wire.abort()
            return
        if answers:
            self._wire.write(answers)
        if self._opening.acknowledged and not self._ready.done():
            self._ready.set_result(None)
        self._refuse()

    def stalled(self) -> None:
        """A client that does not read is not read either: it could ask for answers without end."""
        self._wire.pause()

    def flowing(self) -> None:
        """It reads again."""
        self._wire.resume()

    def _refuse(self) -> None:
        if self._refusal is not None:
            for stream in self._opening.streams:
                self._wire.write(trailers(stream, *self._refusal))
            self._opening.streams.clear()


def subject_of(certificate: Mapping[str, Any]) -> dict[str, str]:
    """The subject of a certificate as ssl describes it, by attribute; the first counts."""
    names: dict[str, str] = {}
    for relative in certificate.get("subject", ()):
        for name, value in relative:
            names.setdefault(name, value)
    return names
