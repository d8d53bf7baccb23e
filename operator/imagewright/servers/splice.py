"""A byte pipe between two connections: what one end reads, the other end writes, untouched."""

import asyncio
from collections.abc import Callable
from typing import cast

from imagewright.servers.http2 import NO_ERROR, goaway

BUFFER = memoryview(bytearray(256 << 10))
"""What is read at once. The loop fills it and hands it over in one go, so all may share it."""
LINGER_SECONDS = 5.0
"""How long a client may take to read what its worker still said."""


class End(asyncio.BufferedProtocol):
    """One end. Nothing is read before it is joined to another one."""

    def __init__(self) -> None:
        self.transport = cast("asyncio.Transport", None)
        self.lost: Callable[[], None] = lambda: None
        self.bytes = 0
        self.open = False
        self._peer = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what comes in the kernel until there is somewhere to write it."""
        self.transport, self.open = cast("asyncio.Transport", transport), True
        self.transport.pause_reading()

    def join(self, peer: asyncio.Transport, lost: Callable[[], None]) -> None:
        """Read from now on, for `peer`; `lost` is called when this end is gone, or is already."""
        self._peer, self.lost = peer, lost
        if self.open:
            self.transport.resume_reading()
        else:
            lost()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Where the loop reads into."""
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read; a copy, for a transport may keep what it cannot send yet."""
        self.bytes += nbytes
        self._peer.write(bytes(BUFFER[:nbytes]))

    def pause_writing(self) -> None:
        """This end is slower than its peer: the peer reads no more."""
        if self._peer is not None and not self._peer.is_closing():
            self._peer.pause_reading()

    def resume_writing(self) -> None:
        """What was written is on its way."""
        if self._peer is not None and not self._peer.is_closing():
            self._peer.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Tell the pipe."""
        self.open = False
        self.lost()


class Pipe:
    """Both ends, until one is lost: `ended` then says whether it was the worker's."""

    def __init__(self, client: asyncio.Transport, worker: End, first: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[bool] = loop.create_future()
        self.quiet_since, self._seen, self._told = loop.time(), 0, False
        self._loop, self._client, self._worker = loop, End(), worker
        client.set_protocol(self._client)
        self._client.connection_made(client)
        worker.transport.write(first)
        self._client.bytes = len(first)
        worker.join(client, self._worker_lost)
        self._client.join(worker.transport, self._client_lost)

    def moved(self) -> tuple[int, int]:
        """Bytes from the client, and from the worker; also notes how long there were none."""
        client, worker = self._client.bytes, self._worker.bytes
        if client + worker != self._seen:
            self._seen, self.quiet_since, self._told = client + worker, self._loop.time(), False
        return client, worker

    def dismiss(self) -> None:
        """Ask the client to go; one that was asked and said nothing since is sent away.

        A client with requests that still run keeps the connection for these, and only it knows.
        To be called only where nothing has moved for a while: between two frames.
        """
        if self._told:
            self.abort()
            return
        self._told, self.quiet_since = True, self._loop.time()
        self._client.transport.write(goaway(NO_ERROR))

    def abort(self) -> None:
        """End it at once."""
        self._client.transport.abort()
        self._worker.transport.abort()

    def _client_lost(self) -> None:
        self._end(by_worker=False)
        self._worker.transport.abort()

    def _worker_lost(self) -> None:
        self._end(by_worker=True)
        transport = self._client.transport
        transport.close()
        self._loop.call_later(LINGER_SECONDS, transport.abort)

    def _end(self, *, by_worker: bool) -> None:
        if not self.ended.done():
            self.ended.set_result(by_worker)
