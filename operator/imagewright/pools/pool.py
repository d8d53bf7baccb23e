"""One pool of workers with fixed addresses; each is asked now and then whether it is there."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from imagewright.domain.plan import Plan
from imagewright.metrics import Metrics
from imagewright.ports import Backend, Cache, Error

log = structlog.get_logger("pool")
LOOK_SECONDS = 10.0
"""Between two looks at a worker that answers."""
RETRY_SECONDS = (0.1, 1.0)
"""Between two looks at one that does not: from the first to the second, doubling."""


@dataclass(slots=True)
class Worker:
    """One daemon. `probe` raises an Error where it does not answer."""

    name: str
    slots: int
    backend: Backend
    probe: Callable[[], Awaitable[None]]
    caches: Mapping[str, Cache] = field(default_factory=dict)
    """What a prune empties there, by kind."""
    up: bool = False
    leased: int = 0
    trouble: str = ""
    _nudge: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def free(self) -> int:
        """Slots that a build could have now."""
        return max(0, self.slots - self.leased) if self.up else 0

    def suspect(self) -> None:
        """Something went wrong there: look at once, and lease no slot before it answers."""
        self.up = False
        self._nudge.set()

    async def rest(self, seconds: float) -> None:
        """Wait so long, or until somebody suspects the worker."""
        try:
            await asyncio.wait_for(self._nudge.wait(), seconds)
        except TimeoutError:
            return
        self._nudge.clear()


class Pool:
    """Workers and their health. `changed` is called whenever one comes or goes."""

    def __init__(self, name: str, workers: Sequence[Worker], metrics: Metrics) -> None:
        self.name = name
        self.workers = tuple(workers)
        self.changed: Callable[[], None] = lambda: None
        self._metrics = metrics

    async def run(self) -> None:
        """Look after the workers until cancelled."""
        async with asyncio.TaskGroup() as looks:
            for worker in self.workers:
                looks.create_task(self._look_after(worker))

    def able(self, plan: Plan) -> tuple[Worker, ...]:
        """The workers that could build the plan, whether they answer now or not."""
        return tuple(worker for worker in self.workers if not worker.backend.lacks(plan))

    def inability(self, plan: Plan) -> str:
        """Why no worker could ever build the plan, in a sentence."""
        why = "; ".join(f"{one.name}: {one.backend.lacks(plan)}" for one in self.workers)
        return (
            f"No worker of pool {self.name} can build this: change the spec, or add a worker that "
            f"can. {why}."
        )

    def trouble(self, asked: Sequence[Worker]) -> str:
        """Why none of these workers answers, in a sentence; empty where one does."""
        if any(worker.up for worker in asked):
            return ""
        told = "; ".join(f"{one.name}: {one.trouble or 'not asked yet'}" for one in asked)
        return f"No worker of pool {self.name} answers; it begins by itself when one does. {told}."

    async def _look_after(self, worker: Worker) -> None:
        pause = RETRY_SECONDS[0]
        while True:
            await self._look(worker)
            pause = RETRY_SECONDS[0] if worker.up else min(pause * 2, RETRY_SECONDS[1])
            seconds = LOOK_SECONDS if worker.up else pause
            # Many operators must not knock in step.
            await worker.rest(seconds * random.uniform(0.8, 1.2))  # noqa: S311  # no secret

    async def _look(self, worker: Worker) -> None:
        try:
            await worker.probe()
        except Error as error:
            found = (False, error.message)
        else:
            found = (True, "")
        # Read only now: the worker may have been suspected while it was asked.
        before = (worker.up, worker.trouble)
        worker.up, worker.trouble = found
        if before == found:
            return
        log.info("Worker changed", worker=worker.name, up=worker.up, why=worker.trouble)
        up = [one for one in self.workers if one.up]
        self._metrics.workers.labels(self.name).set(len(up))
        self._metrics.slots.labels(self.name).set(sum(one.slots for one in up))
        self.changed()
