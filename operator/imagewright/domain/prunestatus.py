"""The only maker of a prune's status: from facts and a decision to what is now true of it."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from imagewright.api.buildcacheprune import BuildCachePruneStatus, TargetReport
from imagewright.api.buildstatus import Phase
from imagewright.api.condition import Condition, Truth, Type
from imagewright.api.reason import Reason
from imagewright.domain.conditions import Told, conditions, keeping_fault
from imagewright.domain.decision import Stop
from imagewright.domain.prune import Swept
from imagewright.domain.prunedecide import Await, Begin, Decision, Finish
from imagewright.domain.prunefacts import PruneFacts
from imagewright.domain.redact import clip, json_bytes, printable, redact

IDS = 50
IDS_BYTES, TARGETS_BYTES, MESSAGE_BYTES = 1536, 3072, 256
"""Of cacheIDs, of targets, and of one target's message: with conditions, 8 kB at most."""
NO_CACHE = (
    "There is no cache to prune: correct spec.pools, spec.workers, spec.include or spec.filters."
)
STALLING = frozenset({Reason.FEATURE_UNSUPPORTED, Reason.NO_TARGET, Reason.INVALID_SCHEDULE})
"""Reasons that only the user can mend: waiting alone changes nothing."""


def summarize(facts: PruneFacts, decision: Decision) -> BuildCachePruneStatus:
    """What is true once `decision` is carried out; the old status where nothing has changed."""
    status = _summary(facts, decision)
    return keeping_fault(status, facts.existing.status, facts.existing.metadata.generation)


def _summary(facts: PruneFacts, decision: Decision) -> BuildCachePruneStatus:
    match decision:
        case Begin():
            return _begun(facts, decision)
        case Finish():
            return _finished(facts, decision)
        case Await():
            return _waiting(facts, decision.due)
        case Stop(phase=Phase.FAILED):
            return _ended(facts, Truth.FALSE, decision.reason, decision.message)
        case Stop():
            return _paused(facts, decision)
        case _:
            return facts.existing.status


def _begun(facts: PruneFacts, decision: Begin) -> BuildCachePruneStatus:
    return _status(
        facts,
        Phase.RUNNING,
        _conditions(facts, Truth.UNKNOWN, Reason.PRUNING, "The caches are being pruned."),
        start_time=facts.now,
        last_schedule_time=decision.due,
        next_schedule_time=decision.then,
    )


def _waiting(facts: PruneFacts, due: datetime) -> BuildCachePruneStatus:
    """Between two runs the last one's results stand; an edited spec has no results yet."""
    old = facts.existing.status
    if old.next_schedule_time is not None and facts.same_generation:
        return old.model_copy(update={"next_schedule_time": due})
    message = f"Waits for {due:%Y-%m-%d %H:%M} UTC, the next time of spec.schedule."
    return _status(
        facts,
        Phase.PENDING,
        _conditions(facts, Truth.UNKNOWN, Reason.SCHEDULED, message),
        last_schedule_time=old.last_schedule_time,
        next_schedule_time=due,
    )


def _paused(facts: PruneFacts, decision: Stop) -> BuildCachePruneStatus:
    """Not running and not ended. What was interrupted keeps its start, by which it is known."""
    old, interrupted = facts.existing.status, decision.reason is Reason.INTERRUPTED
    return _status(
        facts,
        decision.phase,
        _conditions(facts, Truth.UNKNOWN, decision.reason, decision.message),
        start_time=old.start_time if interrupted else None,
        last_schedule_time=old.last_schedule_time,
        next_schedule_time=old.next_schedule_time if interrupted else None,
    )


def _finished(facts: PruneFacts, decision: Finish) -> BuildCachePruneStatus:
    results = sorted(decision.results, key=lambda one: (one.fault is None, one.target))
    count = sum(len(one.reclaimed.ids) for one in results)
    names = (name for one in results for name in one.reclaimed.ids)
    ids = [printable(name) for name in itertools.islice(names, IDS)]
    reports = [_report(one) for one in results]
    truth, reason, message = _verdict(results, dry_run=facts.existing.spec.dry_run)
    return _ended(
        facts,
        truth,
        reason,
        message,
        reclaimed_bytes=sum(one.reclaimed.size for one in results),
        caches_deleted=count,
        cache_ids=_fitting(ids, [json_bytes(one) + 4 for one in ids], IDS_BYTES),
        targets=_fitting(reports, [_bytes(one) for one in reports], TARGETS_BYTES),
        next_schedule_time=decision.then,
    )


