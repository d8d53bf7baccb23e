"""A byte pipe between two wires: what one end hears, the other end says, untouched."""

import asyncio
from collections.abc import Callable

from imagewright.servers.http2 import NO_ERROR, goaway
from imagewright.servers.wire import Wire

LINGER_SECONDS = 5.0
"""How long a client may take to read what its worker still said."""


class End:
    """One end's listener; `gone` is called once its own wire is."""

    def __init__(self, peer: Wire, gone: Callable[[], None]) -> None:
        self._peer, self._gone = peer, gone
        self.bytes = 0

    def heard(self, data: memoryview) -> None:
        """Hand it on."""
        self.bytes += len(data)
        self._peer.write(data)

    def stalled(self) -> None:
        """This end is slower than its peer: the peer is read no more."""
        self._peer.pause()

    def flowing(self) -> None:
        """What was written is on its way."""
        self._peer.resume()

    def lost(self) -> None:
        """Tell the pipe."""
        self._gone()


class Pipe:
    """Both ends, until one is lost: `ended` then says whether it was the worker's."""

    def __init__(self, client: Wire, worker: Wire, first: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[bool] = self._loop.create_future()
        self.quiet_since, self._seen, self._told = self._loop.time(), 0, False
        self._client, self._worker = client, worker
        self._from_client = End(worker, self._client_lost)
        self._from_worker = End(client, self._worker_lost)
        self._from_client.heard(memoryview(first))
        client.join(self._from_client)
        worker.join(self._from_worker)

    def moved(self) -> tuple[int, int]:
        """Bytes from the client, and from the worker; also notes how long there were none."""
        client, worker = self._from_client.bytes, self._from_worker.bytes
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
        self._client.write(goaway(NO_ERROR))

    def abort(self) -> None:
        """End it at once."""
        self._client.abort()
        self._worker.abort()

    def _client_lost(self) -> None:
        self._end(by_worker=False)
        self._worker.abort()

    def _worker_lost(self) -> None:
        self._end(by_worker=True)
        self._client.close()
        self._loop.call_later(LINGER_SECONDS, self._client.abort)

    def _end(self, *, by_worker: bool) -> None:
        if not self.ended.done():
            self.ended.set_result(by_worker)
