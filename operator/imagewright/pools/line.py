"""The line in front of one pool: who waits there, who is let in, and what they are told."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from imagewright.api.reason import Reason
from imagewright.domain.facts import Entered, Granted, Refused, Turn, Waiting
from imagewright.domain.fairness import Queue
from imagewright.metrics import Metrics
from imagewright.pools.entry import Entry, Lease
from imagewright.pools.notice import TOLD_SECONDS, WORDS, message, moved
from imagewright.pools.placement import Placement
from imagewright.pools.pool import Pool, Worker

AHEAD, LOOKS = 64, 256
"""So many builds of a namespace, and in all, are looked at for one that has a warm worker."""


class Line:
    """Lets builds into a pool: fairly, and where their cache is."""

    def __init__(self, pool: Pool, clock: Callable[[], float], metrics: Metrics) -> None:
        self.pool, self._clock, self._metrics = pool, clock, metrics
        self._queue, self._arrivals = Queue(), itertools.count()
        self._placement = Placement(pool, clock, metrics)
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
            if (limit is None or held < limit) and not self._placement.shut(entry):
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
        entry.told = Waiting(
            reason, message(self.pool, self._placement.able(entry), reason), position
        )
        entry.told_at = self._clock()
        entry.wake()

    def _reason(self, entry: Entry) -> Reason:
        terms, namespace = self.pool.terms, entry.ticket.namespace
        if not terms.serves(entry.plan):
            return Reason.PLATFORM_UNAVAILABLE
        if not any(worker.up for worker in self._placement.able(entry)):
            return Reason.NO_WORKER
        limit = terms.namespace_slots
        if limit is not None and self._queue.shares.held(namespace) >= limit:
            return Reason.NAMESPACE_LIMIT
        return Reason.QUEUED

    def _grant(self, *, ended: bool = False) -> None:
        """Give away the free slots; `ended` says that one has just been given back."""
        while any(worker.free for worker in self.pool.workers):
            picked = self._pick(ended=ended)
            if picked is None:
                return
            self._give(*picked)

    def _pick(self, *, ended: bool) -> tuple[Entry, Worker, bool] | None:
        """Who goes, where, and whether it was the turn of its namespace.

        When all slots are taken and one comes free, whoever is first would mostly meet a worker
        that has never seen it. So the first that likes this worker goes. While whoever is first is
        passed over, or holds out, no more builds end than the pool has slots.
        """
        slots = sum(worker.slots for worker in self.pool.workers if worker.up)
        candidates = itertools.islice(self._candidates(), LOOKS)
        first, place = next(candidates, (None, None))
        if first is None or place is None:
            return None
        if first.passed >= slots or place.name in first.warm:
            return first, place, True
        picked, cold = None, [(first, place)]
        for entry, worker in candidates:
            if worker.name in entry.warm:
                picked = entry, worker
                break
            cold.append((entry, worker))
        else:
            picked = next((one for one in cold if not self._placement.holds_out(one[0])), None)
        if picked is None:
            first.passed += ended
            return None
        entry, worker = picked
        first.passed += entry is not first
        return entry, worker, entry.ticket.namespace == first.ticket.namespace

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
                if worker := self._placement.place(entry):
                    priority = ticket.priority
                    yield entry, worker

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
            self._grant(ended=True)

        self._granted[ticket.uid] = entry, Lease(worker, given_back)
        if self._placement.settle(entry, worker):
            # Those of the same key like one worker more from now on.
            self._reconsider(ticket.key)
        metrics.slots_used.labels(self.pool.name).inc()
        waited = self._clock() - entry.since
        metrics.queue_wait.labels(self.pool.name, ticket.namespace).observe(waited)
        self._show(ticket.namespace)
        entry.wake()

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
        self._reconsider()
        self._grant()

    def _reconsider(self, key: str | None = None) -> None:
        for entry in self._entries.values():
            if key in (None, entry.ticket.key):
                entry.reconsider()
