"""One that waits in the line of a pool, and what it is given there."""

from collections.abc import Callable
from dataclasses import dataclass, field

from imagewright.domain.facts import Waiting
from imagewright.domain.fairness import Ticket
from imagewright.domain.plan import Plan
from imagewright.pools.pool import Worker


@dataclass(slots=True)
class Lease:
    """One slot on one worker until it is given back; giving it back twice does no harm."""

    worker: Worker
    _given_back: Callable[["Lease"], None]
    _held: bool = field(default=True)

    def release(self) -> None:
        """Give the slot back; the next in the queue has it at once."""
        if self._held:
            self._held = False
            self._given_back(self)


@dataclass(slots=True)
class Entry:
    """One that waits. `wake` is called when its turn has changed."""

    ticket: Ticket
    plan: Plan
    wake: Callable[[], None]
    since: float = 0.0
    passed: int = 0
    told: Waiting | None = None
    told_at: float = 0.0
    able: tuple[Worker, ...] | None = None
    ranking: tuple[str, ...] = ()
    warm: frozenset[str] = frozenset()
    """The workers that have its cache; where none has, the one that should get it."""
    homes: bool = False
    """Whether one has."""
    held_out: float | None = None
    """Since when it leaves cold workers alone."""

    def reconsider(self) -> None:
        """The workers have changed: what was found out about them is worth nothing."""
        self.able = None
