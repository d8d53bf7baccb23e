"""The workers' health: who is asked, when, and who is told."""

import asyncio

import pytest

from imagewright.builders.memory import MemoryBuilder
from imagewright.metrics import Metrics
from imagewright.pools.pool import Worker
from imagewright.ports import Unavailable
from tests.support.parts import a_backend
from tests.support.pooling import a_pool


class Daemons:
    """A pool of workers whose daemons answer as they are told, and how often it changed."""

    def __init__(self, *names: str) -> None:
        self.down: dict[str, str] = {}
        self.asked: list[str] = []
        self.changes = 0
        self.metrics = Metrics()
        self.workers = [self.worker(name) for name in names]
        self.pool = a_pool(*self.workers, name="p", metrics=self.metrics)
        self.pool.changed = self.changed

    def worker(self, name: str) -> Worker:
        """A worker on a daemon of this name."""

        async def probe() -> frozenset[str]:
            self.asked.append(name)
            if name in self.down:
                raise Unavailable(self.down[name])
            return frozenset({"linux/amd64"})

        return Worker(name, 2, a_backend(MemoryBuilder()), probe)

    def changed(self) -> None:
        """Somebody came or went."""
        self.changes += 1

    async def look(self) -> None:
        """At each worker, once."""
        for worker in self.workers:
            await self.pool._look(worker)


async def test_a_worker_has_no_free_slot_before_it_has_answered() -> None:
    daemons = Daemons("a")
    assert daemons.workers[0].free == 0
    assert "a: not asked yet" in daemons.pool.trouble(daemons.pool.workers)
    await daemons.look()
    assert daemons.workers[0].free == 2
    assert daemons.pool.trouble(daemons.pool.workers) == ""


@pytest.mark.row("F11")
async def test_a_change_is_told_once_and_a_new_trouble_is_one() -> None:
    daemons = Daemons("a")
    seen = []
    for trouble in ("", "", "refused.", "refused.", "timeout.", ""):
        daemons.down = {"a": trouble} if trouble else {}
        await daemons.look()
        seen.append(daemons.changes)
    assert seen == [1, 1, 2, 2, 3, 4]


async def test_one_worker_that_answers_is_enough() -> None:
    daemons = Daemons("a", "b")
    daemons.down = {"a": "refused"}
    await daemons.look()
    assert daemons.pool.trouble(daemons.pool.workers) == ""
    daemons.down = {"a": "refused", "b": "timeout"}
    await daemons.look()
    told = daemons.pool.trouble(daemons.pool.workers)
    assert told.startswith("No worker of pool p answers; it begins by itself when one does.")
    assert "a: refused; b: timeout." in told


async def test_the_slots_of_the_workers_that_answer_are_counted() -> None:
    daemons = Daemons("a", "b")
    daemons.down = {"b": "refused"}
    await daemons.look()
    assert daemons.metrics.workers.labels("p")._value.get() == 1
    assert daemons.metrics.slots.labels("p")._value.get() == 2


async def test_a_suspected_worker_leases_nothing_and_is_asked_at_once() -> None:
    daemons = Daemons("a")
    (worker,) = daemons.workers
    daemons.pool._workers.clear()
    daemons.pool.add(worker)
    before = daemons.changes
    async with asyncio.timeout(1.5):
        while not worker.up:
            await asyncio.sleep(0)
        worker.suspect()
        assert worker.free == 0
        while len(daemons.asked) < 2 or not worker.up:
            await asyncio.sleep(0)
    assert daemons.changes == before + 2
    await daemons.pool.close()


def test_leases_beyond_the_slots_leave_nothing_free() -> None:
    (worker,) = Daemons("a").workers
    worker.up, worker.leased = True, 3
    assert worker.free == 0
