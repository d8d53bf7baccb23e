"""The composition root: settings in, everything wired, signals. Only here are adapters picked."""

import asyncio
import contextlib
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from imagewright.api.buildcacheprune import BuildCachePrune
from imagewright.api.crd import BUILD_CACHE_PRUNE, IMAGE_BUILD
from imagewright.api.imagebuild import ImageBuild
from imagewright.assembly import gateway_of, opener_of, pool_of, shared_of
from imagewright.domain.facts import Closing
from imagewright.domain.plan import Plan
from imagewright.domain.prune import SOURCES, Target
from imagewright.jobs import Jobs
from imagewright.kube.client import KubeClient
from imagewright.kube.keyring import NamespaceKeyring
from imagewright.metrics import Metrics
from imagewright.pools.pool import Pool
from imagewright.ports import Cache, Cluster, Keyring
from imagewright.prunes import Prunes, caches_of
from imagewright.reconcile.build import BuildReconciler, World
from imagewright.reconcile.prune import PruneReconciler, PruneWorld
from imagewright.reconcile.resync import Resync
from imagewright.reconcile.store import BUILDS, PRUNES, Store
from imagewright.reconcile.workqueue import WorkQueue
from imagewright.scheduler import Scheduler
from imagewright.servers.ops import serve_ops
from imagewright.settings import Settings
from imagewright.watch.watch import Sink, Watch
from imagewright.workforce import Keeper, keepers_of

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

    queue: WorkQueue
    jobs: Jobs
    scheduler: Scheduler
    resync: Resync[ImageBuild]
    reconciler: BuildReconciler
    pruning: Pruning | None
    watch: Watch
    keepers: Sequence[Keeper] = ()
    """Of the pools whose workers come and go."""

    def not_ready(self) -> str:
        """Why the operator is not ready; empty where it is."""
        if self.reconciler.closing is not Closing.OPEN:
            return "going down"
        return "" if self.watch.ready else "the watch is not up"


def clock() -> datetime:
    """Now, in UTC, to the millisecond: finer times would only make a status longer."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


async def run(settings: Settings) -> None:
    """The operator, until SIGTERM or SIGINT; then drained, and ended."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        namespaces = tuple(settings.namespaces)
        cluster = await stack.enter_async_context(KubeClient(settings.kubeconfig, namespaces))
        shared = await stack.enter_async_context(shared_of(settings, clock))
        openers = [await opener_of(pool, shared) for pool in settings.pools]
        pools = [
            await stack.enter_async_context(pool_of(pool, opener, metrics))
            for pool, opener in zip(settings.pools, openers, strict=True)
        ]
        pruning = None
        if settings.prunes:
            unspaced = KubeClient(settings.kubeconfig, plural=BUILD_CACHE_PRUNE.plural)
            prunes_of = await stack.enter_async_context(unspaced)
            caches = partial(caches_of, pools, {SOURCES: shared.cache})
            pruning = _pruning(prunes_of, caches, metrics, settings.resync_seconds)
        operator = _wired(settings, cluster, (pools, pruning), metrics)
        lines = operator.scheduler.lines
        operator.keepers = [
            keeper
            for pool, opener in zip(settings.pools, openers, strict=True)
            for keeper in keepers_of(pool, lines[pool.name], opener, cluster)
        ]
        address = (settings.ops.host, settings.ops.port)
        port = await stack.enter_async_context(serve_ops(address, metrics, operator.not_ready))
        gateway = await stack.enter_async_context(
            gateway_of(settings, operator.scheduler, metrics, clock)
        )
        log.info(
            "Operator began",
            ops_port=port,
            gateway_port=gateway.port if gateway else None,
            pools=[pool.name for pool in pools],
        )
        async with background(operator, stop.set):
            await stop.wait()
            drains = [_drain(operator, settings.drain_seconds)]
            if gateway is not None:
                drains.append(gateway.close(settings.drain_seconds))
            await asyncio.gather(*drains)
    log.info("Operator ended")


def _wired(
    settings: Settings,
    cluster: KubeClient,
    capacity: tuple[Sequence[Pool], Pruning | None],
    metrics: Metrics,
) -> Operator:
    pools, pruning = capacity

    # The queue and the reconciler call one another; the queue asks for it when work comes.
    async def work(uid: str) -> None:
        await reconciler.reconcile(uid)

    def keyrings(namespace: str, plan: Plan) -> Keyring:
        return NamespaceKeyring(cluster, namespace, plan)

    queue = WorkQueue(work)
    store = Store(BUILDS, queue.add)
    jobs = Jobs(queue.add, clock, metrics)
    scheduler = Scheduler(pools, time.monotonic, metrics)
    holder = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    world = World(cluster, store, jobs, scheduler, metrics, keyrings, clock, holder)
    reconciler = BuildReconciler(world, queue.add_in)
    resync = Resync(cluster, store, settings.resync_seconds)
    sinks = {IMAGE_BUILD.plural: Sink(store.idle, store.see, store.drop, resync.ask)}
    if pruning is not None:
        sinks[BUILD_CACHE_PRUNE.plural] = pruning.sink
    watch = Watch(sinks, settings, metrics)
    return Operator(queue, jobs, scheduler, resync, reconciler, pruning, watch)


def _pruning(
    cluster: Cluster,
    caches: Callable[[], Mapping[Target, Cache]],
    metrics: Metrics,
    resync_seconds: float,
) -> Pruning:
    async def work(uid: str) -> None:
        await reconciler.reconcile(uid)

    queue = WorkQueue(work, workers=4)
    store = Store(PRUNES, queue.add)
    prunes = Prunes(queue.add)
    world = PruneWorld(cluster, store, prunes, caches, metrics, clock)
    reconciler = PruneReconciler(world, queue.add_in)
    resync = Resync(cluster, store, resync_seconds)
    sink = Sink(store.idle, store.see, store.drop, resync.ask)
    return Pruning(queue, prunes, resync, reconciler, sink)


@asynccontextmanager
async def background(operator: Operator, broken: Callable[[], None]) -> AsyncIterator[None]:
    """Watch, reconcile, look after the workers while the context is open.

    None of these ends by itself: `broken` is called where one does, and its error is raised at the
    end, so that a Pod is started anew instead of living on by halves.
    """
    tasks = [
        asyncio.create_task(operator.queue.run(), name="queue"),
        asyncio.create_task(operator.scheduler.run(), name="scheduler"),
        asyncio.create_task(operator.resync.run(), name="resync"),
    ]
    if operator.pruning is not None:
        tasks += [
            asyncio.create_task(operator.pruning.queue.run(), name="prune queue"),
            asyncio.create_task(operator.pruning.resync.run(), name="prune resync"),
        ]
    tasks += [asyncio.ensure_future(keeper()) for keeper in operator.keepers]
    for task in tasks:
        task.add_done_callback(lambda _: broken())
    operator.watch.start()
    try:
        yield
    finally:
        await operator.watch.stop()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _drain(operator: Operator, seconds: float) -> None:
    """Begin nothing more; let what runs end; then stop the rest, and write Interrupted."""
    halves: list[Half] = [(operator.reconciler, operator.jobs, operator.queue)]
    if operator.pruning is not None:
        pruning = operator.pruning
        halves.append((pruning.reconciler, pruning.prunes, pruning.queue))
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
