"""One look at one ImageBuild: gather the facts, decide, act, report."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import structlog

from imagewright.api.buildstatus import FINAL, ImageBuildStatus
from imagewright.api.imagebuild import ImageBuild
from imagewright.domain.decide import decide, look_again_at, progress_due
from imagewright.domain.decision import (
    Begin,
    Decision,
    Discard,
    Enter,
    Expire,
    Finish,
    Forget,
    Gather,
    Keep,
    Leave,
    Prepare,
    Retry,
    Stop,
    Wait,
)
from imagewright.domain.facts import Closing, Entered, Facts, Granted, Waiting
from imagewright.domain.notice import build_notice
from imagewright.domain.patch import merge_patch
from imagewright.domain.plan import Plan
from imagewright.domain.planning import ticket_of
from imagewright.domain.status import ref_of, summarize
from imagewright.jobs import Jobs, Task
from imagewright.metrics import Metrics
from imagewright.pools.entry import Entry
from imagewright.ports import Cluster, Conflict, Notices, Subject, WatchedKeyring
from imagewright.reconcile.fault import Faults
from imagewright.reconcile.store import Store
from imagewright.reconcile.writer import Writer
from imagewright.scheduler import Scheduler

log = structlog.get_logger("reconcile")


@dataclass(frozen=True, slots=True)
class World:
    """What a reconcile may touch; only main makes one."""

    cluster: Cluster
    store: Store[ImageBuild]
    jobs: Jobs
    scheduler: Scheduler
    notices: Notices
    metrics: Metrics
    keyrings: Callable[[str, Plan], WatchedKeyring]
    clock: Callable[[], datetime]
    holder: str
    chance: Callable[[], float] = field(default_factory=lambda: random.random)


class BuildReconciler:
    """Brings a build a step closer to its spec; the queue sees to it that one uid has one look."""

    def __init__(self, world: World, look_in: Callable[[str, float], None]) -> None:
        self._world, self._look_in = world, look_in
        self._writer = Writer(world.cluster, world.store, world.metrics)
        self._faults = Faults(self._writer, world.store, world.clock)
        self.closing = Closing.OPEN

    async def reconcile(self, uid: str) -> None:
        """Look, decide, act, report; again at once where the look must be renewed."""
        try:
            async with self._faults.told(uid):
                await self._passes(uid)
        except Conflict:
            if await self._writer.renew(uid):
                self._look_in(uid, 0.0)
        self._world.metrics.reconciles.labels("done").inc()

    async def _passes(self, uid: str) -> None:
        try:
            while await self._pass(uid):
                continue
        except Exception:
            # What was granted and not taken would be lost to the others until it works again.
            if isinstance(self._world.scheduler.turn(uid), Granted):
                self._world.scheduler.leave(uid)
            raise

    async def _pass(self, uid: str) -> bool:
        """One pass; True where it changed what there is to see and the next must follow."""
        facts = self._look(uid)
        decision = decide(facts)
        if isinstance(decision, Begin):
            await self._begin(facts, decision)
        elif isinstance(decision, Retry):
            # An attempt that broke is remembered until it has been told.
            await self._report(facts, decision)
            self._act(facts, decision)
        else:
            self._act(facts, decision)
            await self._report(facts, decision)
        if isinstance(decision, Expire):
            await self._expire(facts.existing)
        self._look_later(uid, facts, decision)
        return isinstance(decision, Enter | Discard)

    def _look(self, uid: str) -> Facts:
        world = self._world
        return Facts(
            build=world.store.get(uid),
            now=world.clock(),
            holder=world.holder,
            job=world.jobs.look(uid),
            turn=world.scheduler.turn(uid),
            uid=uid,
            closing=self.closing,
            chance=world.chance(),
        )

    def _act(self, facts: Facts, decision: Decision) -> None:
        """Carry the decision out. Everything here is done at once; what takes time is a job."""
        jobs, scheduler, uid = self._world.jobs, self._world.scheduler, facts.uid
        match decision:
            case Forget() | Stop() | Discard():
                jobs.cancel(uid)
                scheduler.leave(uid)
            case Enter():
                self._enter(facts)
            case Leave() | Wait() if isinstance(facts.turn, Entered | Waiting):
                # What it waits for, or with which priority, may be edited meanwhile.
                self._enter(facts)
            case Gather():
                jobs.gather(uid, self._task(facts, facts.plan))
            case Prepare():
                plan = jobs.plan_of(uid) or facts.plan
                jobs.prepare(uid, self._task(facts, plan), scheduler.take(uid))
            case Retry():
                jobs.rest(uid, facts.inputs, decision.until)
            case Expire() | Leave() | Wait() | Keep() | Finish() | Begin():
                return

    async def _begin(self, facts: Facts, decision: Begin) -> None:
        """Claim with a write, then run: only who has the claim may build.

        The slot is taken first, so that nobody else can have it while the write is on its way.
        """
        jobs, uid = self._world.jobs, facts.uid
        known = jobs.plan_of(uid) or facts.plan
        lease = jobs.lease_of(uid) or self._world.scheduler.take(uid)
        try:
            await self._report(facts, decision)
            task = self._task(facts, known.at(decision.revision))
            jobs.begin(uid, task, ref_of(facts), lease)
        except BaseException:
            jobs.cancel(uid)
            lease.release()
            raise
        log.info("Build began", **_named(facts.existing), worker=decision.worker)

    def _enter(self, facts: Facts) -> None:
        """Into the queue, or, where it stands there, to the place that the spec asks for now."""
        uid, build = facts.uid, facts.existing
        wake = partial(self._look_in, uid, 0.0)
        plan = self._world.jobs.plan_of(uid) or facts.plan
        self._world.scheduler.enter(build.spec.pool, Entry(ticket_of(build), plan, wake))

    def _task(self, facts: Facts, plan: Plan) -> Task:
        keyring = self._world.keyrings(facts.existing.metadata.namespace, plan)
        return Task(facts.inputs, plan, keyring, again=facts.attempt > 1)

    async def _report(self, facts: Facts, decision: Decision) -> None:
        """Write what is now true, if it is not written yet. Raises Conflict."""
        if facts.build is None:
            return
        old, status = facts.build.status, summarize(facts, decision)
        patch = merge_patch(old.dump(), status.dump())
        if patch:
            await self._writer.write(facts.build.metadata, patch)
            self._written(facts.build, status)
        if isinstance(decision, Finish):
            self._world.jobs.forget(facts.uid)
        elif isinstance(decision, Keep) and progress_due(facts, decision):
            # Due counts as told even where nothing was new: else it would be due again at once.
            self._world.jobs.reported(facts.uid)

    def _written(self, build: ImageBuild, status: ImageBuildStatus) -> None:
        """Tell of a step, and count an end, only now that it is durable."""
        if notice := build_notice(build.status, status):
            meta = build.metadata
            subject = Subject(build.kind, meta.namespace, meta.name, meta.uid)
            self._world.notices.tell(subject, notice, self._world.clock())
        if status.phase not in FINAL or build.status.phase == status.phase:
            return
        reason = status.conditions[0].reason
        metrics = self._world.metrics
        metrics.builds.labels(status.phase, reason).inc()
        if status.start_time and status.completion_time:
            seconds = (status.completion_time - status.start_time).total_seconds()
            metrics.seconds.labels(status.phase).observe(seconds)
        log.info("Build ended", **_named(build), phase=status.phase, reason=reason)

    async def _expire(self, build: ImageBuild) -> None:
        meta = build.metadata
        await self._world.cluster.delete_object(meta.namespace, meta.name, meta.uid)
        log.info("Finished build deleted", **_named(build))

    def _look_later(self, uid: str, facts: Facts, decision: Decision) -> None:
        due = look_again_at(facts, decision)
        if due is not None:
            self._look_in(uid, (due - facts.now).total_seconds())


def _named(build: ImageBuild) -> dict[str, str]:
    meta = build.metadata
    return {"namespace": meta.namespace, "name": meta.name, "uid": meta.uid}
