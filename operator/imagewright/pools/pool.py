"""One pool: the terms of its use, and its workers, each asked now and then whether it is there."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from imagewright.domain.plan import Plan
from imagewright.domain.platform import covers
from imagewright.metrics import Metrics
from imagewright.ports import Backend, Cache, Error

log = structlog.get_logger("pool")
LOOK_SECONDS = 10.0
"""Between two looks at a worker that answers."""
RETRY_SECONDS = (0.1, 1.0)
"""Between two looks at one that does not: from the first to the second, doubling."""


async def _nothing() -> None:
    """A worker that holds nothing open has nothing to close."""


@dataclass(slots=True)
class Worker:
    """One daemon. `probe` says for which platforms it builds (none: it does not tell).

    It raises an Error where the daemon does not answer. `close` ends the connections to it.
    """

    name: str
    slots: int
    backend: Backend
    probe: Callable[[], Awaitable[frozenset[str]]]
    caches: Mapping[str, Cache] = field(default_factory=dict)
    """What a prune empties there, by kind."""
    address: str = ""
    close: Callable[[], Awaitable[None]] = _nothing
    platforms: frozenset[str] = frozenset()
    up: bool = False
    leased: int = 0
    since: float = 0.0
    """When the first slot was leased, or the last one given back, or the pool took it in."""
    trouble: str = ""
    retired: bool = False
    """It is not of the pool any more; what runs there may end."""
    _nudge: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def free(self) -> int:
        """Slots that a build could have now."""
        return max(0, self.slots - self.leased) if self.up else 0

    def suspect(self) -> None:
        """Something went wrong there: look at once, and lease no slot before it answers."""
        self.up = False
        self._nudge.set()

    def nudge(self) -> None:
        """Look at it at once."""
        self._nudge.set()

    async def rest(self, seconds: float) -> None:
        """Wait so long, or until somebody nudges the worker."""
        try:
            await asyncio.wait_for(self._nudge.wait(), seconds)
        except TimeoutError:
            return
        self._nudge.clear()


@dataclass(frozen=True, slots=True)
class Terms:
    """Who may use a pool, and for what. Empty `platforms` and `namespaces` mean: all."""

    name: str
    slots: int = 4
    platforms: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset({"default", "none"})
    namespaces: frozenset[str] = frozenset()
    namespace_slots: int | None = None

    def serves(self, plan: Plan) -> bool:
        """Whether the pool builds for the plan's platforms."""
        return not self.platforms or covers(self.platforms, plan.platforms)

    def denial(self, namespace: str, plan: Plan) -> str:
        """Why the namespace may not build this here, in a sentence; empty where it may."""
        if self.namespaces and namespace not in self.namespaces:
            return f"Pool {self.name} is not open to the namespace {namespace}: name another one."
        network = plan.sandbox.network
        if network not in self.networks:
            return f"Pool {self.name} does not allow spec.network: {network}; leave it out."
        return ""


