"""How many workers a pool should have: facts in, a number out.

The workers are the Pods of a StatefulSet, so they are numbered, and only the highest can go.
Times are seconds of one monotonic clock.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """A worker as it is now: for how long it has been leased, or idle, without a break."""

    ordinal: int
    leased: int
    """Slots, those included that were granted and not taken yet."""
    since: float
    """When the first slot was leased, or the last one given back, or it was first seen."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool's workers do, and how many builds wait that one of them could take."""

    usages: tuple[Usage, ...]
    waiting: int
    now: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the pool may be: workers of so many slots each, from the least to the most of them."""

    slots: int
    least: int
    most: int
    idle_seconds: float
    """For so long a worker must have been idle before it goes."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is seen before a decision."""

    replicas: int
    """Workers that were asked for, whether they are there already or not."""
    load: Load
    calm_since: float
    """When something waited last, or the number was changed, or the operator began."""
    bounds: Bounds


def wanted(facts: Facts) -> int:
    """How many workers there should be.

    Up at once, to as many as hold what is leased and what waits. Down by as many of the highest as
    have been idle for long, and only where nothing waits. A leased worker is never taken away, not
    even where it stands above the most there may be.
    """
    bounds = facts.bounds
    return max(bounds.least, min(_needed(facts), bounds.most), _unrested(facts), _leased(facts))


def ordinal_of(pod: str, stateful_set: str) -> int | None:
    """The number of a StatefulSet's Pod; None where the Pod is none of it."""
    name, _, number = pod.rpartition("-")
    return int(number) if name == stateful_set and number.isdecimal() else None


def _needed(facts: Facts) -> int:
    slots = sum(usage.leased for usage in facts.load.usages) + facts.load.waiting
    return -(-slots // facts.bounds.slots)


def _leased(facts: Facts) -> int:
    """Up to the highest that is leased, of those that were not told to go already."""
    leased = (usage.ordinal for usage in facts.load.usages if usage.leased)
    return 1 + max((one for one in leased if one < facts.replicas), default=-1)


def _unrested(facts: Facts) -> int:
    """Up to the highest that has not been idle for long; all of them where something waits."""
    there = min(facts.replicas, facts.bounds.most)
    if facts.load.waiting:
        return there
    usages = {usage.ordinal: usage for usage in facts.load.usages}
    for ordinal in reversed(range(there)):
        usage = usages.get(ordinal)
        # One that was never seen may be on its way, and then it has been so since the last change.
        since = facts.calm_since if usage is None else usage.since
        if (usage and usage.leased) or facts.load.now - since < facts.bounds.idle_seconds:
            return ordinal + 1
    return 0
