"""A pool with its line, its discovery and its autoscaler, the clock in our hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import generate_latest

from imagewright.domain.autoscale import Bounds, Load, Usage
from imagewright.domain.facts import Granted, Waiting
from imagewright.domain.plan import Inline, Plan, Sandbox
from imagewright.metrics import Metrics
from imagewright.pools.autoscale import Autoscaler, load_of
from imagewright.pools.discovery import Discovery
from imagewright.pools.entry import Lease
from imagewright.pools.line import Line
from imagewright.pools.pool import Worker
from imagewright.ports import Endpoint, Unavailable
from tests.support.parts import a_backend
from tests.support.pooling import PLAIN, a_pool, a_worker, an_entry, answers
from tests.support.worker_set import FakeWorkerSet

SLOTS, MOST = 2, 3
BOUNDS = Bounds(slots=SLOTS, least=0, most=MOST, idle_seconds=600)


class Scene:
    """The number of workers is what was asked for, as soon as `appear` is called."""

    def __init__(self, **terms: Any) -> None:
        self.now, self.workers, self.metrics = 0.0, FakeWorkerSet(), Metrics()
        self.found: asyncio.Queue[frozenset[Endpoint]] = asyncio.Queue()
        self.pool = a_pool(metrics=self.metrics, clock=self.clock, **terms)
        self.line = Line(self.pool, self.clock, self.metrics)
        self.discovery = Discovery(self.pool, self.open, "bk")
        self.scaler = Autoscaler(self.workers, self.load, self.discovery.limit, BOUNDS)
        self.line.waits, self.pool.growth = self.scaler.nudge, self.scaler.growth

    def clock(self) -> float:
        """Seconds since the scene was made."""
        return self.now

    def load(self) -> Load:
        """What the autoscaler sees."""
        return load_of(self.line, "bk", MOST * SLOTS)

    async def open(self, address: str) -> Worker:
        """A worker that answers."""
        return Worker("", SLOTS, a_backend(), answers, address=address)

    async def sets(self) -> AsyncIterator[frozenset[Endpoint]]:
        """What is put, for ever."""
        while True:
            yield await self.found.get()

    async def appear(self) -> None:
        """So many Pods are there as were asked for; wait until they are workers."""
        names = {f"bk-{one}" for one in range(self.workers.replicas)}
        self.found.put_nowait(frozenset(Endpoint(one, f"{one}:1") for one in names))
        async with asyncio.timeout(2):
            while {one.name for one in self.pool.workers if one.up} != names:
                await asyncio.sleep(0)

    def enter(self, uid: str, plan: Plan = PLAIN, **ticket: Any) -> None:
        """A build asks for a turn."""
        self.line.enter(an_entry(uid, plan, **ticket))

    def take(self, uid: str) -> Lease:
        """The lease that the build was granted."""
        assert isinstance(self.line.turn(uid), Granted)
        return self.line.take(uid)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    task = asyncio.create_task(made.discovery.run(made.sets()))
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await made.pool.close()


async def test_from_nothing_to_one_for_a_build_and_to_nothing_after_ten_idle_minutes(
    scene: Scene,
) -> None:
    scaling = asyncio.create_task(scene.scaler.run())
    await scene.workers.called("get")
    scene.enter("a")
    await scene.workers.called("put 1")
    scene.line.tell()
    turn = scene.line.turn("a")
    assert isinstance(turn, Waiting)
    assert "The pool is being scaled; workers asked for: 1." in turn.message
    scaling.cancel()
    await asyncio.wait([scaling])
    await scene.appear()
    lease = scene.take("a")
    scene.now = 5000.0
    await scene.scaler.once()
    assert scene.workers.replicas == 1
    lease.release()
    scene.now = 5599.0
    await scene.scaler.once()
    assert scene.workers.replicas == 1
    scene.now = 5600.0
    scene.scaler.nudge()
    await scene.scaler.once()
    assert scene.workers.replicas == 0
    assert not scene.pool.workers


async def test_idle_workers_go_from_above_and_never_one_that_builds(scene: Scene) -> None:
    for uid in "abcdef":
        scene.enter(uid)
    await scene.scaler.once()
    assert scene.workers.replicas == MOST
    await scene.appear()
    leases = [scene.take(uid) for uid in "abcdef"]
    # The worker in the middle leaves its Service while it builds: its Pod must stay all the same.
    busy = next(one for one in leases if one.worker.name == "bk-1")
    for lease in leases:
        if lease is not busy:
            lease.release()
    scene.pool.retire("bk-1")
    scene.now = 700.0
    await scene.scaler.once()
    assert scene.workers.replicas == 2
    assert {one.ordinal: one.leased for one in scene.load().usages} == {0: 0, 1: 1}
    busy.release()
    scene.now = 2000.0
    await scene.scaler.once()
    assert scene.workers.replicas == 0


async def test_a_worker_that_nobody_used_is_idle_since_it_came(scene: Scene) -> None:
    scene.workers.set(1)
    scene.now = 100.0
    await scene.appear()
    assert scene.load().usages == (Usage(0, 0, 100.0),)
    scene.enter("a")
    scene.now = 200.0
    lease = scene.take("a")
    scene.now = 300.0
    scene.enter("b")
    assert scene.load().usages == (Usage(0, 2, 100.0),)
    scene.line.leave("b")
    assert scene.load().usages == (Usage(0, 1, 100.0),)
    lease.release()
    assert scene.load().usages == (Usage(0, 0, 300.0),)


async def test_why_the_pool_cannot_be_scaled_is_told_to_those_who_wait(scene: Scene) -> None:
    scene.workers.trouble = [Unavailable("The API server refused it (403).")] * 100
    scaling = asyncio.create_task(scene.scaler.run())
    await scene.workers.called("get")
    scene.enter("a")
    scene.line.tell()
    turn = scene.line.turn("a")
    assert isinstance(turn, Waiting)
    assert "cannot be scaled now: The API server refused it (403)." in turn.message
    scaling.cancel()
    await asyncio.wait([scaling])


def test_a_pool_shows_what_others_scale_by_before_it_has_a_worker(scene: Scene) -> None:
    scene.enter("a")
    shown = generate_latest(scene.metrics.registry).decode().splitlines()
    for line in (
        'imagebuild_queue_depth{namespace="team",pool="default"} 1.0',
        'imagebuild_slots{pool="default"} 0.0',
        'imagebuild_slots_in_use{pool="default"} 0.0',
        'imagebuild_workers_up{pool="default"} 0.0',
    ):
        assert line in shown


HOST = Plan(Inline(), sandbox=Sandbox(network="host"))
ARM = Plan(Inline(), platforms=("linux/arm64",))


@pytest.mark.parametrize(
    ("terms", "plan", "count", "useful"),
    [
        pytest.param({}, PLAIN, 0, 0, id="nobody waits"),
        pytest.param({}, PLAIN, 4, 4, id="each wants a slot"),
        pytest.param({}, PLAIN, 99, 6, id="no more than all workers have"),
        pytest.param({"namespace_slots": 2}, PLAIN, 5, 2, id="a namespace has a limit"),
        pytest.param({}, HOST, 5, 0, id="the pool does not allow it"),
        pytest.param({"namespaces": frozenset({"x"})}, PLAIN, 5, 0, id="another namespace's pool"),
        pytest.param({"platforms": frozenset({"linux/amd64"})}, ARM, 5, 0, id="a platform"),
    ],
)
def test_only_those_whom_more_workers_would_help_make_a_pool_grow(
    terms: dict[str, object], plan: Plan, count: int, useful: int
) -> None:
    scene = Scene(**terms)
    for number in range(count):
        scene.enter(f"b{number}", plan)
    assert scene.load().waiting == useful


def test_slots_that_a_namespace_has_count_against_its_limit() -> None:
    scene = Scene(namespace_slots=3)
    scene.pool._workers["bk-0"] = a_worker("bk-0", SLOTS)
    for uid in "abcde":
        scene.enter(uid)
    scene.enter("f", namespace="other")
    assert scene.load().waiting == 2
