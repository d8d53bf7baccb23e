"""The composition root: settings in, everything wired, signals. Only here are adapters picked."""

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from imagewright.api.crd import BUILD_CACHE_PRUNE, IMAGE_BUILD
from imagewright.assembly import gateway_of, opener_of, pool_of, shared_of
from imagewright.domain.plan import Plan
from imagewright.domain.prune import SOURCES, Target
from imagewright.jobs import Jobs
from imagewright.kube.client import KubeClient
from imagewright.kube.events import Events, Pace, posting
from imagewright.kube.keyring import NamespaceKeyring
from imagewright.kube.lookout import Lookout
from imagewright.leadership import Leader, LostError, leadership
from imagewright.lifecycle import Operator, Pruning, live
from imagewright.metrics import Metrics
from imagewright.pools.pool import Pool
from imagewright.ports import Cache, Cluster, Notices, WatchedKeyring
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
from imagewright.workforce import keepers_of

log = structlog.get_logger("main")


@dataclass(frozen=True, slots=True)
class Process:
    """What all parts of this operator have in common; `holder` is its name, unlike any other's."""

    settings: Settings
    metrics: Metrics
    leader: Leader
    holder: str
    notices: Notices

    def waking(self, queue: WorkQueue) -> Callable[[str], None]:
        """Into the queue with what is seen, while this operator leads: a standby's never ends."""

        def wake(uid: str) -> None:
            if self.leader.leads():
                queue.add(uid)

        return wake


def clock() -> datetime:
    """Now, in UTC, to the millisecond: finer times would only make a status longer."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


async def run(settings: Settings) -> None:
    """The operator, until SIGTERM or SIGINT; then drained, and ended. Raises LostError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        metrics, holder = Metrics(), f"{socket.gethostname()}-{secrets.token_hex(4)}"
        # Left last: the Lease is given back when nothing is done any more.
        leader = await stack.enter_async_context(leadership(settings, holder, metrics))
        client = partial(KubeClient, settings.kubeconfig, fence=leader.fence)
        cluster = await stack.enter_async_context(client(namespaces=tuple(settings.namespaces)))
        shared = await stack.enter_async_context(shared_of(settings, clock))
        openers = [await opener_of(pool, shared) for pool in settings.pools]
        pools = [
            await stack.enter_async_context(pool_of(pool, opener, metrics))
            for pool, opener in zip(settings.pools, openers, strict=True)
        ]
        pace = Pace(settings.events.per_second, settings.events.burst)
        events = await stack.enter_async_context(posting(Events(cluster, holder, pace, metrics)))
        process = Process(settings, metrics, leader, holder, events)
        pruning = None
        if settings.prunes:
            unspaced = await stack.enter_async_context(client(plural=BUILD_CACHE_PRUNE.plural))
            pruning = _pruning(
                process, unspaced, partial(caches_of, pools, {SOURCES: shared.cache})
            )
        operator = _wired(process, cluster, pools, pruning)
        lines = operator.scheduler.lines
        operator.keepers += [
            keeper
            for pool, opener in zip(settings.pools, openers, strict=True)
            for keeper in keepers_of(pool, lines[pool.name], opener, cluster)
        ]
        address = (settings.ops.host, settings.ops.port)
        port = await stack.enter_async_context(serve_ops(address, metrics, operator.not_ready))
        log.info("Operator began", ops_port=port, pools=[pool.name for pool in pools])
        gateways = gateway_of(settings, operator.scheduler, metrics, clock)
        await live(operator, gateways, stop, settings.drain_seconds)
    if leader.lost:
        log.error("All builds were stopped, and the operator ends", why=leader.lost)
        raise LostError(leader.lost)
    log.info("Operator ended")


def _wired(
    process: Process, cluster: KubeClient, pools: Sequence[Pool], pruning: Pruning | None
) -> Operator:
    settings, metrics, leader = process.settings, process.metrics, process.leader

    # The queue and the reconciler call one another; the queue asks for it when work comes.
    async def work(uid: str) -> None:
        await reconciler.reconcile(uid)

    lookout = Lookout(cluster.version)

    def keyrings(namespace: str, plan: Plan) -> WatchedKeyring:
        return NamespaceKeyring(cluster, namespace, plan, lookout)

    queue = WorkQueue(work, failed=partial(count_failure, metrics, IMAGE_BUILD.name))
    metrics.backing_off.labels(IMAGE_BUILD.name).set_function(lambda: queue.backing_off)
    store = Store(BUILDS, process.waking(queue))
    jobs = Jobs(queue.add, clock, metrics, settings.stall_seconds)
    scheduler = Scheduler(pools, time.monotonic, metrics)
    world = World(
        cluster=cluster,
        store=store,
        jobs=jobs,
        scheduler=scheduler,
        notices=process.notices,
        metrics=metrics,
        keyrings=keyrings,
        clock=clock,
        holder=process.holder,
    )
    reconciler = BuildReconciler(world, queue.add_in)
    resync = Resync(cluster, store, settings.resync_seconds)
    sinks = {IMAGE_BUILD.plural: Sink(store.idle, store.see, store.drop, resync.ask)}
    if pruning is not None:
        sinks[BUILD_CACHE_PRUNE.plural] = pruning.sink
    watch = Watch(sinks, settings, metrics)
    parts = (leader, queue, jobs, scheduler, resync, reconciler, pruning, watch)
    return Operator(*parts, keepers=[lookout.run])


def _pruning(
    process: Process, cluster: Cluster, caches: Callable[[], Mapping[Target, Cache]]
) -> Pruning:
    async def work(uid: str) -> None:
        await reconciler.reconcile(uid)

    metrics = process.metrics
    queue = WorkQueue(work, 4, partial(count_failure, metrics, BUILD_CACHE_PRUNE.name))
    metrics.backing_off.labels(BUILD_CACHE_PRUNE.name).set_function(lambda: queue.backing_off)
    store = Store(PRUNES, process.waking(queue))
    prunes = Prunes(queue.add)
    world = PruneWorld(cluster, store, prunes, caches, process.notices, metrics, clock)
    reconciler = PruneReconciler(world, queue.add_in)
    resync = Resync(cluster, store, process.settings.resync_seconds)
    sink = Sink(store.idle, store.see, store.drop, resync.ask)
    return Pruning(queue, prunes, resync, reconciler, sink)


def count_failure(metrics: Metrics, kind: str, error: Exception) -> None:
    """Count a look that failed."""
    metrics.failures.labels(kind, type(error).__name__).inc()
