"""Where a build should go: to a worker that has its cache, unless that one is too busy."""

from collections.abc import Callable

from imagewright.domain.affinity import Homes, Load, choose, ranked, worth_waiting
from imagewright.metrics import Metrics
from imagewright.pools.entry import Entry
from imagewright.pools.pool import Pool, Worker

HOLD_OUT_SECONDS = 1.0
"""So long a build leaves a slot on a cold worker alone (Zaharia et al.: "Delay Scheduling",
EuroSys 2010): what it waits is less than what a cold build takes longer."""


class Placement:
    """Finds workers of one pool, and remembers where each key was built."""

    def __init__(self, pool: Pool, clock: Callable[[], float], metrics: Metrics) -> None:
        self.pool, self._clock, self._affinity = pool, clock, metrics.affinity
        self._homes = Homes()

    def able(self, entry: Entry) -> tuple[Worker, ...]:
        """The workers for it, and with them, in passing, the order in which its key likes them."""
        if entry.able is None:
            entry.able = self.pool.able(entry.plan)
            up = {one.name for one in entry.able if one.up}
            homes = self._homes.of(entry.ticket.key)
            entry.ranking = ranked(entry.ticket.key, up, homes)
            entry.homes = bool(up & homes)
            entry.warm = frozenset(entry.ranking[: max(1, len(up & homes))])
        return entry.able

    def holds_out(self, entry: Entry) -> bool:
        """Whether it leaves a slot on a cold worker alone, since a warm one has one soon."""
        if not entry.homes or not worth_waiting(entry.warm, self._loads(entry)):
            return False
        if entry.held_out is None:
            entry.held_out = self._clock()
        return self._clock() - entry.held_out < HOLD_OUT_SECONDS

    def _loads(self, entry: Entry) -> list[Load]:
        up = (worker for worker in self.able(entry) if worker.up)
        return [Load(one.name, one.leased, one.slots) for one in up]

    def place(self, entry: Entry) -> Worker | None:
        """The worker for it among those that have a slot now."""
        if self.shut(entry):
            return None
        loads = self._loads(entry)
        name = choose(entry.ranking, loads)
        return next((one for one in self.able(entry) if one.name == name), None)

    def shut(self, entry: Entry) -> bool:
        """Whether no worker of the pool is for it, however many there are."""
        terms, plan = self.pool.terms, entry.plan
        return not terms.serves(plan) or bool(terms.denial(entry.ticket.namespace, plan))

    def settle(self, entry: Entry, worker: Worker) -> bool:
        """It is built there: remember it, and say whether that is new for its key."""
        key, name = entry.ticket.key, worker.name
        homes = self._homes.of(key)
        result = "hit" if name in homes else "miss" if homes else "new"
        self._affinity.labels(self.pool.name, result).inc()
        self._homes.learn(key, name)
        return result != "hit"
