"""Who goes next, and on which worker: a line in front of every pool."""

import asyncio
import itertools
from collections.abc import Callable, Iterable

from imagewright.api.reason import Reason
from imagewright.domain.facts import Turn, Waiting
from imagewright.metrics import Metrics
from imagewright.pools.entry import Entry, Lease
from imagewright.pools.line import Line
from imagewright.pools.pool import Pool

OFFER_SECONDS = 0.25
"""Between two looks at who has waited for a warm worker for long enough."""
OFFERS = 4
"""So many of them are one look at whether those who wait are to be told where they stand."""


class Scheduler:
    """Grants slots of pools to entries; `clock` gives seconds that never go back."""

    def __init__(
        self, pools: Iterable[Pool], clock: Callable[[], float], metrics: Metrics
    ) -> None:
        self.lines = {pool.name: Line(pool, clock, metrics) for pool in pools}
        self._lost: dict[str, str] = {}

    def enter(self, pool: str, entry: Entry) -> None:
        """Ask for a turn in the pool of that name; asking again only changes what is new."""
        uid = entry.ticket.uid
        line = self._line_of(uid)
        if line is not None and line.pool.name != pool:
            line.leave(uid)
        self._lost.pop(uid, None)
        if pool in self.lines:
            self.lines[pool].enter(entry)
        else:
            self._lost[uid] = pool

    def turn(self, uid: str) -> Turn | None:
        """How the build stands; None where it never asked, or has taken its lease."""
        if uid in self._lost:
            known = ", ".join(sorted(self.lines)) or "none"
            return Waiting(
                Reason.POOL_UNKNOWN,
                f"There is no pool {self._lost[uid]}: name one of these in spec.pool: {known}.",
            )
        line = self._line_of(uid)
        return line.turn(uid) if line else None

    def take(self, uid: str) -> Lease:
        """The granted lease; from now on the caller gives it back. Raises KeyError without one."""
        line = self._line_of(uid)
        if line is None:
            raise KeyError(uid)
        return line.take(uid)

    def leave(self, uid: str) -> None:
        """Out of every line; a lease that was granted and not taken goes back."""
        self._lost.pop(uid, None)
        if line := self._line_of(uid):
            line.leave(uid)

    async def run(self) -> None:
        """Let in whose time has come, and tell the others where they stand, until cancelled."""
        for tick in itertools.count(1):
            await asyncio.sleep(OFFER_SECONDS)
            for line in self.lines.values():
                line.offer()
                if not tick % OFFERS:
                    line.tell()

    def _line_of(self, uid: str) -> Line | None:
        return next((line for line in self.lines.values() if uid in line), None)
