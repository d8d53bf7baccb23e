"""A queue of keys: each once, never two workers on one, a growing pause after a failure."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from imagewright.ports import Error, Unavailable
from imagewright.reconcile.outage import Outage

log = structlog.get_logger("workqueue")
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_FAULT_PAUSE = 0.1, 5.0, 60.0
"""Seconds after a key's first failure in a row; at most; at most where the fault is our own.

An outage ends some time, and then all that waited for it should go on soon. A fault of ours at one
object stays until somebody mends it, and each look costs.
"""


class WorkQueue:
    """Hands keys to `work`, at most `workers` at a time.

    A key that is added while it is worked on is worked on once more afterwards. A key whose work
    raises comes again by itself, later each time, jittered; the others do not notice. Of those
    that met an Unavailable, the first that gets through brings the others with it. `failed` is
    called with the error.
    """

    def __init__(
        self,
        work: Callable[[str], Awaitable[None]],
        workers: int = 16,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._work = work
        self._workers = workers
        self._failed = failed
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._outage = Outage(self.add)
        self._rested = asyncio.Event()
        self._timers: dict[str, tuple[float, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._queued) + len(self._busy)

    @property
    def backing_off(self) -> int:
        """Keys whose last work failed, and not because nobody answered."""
        return len(self._failures)

    def add(self, key: str) -> None:
        """Work on `key` as soon as may be."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def add_in(self, key: str, seconds: float) -> None:
        """Work on `key` in so many seconds, or sooner where it was asked for sooner."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, seconds)
        if key in self._timers:
            if self._timers[key][0] <= due:
                return
            self._timers[key][1].cancel()
        self._timers[key] = (due, loop.call_at(due, self._due, key))

    async def idle(self) -> None:
        """Wait until nothing is queued or worked on; what is due later does not count."""
        while len(self):
            self._rested.clear()
            await self._rested.wait()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._workers):
                    workers.create_task(self._worker())
        finally:
            for _, timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                await self._work(key)
            except Unavailable as error:
                self._failed(error)
                self._rest(key, self._outage.failed(key, error))
            except Exception as error:
                self._failed(error)
                longest = LONGEST_PAUSE if isinstance(error, Error) else LONGEST_FAULT_PAUSE
                pause = self._pause_after_failure(key, longest)
                log.exception("A look at a build failed", key=key, again_in=round(pause, 2))
                self._rest(key, pause)
            else:
                self._failures.pop(key, None)
                self._outage.passed(key)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            if not len(self):
                self._rested.set()

    def _rest(self, key: str, seconds: float) -> None:
        # What it was woken for meanwhile may be its own doing, such as a turn that it asked for
        # and could not take: it waits as well.
        self._again.discard(key)
        self.add_in(key, seconds)

    def _pause_after_failure(self, key: str, longest: float) -> float:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(FIRST_PAUSE * 2.0 ** min(count - 1, 16), longest)
        return pause * random.uniform(0.5, 1.5)  # noqa: S311  # spreads load, nothing secret
