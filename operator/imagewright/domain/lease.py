"""Who leads, by a Lease that all can see: what a candidate makes of the record that it reads.

Times are seconds of the reader's own clock, which never goes back. What the record says of time
was written by another machine's clock: it is compared, never read.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says. No holder: it was given back."""

    holder: str
    renewed: str
    """When it was renewed last, in the holder's words."""
    seconds: float
    """For so long nobody else may take it, from when the record was seen first."""
    transitions: int
    """How often it went to another holder."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A record, and since when it has been seen to say just that."""

    record: Record
    since: float


@dataclass(frozen=True, slots=True)
class Take:
    """It is free: write oneself into it, with this count of transitions."""

    transitions: int


@dataclass(frozen=True, slots=True)
class Renew:
    """It is one's own."""


@dataclass(frozen=True, slots=True)
class Stand:
    """It is `holder`'s for at least so many seconds more."""

    holder: str
    seconds: float


Verdict = Take | Renew | Stand


def sight(before: Sighting | None, record: Record, now: float) -> Sighting:
    """The sighting after `record` was read; one that says something new counts from now."""
    return before if before and before.record == record else Sighting(record, now)


def decide(me: str, seen: Sighting | None, now: float) -> Verdict:
    """What to do about the Lease; `seen` is None where there is none."""
    if seen is None:
        return Take(0)
    record = seen.record
    if record.holder == me:
        return Renew()
    left = seen.since + record.seconds - now
    if not record.holder or left <= 0:
        return Take(record.transitions + 1)
    return Stand(record.holder, left)
