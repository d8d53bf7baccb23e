"""What a prune of a BuildKit cache would take, without taking it: for dry runs.

It follows BuildKit's own rules (cache/manager.go, v0.32), but ranks all records once where the
daemon ranks those that can go anew after each that went. The daemon decides anew when it prunes:
by then records may have been used, and what its own housekeeping takes is not foreseen.
"""

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from imagewright.domain.prune import Policy, Reclaimed

KEPT_TYPES = ("internal", "frontend")
FREE_SPACE_NOTE = (
    "spec.minFreeSpace is not counted in: how much of the worker's disk is free is not known "
    "without pruning."
)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a BuildKit cache. `parents` are ids of records that it is built upon."""

    id: str
    size: int = 0
    type: str = "regular"
    description: str = ""
    parents: tuple[str, ...] = ()
    in_use: bool = False
    shared: bool = False
    last_used: float | None = None
    """Seconds since the epoch."""
    usage_count: int = 0


def estimate(records: Iterable[Record], policy: Policy, now: datetime) -> Reclaimed:
    """What `policy` would take of the records that there are now."""
    left = {record.id: record for record in records}
    total = sum(record.size for record in left.values() if not record.shared)
    keep = max(policy.max_used_space, policy.reserved_space)
    if policy.limited and not keep:
        return Reclaimed(note=FREE_SPACE_NOTE)
    taken = list(_taken(left, _matcher(policy, now), (total, keep)))
    note = FREE_SPACE_NOTE if policy.min_free_space else ""
    return Reclaimed(sum(one.size for one in taken), tuple(one.id for one in taken), note)


def _taken(
    records: Mapping[str, Record], matches: Callable[[Record], bool], limits: tuple[int, int]
) -> Iterator[Record]:
    """The records in the order in which they go; a record goes only once nothing is built on it.

    `limits` are the bytes that are used, and those to keep: 0 keeps none.
    """
    total, keep = limits
    place = {
        one.id: place for place, one in enumerate(least_used(records.values())) if matches(one)
    }
    children = Counter(parent for record in records.values() for parent in record.parents)
    loose = [(place[name], name) for name in place if not children[name]]
    heapq.heapify(loose)
    while loose and (not keep or total >= keep):
        record = records[heapq.heappop(loose)[1]]
        total -= record.size
        yield record
        children.subtract(record.parents)
        for parent in record.parents:
            if not children[parent] and parent in place:
                heapq.heappush(loose, (place[parent], parent))


def least_used(records: Iterable[Record]) -> list[Record]:
    """Ordered as BuildKit removes them: by age and by use, each as a rank, both weighing alike."""
    by_age = sorted(records, key=_age)
    by_use = sorted(by_age, key=lambda one: one.usage_count)
    age = _ranks([(one.id, _age(one)) for one in by_age])
    use = _ranks([(one.id, float(one.usage_count)) for one in by_use])
    return sorted(by_use, key=lambda one: age[one.id] + use[one.id])


def _age(record: Record) -> float:
    """When it was last used; 0 where it never was, which counts as oldest."""
    return record.last_used or 0.0


def _ranks(ordered: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Each id's place among the different values above 0, as a part of the last one's."""
    places, place, last = {}, 1, 0.0
    for name, value in ordered:
        place += value != last
        places[name], last = place, value
    return {name: own / place for name, own in places.items()}


def _matcher(policy: Policy, now: datetime) -> Callable[[Record], bool]:
    """Whether the policy lets a record go that nothing is built upon."""
    ids = [re.compile(_anchored(pattern)) for pattern in policy.filters.get("id", ())]
    cutoff = (now - policy.keep).timestamp()

    def matches(record: Record) -> bool:
        held = record.type in KEPT_TYPES or record.shared
        if record.in_use or (held and not policy.all):
            return False
        if policy.keep and record.last_used is not None and record.last_used > cutoff:
            return False
        return (
            record.type in policy.filters.get("type", (record.type,))
            and record.description in policy.filters.get("description", (record.description,))
            and (not ids or any(pattern.search(record.id) for pattern in ids))
        )

    return matches


def _anchored(pattern: str) -> str:
    """An id filter as a regular expression: everything in it but its pins stands for itself."""
    text = re.escape(pattern.removeprefix("^").removesuffix("$"))
    return (
        ("^" if pattern.startswith("^") else "") + text + (r"\Z" if pattern.endswith("$") else "")
    )
