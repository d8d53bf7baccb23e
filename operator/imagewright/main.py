"""The composition root: settings in, everything wired, signals. Only here are adapters picked."""

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from imagewright.backend import BUILDKIT, Backend
from imagewright.builders.buildkit import BuildKitBuilder
from imagewright.builders.failure import translate
from imagewright.clients.buildkit.channel import Tls
from imagewright.clients.buildkit.control import Control
from imagewright.clients.buildkit.errors import BuildKitError
from imagewright.domain.facts import Closing
from imagewright.jobs import Jobs
from imagewright.kube.client import KubeClient
from imagewright.metrics import Metrics
from imagewright.pools.pool import Pool, Worker
from imagewright.reconcile.build import BuildReconciler, World
from imagewright.reconcile.resync import Resync
from imagewright.reconcile.store import Store
from imagewright.reconcile.workqueue import WorkQueue
from imagewright.scheduler import Scheduler
from imagewright.servers.ops import serve_ops
from imagewright.settings import Settings, TlsSettings
from imagewright.watch import Sink, Watch

log = structlog.get_logger("main")
LAST_WRITES_SECONDS = 5.0
"""For the writes that say Interrupted, once draining is over."""


@dataclass(slots=True)
class Operator:
    """The parts that live as long as the process."""

    queue: WorkQueue
    store: Store
    jobs: Jobs
    pool: Pool
    resync: Resync
    reconciler: BuildReconciler
    watch: Watch

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
        workers = await stack.enter_async_context(connected(settings))
        operator = _wired(settings, cluster, Pool(settings.pool.name, workers, metrics), metrics)
        address = (settings.ops.host, settings.ops.port)
        port = await stack.enter_async_context(serve_ops(address, metrics, operator.not_ready))
        log.info("Operator began", ops_port=port, workers=[worker.name for worker in workers])
        async with background(operator, stop.set):
            await stop.wait()
            await _drain(operator, settings.drain_seconds)
    log.info("Operator ended")


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[list[Worker]]:
    """The pool's workers, each with its one warm channel, closed at the end."""
    tls = await asyncio.to_thread(read_tls, settings.pool.tls) if settings.pool.tls else None
    controls = [Control(address, tls) for address in settings.pool.workers]
    try:
        yield [worker_of(control, settings.pool.slots) for control in controls]
    finally:
        for control in controls:
            await control.close()


def worker_of(control: Control, slots: int) -> Worker:
    """A worker on a BuildKit daemon."""

    async def probe() -> None:
        try:
            await control.info()
        except BuildKitError as error:
            raise translate(error) from error

    backend = Backend({BUILDKIT: BuildKitBuilder(control)})
    return Worker(name=control.address, slots=slots, backend=backend, probe=probe)


def read_tls(settings: TlsSettings) -> Tls:
    """The files' content. Raises OSError where one cannot be read."""

    def content(path: Path | None) -> bytes | None:
        return path.read_bytes() if path else None

    return Tls(
        settings.ca.read_bytes(),
        content(settings.cert),
        content(settings.key),
        settings.server_name,
    )


def _wired(settings: Settings, cluster: KubeClient, pool: Pool, metrics: Metrics) -> Operator:
    # The queue and the reconciler call one another; the queue asks for it when work comes.
    async def work(uid: str) -> None:
        await reconciler.reconcile(uid)

    queue = WorkQueue(work)
    store = Store(queue.add)
    jobs = Jobs(queue.add, clock, metrics)
    scheduler = Scheduler(pool, queue.add, metrics)
    holder = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    world = World(cluster, store, jobs, scheduler, metrics, clock, holder)
    reconciler = BuildReconciler(world, queue.add_in)
    resync = Resync(cluster, store, settings.resync_seconds)
    sink = Sink(seen=store.see, deleted=store.drop, restarted=resync.ask)
    watch = Watch(sink, settings, metrics)
    return Operator(queue, store, jobs, pool, resync, reconciler, watch)


@asynccontextmanager
async def background(operator: Operator, broken: Callable[[], None]) -> AsyncIterator[None]:
    """Watch, reconcile, look after the workers while the context is open.

    None of these ends by itself: `broken` is called where one does, and its error is raised at the
    end, so that a Pod is started anew instead of living on by halves.
    """
    tasks = [
        asyncio.create_task(operator.queue.run(), name="queue"),
        asyncio.create_task(operator.pool.run(), name="pool"),
        asyncio.create_task(operator.resync.run(), name="resync"),
    ]
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
    operator.reconciler.closing = Closing.DRAINING
    log.info("Draining", running=len(operator.jobs.uids()), seconds=seconds)
    await operator.jobs.drained(seconds)
    operator.reconciler.closing = Closing.CLOSED
    for uid in operator.jobs.uids():
        operator.queue.add(uid)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WRITES_SECONDS):
            await operator.queue.idle()
            await operator.jobs.quiet()
