"""Leadership by a Lease (coordination.k8s.io/v1), and the fence around what only a leader may do.

The library's own elector compares clocks of two machines, waits five minutes for an answer and
gives nothing back at its end. Here a leader leads until a deadline of its own clock, counted from
before the request that renewed the Lease last; whoever wants the Lease waits longer than that,
from when it saw the record change. So the two never overlap, whatever their clocks say.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from imagewright.domain.lease import Record, Renew, Sighting, Stand, Take, decide, sight
from imagewright.metrics import Metrics
from imagewright.ports import Body, Conflict, Error, Fenced, Gone

log = structlog.get_logger("lease")
RENEW, DEADLINE, REQUEST, LOOK = 1 / 6, 2 / 3, 1 / 4, 1 / 12
"""Parts of a lease: between two renewals, until one must have passed, for one request to be
answered, and between two looks at another's."""
LOOK_SECONDS = 1.0
"""Between two looks at most: one that is given back is to be seen soon, however long it lasts."""
ADRIFT_SECONDS = 60.0
"""How long one that could not renew may hope that nobody else took over. It writes nothing, so it
begins nothing; what it runs goes on, for an outage of the API server is everybody's."""


def lease_clock() -> float:
    """Seconds that never go back, and go on while the machine itself is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_clock() -> datetime:
    """What is written into the Lease for people."""
    return datetime.now(UTC)


class Leases(Protocol):
    """The requests that an election costs; KubeClient has them."""

    async def get(self, path: str) -> dict[str, Any]:
        """The object. Raises Gone."""
        ...

    async def create(self, path: str, body: Body) -> dict[str, Any]:
        """A new object. Raises Conflict where it is there."""
        ...

    async def patch(self, path: str, patch: Body) -> dict[str, Any]:
        """Merge into the object. Raises Conflict, Gone."""
        ...


@dataclass(frozen=True, slots=True)
class Candidacy:
    """Who wants which Lease, for how many seconds at a time; every process is its own `holder`."""

    namespace: str
    name: str
    holder: str
    seconds: int

    @property
    def folder(self) -> str:
        """The path of all Leases of the namespace."""
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    @property
    def path(self) -> str:
        """The path of the Lease."""
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clock that decides, and the one that is only written down."""

    steady: Callable[[], float] = lease_clock
    wall: Callable[[], datetime] = wall_clock


