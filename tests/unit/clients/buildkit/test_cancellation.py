"""Calls that are cancelled, against a daemon that never answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from imagewright.clients.buildkit.cancellation import answer_of
from imagewright.clients.buildkit.channel import open_channel
from imagewright.clients.buildkit.control import Control
from imagewright.clients.buildkit.request import Solve
from tests.support.grpc_daemon import Daemon, serve_daemon

SERVICE = "/moby.buildkit.v1.Control/"


class Deaf:
    """Hears every call, and answers none."""

    def __init__(self) -> None:
        self.heard, self.over = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.daemon = Daemon({SERVICE + "Solve": self._unary, SERVICE + "Status": self._stream})

    async def _unary(self, _request: bytes, _context: Any) -> bytes:
        await self._wait()
        return b""

    async def _stream(self, _request: bytes, _context: Any) -> AsyncIterator[bytes]:
        await self._wait()
        yield b""

    async def _wait(self) -> None:
        self.heard.release()
        try:
            await asyncio.Event().wait()
        finally:
            self.over.release()

    async def cancels(self, work: Awaitable[object]) -> None:
        """Begun, cancelled once the daemon has heard of it, and over on both sides."""
        task = asyncio.ensure_future(work)
        await self.heard.acquire()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await self.over.acquire()


async def solve(control: Control) -> None:
    await control.solve(Solve("r"))


async def follow(control: Control) -> None:
    async for _ in control.follow("r"):
        raise AssertionError("Nobody answers.")


@contextmanager
def complaints() -> Iterator[list[dict[str, Any]]]:
    """What the loop says of exceptions that nobody heard."""
    found: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, told: found.append(told))
    try:
        yield found
    finally:
        loop.set_exception_handler(None)


@pytest.mark.parametrize("ask", [solve, follow])
async def test_who_cancels_the_waiting_cancels_the_call(
    tmp_path: Path, ask: Callable[[Control], Awaitable[None]]
) -> None:
    deaf = Deaf()
    async with serve_daemon(tmp_path / "d", deaf.daemon) as address, asyncio.timeout(30):
        control = Control(address)
        with complaints() as found:
            await deaf.cancels(ask(control))
            await control.close()

    assert found == []


async def test_the_tasks_in_grpc_end_by_themselves_for_else_it_leaks(tmp_path: Path) -> None:
    deaf = Deaf()
    async with serve_daemon(tmp_path / "d", deaf.daemon) as address, asyncio.timeout(30):
        channel: Any = open_channel(address)
        unary = channel.unary_unary(SERVICE + "Solve")(b"")
        await deaf.cancels(answer_of(unary, unary))
        stream = channel.unary_stream(SERVICE + "Status")(b"")
        await deaf.cancels(answer_of(stream, stream.read()))
        inner = [unary._call_response, stream._preparation]
        await asyncio.wait(inner)
        assert await unary.code() == await stream.code() == grpc.StatusCode.CANCELLED
        await channel.close()

    assert [task.cancelling() for task in inner] == [0, 0]