class Pool:
    """Workers and their health. `changed` is called whenever one comes or goes.

    `growth` says in a sentence what is done about workers that are missing; empty where nothing
    is. `clock` gives seconds that never go back.
    """

    def __init__(
        self, terms: Terms, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.terms, self.clock = terms, clock
        self.changed: Callable[[], None] = lambda: None
        self.growth: Callable[[], str] = lambda: ""
        self._workers: dict[str, Worker] = {}
        self._tasks: dict[asyncio.Task[None], Worker] = {}
        self._metrics = metrics
        # A pool that has no worker yet says so: whoever scales by these must not miss them.
        metrics.workers.labels(terms.name).set(0)
        metrics.slots.labels(terms.name).set(0)
        metrics.slots_used.labels(terms.name).set(0)

    @property
    def name(self) -> str:
        """As spec.pool names it."""
        return self.terms.name

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Those that builds may be given to, whether they answer now or not."""
        return tuple(self._workers.values())

    @property
    def leaving(self) -> tuple[Worker, ...]:
        """Those that were retired, and still build."""
        return tuple(one for one in self._tasks.values() if one.retired and one.leased)

    def add(self, worker: Worker) -> None:
        """Take the worker in, instead of one of its name, and look after it from now on."""
        self.retire(worker.name)
        worker.since = self.clock()
        self._workers[worker.name] = worker
        task = asyncio.create_task(self._look_after(worker), name=f"worker {worker.name}")
        self._tasks[task] = worker
        task.add_done_callback(self._tasks.pop)

    def retire(self, name: str) -> None:
        """Give nothing more to the worker; it is closed when the last build there has ended."""
        worker = self._workers.pop(name, None)
        if worker is not None:
            worker.retired = True
            worker.nudge()
            log.info("Worker left", pool=self.name, worker=name, leased=worker.leased)
            self._tell()

    def recall(self, name: str, address: str) -> bool:
        """Take back a worker that was retired and still builds; False where there is none.

        Opened a second time, the same daemon would be given more builds than it has slots.
        """
        worker = next(
            (one for one in self.leaving if (one.name, one.address) == (name, address)), None
        )
        if worker is None:
            return False
        self._workers[name] = worker
        worker.retired = False
        worker.nudge()
        self._tell()
        return True

    async def close(self) -> None:
        """End the looks, and the connections to all workers."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def able(self, plan: Plan) -> tuple[Worker, ...]:
        """The workers that could build the plan, whether they answer now or not.

        Where some build for its platforms natively, these; else all: a Dockerfile that only
        copies, or compiles across, needs no worker of the platform.
        """
        fit = [worker for worker in self.workers if not worker.backend.lacks(plan)]
        native = [worker for worker in fit if covers(worker.platforms, plan.platforms)]
        return tuple(native or fit)

    def inability(self, plan: Plan) -> str:
        """Why no worker could ever build the plan, in a sentence; empty where none is known."""
        lacks = [(one.name, one.backend.lacks(plan)) for one in self.workers]
        if not lacks or not all(why for _, why in lacks):
            return ""
        why = "; ".join(f"{name}: {why}" for name, why in lacks)
        return (
            f"No worker of pool {self.name} can build this: change the spec, or add a worker that "
            f"can. {why}."
        )

    def trouble(self, asked: tuple[Worker, ...]) -> str:
        """Why none of these workers answers, in a sentence; empty where one does."""
        if any(worker.up for worker in asked):
            return ""
        growth = f" {self.growth()}".rstrip()
        if not asked:
            return (
                f"Pool {self.name} has no worker now; it begins by itself when one comes.{growth}"
            )
        told = "; ".join(f"{one.name}: {one.trouble or 'not asked yet'}" for one in asked)
        return (
            f"No worker of pool {self.name} answers; it begins by itself when one does. "
            f"{told}.{growth}"
        )

    async def _look_after(self, worker: Worker) -> None:
        pause = RETRY_SECONDS[0]
        try:
            while not worker.retired or worker.leased:
                await self._look(worker)
                pause = RETRY_SECONDS[0] if worker.up else min(pause * 2, RETRY_SECONDS[1])
                seconds = LOOK_SECONDS if worker.up else pause
                # Many operators must not knock in step.
                await worker.rest(seconds * random.uniform(0.8, 1.2))  # noqa: S311  # no secret
        finally:
            await worker.close()

    async def _look(self, worker: Worker) -> None:
        try:
            platforms = await worker.probe()
        except Error as error:
            found = (False, error.message, worker.platforms)
        else:
            found = (True, "", platforms)
        # Read only now: the worker may have been suspected while it was asked.
        before = (worker.up, worker.trouble, worker.platforms)
        worker.up, worker.trouble, worker.platforms = found
        if before != found:
            log.info("Worker changed", worker=worker.name, up=worker.up, why=worker.trouble)
            self._tell()

    def _tell(self) -> None:
        up = [one for one in self.workers if one.up]
        self._metrics.workers.labels(self.name).set(len(up))
        self._metrics.slots.labels(self.name).set(sum(one.slots for one in up))
        self.changed()
