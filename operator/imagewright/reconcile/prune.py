"""One look at one BuildCachePrune: gather the facts, decide, act, report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog

from imagewright.api.buildcacheprune import BuildCachePrune, BuildCachePruneStatus
from imagewright.domain.decision import Discard, Expire, Forget, Stop
from imagewright.domain.facts import Closing
from imagewright.domain.notice import prune_notice
from imagewright.domain.patch import merge_patch
from imagewright.domain.prune import Target, make_policy, wanted
from imagewright.domain.prunedecide import (
    Begin,
    Decision,
    Finish,
    decide,
    look_again_at,
)
from imagewright.domain.prunefacts import PruneFacts, zone_name
from imagewright.domain.prunestatus import summarize
from imagewright.metrics import Metrics
from imagewright.ports import Cache, Cluster, Conflict, Notices, Subject
from imagewright.prunes import Prunes
from imagewright.reconcile.fault import Faults
from imagewright.reconcile.store import Store
from imagewright.reconcile.writer import Writer
from imagewright.reconcile.zones import Zones

log = structlog.get_logger("reconcile")
LONGEST_PAUSE = 600.0
"""Seconds until a waiting prune is looked at again: the clock may be put right meanwhile."""


@dataclass(frozen=True, slots=True)
class PruneWorld:
    """What a reconcile may touch; only main makes one. `caches` are those that there are now."""

    cluster: Cluster
    store: Store[BuildCachePrune]
    prunes: Prunes
    caches: Callable[[], Mapping[Target, Cache]]
    notices: Notices
    metrics: Metrics
    clock: Callable[[], datetime]


class PruneReconciler:
    """Brings a prune a step closer to its spec; the queue sees to it that one uid has one look."""

    def __init__(self, world: PruneWorld, look_in: Callable[[str, float], None]) -> None:
        self._world, self._look_in = world, look_in
        self._writer = Writer(world.cluster, world.store, world.metrics)
        self._faults = Faults(self._writer, world.store, world.clock)
        self._zones = Zones()
        self.closing = Closing.OPEN

    async def reconcile(self, uid: str) -> None:
        """Look, decide, act, report; again at once where the look must be renewed."""
        try:
            async with self._faults.told(uid):
                while await self._pass(uid):
                    continue
        except Conflict:
            if await self._writer.renew(uid):
                self._look_in(uid, 0.0)

    async def _pass(self, uid: str) -> bool:
        """One pass; True where it changed what there is to see and the next must follow."""
        facts = await self._look(uid)
        decision = decide(facts)
        if isinstance(decision, Forget | Stop | Discard):
            self._world.prunes.cancel(uid)
        if isinstance(decision, Begin):
            await self._begin(facts, decision)
        else:
            await self._report(facts, decision)
        if isinstance(decision, Expire):
            await self._expire(facts.existing)
        self._look_later(uid, facts, decision)
        return isinstance(decision, Discard)

    async def _look(self, uid: str) -> PruneFacts:
        world = self._world
        known = world.store.get(uid)
        if known is not None and known.spec.schedule is not None:
            await self._zones.learn(zone_name(known))
        return PruneFacts(
            # Read again: it may have changed while the zone was read.
            prune=world.store.get(uid),
            now=world.clock(),
            zones=self._zones.known,
            sweep=world.prunes.look(uid),
            uid=uid,
            closing=self.closing,
        )

    async def _begin(self, facts: PruneFacts, decision: Begin) -> None:
        """Write that it runs, and prune once that stands: only who has written it may."""
        prune = facts.existing
        asked = {
            target: cache
            for target, cache in self._world.caches().items()
            if wanted(prune.spec, target)
        }
        policy = make_policy(prune.spec)
        with self._world.prunes.claim(facts.uid, prune.metadata.generation, policy, asked):
            await self._report(facts, decision)
        log.info("Prune began", **_named(prune), caches=[str(target) for target in asked])

    async def _report(self, facts: PruneFacts, decision: Decision) -> None:
        """Write what is now true, if it is not written yet. Raises Conflict."""
        if facts.prune is None:
            return
        status = summarize(facts, decision)
        if patch := merge_patch(facts.prune.status.dump(), status.dump()):
            await self._writer.write(facts.prune.metadata, patch)
        if isinstance(decision, Finish):
            self._world.prunes.forget(facts.uid)
            self._count(facts.prune, status)

    def _count(self, prune: BuildCachePrune, status: BuildCachePruneStatus) -> None:
        """Tell of an end and count it, now that it is durable."""
        subject = Subject(prune.kind, "", prune.metadata.name, prune.metadata.uid)
        self._world.notices.tell(subject, prune_notice(status), self._world.clock())
        metrics, reason = self._world.metrics, status.conditions[0].reason
        metrics.prunes.labels(status.phase, reason).inc()
        if not prune.spec.dry_run:
            metrics.reclaimed.inc(status.reclaimed_bytes or 0)
        freed = status.reclaimed_bytes
        log.info("Prune ended", **_named(prune), phase=status.phase, reason=reason, bytes=freed)

    async def _expire(self, prune: BuildCachePrune) -> None:
        meta = prune.metadata
        await self._world.cluster.delete_object(meta.namespace, meta.name, meta.uid)
        log.info("Finished prune deleted", **_named(prune))

    def _look_later(self, uid: str, facts: PruneFacts, decision: Decision) -> None:
        due = look_again_at(facts, decision)
        if due is not None:
            self._look_in(uid, min((due - facts.now).total_seconds(), LONGEST_PAUSE))


def _named(prune: BuildCachePrune) -> dict[str, str]:
    return {"name": prune.metadata.name, "uid": prune.metadata.uid}