class Elector:
    """Stands for the Lease, holds it, loses it once and for all, or gives it back.

    Past its deadline it is adrift: it does not lead, and does again where it finds that nobody
    else has led meanwhile. `on_loss` is called in the event loop when it never will.
    """

    def __init__(
        self, leases: Leases, candidacy: Candidacy, metrics: Metrics, clocks: Clocks | None = None
    ) -> None:
        self._leases, self._own, self._metrics = leases, candidacy, metrics
        self._clocks = clocks or Clocks()
        self._seen: Sighting | None = None
        self._version = ""
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._complaint = ""
        self.on_loss: Callable[[], None] = lambda: None
        self.led = asyncio.Event()
        self.lost = ""

    def leads(self) -> bool:
        """Whether this process may act now. Asks the clock, so that it holds after a sleep too."""
        return not self.lost and self._until is not None and self._clocks.steady() < self._until

    def fence(self) -> None:
        """Raises Fenced where this process does not lead."""
        if not self.leads():
            raise Fenced(
                f"{self._own.holder} does not hold the Lease {self._own.name}: nothing is written."
            )

    async def run(self) -> None:
        """Stand, and renew; ends where the Lease is lost."""
        while not self.lost:
            await asyncio.sleep(await self.step())

    async def step(self) -> float:
        """Look, and write where there is something to; the seconds until the next step."""
        if self._given_up():
            return 0.0
        try:
            async with asyncio.timeout(self._own.seconds * REQUEST):
                pause = await self._step()
        except Conflict:
            # Somebody wrote first: then it is seen who.
            self._version, pause = "", self._retry()
        except (Error, TimeoutError) as error:
            # What was written may have been taken all the same: look before the next write.
            self._version = ""
            self._complain(str(error) or "The API server did not answer in time.")
            pause = self._retry()
        return 0.0 if self._given_up() else pause

    async def release(self) -> None:
        """Give the Lease back where it is held, so that nobody waits; no more is written after."""
        if not self.leads():
            return
        self._until = None
        self._disarm()
        self._metrics.leader.set(0)
        try:
            async with asyncio.timeout(self._own.seconds * REQUEST):
                await self._look()
                if isinstance(self._verdict(), Renew):
                    await self._write({"holderIdentity": None, "renewTime": self._now()})
                    log.info("Lease given back", lease=self._own.name)
        except (Error, TimeoutError) as error:
            log.warning("The Lease was not given back", lease=self._own.name, why=str(error))

    async def _step(self) -> float:
        if not (self.leads() and self._version):
            await self._look()
        verdict = self._verdict()
        if isinstance(verdict, Stand):
            if self._until is not None:
                self._lose(f"{verdict.holder} holds it")
            return min(self._retry(), verdict.seconds)
        if self._adrift() and isinstance(verdict, Take):
            self._lose("somebody else has had it")
            return 0.0
        began = self._clocks.steady()
        await self._write(self._spec(verdict))
        self._renewed(began + self._own.seconds * DEADLINE)
        return self._own.seconds * RENEW

    def _verdict(self) -> Take | Renew | Stand:
        return decide(self._own.holder, self._seen, self._clocks.steady())

    async def _look(self) -> None:
        try:
            self._keep(await self._leases.get(self._own.path))
        except Gone:
            self._seen, self._version = None, ""

    async def _write(self, spec: dict[str, Any]) -> None:
        """Write what was decided on the version that was seen. Raises Conflict, Gone."""
        if self._seen is None:
            metadata = {"name": self._own.name, "namespace": self._own.namespace}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
            self._keep(
                await self._leases.create(
                    self._own.folder, {**body, "metadata": metadata, "spec": spec}
                )
            )
        else:
            patch = {"metadata": {"resourceVersion": self._version}, "spec": spec}
            self._keep(await self._leases.patch(self._own.path, patch))

    def _spec(self, verdict: Take | Renew) -> dict[str, Any]:
        now = self._now()
        renewed = {"renewTime": now, "leaseDurationSeconds": self._own.seconds}
        if isinstance(verdict, Renew):
            return renewed
        taken = {"holderIdentity": self._own.holder, "acquireTime": now}
        return {**renewed, **taken, "leaseTransitions": verdict.transitions}

    def _keep(self, body: Mapping[str, Any]) -> None:
        record = record_of(body, self._own.seconds)
        self._seen = sight(self._seen, record, self._clocks.steady())
        self._version = body["metadata"]["resourceVersion"]
        self._metrics.transitions.set(record.transitions)
        self._complaint = ""

    def _renewed(self, until: float) -> None:
        """The Lease is ours until then, unless the answer took so long that it is no more."""
        if self._clocks.steady() >= until:
            return
        again, self._until = self.leads(), until
        self._arm(until)
        if not again:
            self._metrics.leader.set(1)
            log.info("Lease taken", lease=self._own.name, holder=self._own.holder)
            self.led.set()

    def _arm(self, until: float) -> None:
        self._disarm()
        left = max(0.0, until - self._clocks.steady())
        self._timer = asyncio.get_running_loop().call_later(left, self._due)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        if self._until is None or self._given_up():
            return
        if self.leads():
            self._arm(self._until)
            return
        self._metrics.leader.set(0)
        log.warning(
            "The Lease is not renewed: nothing is written, and what runs goes on",
            lease=self._own.name,
            seconds=ADRIFT_SECONDS,
        )
        self._arm(self._until + ADRIFT_SECONDS)

    def _adrift(self) -> bool:
        """Whether it led, does so no more, and may again."""
        return not self.lost and self._until is not None and not self.leads()

    def _given_up(self) -> bool:
        """Whether it led, and will not any more; that is told now where it was not yet."""
        if self._until is None or self._clocks.steady() < self._until + ADRIFT_SECONDS:
            return bool(self.lost)
        self._lose("it was not renewed in time")
        return True

    def _lose(self, why: str) -> None:
        if self.lost:
            return
        self.lost = f"The Lease {self._own.name} was lost: {why}."
        self._disarm()
        self._metrics.leader.set(0)
        self.on_loss()

    def _complain(self, why: str) -> None:
        """Once for each trouble, however often it is met."""
        if why != self._complaint:
            log.warning("The Lease could not be looked after", lease=self._own.name, why=why)
        self._complaint = why

    def _retry(self) -> float:
        # Candidates must not knock in step.
        pause = min(self._own.seconds * LOOK, LOOK_SECONDS)
        return pause * random.uniform(0.8, 1.2)  # noqa: S311  # spreads load, nothing secret

    def _now(self) -> str:
        return self._clocks.wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def record_of(body: Mapping[str, Any], seconds: float) -> Record:
    """What a Lease says; `seconds` stands where it does not say how long it lasts."""
    spec = body.get("spec") or {}
    return Record(
        holder=spec.get("holderIdentity") or "",
        renewed=spec.get("renewTime") or "",
        seconds=spec.get("leaseDurationSeconds") or seconds,
        transitions=spec.get("leaseTransitions") or 0,
    )
