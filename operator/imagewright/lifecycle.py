"""An operator's life: it follows, it acts while it leads, it drains, or it stops at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import structlog

from imagewright.api.buildcacheprune import BuildCachePrune
from imagewright.api.imagebuild import ImageBuild
from imagewright.domain.facts import Closing
from imagewright.jobs import Jobs
from imagewright.leadership import Leader
from imagewright.prunes import Prunes
from imagewright.reconcile.build import BuildReconciler
from imagewright.reconcile.prune import PruneReconciler
from imagewright.reconcile.resync import Resync
from imagewright.reconcile.workqueue import WorkQueue
from imagewright.scheduler import Scheduler
from imagewright.servers.gateway import Gateway
from imagewright.watch.watch import Sink, Watch
from imagewright.workforce import Keeper

log = structlog.get_logger("main")
Half = tuple[BuildReconciler | PruneReconciler, Jobs | Prunes, WorkQueue]
"""What decides about one kind, what runs for it, and the queue between the two."""
LAST_WRITES_SECONDS = 5.0
"""For the writes that say Interrupted, once draining is over."""


@dataclass(slots=True)
class Pruning:
    """The parts that look after BuildCachePrunes."""

    queue: WorkQueue
    prunes: Prunes
    resync: Resync[BuildCachePrune]
    reconciler: PruneReconciler
    sink: Sink


@dataclass(slots=True)
class Operator:
    """The parts that live as long as the process; `pruning` is None where others prune."""

    leader: Leader
    queue: WorkQueue
    jobs: Jobs
    scheduler: Scheduler
    resync: Resync[ImageBuild]
    reconciler: BuildReconciler
    pruning: Pruning | None
    watch: Watch
    keepers: list[Keeper] = field(default_factory=list)
    """What looks out for what builds wait for, and after the pools whose workers come and go."""

    def not_ready(self) -> str:
        """Why the operator is not ready; empty where it is. One that stands by is ready."""
        if self.reconciler.closing is not Closing.OPEN:
            return "going down"
        return self.watch.trouble()

    def halves(self) -> list[Half]:
        """The kinds that it serves."""
        halves: list[Half] = [(self.reconciler, self.jobs, self.queue)]
        if self.pruning is not None:
            pruning = self.pruning
            halves.append((pruning.reconciler, pruning.prunes, pruning.queue))
        return halves

    def resyncs(self) -> "list[Resync[ImageBuild] | Resync[BuildCachePrune]]":
        """Of the kinds that it serves."""
        return [self.resync, *([self.pruning.resync] if self.pruning is not None else [])]


async def live(
    operator: Operator,
    gateways: AbstractAsyncContextManager[Gateway | None],
    stop: asyncio.Event,
    drain_seconds: float,
) -> None:
    """Follow what there is, act on it once this process leads, and drain when `stop` is set.

    Where the lead is lost all that runs is stopped at that moment, and nothing is drained.
    """

    def halt() -> None:
        for _, running, _ in operator.halves():
            running.cancel_all()
        stop.set()

    operator.leader.on_loss = halt
    async with _following(operator, stop.set):
        await _either(operator.leader.led, stop)
        if not operator.leader.leads():
            return
        async with gateways as gateway, _acting(operator, stop.set):
            log.info("Leading", gateway_port=gateway.port if gateway else None)
            await stop.wait()
            if operator.leader.leads():
                drains = [_drain(operator, drain_seconds)]
                if gateway is not None:
                    drains.append(gateway.close(drain_seconds))
                await asyncio.gather(*drains)


@asynccontextmanager
async def _following(operator: Operator, broken: Callable[[], None]) -> AsyncIterator[None]:
    """Watch and list while the context is open: a standby is as warm as a leader."""
    async with _running([resync.run for resync in operator.resyncs()], broken):
        operator.watch.start()
        try:
            yield
        finally:
            await operator.watch.stop()


@asynccontextmanager
async def _acting(operator: Operator, broken: Callable[[], None]) -> AsyncIterator[None]:
    """Reconcile, and look after the workers, while the context is open."""
    queues = [queue.run for _, _, queue in operator.halves()]
    async with _running([*queues, operator.scheduler.run, *operator.keepers], broken):
        # A watch that is not up yet will list everything by itself.
        if operator.watch.ready:
            for resync in operator.resyncs():
                resync.anew()
        yield


@asynccontextmanager
async def _running(
    parts: Iterable[Callable[[], Awaitable[None]]], broken: Callable[[], None]
) -> AsyncIterator[None]:
    """Run the parts while the context is open.

    None of these ends by itself: `broken` is called where one does, and its error is raised at the
    end, so that a Pod is started anew instead of living on by halves.
    """
    tasks = [asyncio.ensure_future(part()) for part in parts]
    for task in tasks:
        task.add_done_callback(lambda _: broken())
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    """Wait until one of the two is set."""
    waits = [asyncio.create_task(event.wait()) for event in (one, other)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _drain(operator: Operator, seconds: float) -> None:
    """Begin nothing more; let what runs end; then stop the rest, and write Interrupted."""
    halves = operator.halves()
    for reconciler, running, _ in halves:
        reconciler.closing = Closing.DRAINING
        log.info("Draining", running=len(running.uids()), seconds=seconds)
    await asyncio.gather(*(running.drained(seconds) for _, running, _ in halves))
    for reconciler, running, queue in halves:
        reconciler.closing = Closing.CLOSED
        for uid in running.uids():
            queue.add(uid)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WRITES_SECONDS):
            for _, running, queue in halves:
                await queue.idle()
                await running.quiet()
