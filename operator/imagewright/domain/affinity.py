"""Which worker a build should meet: the one that has its cache, unless that is too busy.

Rendezvous hashing (Thaler, Ravishankar: "Using Name-Based Mappings to Increase Hit Rates",
IEEE/ACM ToN 1998) ranks the workers for each key, so that a worker that comes or goes moves no
key but its own. The load is bounded (Mirrokni, Thorup, Zadimoghaddam: "Consistent Hashing with
Bounded Loads", SODA 2018): a worker that is too far ahead of the others is passed over for the
next in the key's own ranking, which therefore becomes warm too, and is remembered as such: twenty
keys never spread evenly, and without memory those of the busiest worker would wander for ever.
"""

import hashlib
import math
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

FACTOR = 1.25
"""How far ahead of the mean a worker may be."""
KEYS, HOMES = 10_000, 4
"""So many keys are remembered, and so many workers for each."""


class Homes:
    """Where keys were built: of each the last few workers, of the keys the last few thousand."""

    def __init__(self) -> None:
        self._homes: dict[str, tuple[str, ...]] = {}

    def of(self, key: str) -> frozenset[str]:
        """The workers that have its cache, as far as it is known."""
        return frozenset(self._homes.get(key, ()))

    def learn(self, key: str, name: str) -> None:
        """The key is built there now."""
        others = (one for one in self._homes.pop(key, ()) if one != name)
        self._homes[key] = (name, *others)[:HOMES]
        if len(self._homes) > KEYS:
            # The one that was built longest ago comes first.
            del self._homes[next(iter(self._homes))]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a worker is."""

    name: str
    leased: int
    slots: int


def ranked(
    key: str, names: Iterable[str], homes: AbstractSet[str] = frozenset()
) -> tuple[str, ...]:
    """The workers in the order in which this key prefers them: those first that have its cache.

    Without homes it is the same in every process.
    """
    return tuple(sorted(names, key=lambda name: (name not in homes, _weight(key, name), name)))


def choose(ranking: Sequence[str], loads: Iterable[Load]) -> str | None:
    """The first worker of the ranking that has a slot and is not too far ahead of the others.

    A worker without a load is down, and passed over. Where all that have a slot are too far
    ahead, the one with the most free slots; None where no worker of the ranking has a slot.
    """
    known = {load.name: load for load in loads}
    ranked_now = [known[name] for name in ranking if name in known]
    free = [load for load in ranked_now if load.leased < load.slots]
    for load in free:
        if not _ahead(load, known.values()):
            return load.name
    return max(free, key=lambda load: load.slots - load.leased).name if free else None


def worth_waiting(warm: Collection[str], loads: Collection[Load]) -> bool:
    """Whether a warm worker is full but not too far ahead: a slot there comes free soon."""
    return any(
        load.name in warm and load.leased >= load.slots and not _ahead(load, loads)
        for load in loads
    )


def _ahead(load: Load, loads: Collection[Load]) -> bool:
    """Whether one more would put the worker too far ahead of the others."""
    share = (sum(one.leased for one in loads) + 1) / len(loads)
    # One that is at most half full is never too far ahead: the mean of a few builds is nearly
    # nothing, and would send the second build of an image to a cold worker.
    return load.leased + 1 > max(math.ceil(FACTOR * share), math.ceil(load.slots / 2))


def _weight(key: str, name: str) -> bytes:
    return hashlib.blake2b(f"{key}\0{name}".encode(), digest_size=8).digest()
