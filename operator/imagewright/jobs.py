"""Running builds: one asyncio task each, in the loop that never dies with the watch."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from imagewright.api.reason import Reason
from imagewright.dependencies import gather
from imagewright.domain.facts import (
    Ended,
    Gathered,
    Gathering,
    Job,
    JobState,
    Lacking,
    Prepared,
    Preparing,
    Resting,
    Running,
)
from imagewright.domain.outcome import Broken, Built, Outcome
from imagewright.domain.plan import Plan
from imagewright.domain.progress import Progress
from imagewright.domain.redact import redact
from imagewright.metrics import Metrics
from imagewright.pools.entry import Lease
from imagewright.pools.pool import Worker
from imagewright.ports import Backend, Error, Failed, Keyring, Missing, Unavailable, WatchedKeyring
from imagewright.relief import met_full_disk, relieve, told_again
from imagewright.stall import STALL_SECONDS, Attendant

log = structlog.get_logger("jobs")
Clock = Callable[[], datetime]
LOOK_SECONDS, LOOK_AT_MOST_SECONDS = 1.5, 30.0
"""Before what a build names is looked for again, where the API server did not answer: at first,
and after a long while."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done: `inputs` is the digest of what was asked for."""

    inputs: str
    plan: Plan
    keyring: WatchedKeyring
    again: bool = False
    """An attempt before this one may have pushed, or may yet do so."""


@dataclass(slots=True)
class Work:
    """What this process does for one uid. `plan` grows with what is found out about it."""

    inputs: str
    plan: Plan
    lease: Lease | None
    state: JobState
    progress: Progress = field(default_factory=Progress)
    task: asyncio.Task[None] | None = None
    rivals: bool = False
    """Another push of one of its names was, or is, on its way at the same time."""
    unwatch: Callable[[], None] = lambda: None
    """Ends the watch for what it lacks."""