def _verdict(results: Sequence[Swept], *, dry_run: bool) -> tuple[Truth, Reason, str]:
    """How the run as a whole came out."""
    if not results:
        return (
            Truth.FALSE,
            Reason.NO_TARGET,
            NO_CACHE,
        )
    freed = _freed(results, dry_run=dry_run)
    faults = [(one.target, one.fault) for one in results if one.fault is not None]
    if not faults:
        return Truth.TRUE, Reason.SUCCEEDED, freed
    reasons = {fault.reason for _, fault in faults}
    reason = Reason.FEATURE_UNSUPPORTED if reasons <= STALLING else Reason.PRUNE_FAILED
    # Short ones, so that the names of several and what the others freed are not cut off.
    told = "; ".join(f"{target}: {clip(fault.message, 120)}" for target, fault in faults[:2])
    count = f"{len(faults)} of {len(results)} caches could not be pruned"
    return Truth.FALSE, reason, f"{count}: {told} {freed}"


def _freed(results: Sequence[Swept], *, dry_run: bool) -> str:
    size = sum(one.reclaimed.size for one in results)
    count = sum(len(one.reclaimed.ids) for one in results)
    done = "A dry run: it would free" if dry_run else "Freed"
    return f"{done} {size / 1e6:.1f} MB in {count} records."


def _report(one: Swept) -> TargetReport:
    said = one.fault.message if one.fault else one.reclaimed.note
    return TargetReport(
        pool=one.target.pool,
        worker=one.target.worker,
        kind=one.target.kind,
        reclaimed_bytes=one.reclaimed.size,
        caches_deleted=len(one.reclaimed.ids),
        used_bytes_before=one.before,
        used_bytes_after=one.after,
        message=_clean(said) or None,
    )


def _bytes(report: TargetReport) -> int:
    return len(report.model_dump_json(by_alias=True, exclude_none=True).encode()) + 1


def _fitting(items: list[Any], sizes: Sequence[int], limit: int) -> list[Any]:
    """As many of the first items as fit."""
    total = 0
    for place, size in enumerate(sizes):
        total += size
        if total > limit:
            return items[:place]
    return items


def _ended(
    facts: PruneFacts, truth: Truth, reason: Reason, message: str, **fields: Any
) -> BuildCachePruneStatus:
    old = facts.existing.status
    # A schedule that cannot be used ends a prune that never began.
    began = facts.results is not None
    return _status(
        facts,
        Phase.SUCCEEDED if truth is Truth.TRUE else Phase.FAILED,
        _conditions(facts, truth, reason, message),
        start_time=old.start_time if began else None,
        completion_time=facts.now,
        last_schedule_time=old.last_schedule_time,
        **fields,
    )


def _status(
    facts: PruneFacts, phase: Phase, held: list[Condition], **fields: Any
) -> BuildCachePruneStatus:
    return BuildCachePruneStatus(
        observed_generation=facts.existing.metadata.generation,
        phase=phase,
        conditions=held,
        **fields,
    )


def _conditions(
    facts: PruneFacts, succeeded: Truth, reason: Reason, message: str
) -> list[Condition]:
    """All conditions that hold, in their documented order, with the meaning they have for builds.

    A schedule that waits for its time is as it should be, so that GitOps tools go on: it is Ready.
    """
    scheduled = reason is Reason.SCHEDULED
    complete = Truth.UNKNOWN if succeeded is Truth.UNKNOWN else Truth.TRUE
    held = {
        Type.SUCCEEDED: succeeded,
        Type.COMPLETE: complete,
        Type.READY: Truth.TRUE if scheduled else succeeded,
    }
    if succeeded is Truth.UNKNOWN and not scheduled and reason is not Reason.SUSPENDED:
        held[Type.RECONCILING] = Truth.TRUE
    if succeeded is Truth.FALSE and reason in STALLING:
        held[Type.STALLED] = Truth.TRUE
    existing = facts.existing
    told = Told(existing.status.conditions, existing.metadata.generation, facts.now)
    return conditions(held, reason, _clean(message, 1024), told)


def _clean(message: str, limit: int = MESSAGE_BYTES) -> str:
    return clip(redact(printable(message)), limit)
