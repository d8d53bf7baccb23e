"""Who goes next, and on which worker: oldest first, on the worker with the most free slots."""

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field

from imagewright.api.reason import Reason
from imagewright.domain.facts import Granted, Refused, Turn, Waiting
from imagewright.domain.plan import Plan
from imagewright.metrics import Metrics
from imagewright.pools.pool import Pool, Worker

Place = tuple[str, str]
"""Where a build stands in the queue: when it was created (RFC 3339), then its uid."""


@dataclass(slots=True)
class Lease:
    """One slot on one worker until it is given back; giving it back twice does no harm."""

    worker: Worker
    _given_back: Callable[[], None]
    _held: bool = field(default=True)

    def release(self) -> None:
        """Give the slot back; the next in the queue has it at once."""
        if self._held:
            self._held = False
            self.worker.leased -= 1
            self._given_back()


class Scheduler:
    """Grants slots. `wake` is called with the uid of each build whose turn has changed."""

    def __init__(self, pool: Pool, wake: Callable[[str], None], metrics: Metrics) -> None:
        self._pool, self._wake, self._metrics = pool, wake, metrics
        self._queue: list[Place] = []
        self._plans: dict[str, Plan] = {}
        self._granted: dict[str, Lease] = {}
        pool.changed = self._pool_changed

    def enter(self, place: Place, plan: Plan) -> None:
        """Ask for a turn on a worker that can build the plan; asking again changes nothing.

        A free slot is granted at once.
        """
        uid = place[1]
        if uid not in self._granted and place not in self._queue:
            self._plans[uid] = plan
            bisect.insort(self._queue, place)
            self._grant()

    def turn(self, uid: str) -> Turn | None:
        """How the build stands; None where it never asked, or has taken its lease."""
        if lease := self._granted.get(uid):
            return Granted(lease.worker.name)
        if not any(waiting == uid for _, waiting in self._queue):
            return None
        able = self._pool.able(self._plans[uid])
        if not able:
            return Refused(self._pool.inability(self._plans[uid]))
        if trouble := self._pool.trouble(able):
            return Waiting(Reason.NO_WORKER, trouble)
        taken = sum(worker.leased for worker in able)
        return Waiting(
            Reason.QUEUED, f"Waits for a slot: all {taken} of pool {self._pool.name} are taken."
        )

    def take(self, uid: str) -> Lease:
        """The granted lease; from now on the caller gives it back. Raises KeyError without one."""
        return self._granted.pop(uid)

    def leave(self, uid: str) -> None:
        """Out of the queue; a lease that was granted and not taken goes back."""
        self._queue = [place for place in self._queue if place[1] != uid]
        self._plans.pop(uid, None)
        if lease := self._granted.pop(uid, None):
            lease.release()
        self._metrics.waiting.set(len(self._queue))

    def _grant(self) -> None:
        for place in tuple(self._queue):
            if not any(worker.free for worker in self._pool.workers):
                break
            worker = self._freest(self._plans[place[1]])
            if worker is not None:
                self._queue.remove(place)
                self._give(place[1], worker)
        self._metrics.waiting.set(len(self._queue))

    def _give(self, uid: str, worker: Worker) -> None:
        del self._plans[uid]
        worker.leased += 1
        self._granted[uid] = Lease(worker, self._grant)
        self._wake(uid)

    def _freest(self, plan: Plan) -> Worker | None:
        worker = max(self._pool.able(plan), key=lambda one: one.free, default=None)
        return worker if worker and worker.free else None

    def _pool_changed(self) -> None:
        """A lease on a worker that went away before its build began is worth nothing."""
        for uid, lease in list(self._granted.items()):
            if not lease.worker.up:
                del self._granted[uid]
                lease.release()
                self._wake(uid)
        self._grant()
        for _, uid in self._queue:
            self._wake(uid)
