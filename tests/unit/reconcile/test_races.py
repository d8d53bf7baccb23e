"""What happens while something else is on its way: nothing is spun on, lost or counted twice."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from imagewright.builders.memory import MemoryBuilder
from imagewright.domain.facts import Granted
from imagewright.metrics import Metrics
from imagewright.pools.pool import Worker
from imagewright.ports import Body
from imagewright.scheduler import Scheduler
from tests.support.makers import UID, FakeCluster
from tests.support.parts import a_backend
from tests.support.pooling import a_pool, an_entry
from tests.unit.reconcile.test_build import Shell, working

TURNS = 200
"""Of the loop: far more than any single event may cost looks."""


class Counting(Shell):
    """A shell that looks again by itself when it said it would, and counts its looks."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def _work(self, uid: str) -> None:
        self.count += 1
        await super()._work(uid)

    def _look_in(self, uid: str, seconds: float) -> None:
        self.queue.add_in(uid, seconds)


async def turn() -> None:
    """Let everything that is ready happen."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_a_long_step_that_says_nothing_is_looked_at_now_and_then() -> None:
    shell = Counting()
    async with working(shell):
        shell.builder.go.clear()
        shell.apply()
        await shell.until(lambda: shell.builder.orders)
        for _ in range(3):
            shell.now += timedelta(seconds=11)
            shell.queue.add(UID)
            await turn()
        assert shell.count < 10


@pytest.mark.parametrize("ttl", [0, 60])
async def test_a_suspended_build_has_no_end_to_expire_from(ttl: int) -> None:
    shell = Counting()
    async with working(shell):
        shell.apply({"suspend": True, "ttlSecondsAfterFinished": ttl})
        await shell.ended("Suspended")
        await turn()
        assert shell.count < 10
        assert shell.queue._timers == {}


async def test_an_edit_that_is_not_understood_ends_what_ran_and_is_told_once() -> None:
    shell = Counting()
    async with working(shell):
        shell.builder.go.clear()
        shell.apply()
        await shell.until(lambda: shell.builder.orders)
        writes = len(shell.cluster.writes)
        shell.edit(2, ofANewerVersion=True)
        await shell.until(lambda: shell.builder.cancelled)
        await turn()
        assert shell.count < 10
        assert len(shell.cluster.writes) == writes + 1
        assert shell.status()["conditions"][-1]["reason"] == "OperatorError"


class Hooked(FakeCluster):
    """A cluster in which something happens between a write and its answer."""

    def __init__(self, shell: Shell) -> None:
        super().__init__()
        self.shell = shell

    async def patch_status(self, namespace: str, name: str, patch: Body) -> Body:
        """Write, then let it happen, then answer."""
        answer = await super().patch_status(namespace, name, patch)
        if len(self.writes) == 1:
            self.happens()
        return answer

    def happens(self) -> None:
        """The object is deleted."""
        self.shell.delete()


class Lost(Hooked):
    """The worker is lost, and back at once."""

    def happens(self) -> None:
        """Somebody suspects it, and it answers."""
        self.shell.worker.suspect()
        self.shell.pool.changed()
        self.shell.worker.up = True


def hooked(kind: type[Hooked]) -> Shell:
    """A shell on such a cluster."""
    shell = Shell()
    shell.cluster.__class__ = kind
    cluster: Any = shell.cluster
    cluster.shell = shell
    return shell


@pytest.mark.row("F60")
async def test_a_delete_that_overtakes_the_answer_to_the_claim_is_the_end() -> None:
    async with working(hooked(Hooked)) as shell:
        shell.builder.go.clear()
        shell.apply()
        await shell.until(lambda: shell.cluster.writes)
        await turn()
        assert shell.store.get(UID) is None
        assert shell.jobs.uids() == ()
        assert shell.worker.leased == 0


async def test_a_worker_that_is_lost_while_the_claim_is_written_costs_no_attempt() -> None:
    async with working(hooked(Lost)) as shell:
        shell.apply()
        await shell.ended("Succeeded")
        assert shell.status()["attempt"] == 1


async def test_a_worker_suspected_while_it_is_asked_is_granted_again() -> None:
    gate, asked = asyncio.Event(), []

    async def probe() -> frozenset[str]:
        asked.append(1)
        if len(asked) > 1:
            await gate.wait()
        return frozenset()

    worker = Worker("w", 1, a_backend(MemoryBuilder()), probe)
    pool = a_pool(worker)
    scheduler = Scheduler([pool], time.monotonic, Metrics())
    await pool._look(worker)
    scheduler.enter("default", an_entry("a"))
    scheduler.enter("default", an_entry("b"))
    lease = scheduler.take("a")
    looking = asyncio.create_task(pool._look(worker))
    await turn()
    worker.suspect()
    lease.release()
    gate.set()
    await looking
    assert scheduler.turn("b") == Granted("w")
