"""A StatefulSet that follows the work at a real API server, under the role of the chart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

import devstack
from imagewright.domain.autoscale import Bounds, Load, Usage
from imagewright.kube.client import KubeClient
from imagewright.kube.scale import HOLD, StatefulSet
from imagewright.pools.autoscale import LOOK_SECONDS, Autoscaler
from imagewright.pools.guard import HOLD_SECONDS, RELEASE_SECONDS, Guard
from imagewright.ports import Conflict, Gone, Scale, Unavailable
from tests.support.waiting import becomes
from tests.support.worker_pods import WorkerPods

BOUNDS = Bounds(slots=2, least=0, most=3, idle_seconds=600)
pytestmark = pytest.mark.usefixtures("worker_rights")


@dataclass
class Work:
    """What a pool would say of itself, with a clock in our hand."""

    usages: tuple[Usage, ...] = ()
    waiting: int = 0
    now: float = 0.0
    limits: list[int] = field(default_factory=list)

    def load(self) -> Load:
        return Load(self.usages, self.waiting, self.now)


@pytest.fixture
async def workers(stack: devstack.Stack, worker_pods: WorkerPods) -> AsyncIterator[StatefulSet]:
    """The StatefulSet as the operator sees it."""
    async with KubeClient(str(stack.operator_kubeconfig)) as client:
        yield StatefulSet(client, worker_pods.namespace, "bk")


@asynccontextmanager
async def running(scaler: Autoscaler) -> AsyncIterator[None]:
    """The autoscaler runs."""
    task = asyncio.create_task(scaler.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_replicas_follow_the_work_up_and_down(
    workers: StatefulSet, worker_pods: WorkerPods
) -> None:
    work = Work()
    scaler = Autoscaler(workers, work.load, work.limits.append, BOUNDS)

    def replicas() -> int:
        return worker_pods.replicas

    async with running(scaler):
        work.waiting = 1
        scaler.nudge()
        await becomes(replicas, 1)
        work.waiting = 99
        scaler.nudge()
        await becomes(replicas, 3)
        # The second builds for long; the others have nothing to do.
        work.waiting, work.now = 0, 700.0
        work.usages = (Usage(0, 0, 50), Usage(1, 1, 50), Usage(2, 0, 50))
        scaler.nudge()
        await becomes(replicas, 2)
        work.now, work.usages = 1400.0, (Usage(0, 0, 50), Usage(1, 0, 750))
        scaler.nudge()
        await becomes(lambda: work.limits[-1], 2)
        work.now = 1400.0 + LOOK_SECONDS
        work.usages = (Usage(0, 0, 50), Usage(1, 0, 800))
        scaler.nudge()
        await becomes(replicas, 0)
    assert work.limits[-1] == 0


async def test_a_number_is_written_only_over_the_one_that_was_seen(
    workers: StatefulSet, worker_pods: WorkerPods
) -> None:
    seen = await workers.scale()
    assert seen.replicas == 0
    await asyncio.to_thread(worker_pods.scale, 2)
    with pytest.raises(Conflict) as caught:
        await workers.resize(seen, 1)
    assert not isinstance(caught.value, Gone)
    assert await asyncio.to_thread(lambda: worker_pods.replicas) == 2
    now = await workers.scale()
    written = await workers.resize(now, 0)
    assert written == Scale(0, written.version)
    assert written.version != now.version


async def test_a_leased_worker_is_held_on_its_node_and_released_when_it_rests(
    workers: StatefulSet, worker_pods: WorkerPods
) -> None:
    await asyncio.to_thread(worker_pods.make_pod, 0)
    work = Work((Usage(0, 1, 0.0), Usage(1, 1, 0.0)), now=HOLD_SECONDS)
    guard = Guard(workers, work.load)
    # There is no Pod bk-1: that is fine.
    await guard.once()
    assert await asyncio.to_thread(worker_pods.annotations, 0) == {HOLD: "false"}
    work.usages, work.now = (Usage(0, 0, 10.0),), 10.0 + RELEASE_SECONDS
    await guard.once()
    assert await asyncio.to_thread(worker_pods.annotations, 0) == {}


async def test_the_role_reaches_no_other_object(
    workers: StatefulSet, worker_pods: WorkerPods
) -> None:
    other = StatefulSet(workers.client, worker_pods.namespace, "other")
    with pytest.raises(Unavailable, match="403"):
        await other.scale()
    with pytest.raises(Unavailable, match="403"):
        await other.hold(0)
    # The chart was told that there are three at most.
    with pytest.raises(Unavailable, match="403"):
        await workers.hold(3)
