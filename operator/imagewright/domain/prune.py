"""What a prune may remove, and what it gave back."""

from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """What may go. Spaces are bytes, 0 where unset; `keep` spares what was used more recently.

    `filters` are fields of a cache record to the values that match (`type`, `id`, `description`);
    several values of one field are alternatives, several fields must all match. `all` takes
    internal, frontend and image-held records too. With `dry_run` nothing is removed.
    """

    all: bool = False
    filters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keep: timedelta = timedelta(0)
    reserved_space: int = 0
    max_used_space: int = 0
    min_free_space: int = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What one cache gave back, in bytes, and the ids of the records that went."""

    size: int = 0
    ids: tuple[str, ...] = ()
