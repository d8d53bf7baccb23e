"""What a prune may remove, what it asks, and what it gave back."""

import re
from dataclasses import dataclass, field
from datetime import timedelta

from imagewright.api.buildcacheprune import BUILD_CACHE, SOURCE_CACHE, BuildCachePruneSpec
from imagewright.api.reason import Reason
from imagewright.domain.quantity import bytes_of

SOURCES = "sources"
"""The kind of the operator's own cache of fetched sources; every other kind is a worker's."""
_SECONDS = {"h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([hms])")


@dataclass(frozen=True, slots=True)
class Policy:
    """What may go. Spaces are bytes, 0 where unset; `keep` spares what was used more recently.

    `filters` are fields of a cache record to the values that match (`type`, `id`, `description`);
    several values of one field are alternatives, several fields must all match. An id is a part
    of a record's own, pinned by `^` and `$`; the others are whole. `all` takes internal, frontend
    and image-held records too. With `dry_run` nothing is removed.
    """

    all: bool = False
    filters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keep: timedelta = timedelta(0)
    reserved_space: int = 0
    max_used_space: int = 0
    min_free_space: int = 0
    dry_run: bool = False

    @property
    def limited(self) -> bool:
        """A space is given: what was used least goes first, and only until that is reached."""
        return bool(self.reserved_space or self.max_used_space or self.min_free_space)


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What one cache gave back, in bytes, and the ids of the records that went.

    `note` is a sentence on what must be known of these figures; empty where they stand alone.
    """

    size: int = 0
    ids: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """One cache: where it is, and its kind. Pool and worker are empty for the source cache."""

    pool: str
    worker: str
    kind: str

    def __str__(self) -> str:
        """As a message names it."""
        return f"worker {self.worker}" if self.worker else f"the cache of {self.kind}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a cache could not be pruned."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of one cache. Usage is in bytes, None where it could not be asked."""

    target: Target
    reclaimed: Reclaimed = Reclaimed()
    before: int | None = None
    after: int | None = None
    fault: Fault | None = None


def make_policy(spec: BuildCachePruneSpec) -> Policy:
    """What the spec lets go. Raises ValueError where the API server let something else through."""
    given = {
        "type": tuple(spec.filters.type),
        "id": tuple(spec.filters.id),
        "description": tuple(spec.filters.description),
    }
    return Policy(
        all=spec.all,
        filters={name: values for name, values in given.items() if values},
        keep=duration_of(spec.keep_duration or spec.filters.until or "0s"),
        reserved_space=bytes_of(spec.reserved_space or "0"),
        max_used_space=bytes_of(spec.max_used_space or "0"),
        min_free_space=bytes_of(spec.min_free_space or "0"),
        dry_run=spec.dry_run,
    )


def duration_of(text: str) -> timedelta:
    """The time that a Go-style duration such as `1h30m` stands for. Raises ValueError."""
    parts = _DURATION.findall(text)
    if "".join(f"{number}{unit}" for number, unit in parts) != text or not parts:
        raise ValueError(f"{text!r} is no duration: write hours, minutes, seconds, such as 48h.")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))


def wanted(spec: BuildCachePruneSpec, target: Target) -> bool:
    """Whether the spec means this cache.

    The source cache is in no pool and on no worker, and none of its entries has a field that a
    filter could match: it is left out where any of these is given.
    """
    if target.kind == SOURCES:
        narrowed = spec.pools or spec.workers or make_policy(spec).filters
        return SOURCE_CACHE in spec.include and not narrowed
    return (
        BUILD_CACHE in spec.include
        and target.pool in (spec.pools or [target.pool])
        and target.worker in (spec.workers or [target.worker])
    )
