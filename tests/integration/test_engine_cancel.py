"""Builds that are stopped, on real engines."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from imagewright.clients.engine.build import BUILDKIT, CLASSIC, Build
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import Refused, StreamError
from tests.support.engines import built, containers, is_there, pieces, posted, tar, unique

BOTH = [CLASSIC, BUILDKIT]
DEADLINE = 90


class Sleeper:
    """A build whose last step sleeps under a name of its own, so that it can be seen to run."""

    def __init__(self, base: str, seconds: str) -> None:
        self.seconds = f"{seconds}.{secrets.randbelow(10**9):09}"
        self.dockerfile = f"FROM {base}\n{unique()}RUN sleep {self.seconds}\n"

    @property
    def context(self) -> AsyncIterator[bytes]:
        """Its context."""
        return pieces(tar({"Dockerfile": self.dockerfile}))

    async def until(self, *, running: bool) -> None:
        """Wait until it runs, or does not any more."""
        async with asyncio.timeout(DEADLINE):
            while await asyncio.to_thread(self._runs) is not running:
                await asyncio.sleep(0.05)

    def _runs(self) -> bool:
        return any(_argument(entry) == self.seconds for entry in Path("/proc").iterdir())


def _argument(entry: Path) -> str:
    """The last argument of a process; nothing where there is no such process any more."""
    if not entry.name.isdigit() or int(entry.name) == os.getpid():
        return ""
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return words[1].decode(errors="replace") if words[0].endswith(b"sleep") else ""


@pytest.mark.row("C1")
@pytest.mark.parametrize("version", BOTH)
async def test_a_dropped_connection_stops_a_build_and_leaves_nothing(
    engine: Engine, base: str, name: str, version: int
) -> None:
    before = await containers(engine)
    sleeper = Sleeper(base, "600")
    build = Build(version=version, tags=(f"{name}:1",))
    task = asyncio.create_task(engine.run(build, sleeper.context))
    await sleeper.until(running=True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await sleeper.until(running=False)

    assert not await is_there(engine, f"{name}:1")
    async with asyncio.timeout(DEADLINE):
        while await containers(engine) - before:
            await asyncio.sleep(0.05)


async def test_so_does_leaving_its_stream(engine: Engine, base: str) -> None:
    sleeper = Sleeper(base, "600")
    async with aclosing(engine.build(Build(), sleeper.context)) as stream:
        await anext(stream)
        await sleeper.until(running=True)
    await sleeper.until(running=False)


@pytest.mark.row("C2", "C10")
async def test_cancelling_by_id_stops_a_build_of_buildkit(
    engine: Engine, base: str, name: str
) -> None:
    sleeper = Sleeper(base, "600")
    build = Build(version=2, build_id=name, tags=(f"{name}:1",))
    task = asyncio.create_task(engine.run(build, sleeper.context))
    await sleeper.until(running=True)
    await engine.cancel(name)
    await engine.cancel(name)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(StreamError, match="context canceled"):
            await task

    await sleeper.until(running=False)
    await engine.cancel(name)
    assert not await is_there(engine, f"{name}:1")


@pytest.mark.row("C3")
async def test_cancelling_by_id_does_not_reach_a_classic_build(
    engine: Engine, base: str, name: str
) -> None:
    sleeper = Sleeper(base, "2")
    posting = posted(
        engine, "/build", [("buildid", name)], tar({"Dockerfile": sleeper.dockerfile})
    )
    task = asyncio.create_task(posting)
    await sleeper.until(running=True)
    await engine.cancel(name)

    assert b"Successfully built" in (await task).body


@pytest.mark.row("C4")
async def test_cancelling_what_is_not_there_is_fine(engine: Engine, name: str) -> None:
    await engine.cancel(name)
    answer = await posted(engine, "/build/cancel", [("id", name)])

    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.row("C5")
async def test_cancelling_nothing_is_refused(engine: Engine, kind: str) -> None:
    answer = await posted(engine, "/build/cancel")

    assert answer.status == (500 if kind == "old" else 400)
    assert answer.json()["message"] == "build ID not provided"


async def test_the_engine_forgets_what_was_cancelled_before_it_began(
    engine: Engine, name: str
) -> None:
    await engine.cancel(name)
    build = Build(version=2, build_id=name)

    assert (await built(engine, build, f"FROM scratch\n{unique()}")).result.image_id


@pytest.mark.row("C7")
async def test_of_two_builds_with_one_id_the_newest_is_cancelled(
    engine: Engine, base: str, name: str
) -> None:
    first, second = Sleeper(base, "8"), Sleeper(base, "600")
    build = Build(version=2, build_id=name)
    older = asyncio.create_task(engine.run(build, first.context))
    await first.until(running=True)
    newer = asyncio.create_task(engine.run(build, second.context))
    await second.until(running=True)
    await engine.cancel(name)

    async with asyncio.timeout(DEADLINE):
        with pytest.raises(StreamError, match="context canceled"):
            await newer
        assert (await older).image_id


@pytest.mark.row("R11")
async def test_a_build_in_two_requests_finds_its_other_half(engine: Engine, name: str) -> None:
    asking = Build(version=2, remote="upload-request", build_id=name, tags=(f"{name}:1",))
    task = asyncio.create_task(engine.run(asking))
    sending = [("version", "2"), ("buildid", f"upload-request:{name}")]
    body = tar({"Dockerfile": f"FROM scratch\n{unique()}"})
    upload = await posted(engine, "/build", sending, body)

    assert (upload.status, upload.body) == (200, b"")
    assert (await task).image_id == (await engine.inspect(f"{name}:1")).id


@pytest.mark.row("R11")
async def test_half_a_build_gives_up(engine: Engine, name: str) -> None:
    sending = [("version", "2"), ("buildid", f"upload-request:{name}")]
    async with asyncio.timeout(DEADLINE):
        alone = await posted(engine, "/build", sending, tar({"Dockerfile": "FROM scratch\n"}))
        with pytest.raises(Refused, match="context deadline exceeded") as caught:
            await engine.run(Build(version=2, remote="upload-request", build_id=f"{name}-2"))

    assert alone.status == caught.value.status == 500
