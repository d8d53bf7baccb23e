"""Clients of the gateway in the queue of a pool, among its ImageBuilds and on the same terms."""

import asyncio
import secrets
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime

from imagewright.domain.facts import Granted, Refused
from imagewright.domain.fairness import Ticket
from imagewright.domain.plan import Inline, Plan
from imagewright.pools.entry import Entry, Lease
from imagewright.scheduler import Scheduler
from imagewright.servers.gateway import (
    DENIED,
    EXHAUSTED,
    Caller,
    TurnedAway,
    Upstream,
    WorkerLost,
)
from imagewright.settings import GatewaySettings

ANY = Plan(Inline())
"""What the queue is told of a build that nobody here can read: it builds with BuildKit."""


@dataclass(frozen=True, slots=True)
class WorkerTls:
    """How the workers of the pool are spoken to; no `context`: without TLS."""

    context: ssl.SSLContext | None = None
    server_name: str = ""


class Admission:
    """Lets clients into one pool; the namespace of their tickets is the tenant."""

    def __init__(
        self,
        scheduler: Scheduler,
        settings: GatewaySettings,
        tls: WorkerTls,
        now: Callable[[], datetime],
    ) -> None:
        self._scheduler, self._settings, self._tls, self._now = scheduler, settings, tls, now
        self._waiting: Counter[str] = Counter()

    @asynccontextmanager
    async def admit(self, caller: Caller) -> AsyncIterator[Upstream]:
        """Wait for a slot, and hold it while the context is open. Raises TurnedAway."""
        lease = await self._lease(caller)
        try:
            yield Upstream(lease.worker.address, self._tls.context, self._tls.server_name)
        except WorkerLost:
            lease.worker.suspect()
            raise
        finally:
            lease.release()

    async def _lease(self, caller: Caller) -> Lease:
        uid, turned = f"gateway-{secrets.token_hex(8)}", asyncio.Event()
        created = self._now().isoformat(timespec="milliseconds")
        ticket = Ticket(uid, caller.tenant, created=created, key=caller.key)
        try:
            self._scheduler.enter(self._settings.pool, Entry(ticket, ANY, turned.set))
            # A free slot was had at once: only who has to wait counts.
            if isinstance(self._scheduler.turn(uid), Granted):
                return self._scheduler.take(uid)
            with self._counted(caller.tenant):
                return await self._granted(ticket, turned)
        finally:
            self._scheduler.leave(uid)

    async def _granted(self, ticket: Ticket, turned: asyncio.Event) -> Lease:
        while True:
            turned.clear()
            # The worker of a grant may be lost before it is taken; then it stands in no line.
            self._scheduler.enter(self._settings.pool, Entry(ticket, ANY, turned.set))
            turn = self._scheduler.turn(ticket.uid)
            if isinstance(turn, Granted):
                return self._scheduler.take(ticket.uid)
            if isinstance(turn, Refused):
                raise TurnedAway(DENIED, "denied", turn.message)
            await turned.wait()

    @contextmanager
    def _counted(self, tenant: str) -> Iterator[None]:
        """A place among those that wait. Raises TurnedAway where there is none."""
        most, own = self._settings.waiting, self._settings.waiting_per_tenant
        if self._waiting.total() >= most:
            raise self._crowded("crowded", f"all {most} places")
        if self._waiting[tenant] >= own:
            raise self._crowded("crowded_tenant", f"the {own} of {tenant}")
        self._waiting[tenant] += 1
        try:
            yield
        finally:
            self._waiting[tenant] -= 1

    def _crowded(self, reason: str, who: str) -> TurnedAway:
        pool = self._settings.pool
        return TurnedAway(
            EXHAUSTED,
            reason,
            f"All slots of pool {pool} are taken, and so are {who} to wait for one: try again "
            "later.",
        )
