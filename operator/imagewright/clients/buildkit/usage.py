"""What a daemon's cache holds, and which of it is to go.

A field of time is seconds since the epoch; one of space is bytes.
"""

from dataclasses import dataclass

from imagewright.clients.buildkit.proto import control_pb2
from imagewright.clients.buildkit.status import seconds_of

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Record:
    """One part of a daemon's cache, as it is or as it was before it was deleted.

    `type` is one of `regular`, `internal`, `frontend`, `source.local`, `source.git.checkout`,
    `exec.cachemount`. A record that is `shared` lies in an image of the daemon as well, so its
    deletion frees nothing before the image has gone.
    """

    id: str
    size: int
    in_use: bool = False
    mutable: bool = False
    shared: bool = False
    type: str = ""
    description: str = ""
    created: float | None = None
    last_used: float | None = None
    usage_count: int = 0
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prune:
    """Which records are to go. A space of 0 is no condition.

    Without `all`, internal, frontend and shared records stay. Records in use always stay.
    `filters` are containerd's: a record must match one of them, and all the comma-separated parts
    of that one; booleans are tested by their presence (`inuse`, `shared`, `private`).

    With any space set, the oldest records go first, until no more than `max_used_space` is used
    and `min_free_space` is free on the disk; `reserved_space` is never gone below.

    Daemons before v0.17 ignore `max_used_space` and `min_free_space`, so that one of these alone
    makes them delete everything. Those before v0.14 match no description.
    `Control.is_since` tells.
    """

    filters: tuple[str, ...] = ()
    all: bool = False
    keep_duration_seconds: float = 0
    reserved_space: int = 0
    max_used_space: int = 0
    min_free_space: int = 0


def prune_message(prune: Prune) -> control_pb2.PruneRequest:
    """What a daemon is sent."""
    return control_pb2.PruneRequest(
        filter=prune.filters,
        all=prune.all,
        keepDuration=round(prune.keep_duration_seconds * NANOSECONDS),
        reservedSpace=prune.reserved_space,
        maxUsedSpace=prune.max_used_space,
        minFreeSpace=prune.min_free_space,
    )


def record_of(message: control_pb2.UsageRecord) -> Record:
    """A record as a value that outlives its message."""
    # Old daemons know one parent, in a field of its own.
    parents = tuple(message.Parents) or ((message.Parent,) if message.Parent else ())
    return Record(
        id=message.ID,
        size=message.Size,
        in_use=message.InUse,
        mutable=message.Mutable,
        shared=message.Shared,
        type=message.RecordType,
        description=message.Description,
        created=seconds_of(message.CreatedAt) if message.HasField("CreatedAt") else None,
        last_used=seconds_of(message.LastUsedAt) if message.HasField("LastUsedAt") else None,
        usage_count=message.UsageCount,
        parents=parents,
    )
