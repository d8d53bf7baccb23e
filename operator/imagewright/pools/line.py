"""The line in front of one pool: who waits there, who is let in, and what they are told."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from imagewright.api.reason import Reason
from imagewright.domain.affinity import Homes, Load, choose, ranked, worth_waiting
from imagewright.domain.facts import Entered, Granted, Refused, Turn, Waiting
from imagewright.domain.fairness import Queue, Ticket
from imagewright.domain.plan import Plan
from imagewright.domain.platform import covers
from imagewright.metrics import Metrics
from imagewright.pools.pool import Pool, Worker

TOLD_SECONDS = 10.0
"""Between two words to one that waits."""
NEAR = 10
"""From this position on every step is worth a word; farther back only half the way is."""
HOLD_OUT_SECONDS = 1.0
"""So long a build leaves a slot on a cold worker alone (Zaharia et al.: "Delay Scheduling",
EuroSys 2010): what it waits is less than what a cold build takes longer."""
AHEAD, LOOKS = 64, 256
"""So many builds of a namespace, and in all, are looked at for one that has a warm worker."""
WORDS = {"first": 10, "changed": 10, "moved": 1}
"""A second, from the front: to those who were told nothing yet, of another reason to wait, and of
steps forward. Each is an API write, and one that begins must not wait for the writes of those
behind; where builds are short, most begin before there is anything to tell."""


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

    @property
    def priority(self) -> int:
        """Of its ticket."""
        return self.ticket.priority

    def reconsider(self) -> None:
        """The workers have changed: what was found out about them is worth nothing."""
        self.able = None


class Line:
    """Lets builds into a pool: fairly, and where their cache is."""

    def __init__(self, pool: Pool, clock: Callable[[], float], metrics: Metrics) -> None:
        self.pool, self._clock, self._metrics = pool, clock, metrics
        self._queue, self._arrivals, self._homes = Queue(), itertools.count(), Homes()
        self._entries: dict[str, Entry] = {}
        self._granted: dict[str, tuple[Entry, Lease]] = {}
        self.waits: Callable[[], None] = lambda: None
        """Called whenever one comes that there is no slot for."""
        pool.changed = self._pool_changed

    def __contains__(self, uid: str) -> bool:
        return uid in self._entries or uid in self._granted

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._entries)

    def enter(self, entry: Entry) -> None:
        """Wait for a turn; asking again changes only what is new. A free slot is had at once."""
        uid = entry.ticket.uid
        known = self._entries.get(uid)
        if uid in self._granted:
            return
        arrived = known.ticket.arrived if known else next(self._arrivals)
        entry = replace(entry, ticket=replace(entry.ticket, arrived=arrived))
        if known and (known.ticket, known.plan) == (entry.ticket, entry.plan):
            return
        if known:
            self._queue.remove(known.ticket)
            entry = replace(entry, since=known.since, told=known.told, told_at=known.told_at)
        else:
            entry.since = self._clock()
        self._entries[uid] = entry
        self._queue.add(entry.ticket)
        self._grant()
        self._show(entry.ticket.namespace)
        if uid in self._entries:
            self.waits()

    def demand(self, most: int) -> int:
        """For how many of those that wait more workers would be of use; no more than `most`."""
        limit, found = self.pool.terms.namespace_slots, Counter[str]()
        useful = 0
        for entry in self._entries.values():
            if useful >= most:
                break
            namespace = entry.ticket.namespace
            held = self._queue.shares.held(namespace) + found[namespace]
            if (limit is None or held < limit) and not self._shut(entry):
                found[namespace] += 1
                useful += 1
        return useful

    def turn(self, uid: str) -> Turn | None:
        """How the build stands; None where it never asked, or has taken its lease."""
        if uid in self._granted:
            return Granted(self._granted[uid][1].worker.name)
        entry = self._entries.get(uid)
        if entry is None:
            return None
        if denial := self.pool.terms.denial(entry.ticket.namespace, entry.plan):
            return Refused(denial, Reason.POLICY_DENIED)
        if inability := self.pool.inability(entry.plan):
            return Refused(inability)
        return entry.told or Entered()

    def take(self, uid: str) -> Lease:
        """The granted lease; from now on the caller gives it back. Raises KeyError without one."""
        return self._granted.pop(uid)[1]

    def leave(self, uid: str) -> None:
        """Out of the line; a lease that was granted and not taken goes back."""
        if entry := self._entries.pop(uid, None):
            self._queue.remove(entry.ticket)
            self._show(entry.ticket.namespace)
        if granted := self._granted.pop(uid, None):
            granted[1].release()

    def offer(self) -> None:
        """A few times a second: let in who has held out for long enough."""
        self._grant()

    def tell(self) -> None:
        """Once a second: say where they stand to those who wait anew or have moved enough."""
        now, left = self._clock(), dict(WORDS)
        for position, ticket in enumerate(self._queue.order(), 1):
            entry = self._entries[ticket.uid]
            reason = self._reason(entry)
            if entry.told is None:
                kind = "first"
            elif now - entry.told_at < TOLD_SECONDS or not moved(entry.told, reason, position):
                continue
            else:
                kind = "moved" if reason is entry.told.reason else "changed"
            if left[kind]:
                left[kind] -= 1
                self._say(entry, reason, position)

    def _say(self, entry: Entry, reason: Reason, position: int) -> None:
        entry.told = Waiting(reason, self._message(entry, reason), position)
        entry.told_at = self._clock()
        entry.wake()

    def _reason(self, entry: Entry) -> Reason:
        terms, namespace = self.pool.terms, entry.ticket.namespace
        if terms.platforms and not covers(terms.platforms, entry.plan.platforms):
            return Reason.PLATFORM_UNAVAILABLE
        if not any(worker.up for worker in self._able(entry)):
            return Reason.NO_WORKER
        limit = terms.namespace_slots
        if limit is not None and self._queue.shares.held(namespace) >= limit:
            return Reason.NAMESPACE_LIMIT
        return Reason.QUEUED

    def _message(self, entry: Entry, reason: Reason) -> str:
        terms = self.pool.terms
        if reason is Reason.NO_WORKER:
            return self.pool.trouble(self._able(entry))
        if reason is Reason.PLATFORM_UNAVAILABLE:
            offered = ", ".join(sorted(terms.platforms))
            return (
                f"Pool {terms.name} builds for {offered} only: name another one in spec.pool, or "
                "leave out spec.platforms."
            )
        if reason is Reason.NAMESPACE_LIMIT:
            return (
                f"Waits for another build of this namespace to end: pool {terms.name} gives it "
                f"{terms.namespace_slots} slots at once."
            )
        return f"Waits for a slot of pool {terms.name}: all that could build it are taken."

    def _able(self, entry: Entry) -> tuple[Worker, ...]:
        """The workers for it, and with them, in passing, the order in which its key likes them."""
        if entry.able is None:
            entry.able = self.pool.able(entry.plan)
            up = {one.name for one in entry.able if one.up}
            homes = self._homes.of(entry.ticket.key)
            entry.ranking = ranked(entry.ticket.key, up, homes)
            entry.homes = bool(up & homes)
            entry.warm = frozenset(entry.ranking[: max(1, len(up & homes))])
        return entry.able

    def _grant(self) -> None:
        while any(worker.free for worker in self.pool.workers):
            picked = self._pick()
            if picked is None:
                return
            self._give(*picked)

    def _pick(self) -> tuple[Entry, Worker, bool] | None:
        """Who goes, where, and whether it was the turn of its namespace.

        When all slots are taken and one comes free, whoever is first would mostly meet a worker
        that has never seen it. So the first that likes this worker goes. Nobody is passed over
        more often than the pool has slots, which keeps nearly every build on its own worker.
        """
        slots = sum(worker.slots for worker in self.pool.workers if worker.up)
        candidates = itertools.islice(self._candidates(), LOOKS)
        first, place = next(candidates, (None, None))
        if first is None or place is None:
            return None
        if first.passed >= slots or place.name in first.warm:
            return first, place, True
        others = list(candidates)
        warm = (one for one in others if one[1].name in one[0].warm)
        cold = (one for one in [(first, place), *others] if not self._holds_out(one[0]))
        entry, worker = next(itertools.chain(warm, cold), (None, None))
        if entry is None or worker is None:
            return None
        first.passed += entry is not first
        return entry, worker, entry.ticket.namespace == first.ticket.namespace

    def _holds_out(self, entry: Entry) -> bool:
        """Whether it leaves a slot on a cold worker alone, since a warm one has one soon."""
        if not entry.homes or not worth_waiting(entry.warm, self._loads(entry)):
            return False
        if entry.held_out is None:
            entry.held_out = self._clock()
        return self._clock() - entry.held_out < HOLD_OUT_SECONDS

    def _loads(self, entry: Entry) -> list[Load]:
        up = (worker for worker in self._able(entry) if worker.up)
        return [Load(one.name, one.leased, one.slots) for one in up]

    def _candidates(self) -> Iterator[tuple[Entry, Worker]]:
        """Those that could go now, each with its place; the namespace whose turn it is first.

        Of a namespace these are the first and those behind it of the same priority.
        """
        limit = self.pool.terms.namespace_slots
        for tickets in self._queue.heads():
            if limit is not None and self._queue.shares.held(tickets[0].namespace) >= limit:
                continue
            priority = None
            for ticket in itertools.islice(tickets, AHEAD):
                if priority not in (None, ticket.priority):
                    break
                entry = self._entries[ticket.uid]
                if worker := self._place(entry):
                    priority = ticket.priority
                    yield entry, worker

    def _place(self, entry: Entry) -> Worker | None:
        """The worker for it among those that have a slot now."""
        if self._shut(entry):
            return None
        loads = self._loads(entry)
        name = choose(entry.ranking, loads)
        return next((one for one in self._able(entry) if one.name == name), None)

    def _shut(self, entry: Entry) -> bool:
        """Whether no worker of the pool is for it, however many there are."""
        terms, plan = self.pool.terms, entry.plan
        elsewhere = terms.platforms and not covers(terms.platforms, plan.platforms)
        return bool(elsewhere or terms.denial(entry.ticket.namespace, plan))

    def _give(self, entry: Entry, worker: Worker, in_turn: bool) -> None:  # noqa: FBT001
        ticket, metrics = entry.ticket, self._metrics
        del self._entries[ticket.uid]
        self._queue.remove(ticket)
        self._queue.shares.serve(ticket.namespace, in_turn=in_turn)
        if not worker.leased:
            worker.since = self._clock()
        worker.leased += 1

        def given_back(lease: Lease) -> None:
            lease.worker.leased -= 1
            if not lease.worker.leased:
                lease.worker.since = self._clock()
            self._queue.shares.give_back(ticket.namespace)
            metrics.slots_used.labels(self.pool.name).dec()
            if lease.worker.retired:
                lease.worker.nudge()
            self._grant()

        self._granted[ticket.uid] = entry, Lease(worker, given_back)
        self._settle(ticket.key, worker.name)
        metrics.slots_used.labels(self.pool.name).inc()
        waited = self._clock() - entry.since
        metrics.queue_wait.labels(self.pool.name, ticket.namespace).observe(waited)
        self._show(ticket.namespace)
        entry.wake()

    def _settle(self, key: str, name: str) -> None:
        """The key is built on that worker: count whether its cache was there, and remember it."""
        homes = self._homes.of(key)
        result = "hit" if name in homes else "miss" if homes else "new"
        self._metrics.affinity.labels(self.pool.name, result).inc()
        self._homes.learn(key, name)
        if result != "hit":
            for entry in self._entries.values():
                if entry.ticket.key == key:
                    entry.reconsider()

    def _show(self, namespace: str) -> None:
        depth = self._queue.depth(namespace)
        self._metrics.queue_depth.labels(self.pool.name, namespace).set(depth)

    def _pool_changed(self) -> None:
        """A lease on a worker that went away before its build began is worth nothing."""
        for uid, (entry, lease) in list(self._granted.items()):
            if not lease.worker.up or lease.worker.retired:
                del self._granted[uid]
                lease.release()
                entry.wake()
        for entry in self._entries.values():
            entry.reconsider()
        self._grant()


def moved(told: Waiting, reason: Reason, position: int) -> bool:
    """Whether that is news enough to be written."""
    if reason is not told.reason:
        return True
    before = told.position
    if position <= NEAR:
        return position != before
    return position * 2 <= before or position >= before * 2
