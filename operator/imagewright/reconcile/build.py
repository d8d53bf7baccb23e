"""One look at one ImageBuild: gather the facts, decide, act, report."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from imagewright.api.imagebuild import FINAL, ImageBuild, ImageBuildStatus
from imagewright.domain.decide import (
    Begin,
    Decision,
    Discard,
    Enter,
    Expire,
    Finish,
    Forget,
    Keep,
    Leave,
    Prepare,
    Retry,
    Stop,
    Wait,
    decide,
    look_again_at,
    progress_due,
)
from imagewright.domain.facts import Closing, Facts
from imagewright.domain.patch import merge_patch
from imagewright.domain.plan import make_plan
from imagewright.domain.status import ref_of, summarize
from imagewright.jobs import Jobs
from imagewright.metrics import Metrics
from imagewright.ports import Cluster, Conflict, Gone
from imagewright.reconcile.store import Store
from imagewright.scheduler import Scheduler

log = structlog.get_logger("reconcile")


@dataclass(frozen=True, slots=True)
class World:
    """What a reconcile may touch; only main makes one."""

    cluster: Cluster
    store: Store
    jobs: Jobs
    scheduler: Scheduler
    metrics: Metrics
    clock: Callable[[], datetime]
    holder: str


class BuildReconciler:
    """Brings a build a step closer to its spec; the queue sees to it that one uid has one look."""

    def __init__(self, world: World, look_in: Callable[[str, float], None]) -> None:
        self._world, self._look_in = world, look_in
        self.closing = Closing.OPEN

    async def reconcile(self, uid: str) -> None:
        """Look, decide, act, report; again at once where the look must be renewed."""
        try:
            while await self._pass(uid):
                continue
        except Conflict:
            await self._renew(uid)
        self._world.metrics.reconciles.labels("done").inc()

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
        )

    def _act(self, facts: Facts, decision: Decision) -> None:
        """Carry the decision out. Everything here is done at once; what takes time is a job."""
        jobs, scheduler, uid = self._world.jobs, self._world.scheduler, facts.uid
        match decision:
            case Forget() | Stop() | Discard():
                jobs.cancel(uid)
                scheduler.leave(uid)
            case Enter():
                created = facts.existing.metadata.creation_timestamp
                scheduler.enter(uid, created.isoformat() if created else "")
            case Prepare():
                plan = make_plan(facts.existing.spec)
                jobs.prepare(uid, facts.inputs, plan, scheduler.take(uid))
            case Retry():
                jobs.rest(uid, facts.inputs, decision.until)
            case Expire() | Leave() | Wait() | Keep() | Finish() | Begin():
                return

    async def _begin(self, facts: Facts, decision: Begin) -> None:
        """Claim with a write, then run: only who has the claim may build.

        The slot is taken first, so that nobody else can have it while the write is on its way.
        """
        jobs, uid = self._world.jobs, facts.uid
        prepared = jobs.plan_of(uid)
        lease = jobs.lease_of(uid) if prepared else self._world.scheduler.take(uid)
        try:
            await self._report(facts, decision)
        except BaseException:
            jobs.cancel(uid)
            lease.release()
            raise
        plan = prepared or make_plan(facts.existing.spec).at(decision.revision)
        jobs.begin(uid, facts.inputs, ref_of(facts), (plan, lease))
        log.info("Build began", **_named(facts.existing), worker=decision.worker)

    async def _report(self, facts: Facts, decision: Decision) -> None:
        """Write what is now true, if it is not written yet. Raises Conflict."""
        if facts.build is None:
            return
        old, status = facts.build.status, summarize(facts, decision)
        patch = merge_patch(old.dump(), status.dump())
        if patch:
            await self._write(facts.build, patch)
            self._written(facts.build, status)
        if isinstance(decision, Finish):
            self._world.jobs.forget(facts.uid)
        elif isinstance(decision, Keep) and progress_due(facts, decision):
            # Due counts as told even where nothing was new: else it would be due again at once.
            self._world.jobs.reported(facts.uid)

    async def _write(self, build: ImageBuild, patch: dict[str, object]) -> None:
        meta, writes = build.metadata, self._world.metrics.writes
        body = {"metadata": {"resourceVersion": meta.resource_version}, "status": patch}
        try:
            written = await self._world.cluster.patch_status(meta.namespace, meta.name, body)
        except Conflict:
            writes.labels("conflict").inc()
            raise
        writes.labels("written").inc()
        self._world.store.keep(written)

    def _written(self, build: ImageBuild, status: ImageBuildStatus) -> None:
        """Count an end only now that it is durable."""
        if status.phase not in FINAL or build.status.phase == status.phase:
            return
        reason = status.conditions[0].reason
        metrics = self._world.metrics
        metrics.builds.labels(status.phase, reason).inc()
        if status.start_time and status.completion_time:
            seconds = (status.completion_time - status.start_time).total_seconds()
            metrics.seconds.labels(status.phase).observe(seconds)
        log.info("Build ended", **_named(build), phase=status.phase, reason=reason)

    async def _renew(self, uid: str) -> None:
        """Somebody wrote first: see what is there now, and look again."""
        build = self._world.store.get(uid)
        if build is None:
            return
        try:
            body = await self._world.cluster.get_build(
                build.metadata.namespace, build.metadata.name
            )
        except Gone:
            self._world.store.drop(uid)
            return
        if body["metadata"]["uid"] != uid:
            self._world.store.drop(uid)
            return
        self._world.store.keep(body)
        self._look_in(uid, 0.0)

    async def _expire(self, build: ImageBuild) -> None:
        meta = build.metadata
        await self._world.cluster.delete_build(meta.namespace, meta.name, meta.uid)
        log.info("Finished build deleted", **_named(build))

    def _look_later(self, uid: str, facts: Facts, decision: Decision) -> None:
        due = look_again_at(facts, decision)
        if due is not None:
            self._look_in(uid, (due - facts.now).total_seconds())


def _named(build: ImageBuild) -> dict[str, str]:
    meta = build.metadata
    return {"namespace": meta.namespace, "name": meta.name, "uid": meta.uid}
