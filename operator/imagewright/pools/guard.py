"""Keeps the cluster's autoscaler from evicting workers that build.

A node that is little used is emptied by the cluster's autoscaler, builds or not: it asks no more
than an annotation of the Pods. So a worker that has been leased for some seconds is held, and one
that has been idle for longer is released. A shorter lease is worth no write: most builds are
short, and what an eviction can cost there is built again elsewhere in seconds.
"""

import asyncio
from collections.abc import Callable

import structlog

from imagewright.domain.autoscale import Load, Usage
from imagewright.ports import Error, WorkerSet

log = structlog.get_logger("guard")
LOOK_SECONDS = 5.0
HOLD_SECONDS = 5.0
"""A worker that has been leased for so long is held."""
RELEASE_SECONDS = 30.0
"""One that has been idle for so long is released: builds often come in a row."""


class Guard:
    """Holds the workers of one pool while they are leased; `load` says which are."""

    def __init__(self, workers: WorkerSet, load: Callable[[], Load]) -> None:
        self._workers, self._load = workers, load
        self._written: dict[int, tuple[bool, float]] = {}
        """For each worker the last spell of work or rest that was written."""

    async def run(self) -> None:
        """Hold and release until cancelled; what fails is tried again at the next look."""
        while True:
            await self.once()
            await asyncio.sleep(LOOK_SECONDS)

    async def once(self) -> None:
        """Write what has lasted long enough, each spell of work or rest once.

        Not each change of the annotation: a Pod that came back under its name has none, and one
        that an operator before us held is released by nobody else.
        """
        load = self._load()
        seen = {usage.ordinal for usage in load.usages}
        self._written = {one: spell for one, spell in self._written.items() if one in seen}
        lasting = [usage for usage in load.usages if lasts(usage, load.now)]
        await asyncio.gather(*map(self._write, lasting))

    async def _write(self, usage: Usage) -> None:
        spell = (usage.leased > 0, usage.since)
        if self._written.get(usage.ordinal) == spell:
            return
        try:
            await (self._workers.hold if usage.leased else self._workers.release)(usage.ordinal)
        except Error as error:
            log.warning("A worker cannot be held", worker=usage.ordinal, why=error.message)
        else:
            self._written[usage.ordinal] = spell


def lasts(usage: Usage, now: float) -> bool:
    """Whether it has been leased, or idle, for so long that it is worth a write."""
    return now - usage.since >= (HOLD_SECONDS if usage.leased else RELEASE_SECONDS)
