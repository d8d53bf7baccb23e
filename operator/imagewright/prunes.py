"""Running prunes: one asyncio task each, in which all caches are asked side by side."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from imagewright.api.reason import Reason
from imagewright.domain.prune import Fault, Policy, Swept, Target
from imagewright.domain.prunefacts import Sweep
from imagewright.pools.pool import Pool
from imagewright.ports import Cache, Error

log = structlog.get_logger("prunes")
LONGEST_SECONDS = 3600.0
"""What one cache may take; a daemon that hangs must not hold a prune for ever."""
USAGE_SECONDS = 120.0


def caches_of(pools: Iterable[Pool], own: Mapping[str, Cache]) -> dict[Target, Cache]:
    """The caches that there are now: the workers' of all pools, and the operator's own by kind."""
    theirs = {
        Target(pool.name, worker.name, kind): cache
        for pool in pools
        for worker in pool.workers
        for kind, cache in worker.caches.items()
    }
    return {**theirs, **{Target("", "", kind): cache for kind, cache in own.items()}}


@dataclass(slots=True)
class Work:
    """What this process does for one uid."""

    sweep: Sweep
    task: asyncio.Task[None]


class Prunes:
    """The prunes of this process by uid. `ended` is called with the uid of one that is over."""

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self._works: dict[str, Work] = {}
        self._dying: set[asyncio.Task[None]] = set()

    def look(self, uid: str) -> Sweep | None:
        """What is done for the prune, as a value."""
        work = self._works.get(uid)
        return work.sweep if work else None

    def uids(self) -> tuple[str, ...]:
        """The prunes that something is done for."""
        return tuple(self._works)

    @contextmanager
    def claim(
        self, uid: str, generation: int, policy: Policy, caches: Mapping[Target, Cache]
    ) -> Iterator[None]:
        """Prune the caches by the policy, for this generation of the object, once claimed.

        The claim is written within the context. Until it is left, the caches are only asked what
        they hold, which takes as long as the write; where it is left with an error, no more is
        done.
        """
        claimed = asyncio.Event()
        work = self._run(uid, policy, caches, claimed)
        self._works[uid] = Work(Sweep(generation), asyncio.create_task(work, name=f"prune {uid}"))
        try:
            yield
        except BaseException:
            self.cancel(uid)
            raise
        claimed.set()

    def cancel(self, uid: str) -> None:
        """End what runs, now: every call to a daemon with it."""
        work = self._works.pop(uid, None)
        if work is not None and not work.task.done():
            self._dying.add(work.task)
            work.task.add_done_callback(self._dying.discard)
            work.task.cancel()

    def cancel_all(self) -> None:
        """End everything that runs, now."""
        for uid in self.uids():
            self.cancel(uid)

    def forget(self, uid: str) -> None:
        """What has ended was told: remember nothing of it."""
        self._works.pop(uid, None)

    async def quiet(self) -> None:
        """Wait until every cancelled task has ended."""
        if self._dying:
            await asyncio.wait(self._dying)

    async def drained(self, seconds: float) -> None:
        """Wait until nothing runs any more, but no longer than so many seconds."""
        tasks = [work.task for work in self._works.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _run(
        self, uid: str, policy: Policy, caches: Mapping[Target, Cache], claimed: asyncio.Event
    ) -> None:
        results = await sweep(caches, policy, claimed)
        work = self._works[uid]
        work.sweep = Sweep(work.sweep.generation, results)
        self._ended(uid)


async def sweep(
    caches: Mapping[Target, Cache], policy: Policy, claimed: asyncio.Event
) -> tuple[Swept, ...]:
    """Prune all caches side by side, and return each one's own result, whatever the others' is."""
    async with asyncio.TaskGroup() as asked:
        tasks = [
            asked.create_task(sweep_one(target, cache, policy, claimed))
            for target, cache in caches.items()
        ]
    return tuple(task.result() for task in tasks)


async def sweep_one(target: Target, cache: Cache, policy: Policy, claimed: asyncio.Event) -> Swept:
    """Prune one cache to its end, whatever that is; nothing but cancellation is raised.

    Before `claimed` it is only asked what it holds.
    """
    before: int | None = None
    try:
        async with asyncio.timeout(USAGE_SECONDS):
            before = await cache.usage()
        await claimed.wait()
        async with asyncio.timeout(LONGEST_SECONDS):
            reclaimed = await cache.prune(policy)
    except Error as error:
        return Swept(target, before=before, fault=Fault(error.reason, error.message))
    except TimeoutError:
        fault = Fault(Reason.BUILDER_UNAVAILABLE, "It did not answer in time, and was given up.")
        return Swept(target, before=before, fault=fault)
    except Exception as error:
        # A fault of ours must not hide what the other caches freed.
        log.exception("A prune broke inside the operator", target=str(target))
        fault = Fault(Reason.PRUNE_FAILED, f"The operator itself failed: {error!r}.")
        return Swept(target, before=before, fault=fault)
    return Swept(target, reclaimed, before, await _usage(target, cache))


async def _usage(target: Target, cache: Cache) -> int | None:
    """What the cache holds afterwards; None where it does not say: it was pruned all the same."""
    try:
        async with asyncio.timeout(USAGE_SECONDS):
            return await cache.usage()
    except (Error, TimeoutError) as error:
        log.warning(
            "A pruned cache does not say what it holds", target=str(target), why=str(error)
        )
        return None