class Jobs:
    """The work of this process by uid. `ended` is called with a uid whose state has moved on.

    Work may be silent for `stall_seconds` before its worker is asked whether it is there.
    """

    def __init__(
        self,
        ended: Callable[[str], None],
        clock: Clock,
        metrics: Metrics,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._ended, self._clock, self._metrics = ended, clock, metrics
        self._stall_seconds = stall_seconds
        self._works: dict[str, Work] = {}
        self._dying: set[asyncio.Task[None]] = set()

    def look(self, uid: str) -> Job | None:
        """What is done for the build, as a value."""
        work = self._works.get(uid)
        if work is None:
            return None
        state = work.state
        if isinstance(state, Running):
            state = Running(work.progress.percent, work.progress.current, state.reported_at)
        return Job(work.inputs, state)

    def uids(self) -> tuple[str, ...]:
        """The builds that something is done for."""
        return tuple(self._works)

    def plan_of(self, uid: str) -> Plan | None:
        """The plan with what was found out about it, where something was."""
        work = self._works.get(uid)
        return work.plan if work and isinstance(work.state, Gathered | Prepared) else None

    def gather(self, uid: str, task: Task) -> None:
        """Look for what the plan names in the cluster."""
        before = self._works.get(uid)
        since = before.state.since if before and isinstance(before.state, Lacking) else None
        work = Work(task.inputs, task.plan, None, Gathering(self._clock()))
        self._start(uid, work, self._gather(uid, work, task.keyring, since))

    def prepare(self, uid: str, task: Task, lease: Lease) -> None:
        """Resolve the plan's source on the leased worker."""
        work = Work(task.inputs, task.plan, lease, Preparing(self._clock()))
        self._start(uid, work, self._prepare(uid, work, task.keyring, lease))

    def begin(self, uid: str, task: Task, ref: str, lease: Lease) -> None:
        """Build the plan under the id `ref`, on the leased worker."""
        work = Work(task.inputs, task.plan, lease, Running(0, "", self._clock()))
        work.rivals = task.again
        for other in self._works.values():
            if isinstance(other.state, Running) and shared(other.plan, task.plan):
                work.rivals = other.rivals = True
        self._start(uid, work, self._build(uid, work, (ref, task.keyring), lease))

    def lease_of(self, uid: str) -> Lease | None:
        """The lease that a prepared build holds, which now goes over to the build itself."""
        work = self._works.get(uid)
        if work is None or not isinstance(work.state, Prepared):
            return None
        lease, work.lease = work.lease, None
        return lease

    def rest(self, uid: str, inputs: str, until: datetime) -> None:
        """Nothing runs; the next attempt begins at `until`."""
        work = self._works[uid]
        work.inputs, work.state = inputs, Resting(until)

    def reported(self, uid: str) -> None:
        """Progress was written just now."""
        work = self._works.get(uid)
        if work and isinstance(work.state, Running):
            work.state = Running(0, "", self._clock())

    def cancel(self, uid: str) -> None:
        """End what runs, now; its lease goes back when it really has ended."""
        work = self._drop(uid)
        if work is None:
            return
        if work.task is not None and not work.task.done():
            self._dying.add(work.task)
            work.task.add_done_callback(self._dying.discard)
            work.task.cancel()
        elif work.lease is not None:
            work.lease.release()

    def cancel_all(self) -> None:
        """End everything that runs, now."""
        for uid in self.uids():
            self.cancel(uid)

    def forget(self, uid: str) -> None:
        """What has ended was told: remember nothing of it."""
        self._drop(uid)

    async def quiet(self) -> None:
        """Wait until every cancelled task has ended."""
        if self._dying:
            await asyncio.wait(self._dying)

    async def drained(self, seconds: float) -> None:
        """Wait until nothing runs any more, but no longer than so many seconds."""
        tasks = [work.task for work in self._works.values() if work.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def _drop(self, uid: str) -> Work | None:
        work = self._works.pop(uid, None)
        if work is not None:
            work.unwatch()
        return work

    def _start(self, uid: str, work: Work, run: Coroutine[Any, Any, None]) -> None:
        self._drop(uid)
        self._works[uid] = work
        work.task = asyncio.create_task(self._run(uid, work, run), name=f"build {uid}")
        # A task cancelled before its first step never runs its own finally: hence a callback.
        work.task.add_done_callback(lambda _: self._over(work, run))
        self._metrics.running.inc()

    async def _run(self, uid: str, work: Work, run: Coroutine[Any, Any, None]) -> None:
        try:
            await run
        except Exception as error:
            # A fault of ours must end one build, with a trace for us, and no other.
            log.exception("A build broke inside the operator", uid=uid)
            self._end(uid, work, fault_of(error))

    def _over(self, work: Work, run: Coroutine[Any, Any, None]) -> None:
        run.close()
        self._metrics.running.dec()
        # A prepared build keeps its slot: it builds next.
        if work.lease is not None and not isinstance(work.state, Prepared):
            work.lease.release()

    async def _gather(
        self, uid: str, work: Work, keyring: WatchedKeyring, since: datetime | None
    ) -> None:
        try:
            work.plan = await gather(work.plan, keyring)
        except Unavailable as error:
            # Nothing has begun, so nothing is lost: it is looked for until it is there.
            lacking = Lacking(error.reason, error.message, since or self._clock(), None)
            work.state = lacking
            if isinstance(error, Missing):
                work.unwatch = keyring.watch(lambda: self._changed(uid, work, lacking))
            else:
                work.state = replace(lacking, until=self._later(lacking.since))
            self._ended(uid)
        except Error as error:
            self._end(uid, work, broken_by(error, work.progress))
        else:
            work.state = Gathered()
            self._ended(uid)

    def _changed(self, uid: str, work: Work, lacking: Lacking) -> None:
        """What was lacking may be there now: it is time to look."""
        work.state = replace(lacking, until=self._clock())
        self._ended(uid)

    def _later(self, since: datetime) -> datetime:
        now = self._clock()
        waited = (now - since).total_seconds()
        pause = min(max(LOOK_SECONDS, waited / 20), LOOK_AT_MOST_SECONDS)
        return now + timedelta(seconds=pause)

    async def _prepare(self, uid: str, work: Work, keyring: Keyring, lease: Lease) -> None:
        attendant = Attendant(lease.worker, self._stall_seconds)
        try:
            resolving = lease.worker.backend.resolve(work.plan, keyring)
            work.plan = await attendant.attend(resolving)
        except Error as error:
            self._end(uid, work, broken_by(error, work.progress, keyring.masks()))
        else:
            work.state = Prepared(work.plan.resolved, lease.worker.name)
            self._ended(uid)

    async def _build(self, uid: str, work: Work, call: tuple[str, Keyring], lease: Lease) -> None:
        worker, (ref, keyring) = lease.worker, call
        try:
            # It may have waited for its slot for hours. From here on its Secrets stay as they are.
            work.plan = await gather(work.plan, keyring)
        except Error as error:
            # Not the worker's: nobody is to look after it.
            work.state = Ended(broken_by(error, work.progress, keyring.masks()))
            self._ended(uid)
            return
        outcome = await self._attended(work, call, worker)
        if met_full_disk(outcome):
            self._metrics.disk_full.inc()
            await relieve(worker)
            work.progress = Progress(percent=work.progress.percent)
            # Under its first id the daemon would show it the log of the attempt that broke.
            again = (f"{ref}-again", keyring)
            outcome = told_again(await self._attended(work, again, worker))
        if isinstance(outcome, Built) and work.rivals:
            outcome = await worker.backend.checked(outcome, keyring)
        self._end(uid, work, outcome)

    async def _attended(self, work: Work, call: tuple[str, Keyring], worker: Worker) -> Outcome:
        """One attempt; a worker that falls silent ends it."""
        attendant = Attendant(worker, self._stall_seconds)
        work.progress.listener = attendant.beat
        try:
            return await attendant.attend(attempt(worker.backend, call, work.plan, work.progress))
        except Unavailable as error:
            return broken_by(error, work.progress, call[1].masks())

    def _end(self, uid: str, work: Work, outcome: Outcome) -> None:
        if isinstance(outcome, Broken) and lost(outcome) and work.lease is not None:
            work.lease.worker.suspect()
        work.state = Ended(outcome)
        self._ended(uid)


LOST = frozenset({Reason.BUILDER_UNAVAILABLE, Reason.TLS_FAILED, Reason.STALLED})


def lost(broken: Broken) -> bool:
    """Whether it speaks of the worker itself, not of what it asked elsewhere.

    A worker that we cannot speak to may be one later; who was shown to it will not be another.
    """
    return broken.retryable and broken.reason in LOST


def shared(one: Plan, other: Plan) -> bool:
    """Whether both push under a name in common, as far as the names are written alike."""
    return not set(one.images).isdisjoint(other.images)


async def attempt(
    backend: Backend, call: tuple[str, Keyring], plan: Plan, progress: Progress
) -> Outcome:
    """One attempt to its end, whatever that is; nothing but cancellation is raised.

    `call` is the build's id on the worker, and what it may read in its namespace.
    """
    ref, keyring = call
    try:
        built = await backend.build(ref, plan, keyring, progress.apply)
    except Error as error:
        return broken_by(error, progress, keyring.masks())
    except Exception as error:
        log.exception("A build broke inside the operator", ref=ref)
        return fault_of(error)
    cached, total = progress.cached_steps()
    return replace(built, cached_steps=cached, total_steps=total)


def fault_of(error: Exception) -> Broken:
    """A fault of ours as an outcome."""
    return Broken(Reason.BUILD_FAILED, f"The operator itself failed: {error!r}.")


def broken_by(error: Error, progress: Progress, masks: Iterable[str] = ()) -> Broken:
    """The error as an outcome, with what the progress knows of the step, and without `masks`."""
    masks = tuple(masks)
    failed = error if isinstance(error, Failed) else None
    step = (failed.step if failed else "") or progress.failed_step()
    if failed is None and not step:
        # What ran when the wire broke has not failed, but it says how far it came.
        step = progress.running_step()
    told = failed is not None and failed.exit_code is not None
    return Broken(
        reason=error.reason,
        message=redact(error.message, masks),
        step=progress.name_of(step),
        line=failed.line if failed else None,
        exit_code=failed.exit_code if failed else None,
        retryable=isinstance(error, Unavailable),
        log_tail=progress.log_tail(step, masks) if told or step else "",
        built=error.built,
    )
