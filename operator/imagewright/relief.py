"""Room on a worker whose disk is full: its caches are pruned once for the build that met it."""

import asyncio
from dataclasses import replace

import structlog

from imagewright.api.reason import Reason
from imagewright.domain.outcome import Broken, Outcome
from imagewright.domain.prune import Policy
from imagewright.domain.sign import DISK_FULL as ADVICE
from imagewright.pools.pool import Worker
from imagewright.ports import Cache, Error, Unavailable

log = structlog.get_logger("relief")
FULL = "no space left on device"
TRIES, PAUSE_SECONDS = 10, 1.0
"""A daemon writes down what it removes, and on a disk without a free byte it cannot. What its
garbage collection frees meanwhile makes room for that: after a second on ext4, after two on a
tmpfs (BuildKit v0.32, 64 MB). What such a prune lets go is gone a moment after its answer."""


def met_full_disk(outcome: Outcome) -> bool:
    """Whether the worker itself said that its disk is full.

    A step that printed so is none of these: its words are the user's, and who writes them must not
    empty a cache that others use. Neither is our own disk, which later has room again by itself.
    """
    return (
        isinstance(outcome, Broken)
        and outcome.reason is Reason.DISK_FULL
        and not outcome.retryable
    )


def told_again(outcome: Outcome) -> Outcome:
    """The outcome on a disk that was full just now: here a step that says so too is believed."""
    if isinstance(outcome, Broken) and outcome.exit_code and FULL in outcome.log_tail.lower():
        return replace(outcome, reason=Reason.DISK_FULL, message=f"{ADVICE} {outcome.message}")
    return outcome


async def relieve(worker: Worker, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Prune what no build on the worker uses. Raises nothing: the next attempt shows what helped.

    It takes as long as it takes; who waits for it has a deadline.
    """
    for cache in worker.caches.values():
        for tried in range(TRIES):
            pruned = await _pruned(worker, cache)
            if not pruned or tried:
                await asyncio.sleep(pause_seconds)
            if pruned:
                break


async def _pruned(worker: Worker, cache: Cache) -> bool:
    """Whether trying again would be of no use: it was pruned, or the worker does not answer."""
    try:
        reclaimed = await cache.prune(Policy())
    except Error as error:
        log.warning("A full disk was not pruned", worker=worker.name, why=error.message)
        return isinstance(error, Unavailable)
    log.warning("A full disk was pruned", worker=worker.name, bytes=reclaimed.size)
    return True
