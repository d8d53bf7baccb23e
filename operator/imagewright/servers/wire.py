"""A connection, plain or TLS, whose bytes go straight between the kernel and one listener."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from imagewright.servers.seal import Seal

ARRIVED = memoryview(bytearray(256 << 10))
"""What is read at once. It is filled and handed over in one go, so all wires share it."""
OPENED = memoryview(bytearray(256 << 10))
"""The same when it was sealed: never longer than what arrived."""


class Listener(Protocol):
    """Who hears what a wire says."""

    def heard(self, data: memoryview) -> None:
        """Bytes came. They are overwritten as soon as this returns."""

    def stalled(self) -> None:
        """The other side takes no more for now: write nothing, if it can be helped."""

    def flowing(self) -> None:
        """All that was written is on its way."""

    @property
    def lost(self) -> Callable[[], object]:
        """Called once the wire is gone, whoever ended it."""
        ...


class Wire:
    """A connection whose handshakes are done; nothing is read before `join`."""

    def __init__(self, own: socket.socket, seal: Seal | None = None) -> None:
        self._socket, self._seal = own, seal
        self._loop = asyncio.get_running_loop()
        self._listener: Listener | None = None
        self._rest = bytearray()
        self._ending = self._ended = False
        self.reading = False

    def join(self, listener: Listener) -> None:
        """Read, for `listener`; whoever listened before hears nothing more."""
        self._listener = listener
        self.resume()

    def resume(self) -> None:
        """Read."""
        if not self._ending and not self.reading:
            self.reading = True
            self._loop.add_reader(self._socket, self._readable)
            # What was opened no further when the reading stopped is in no kernel's hands.
            self._loop.call_soon(self._open)

    def pause(self) -> None:
        """Leave what comes in the kernel."""
        if self.reading:
            self.reading = False
            self._loop.remove_reader(self._socket)

    def write(self, data: bytes | memoryview) -> None:
        """Send; what does not go at once is copied, and goes later."""
        if self._ending:
            return
        if self._seal is not None:
            self._seal.write(data)
            data = self._seal.sealed()
        self._put(data)

    def close(self) -> None:
        """Say no more after what was written, then hang up."""
        if self._ending:
            return
        self.pause()
        if self._seal is not None:
            self._seal.end()
            self._put(self._seal.sealed())
        self._ending = True
        if not self._rest:
            self.abort()

    def abort(self) -> None:
        """Hang up now."""
        if self._ended:
            return
        self.pause()
        self._ending = self._ended = True
        self._loop.remove_writer(self._socket)
        self._loop.call_soon(self._over)

    def _over(self) -> None:
        self._socket.close()
        if self._listener is not None:
            self._listener.lost()

    def _readable(self) -> None:
        try:
            count = self._socket.recv_into(ARRIVED)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self.close()
        elif self._seal is None:
            self._hear(ARRIVED[:count])
        else:
            self._seal.feed(ARRIVED[:count])
            self._open()

    def _open(self) -> None:
        """Hand over what can be opened, as long as somebody reads."""
        while self._seal is not None and self.reading:
            try:
                count = self._seal.read(OPENED)
            except ssl.SSLError:
                self.abort()
                return
            if count is None:
                return
            if not count:
                self.close()
                return
            self._hear(OPENED[:count])
            if self._seal.empty:
                return

    def _hear(self, data: memoryview) -> None:
        if self._listener is not None:
            self._listener.heard(data)

    def _put(self, data: bytes | memoryview) -> None:
        if not self._rest:
            data = data[self._send(data) :]
            if not data or self._ended:
                return
            self._loop.add_writer(self._socket, self._writable)
            if self._listener is not None:
                self._listener.stalled()
        self._rest += data

    def _writable(self) -> None:
        del self._rest[: self._send(self._rest)]
        if self._rest or self._ended:
            return
        self._loop.remove_writer(self._socket)
        if self._ending:
            self.abort()
        elif self._listener is not None:
            self._listener.flowing()

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        """How much of it went."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.abort()
            return len(data)


async def secured(own: socket.socket, seal: Seal) -> Wire:
    """A wire once the handshake is done. Raises OSError, of which ssl.SSLError is one."""
    loop = asyncio.get_running_loop()
    view = memoryview(bytearray(16 << 10))
    try:
        while not seal.shaken():
            await loop.sock_sendall(own, seal.sealed())
            count = await loop.sock_recv_into(own, view)
            if not count:
                raise ConnectionResetError("It hung up during the handshake.")
            seal.feed(view[:count])
    finally:
        # A failed handshake has an alert to send, which says why.
        with contextlib.suppress(OSError):
            own.send(seal.sealed())
    return Wire(own, seal)


async def dial(address: str, tls: ssl.SSLContext | None, server_name: str) -> Wire:
    """A wire to unix:///path or tcp://host:port. Raises OSError."""
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        return Wire(await _connected(socket.AF_UNIX, rest))
    host, _, port = rest.rpartition(":")
    own = await _first(host, int(port))
    if tls is None:
        return Wire(own)
    try:
        return await secured(own, Seal(tls, name=server_name or host))
    except BaseException:
        own.close()
        raise


async def _first(host: str, port: int) -> socket.socket:
    """A connection to the first address of the host that answers."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    *others, (last, *_, where) = found
    for family, *_, place in others:
        with contextlib.suppress(OSError):
            return await _connected(family, place)
    return await _connected(last, where)


async def _connected(family: int, where: tuple[Any, ...] | str) -> socket.socket:
    own = socket.socket(family, socket.SOCK_STREAM)
    try:
        own.setblocking(False)
        await asyncio.get_running_loop().sock_connect(own, where)
        if family != socket.AF_UNIX:
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        own.close()
        raise
    return own
