"""Turning a connection into HTTP/2, and the socket that does so for gRPC."""

import asyncio
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from imagewright.clients.engine.address import Address, parse
from imagewright.clients.engine.bridge import bridge
from imagewright.clients.engine.errors import EngineError, Refused, Unreachable
from imagewright.clients.engine.upgrade import SESSION, upgrade

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
Streams = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hang up at once."""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def flood(writer: asyncio.StreamWriter) -> None:
    """Write more than all sockets and buffers between hold."""
    for _ in range(256):
        writer.write(bytes(1 << 20))
        await writer.drain()


class Peer:
    """The other end: takes the head of a request, gives an answer, and then does as it is told."""

    def __init__(self, answer: bytes, then: Streams = nothing) -> None:
        self._answer = answer
        self._then = then
        self.heads: list[bytes] = []
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()
        self.over = asyncio.Event()
        """Set where the test is."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        self.asked.set()
        writer.write(self._answer)
        await self._then(reader, writer)
        writer.close()
        self.ended.set()

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take nothing more."""
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of sockets' transports
        await self.over.wait()
        writer.transport.abort()


@asynccontextmanager
async def listening(peer: Peer, folder: Path) -> AsyncIterator[Address]:
    path = folder / "e.sock"
    server = await asyncio.start_unix_server(peer.serve, path)
    try:
        yield parse(f"unix://{path}")
    finally:
        server.close()
        peer.over.set()
        if peer.asked.is_set():
            await peer.ended.wait()


async def test_what_comes_right_after_the_answer_is_not_lost(tmp_path: Path) -> None:
    peer = Peer(SWITCHED + b"PRI * HTTP/2.0", echo)
    async with listening(peer, tmp_path) as address:
        found = await upgrade(address, path=SESSION, headers=[("X-A", "1"), ("X-A", "2")])
        assert await found.reader.readexactly(14) == b"PRI * HTTP/2.0"
        found.writer.write(b"ping")
        assert await found.reader.readexactly(4) == b"ping"
        await found.close()
        await peer.ended.wait()

    lines = peer.heads[0].decode().split("\r\n")
    assert lines[0] == "POST /session HTTP/1.1"
    assert {"Connection: Upgrade", "Upgrade: h2c", "X-A: 1", "X-A: 2"} <= set(lines)


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        pytest.param(
            b'HTTP/1.1 400 Bad\r\ncontent-length: 32\r\n\r\n{"message":"session x is taken"}',
            Refused,
            "session x is taken",
            id="refused, with a reason",
        ),
        pytest.param(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n404 page not found\n",
            Refused,
            "page not found",
            id="a path that is gone",
        ),
        pytest.param(
            b"HTTP/1.1 500 Error\r\n\r\n", Unreachable, "does not say why", id="no reason"
        ),
        pytest.param(
            b"HTTP/1.1 500 Error\r\nContent-Length: 9\r\n\r\nhalf",
            Unreachable,
            "closed",
            id="half",
        ),
        pytest.param(b"HTTP/1.1 101", Unreachable, "closed", id="half a head"),
        pytest.param(b"", Unreachable, "closed", id="nothing"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", EngineError, "no engine", id="another protocol"),
        pytest.param(b"HTTP/1.1 x\r\n\r\n", EngineError, "no engine", id="no status"),
        pytest.param(b"x" * (2 << 20), EngineError, "no engine", id="a head without end"),
    ],
)
async def test_what_is_no_upgrade(
    tmp_path: Path, answer: bytes, kind: type[EngineError], text: str
) -> None:
    async with listening(Peer(answer), tmp_path) as address:
        with pytest.raises(kind, match=text) as caught:
            await upgrade(address)

    assert type(caught.value) is kind


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="No such file"):
        await upgrade(Address(path=str(tmp_path / "none")))


async def test_a_header_holds_no_second_one() -> None:
    with pytest.raises(ValueError, match="line break"):
        await upgrade(Address(path="/nowhere"), headers=[("X-A", "1\r\nX-B: 2")])


async def test_an_upgrade_that_is_cancelled_closes_its_connection(tmp_path: Path) -> None:
    peer = Peer(b"", echo)
    async with listening(peer, tmp_path) as address:
        task = asyncio.create_task(upgrade(address))
        await peer.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await peer.ended.wait()


async def test_the_bridge_carries_bytes_both_ways(tmp_path: Path) -> None:
    peer = Peer(SWITCHED, echo)
    data = bytes(range(256)) * 8192
    async with listening(peer, tmp_path) as address, bridge(address) as there:
        path = Path(there.removeprefix("unix://"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.close()
        await peer.ended.wait()

    assert peer.heads[0].startswith(b"POST /grpc HTTP/1.1\r\n")
    assert not path.parent.exists()


async def test_the_bridge_waits_for_who_takes_slowly(tmp_path: Path) -> None:
    """Else a build's context would fill our memory."""
    peer = Peer(SWITCHED)
    peer._then = peer.hold
    async with listening(peer, tmp_path) as address, bridge(address) as there:
        _, writer = await asyncio.open_unix_connection(there.removeprefix("unix://"))
        writer.transport.set_write_buffer_limits(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(writer), 1)
        writer.transport.abort()


async def test_the_bridge_closes_what_the_engine_refuses(tmp_path: Path) -> None:
    refusal = b"HTTP/1.1 500 Error\r\nContent-Length: 2\r\n\r\nno"
    async with listening(Peer(refusal), tmp_path) as address, bridge(address) as there:
        reader, writer = await asyncio.open_unix_connection(there.removeprefix("unix://"))
        assert await reader.read() == b""
        writer.close()


async def test_the_bridge_closes_what_the_engine_closes(tmp_path: Path) -> None:
    async with listening(Peer(SWITCHED + b"bye"), tmp_path) as address, bridge(address) as there:
        reader, writer = await asyncio.open_unix_connection(there.removeprefix("unix://"))
        assert await reader.read() == b"bye"
        writer.close()


async def test_the_bridge_leaves_nothing_open(tmp_path: Path) -> None:
    peer = Peer(SWITCHED, echo)
    async with listening(peer, tmp_path) as address:
        async with bridge(address) as there:
            reader, writer = await asyncio.open_unix_connection(there.removeprefix("unix://"))
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        assert await reader.read() == b""
        await peer.ended.wait()
        writer.close()

    assert not [task for task in asyncio.all_tasks() if "_carry" in repr(task)]
