"""A pool's workers follow the endpoints of its Service, and a build is never cut by that."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from imagewright.domain.facts import Granted
from imagewright.metrics import Metrics
from imagewright.pools.discovery import Discovery
from imagewright.pools.line import Line
from imagewright.pools.pool import Worker
from imagewright.ports import Endpoint
from tests.support.parts import a_backend
from tests.support.pooling import a_pool, an_entry, answers


def pods(*ordinals: int, host: str = "10.0.0.") -> frozenset[Endpoint]:
    """Endpoints of the Pods with these numbers."""
    return frozenset(Endpoint(f"bk-{one}", f"{host}{one}:1") for one in ordinals)


class Scene:
    """A pool that follows what is put into `found`; its daemons answer at once."""

    def __init__(self) -> None:
        self.found: asyncio.Queue[frozenset[Endpoint]] = asyncio.Queue()
        self.opened, self.closed = list[str](), list[str]()
        self.go = asyncio.Event()
        self.go.set()
        self.pool = a_pool()
        self.line = Line(self.pool, lambda: 0.0, Metrics())
        self.discovery = Discovery(self.pool, self.open, "bk")

    async def open(self, address: str) -> Worker:
        """A worker of two slots; takes until `go`."""

        async def close() -> None:
            self.closed.append(address)

        await self.go.wait()
        self.opened.append(address)
        return Worker(address, 2, a_backend(), answers, address=address, close=close)

    async def sets(self) -> AsyncIterator[frozenset[Endpoint]]:
        """What is put, for ever."""
        while True:
            yield await self.found.get()

    async def is_of(self, *expected: str) -> None:
        """Wait until these are the workers. Raises TimeoutError."""
        await until(lambda: {one.name for one in self.pool.workers if one.up}, set(expected))

    def enter(self, uid: str) -> str:
        """Where a build is let in; empty where it waits."""
        self.line.enter(an_entry(uid))
        turn = self.line.turn(uid)
        return turn.worker if isinstance(turn, Granted) else ""


async def until(look: Callable[[], object], expected: object) -> None:
    """Wait until that is seen. Raises TimeoutError."""
    async with asyncio.timeout(2):
        while look() != expected:
            await asyncio.sleep(0)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    task = asyncio.create_task(made.discovery.run(made.sets()))
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await made.pool.close()


async def test_workers_come_and_go_with_the_endpoints_under_their_pods_names(scene: Scene) -> None:
    scene.found.put_nowait(pods(0, 1))
    await scene.is_of("bk-0", "bk-1")
    assert {one.address for one in scene.pool.workers} == {"tcp://10.0.0.0:1", "tcp://10.0.0.1:1"}
    scene.found.put_nowait(pods(1, 2))
    await scene.is_of("bk-1", "bk-2")
    await until(lambda: scene.closed, ["tcp://10.0.0.0:1"])
    assert len(scene.opened) == 3


async def test_a_pod_that_came_back_elsewhere_is_opened_anew_and_keeps_its_name(
    scene: Scene,
) -> None:
    scene.found.put_nowait(pods(0))
    await scene.is_of("bk-0")
    scene.found.put_nowait(pods(0, host="10.0.9."))
    await until(lambda: scene.closed, ["tcp://10.0.0.0:1"])
    await until(lambda: [one.address for one in scene.pool.workers], ["tcp://10.0.9.0:1"])
    await scene.is_of("bk-0")


async def test_a_worker_that_left_builds_on_and_is_closed_when_the_build_has_ended(
    scene: Scene,
) -> None:
    scene.found.put_nowait(pods(0))
    await scene.is_of("bk-0")
    assert scene.enter("a") == "bk-0"
    lease = scene.line.take("a")
    scene.found.put_nowait(pods())
    await scene.is_of()
    assert scene.enter("b") == ""
    assert [one.name for one in scene.pool.leaving] == ["bk-0"]
    assert scene.closed == []
    lease.release()
    await until(lambda: scene.closed, ["tcp://10.0.0.0:1"])
    assert scene.pool.leaving == ()


async def test_one_that_is_back_while_it_builds_has_only_the_slots_that_are_left(
    scene: Scene,
) -> None:
    scene.found.put_nowait(pods(0))
    await scene.is_of("bk-0")
    assert scene.enter("a") == "bk-0"
    scene.line.take("a")
    scene.found.put_nowait(pods())
    await scene.is_of()
    scene.found.put_nowait(pods(0))
    await scene.is_of("bk-0")
    assert [scene.enter(uid) for uid in ("b", "c")] == ["bk-0", ""]
    assert scene.opened == ["tcp://10.0.0.0:1"]


async def test_a_lease_that_was_not_taken_does_not_keep_a_worker_that_leaves(scene: Scene) -> None:
    scene.found.put_nowait(pods(0))
    await scene.is_of("bk-0")
    assert scene.enter("a") == "bk-0"
    scene.found.put_nowait(pods())
    await until(lambda: scene.closed, ["tcp://10.0.0.0:1"])
    assert scene.line.turn("a") is None


async def test_what_went_while_it_was_opened_is_closed_and_never_leased(scene: Scene) -> None:
    scene.go.clear()
    scene.found.put_nowait(pods(0))
    await until(scene.found.empty, expected=True)
    scene.found.put_nowait(pods(1))
    await until(scene.found.empty, expected=True)
    await asyncio.sleep(0)
    scene.go.set()
    await scene.is_of("bk-1")
    assert scene.closed == ["tcp://10.0.0.0:1"]


async def test_those_that_will_not_stay_are_retired_at_once_and_back_when_they_will(
    scene: Scene,
) -> None:
    others = frozenset({Endpoint("other-9", "10.0.0.9:1")})
    scene.found.put_nowait(pods(0, 1, 2) | others)
    await scene.is_of("bk-0", "bk-1", "bk-2", "other-9")
    scene.discovery.limit(1)
    assert {one.name for one in scene.pool.workers} == {"bk-0", "other-9"}
    scene.discovery.limit(2)
    await scene.is_of("bk-0", "bk-1", "other-9")
