"""Which worker a build should meet: the one that has its cache, unless that is too busy.

Rendezvous hashing (Thaler, Ravishankar: "Using Name-Based Mappings to Increase Hit Rates",
IEEE/ACM ToN 1998) ranks the workers for each key, so that a worker that comes or goes moves no
key but its own. The load is bounded (Mirrokni, Thorup, Zadimoghaddam: "Consistent Hashing with
Bounded Loads", SODA 2018): a worker that is too far ahead of the others is passed over for the
next in the key's own ranking, which therefore becomes warm too.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FACTOR = 1.25
"""How far ahead of the mean a worker may be."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a worker is."""

    name: str
    leased: int
    slots: int


def ranked(key: str, names: Iterable[str]) -> tuple[str, ...]:
    """The workers in the order in which this key prefers them, the same in every process."""
    return tuple(sorted(names, key=lambda name: (_weight(key, name), name)))


def choose(ranking: Sequence[str], loads: Iterable[Load]) -> str | None:
    """The first worker of the ranking that has a slot and is not too far ahead of the others.

    Where all that have a slot are too far ahead, the one with the most free slots; None where no
    worker of the ranking has a slot.
    """
    known = {load.name: load for load in loads}
    free = [known[name] for name in ranking if known[name].leased < known[name].slots]
    share = (sum(load.leased for load in known.values()) + 1) / max(1, len(known))
    for load in free:
        # One that is at most half full is never too far ahead: the mean of a few builds is nearly
        # nothing, and would send the second build of an image to a cold worker.
        if load.leased + 1 <= max(math.ceil(FACTOR * share), math.ceil(load.slots / 2)):
            return load.name
    return max(free, key=lambda load: load.slots - load.leased).name if free else None


def _weight(key: str, name: str) -> bytes:
    return hashlib.blake2b(f"{key}\0{name}".encode(), digest_size=8).digest()
