"""Keeps a pool as large as its work asks for: looks, decides, asks for another number."""

import asyncio
import contextlib
import random
from collections.abc import Callable

import structlog

from imagewright.domain.autoscale import Bounds, Facts, Load, Usage, ordinal_of, wanted
from imagewright.pools.line import Line
from imagewright.ports import Error, WorkerSet

log = structlog.get_logger("autoscale")
LOOK_SECONDS = 10.0
"""Between two looks at the number that is asked for: somebody else may have changed it."""
FIRST_PAUSE = 0.1
"""Seconds after a first failure; each further one doubles them, up to those of a look."""
NUDGE_SECONDS = 0.1
"""From a nudge to the look: a thousand builds that come at once are worth one look."""
NEVER = float("-inf")


def load_of(line: Line, stateful_set: str, most: int) -> Load:
    """What the Pods of that set do, and how many of those that wait, `most` at most, need more.

    A worker that left while it builds counts: its Pod is still there, and is not to go.
    """
    pool, usages = line.pool, dict[int, Usage]()
    for worker in (*pool.workers, *pool.leaving):
        ordinal = ordinal_of(worker.name, stateful_set)
        if ordinal is not None:
            before = usages.get(ordinal)
            leased = worker.leased + (before.leased if before else 0)
            usages[ordinal] = Usage(ordinal, leased, worker.since)
    return Load(tuple(usages.values()), line.demand(most), pool.clock())


class Autoscaler:
    """Scales the workers of one pool.

    `load` says what they do. `limit` is told how many will stay: from then on, until it is told
    another number, no worker with that ordinal or a higher one may be leased, or a build would
    begin on a worker that is about to go.
    """

    def __init__(
        self,
        workers: WorkerSet,
        load: Callable[[], Load],
        limit: Callable[[int], None],
        bounds: Bounds,
    ) -> None:
        self._workers, self._load, self._limit, self._bounds = workers, load, limit, bounds
        self._nudged = asyncio.Event()
        self._replicas = 0
        self._calm_since = self._due = NEVER
        self._trouble = ""

    def growth(self) -> str:
        """What is done about builds that wait for a worker, in a sentence."""
        if self._trouble:
            return f"The pool cannot be scaled now: {self._trouble}"
        return f"The pool is being scaled; workers asked for: {self._replicas or 'not yet'}."

    def nudge(self) -> None:
        """Something changed: decide anew. It costs a request only where the decision changes."""
        self._nudged.set()

    async def run(self) -> None:
        """Scale until cancelled; what fails is tried again."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self.once()
            except Error as error:
                self._trouble = error.message
                log.warning("The pool cannot be scaled now", why=error.message)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # no secret
                pause = min(pause * 2, LOOK_SECONDS)
            else:
                pause, self._trouble = FIRST_PAUSE, ""
                await self._rest()

    async def once(self) -> None:
        """Look, and ask for another number where it is wanted.

        Raises an Error: a Conflict where somebody wrote in between, and it is to be called again.
        """
        load = self._load()
        if load.now < self._due and self._wanted(self._replicas, load) == self._replicas:
            return
        self._due = NEVER
        scale = await self._workers.scale()
        load = self._load()
        number = self._wanted(scale.replicas, load)
        # Nobody runs between the look and this: what is not leased now will not be.
        self._limit(number)
        if number != scale.replicas:
            await self._workers.resize(scale, number)
            self._calm_since = load.now
            leased = sum(usage.leased for usage in load.usages)
            before = scale.replicas
            log.info("Scaled", before=before, now=number, leased=leased, waiting=load.waiting)
        self._replicas, self._due = number, load.now + LOOK_SECONDS

    def _wanted(self, replicas: int, load: Load) -> int:
        if load.waiting or replicas != self._replicas:
            self._calm_since = load.now
        self._replicas = replicas
        return wanted(Facts(replicas, load, self._calm_since, self._bounds))

    async def _rest(self) -> None:
        # Many operators must not knock in step.
        seconds = LOOK_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311  # no secret
        # Not wait_for: Python 3.11's forgets that it was cancelled where it has just been nudged.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
                await asyncio.sleep(NUDGE_SECONDS)
        self._nudged.clear()
