"""The operator is killed in each phase of a real build: the next one ends it as it should end."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from bench.processes import appeared
from devstack.builds import Seen
from devstack.images import digest_of
from devstack.webserver import pack, serve
from tests.faults.gate import Gate
from tests.faults.scene import Lane, Scene, scene
from tests.faults.strike import Strike
from tests.faults.sweep import SHARED_SECONDS, most_at_once
from tests.faults.workloads import EPOCH, build, ended, small

pytestmark = pytest.mark.asyncio(loop_scope="module")
FAR_SECONDS = 20.0
"""What it may take to come to a phase."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a build is made of: a scene, a gate before the registry, a spec with two names."""

    scene: Scene
    gate: Gate
    names: tuple[str, str]

    def spec(self, text: str) -> dict[str, Any]:
        """A Dockerfile after `FROM` the base image."""
        files = {"Dockerfile": f"FROM {self.scene.lane.stack.base_image}\n{text}\n"}
        return build(files, images=list(self.names))

    def at(self, call: Strike) -> Awaitable[object]:
        """Until the operator is killed there."""
        self.scene.daemon.strike = call
        return self.scene.daemon.struck.wait()

    def seen(self, words: bytes) -> Awaitable[object]:
        """Until the daemon says so, at which the operator is killed."""
        self.scene.daemon.sight = (words, Strike(1, before=True, act=self.scene.kill))
        return self.scene.daemon.struck.wait()

    async def held(self) -> None:
        """Until the gate holds a request; then the operator is killed, and the gate opened."""
        await self.gate.reached.wait()
        self.scene.kill()
        self.gate.open()


@pytest_asyncio.fixture(loop_scope="module")
async def place(lane: Lane, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """A place whose gate holds what the test's mark says."""
    shut = getattr(request, "param", "nothing")
    async with Gate(lane.stack.registry, shut) as gate, scene(lane, "phase") as stage:
        base = f"{gate.host}/{lane.builds.namespace}/{stage.name}"
        stage.older = await stage.version()
        await asyncio.to_thread(stage.start().begun)
        yield Place(stage, gate, (f"{base}:1", f"{base}:2"))


async def resumed(place: Place, spec: dict[str, Any], struck: Awaitable[object]) -> Seen:
    """Create it, wait until the operator is dead, start the next; how it ended, and it did."""
    stage = place.scene
    await stage.objects.create(stage.name, spec)
    async with asyncio.timeout(FAR_SECONDS):
        await struck
    assert not stage.operators[0].alive
    await asyncio.to_thread(stage.start().begun)
    up = time.monotonic()
    last = await stage.objects.until(stage.name, ended(1), SHARED_SECONDS)
    assert last.at < up + SHARED_SECONDS
    assert most_at_once(stage.daemon.calls, "Solve") == 1
    return last


async def is_right(place: Place, last: Seen, attempt: int) -> None:
    """It succeeded, in so many attempts, and each name has its digest in the registry."""
    assert last.status["phase"] == "Succeeded", last.status
    assert last.status["attempt"] == attempt
    stack, digest = place.scene.lane.stack, last.status["imageDigest"]
    for name in place.names:
        assert await asyncio.to_thread(digest_of, stack, name) == digest
    assert [one["state"] for one in last.status["images"]] == ["Pushed", "Pushed"]
    assert len(place.scene.api.writes) <= 4


async def test_killed_while_the_source_is_fetched(place: Place) -> None:
    files = {"Dockerfile": "FROM scratch\nCOPY . /\n", "a.txt": place.scene.name}
    served = serve({"/c.tar.gz": pack(files)}, "/c.tar.gz")
    host, _, path = served.url.removeprefix("http://").partition("/")
    async with Gate(host, "GET /c.tar.gz") as slow:
        source = {"http": {"url": f"http://{slow.host}/{path}", "sha256": served.sha256}}
        spec = {"source": source, "output": EPOCH, "images": list(place.names)}
        fetching = Place(place.scene, slow, place.names)
        last = await resumed(fetching, spec, fetching.held())
    await is_right(place, last, attempt=2)
    await asyncio.to_thread(served.stop)


@pytest.mark.row("F3")
async def test_killed_while_a_step_runs(place: Place) -> None:
    async def stepping() -> None:
        await appeared(place.scene.lane.step, FAR_SECONDS)
        place.scene.kill()

    spec = place.spec(f"RUN sleep {place.scene.lane.step}")
    await is_right(place, await resumed(place, spec, stepping()), attempt=2)


async def test_killed_while_the_image_is_exported(place: Place) -> None:
    spec = place.spec(f"RUN head -c 3000000 /dev/urandom > /{place.scene.name}")
    last = await resumed(place, spec, place.seen(b"exporting layers"))
    await is_right(place, last, attempt=2)


@pytest.mark.parametrize(
    "place",
    ["POST .*/blobs/uploads/", "PUT .*/manifests/1", "PUT .*/manifests/2"],
    ids=["a layer", "the first name", "the second name"],
    indirect=True,
)
async def test_killed_while_it_is_pushed(place: Place) -> None:
    spec = place.spec(f"RUN echo {place.scene.name} > /a")
    await is_right(place, await resumed(place, spec, place.held()), attempt=2)


@pytest.mark.row("F4")
async def test_killed_after_the_push(place: Place) -> None:
    spec = place.spec(f"RUN echo {place.scene.name} > /a")
    solved = Strike(1, before=False, act=place.scene.kill, name="Solve")
    await is_right(place, await resumed(place, spec, place.at(solved)), attempt=2)


@pytest.mark.parametrize(("before", "attempt"), [(True, 2), (False, 1)], ids=["before", "after"])
async def test_killed_at_the_write_of_the_end(place: Place, before: bool, attempt: int) -> None:
    place.scene.api.strike = Strike(2, before, place.scene.kill)
    spec = place.spec(f"RUN echo {place.scene.name} > /a")
    last = await resumed(place, spec, place.scene.api.struck.wait())
    await is_right(place, last, attempt)


@pytest.mark.row("F6")
async def test_killed_again_while_it_lists_after_a_restart(place: Place) -> None:
    stage = place.scene
    stage.api.strike = Strike(1, before=False, act=stage.kill)
    spec = small(stage) | {"images": list(place.names)}
    await stage.objects.create(stage.name, spec)
    async with asyncio.timeout(FAR_SECONDS):
        await stage.api.struck.wait()
    for _ in range(2):
        await struck_at_a_list(stage)
    await asyncio.to_thread(stage.start().begun)
    await is_right(place, await stage.objects.ended(stage.name, seconds=SHARED_SECONDS), attempt=2)


async def struck_at_a_list(stage: Scene) -> None:
    """Another operator, that gets its first list no more."""
    stage.api.strike_at_list(stage.kill)
    stage.start()
    async with asyncio.timeout(FAR_SECONDS):
        await stage.api.struck.wait()
