"""Who is held, who is released, and what that costs."""

import asyncio
from dataclasses import dataclass, field

import pytest

from imagewright.domain.autoscale import Load, Usage
from imagewright.pools.guard import HOLD_SECONDS, RELEASE_SECONDS, Guard
from imagewright.ports import Unavailable
from tests.support.worker_set import FakeWorkerSet


@dataclass
class Scene:
    """Workers, and a clock in our hand."""

    workers: FakeWorkerSet = field(default_factory=FakeWorkerSet)
    now: float = 0.0
    usages: dict[int, Usage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.guard = Guard(self.workers, self.load)

    def load(self) -> Load:
        return Load(tuple(self.usages.values()), 0, self.now)

    def use(self, ordinal: int, leased: int) -> None:
        """The worker has so many leases from now on."""
        self.usages[ordinal] = Usage(ordinal, leased, self.now)

    async def passes(self, seconds: float) -> None:
        """So many seconds later somebody looks."""
        self.now += seconds
        await self.guard.once()


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    scene.use(0, 0)
    return scene


async def test_a_worker_that_is_leased_for_some_seconds_is_held_once(scene: Scene) -> None:
    scene.use(0, 1)
    await scene.passes(HOLD_SECONDS - 0.1)
    assert scene.workers.calls == []
    await scene.passes(0.1)
    await scene.passes(1000)
    assert scene.workers.calls == ["hold 0"]


async def test_a_held_worker_that_rests_is_released_once(scene: Scene) -> None:
    scene.use(0, 1)
    await scene.passes(HOLD_SECONDS)
    scene.use(0, 0)
    await scene.passes(RELEASE_SECONDS - 0.1)
    assert scene.workers.held == {0: True}
    await scene.passes(0.1)
    await scene.passes(1000)
    assert scene.workers.calls == ["hold 0", "release 0"]


async def test_many_short_builds_cost_no_write_at_all(scene: Scene) -> None:
    for _ in range(500):
        scene.use(0, 1)
        await scene.passes(0.1)
        scene.use(0, 0)
        await scene.passes(0.1)
    assert scene.workers.calls == []


async def test_what_an_operator_before_us_held_is_released(scene: Scene) -> None:
    scene.workers.held = {0: True}
    await scene.passes(RELEASE_SECONDS)
    assert scene.workers.held == {0: False}


async def test_a_pod_that_came_back_under_its_name_is_held_again(scene: Scene) -> None:
    scene.use(0, 1)
    await scene.passes(HOLD_SECONDS)
    scene.workers.held = {}
    scene.use(0, 0)
    await scene.passes(1)
    scene.use(0, 1)
    await scene.passes(HOLD_SECONDS)
    assert scene.workers.held == {0: True}


async def test_a_pod_that_went_and_came_is_told_anew(scene: Scene) -> None:
    await scene.passes(RELEASE_SECONDS)
    resting = scene.usages.pop(0)
    await scene.passes(1)
    scene.usages[0] = resting
    await scene.passes(1)
    assert scene.workers.calls == ["release 0", "release 0"]


async def test_one_that_fails_hinders_no_other_and_is_tried_again(scene: Scene) -> None:
    scene.use(0, 1)
    scene.use(1, 1)
    scene.workers.trouble = [Unavailable("Not now.")]
    await scene.passes(HOLD_SECONDS)
    assert scene.workers.held == {1: True}
    await scene.passes(1)
    assert scene.workers.held == {0: True, 1: True}
    assert sorted(scene.workers.calls) == ["hold 0", "hold 0", "hold 1"]


async def test_it_looks_by_itself_until_it_is_cancelled(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagewright.pools.guard.LOOK_SECONDS", 0.001)
    task = asyncio.create_task(scene.guard.run())
    scene.now = RELEASE_SECONDS
    await scene.workers.called("release 0")
    scene.use(0, 1)
    scene.now += HOLD_SECONDS
    await scene.workers.called("hold 0")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
