"""A push that is given up is given up by the engine, too."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from imagewright.clients.engine.build import Build
from imagewright.clients.engine.engine import Engine
from tests.support.engines import tar


async def context() -> AsyncIterator[bytes]:
    """A Dockerfile of one file."""
    yield tar({"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a"})


@pytest.mark.row("I9")
@pytest.mark.parametrize("kind", ["old", "new", "containerd"], indirect=True)
async def test_a_push_that_is_dropped_lets_the_registry_go(engine: Engine) -> None:
    came, left = asyncio.Event(), asyncio.Event()

    async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        while await reader.read(1 << 16):
            continue
        left.set()
        writer.close()

    server = await asyncio.start_server(never_answers, "127.0.0.1", 0)
    name = f"127.0.0.1:{server.sockets[0].getsockname()[1]}/stuck"
    try:
        built = await engine.run(Build(), context())
        await engine.tag(built.image_id, name, "1")
        pushing = asyncio.create_task(engine.push(name, "1"))
        await asyncio.wait_for(came.wait(), 20)
        pushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pushing
        await asyncio.wait_for(left.wait(), 20)
        await engine.remove(f"{name}:1")
    finally:
        server.close()
