"""A pool whose workers nobody looks after, and those that wait for its slots."""

import time
from collections.abc import Callable
from typing import Any

from imagewright.domain.fairness import Ticket
from imagewright.domain.plan import Inline, Plan
from imagewright.metrics import Metrics
from imagewright.pools.entry import Entry
from imagewright.pools.pool import Pool, Terms, Worker
from imagewright.ports import Backend
from tests.support.parts import a_backend

PLAIN = Plan(Inline())


def a_pool(
    *workers: Worker,
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.monotonic,
    **terms: Any,
) -> Pool:
    """A pool named default of these workers, which are as the test says they are."""
    pool = Pool(Terms(**{"name": "default", **terms}), metrics or Metrics(), clock)
    pool._workers = {worker.name: worker for worker in workers}
    return pool


def a_worker(name: str, slots: int = 1, backend: Backend | None = None, **facts: Any) -> Worker:
    """A worker that is up."""
    return Worker(name, slots, backend or a_backend(), answers, up=True, **facts)


async def answers() -> frozenset[str]:
    """A daemon that answers, and says nothing of platforms."""
    return frozenset()


def an_entry(
    uid: str, plan: Plan = PLAIN, wake: Callable[[str], Any] | None = None, **ticket: Any
) -> Entry:
    """A build that asks for a turn; its age and its key are its uid unless it is told."""
    given = {"namespace": "team", "created": uid, "key": uid, **ticket}
    return Entry(Ticket(uid, **given), plan, lambda: wake(uid) if wake else None)
