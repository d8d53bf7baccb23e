"""The autoscaler's shell: when it asks, what it writes, and what it does when that fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from imagewright.domain.autoscale import Bounds, Load, Usage
from imagewright.pools import autoscale
from imagewright.pools.autoscale import LOOK_SECONDS, Autoscaler
from imagewright.ports import Conflict, Gone, Scale, Unavailable
from tests.support.worker_set import FakeWorkerSet

BOUNDS = Bounds(slots=4, least=0, most=3, idle_seconds=600)


@dataclass
class Scene:
    """A pool of that set, its clock in our hand."""

    workers: FakeWorkerSet = field(default_factory=FakeWorkerSet)
    now: float = 0.0
    waiting: int = 0
    usages: dict[int, Usage] = field(default_factory=dict)
    limits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scaler = Autoscaler(self.workers, self.load, self.limits.append, BOUNDS)

    def load(self) -> Load:
        return Load(tuple(self.usages.values()), self.waiting, self.now)

    def use(self, ordinal: int, leased: int) -> None:
        """The worker has so many leases from now on."""
        self.usages[ordinal] = Usage(ordinal, leased, self.now)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The autoscaler runs."""
        task = asyncio.create_task(self.scaler.run())
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def becomes(self, replicas: int) -> None:
        """Wait until so many are asked for."""
        self.scaler.nudge()
        await self.workers.called(f"put {replicas}")
        assert self.workers.replicas == replicas


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_the_first_build_that_waits_makes_it_one_and_ten_idle_minutes_make_it_none(
    scene: Scene,
) -> None:
    async with scene.running():
        await scene.workers.called("get")
        scene.waiting = 1
        await scene.becomes(1)
        scene.now, scene.waiting = 60.0, 0
        scene.use(0, 1)
        scene.scaler.nudge()
        scene.now = 1000.0
        scene.use(0, 0)
        scene.now = 1599.9
        scene.scaler.nudge()
        await scene.workers.called("get", 3)
        assert scene.workers.replicas == 1
        scene.now = 1600.0
        await scene.becomes(0)
    assert scene.workers.calls == ["get", "get", "put 1", "get", "get", "put 0"]


async def test_a_nudge_that_changes_nothing_costs_no_request(scene: Scene) -> None:
    scene.workers.set(1)
    scene.use(0, 0)
    await scene.scaler.once()
    for leased in (1, 2, 3, 0):
        scene.use(0, leased)
        await scene.scaler.once()
    assert scene.workers.calls == ["get"]


async def test_the_number_is_looked_at_now_and_then_whatever_happens(scene: Scene) -> None:
    scene.workers.set(1)
    scene.use(0, 1)
    await scene.scaler.once()
    scene.workers.set(7)
    scene.now = LOOK_SECONDS
    await scene.scaler.once()
    assert scene.workers.calls == ["get", "get", "put 3"]
    assert scene.workers.replicas == 3


async def test_a_nudge_during_a_look_is_not_lost(scene: Scene) -> None:
    class Slow(FakeWorkerSet):
        async def resize(self, seen: Scale, replicas: int) -> Scale:
            scene.waiting = 9
            scene.scaler.nudge()
            return await super().resize(seen, replicas)

    scene.workers, scene.waiting = Slow(), 1
    scene.__post_init__()
    async with scene.running():
        await scene.workers.called("put 3")
    assert scene.workers.calls == ["get", "put 1", "get", "put 3"]


async def test_it_ends_when_it_is_cancelled_and_nudged_at_once(scene: Scene) -> None:
    async with scene.running():
        await scene.workers.called("get")
        for _ in range(5):
            await asyncio.sleep(0)
        scene.scaler.nudge()
        await asyncio.sleep(0)


async def test_who_is_about_to_go_is_not_leased_even_before_it_is_written(scene: Scene) -> None:
    scene.workers.set(3)
    for ordinal in range(3):
        scene.use(ordinal, 0)
    scene.use(0, 1)
    await scene.scaler.once()
    assert scene.limits == [3]
    scene.now = 600.0
    scene.workers.trouble = [None, Unavailable("No answer: who knows whether it was written.")]
    with pytest.raises(Unavailable):
        await scene.scaler.once()
    assert scene.limits == [3, 1]
    scene.waiting = 9
    await scene.scaler.once()
    assert scene.limits == [3, 1, 3]


async def test_whoever_is_leased_while_the_number_is_read_stays(scene: Scene) -> None:
    class Leasing(FakeWorkerSet):
        async def scale(self) -> Scale:
            found = await super().scale()
            scene.use(1, 1)
            return found

    scene.workers = Leasing(2)
    scene.__post_init__()
    for ordinal in range(2):
        scene.use(ordinal, 0)
    scene.now = 600.0
    await scene.scaler.once()
    assert scene.workers.calls == ["get"]
    assert scene.limits == [2]


async def test_a_worker_on_its_way_has_its_time_from_when_it_was_asked_for(scene: Scene) -> None:
    scene.waiting = 1
    await scene.scaler.once()
    scene.waiting, scene.now = 0, 599.0
    await scene.scaler.once()
    assert scene.workers.replicas == 1
    scene.now = 611.0
    await scene.scaler.once()
    assert scene.workers.replicas == 0


async def test_after_a_restart_workers_that_are_not_seen_yet_have_their_time(
    scene: Scene,
) -> None:
    scene.workers.set(2)
    scene.now = 5000.0
    await scene.scaler.once()
    assert scene.workers.replicas == 2


async def test_somebody_who_wrote_first_makes_it_look_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoscale, "FIRST_PAUSE", 0.001)

    class Contested(FakeWorkerSet):
        async def scale(self) -> Scale:
            found = await super().scale()
            if self.calls == ["get"]:
                self.set(2)
            return found

    scene.workers, scene.waiting = Contested(), 1
    scene.__post_init__()
    async with scene.running():
        await scene.workers.called("get", 2)
    # Two are more than what waits needs; they stay, as something waits.
    assert scene.workers.calls == ["get", "put 1", "get"]
    assert scene.workers.replicas == 2


@pytest.mark.parametrize(
    "error",
    [Unavailable("Nobody answers."), Gone("There is no StatefulSet."), Conflict("Written.")],
    ids=["the API server is away", "the StatefulSet is not there", "a conflict"],
)
async def test_what_fails_is_tried_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: Unavailable | Conflict
) -> None:
    monkeypatch.setattr(autoscale, "FIRST_PAUSE", 0.001)
    scene.workers.trouble = [error, error, None, error, None, None]
    scene.waiting = 1
    async with scene.running():
        await scene.workers.called("put 1", 2)
    assert scene.workers.calls == ["get", "get", "get", "put 1", "get", "put 1"]
    assert scene.workers.replicas == 1
