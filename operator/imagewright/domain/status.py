"""The only maker of a status: from facts and a decision to what is now true of a build."""

from typing import Any

from imagewright.api.buildstatus import (
    CacheUse,
    Claim,
    Failure,
    ImageBuildStatus,
    LastAttempt,
    LastSuccess,
    Phase,
    ProgressReport,
    PushedImage,
    QueuePlace,
    ResolvedSource,
)
from imagewright.api.condition import Condition, Truth, Type
from imagewright.api.reason import Reason
from imagewright.domain.conditions import Told, conditions, keeping_fault
from imagewright.domain.decide import PROGRESS_EVERY
from imagewright.domain.decision import Begin, Decision, Finish, Keep, Leave, Retry, Stop, Wait
from imagewright.domain.facts import Ended, Facts
from imagewright.domain.outcome import Broken, Built, Outcome
from imagewright.domain.progress import shown
from imagewright.domain.redact import clip, printable, redact, tail
from imagewright.domain.reference import parse_all

MESSAGE_BYTES = 1024
"""Of a failure's message."""
ATTEMPT_MESSAGE_BYTES, ATTEMPT_LOG_BYTES = 512, 1024
"""Of what is kept of an attempt before this one."""
STALLING = frozenset(
    {
        Reason.BUILD_FAILED,
        Reason.DOCKERFILE_INVALID,
        Reason.SOURCE_UNAVAILABLE,
        Reason.INVALID_REFERENCE,
        Reason.PUSH_UNAUTHORIZED,
        Reason.INVALID_CREDENTIALS,
        Reason.POLICY_DENIED,
        Reason.SQUASH_FAILED,
        Reason.FEATURE_UNSUPPORTED,
        Reason.OUT_OF_MEMORY,
        Reason.DEADLINE_EXCEEDED,
    }
)
"""Reasons that only the user can mend: waiting alone changes nothing."""


def summarize(facts: Facts, decision: Decision) -> ImageBuildStatus:
    """What is true once `decision` is carried out; the old status where nothing has changed."""
    status = _summary(facts, decision)
    return keeping_fault(status, facts.existing.status, facts.existing.metadata.generation)


def _summary(facts: Facts, decision: Decision) -> ImageBuildStatus:
    match decision:
        case Begin():
            return _begun(facts, decision)
        case Keep():
            return _kept(facts, decision)
        case Finish():
            return _finished(facts, decision.outcome)
        case Retry():
            return _retrying(facts, decision)
        case Wait():
            return _waiting(facts, decision)
        case Stop():
            return _stopped(facts, decision)
        case Leave():
            return _observed(facts)
        case _:
            return facts.existing.status


def _begun(facts: Facts, decision: Begin) -> ImageBuildStatus:
    again = f", attempt {facts.attempt}" if facts.attempt > 1 else ""
    return _status(
        facts,
        Phase.RUNNING,
        _conditions(
            facts, Truth.UNKNOWN, Reason.BUILDING, f"Building on {decision.worker}{again}."
        ),
        attempt=facts.attempt,
        claim=Claim(holder=facts.holder, worker=decision.worker, ref=ref_of(facts)),
        start_time=facts.started or facts.now,
        source=ResolvedSource(revision=decision.revision) if decision.revision else None,
        last_attempt=_last_attempt(facts),
    )


def _kept(facts: Facts, decision: Keep) -> ImageBuildStatus:
    """Progress is written now and then; a running build's other fields stay as they are."""
    old, running = facts.existing.status, decision.running
    followed = _observed(facts)
    if facts.now - running.reported_at < PROGRESS_EVERY or not running.step:
        return followed
    progress = ProgressReport(percent=running.percent, step=running.step)
    return (
        followed
        if progress == old.progress
        else followed.model_copy(update={"progress": progress})
    )


def _finished(facts: Facts, outcome: Outcome) -> ImageBuildStatus:
    return _failed(facts, outcome) if isinstance(outcome, Broken) else _succeeded(facts, outcome)


def _succeeded(facts: Facts, built: Built) -> ImageBuildStatus:
    return _ended(
        facts,
        Phase.SUCCEEDED,
        _conditions(facts, Truth.TRUE, Reason.SUCCEEDED, _success_message(built)),
        **_image(facts, built),
        cache=CacheUse(cached_steps=built.cached_steps, total_steps=built.total_steps),
        last_success=LastSuccess(
            generation=facts.existing.metadata.generation,
            image_digest=built.image_digest,
            time=facts.now,
        ),
    )


def _image(facts: Facts, built: Built | None) -> dict[str, Any]:
    """The image, which may be there though not every name could be given to it."""
    if built is None:
        return {}
    pushed = [
        PushedImage(
            name=one.name,
            tag=one.tag,
            digest=one.digest,
            reference=one.reference,
            state="TagOverwritten" if one.overtaken else "Pushed",
        )
        for one in built.pushed
    ]
    missing = [
        PushedImage(name=name.name, tag=name.tag, state="NotPushed")
        for name in parse_all(facts.existing.spec.images)[len(pushed) :]
    ]
    return {
        "image_id": built.image_id or None,
        "image_digest": built.image_digest or None,
        "images": [*pushed, *missing] or None,
    }


def _failed(facts: Facts, broken: Broken) -> ImageBuildStatus:
    message = _clean(broken.message)
    return _ended(
        facts,
        Phase.FAILED,
        _conditions(facts, Truth.FALSE, broken.reason, message),
        **_image(facts, broken.built),
        failure=Failure(
            reason=broken.reason,
            message=message,
            step=shown(broken.step) or None,
            line=broken.line,
            exit_code=broken.exit_code,
            retryable=broken.retryable,
        ),
        log_tail=broken.log_tail or None,
    )


def _stopped(facts: Facts, decision: Stop) -> ImageBuildStatus:
    if decision.phase is Phase.FAILED:
        failed = _failed(facts, Broken(decision.reason, decision.message))
        return failed.model_copy(update={"last_attempt": _last_attempt(facts)})
    if decision.phase is Phase.CANCELLED:
        conditions = _conditions(facts, Truth.FALSE, decision.reason, _clean(decision.message))
        last = _last_attempt(facts)
        return _ended(facts, Phase.CANCELLED, conditions, last_attempt=last)
    return _paused(facts, decision.phase, decision.reason, decision.message)


def _retrying(facts: Facts, retry: Retry) -> ImageBuildStatus:
    """An attempt that broke before its claim counts too, and the run's time begins with it."""
    message = (
        f"The next attempt begins at {retry.until:%Y-%m-%dT%H:%M:%SZ}. "
        f"Attempt {facts.tried}: {retry.broken.message}"
    )
    paused = _paused(facts, Phase.PENDING, Reason.RETRYING, message)
    began = facts.started or facts.now
    return paused.model_copy(update={"attempt": facts.tried, "start_time": began})


def _last_attempt(facts: Facts) -> LastAttempt | None:
    """The last attempt of this run that an outage ended: the one now, or the one told before."""
    ended = facts.state.outcome if isinstance(facts.state, Ended) else None
    if not isinstance(ended, Broken) or not ended.retryable:
        return facts.existing.status.last_attempt if facts.same_inputs else None
    return LastAttempt(
        number=facts.tried,
        reason=ended.reason,
        message=clip(redact(printable(ended.message)), ATTEMPT_MESSAGE_BYTES),
        step=shown(ended.step) or None,
        log_tail=tail(ended.log_tail, ATTEMPT_LOG_BYTES) or None,
    )


def _waiting(facts: Facts, wait: Wait) -> ImageBuildStatus:
    paused = _paused(facts, Phase.PENDING, wait.reason, wait.message)
    if wait.position is None:
        return paused
    place = QueuePlace(position=wait.position or None, reason=wait.reason)
    return paused.model_copy(update={"queue": place})


def _paused(facts: Facts, phase: Phase, reason: Reason, message: str) -> ImageBuildStatus:
    """Not running and not ended. A suspended build's clock stands still, any other's runs on."""
    suspended = phase is Phase.SUSPENDED
    return _status(
        facts,
        phase,
        _conditions(facts, Truth.UNKNOWN, reason, _clean(message)),
        start_time=None if suspended else facts.started,
        attempt=facts.existing.status.attempt if facts.same_inputs else None,
        source=facts.existing.status.source if facts.same_inputs else None,
        last_attempt=_last_attempt(facts),
    )


def _ended(
    facts: Facts, phase: Phase, conditions: list[Condition], **fields: Any
) -> ImageBuildStatus:
    old = facts.existing.status
    return _status(
        facts,
        phase,
        conditions,
        attempt=old.attempt if facts.same_inputs else None,
        start_time=facts.started,
        completion_time=facts.now,
        source=old.source if facts.same_inputs else None,
        **fields,
    )


def _observed(facts: Facts) -> ImageBuildStatus:
    """The old status; it speaks of the newest generation once that asks for the same inputs."""
    old, generation = facts.existing.status, facts.existing.metadata.generation
    if old.observed_generation in (generation, -1) or not facts.same_inputs:
        return old
    conditions = [
        condition.model_copy(update={"observed_generation": generation})
        for condition in old.conditions
    ]
    return old.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _status(
    facts: Facts, phase: Phase, conditions: list[Condition], **fields: Any
) -> ImageBuildStatus:
    fields.setdefault("last_success", facts.existing.status.last_success)
    return ImageBuildStatus(
        observed_generation=facts.existing.metadata.generation,
        inputs_digest=facts.inputs,
        phase=phase,
        conditions=conditions,
        **fields,
    )


def _conditions(facts: Facts, succeeded: Truth, reason: Reason, message: str) -> list[Condition]:
    """All conditions that hold, in their documented order.

    Reconciling stands while it is queued or runs, Stalled while only the user can mend it; a tool
    that reads conditions by kstatus's rules takes their absence for their being false.
    """
    complete = Truth.UNKNOWN if succeeded is Truth.UNKNOWN else Truth.TRUE
    held = {Type.SUCCEEDED: succeeded, Type.COMPLETE: complete, Type.READY: succeeded}
    if succeeded is Truth.UNKNOWN and reason is not Reason.SUSPENDED:
        held[Type.RECONCILING] = Truth.TRUE
    if succeeded is Truth.FALSE and reason in STALLING:
        held[Type.STALLED] = Truth.TRUE
    meta, old = facts.existing.metadata, facts.existing.status
    return conditions(held, reason, message, Told(old.conditions, meta.generation, facts.now))


def ref_of(facts: Facts) -> str:
    """The build's id on its worker: the object, its generation, the attempt."""
    meta = facts.existing.metadata
    return f"{meta.uid}-{meta.generation}-{facts.attempt}"


def _success_message(built: Built) -> str:
    if built.pushed:
        names = ", ".join(f"{one.name}:{one.tag}" for one in built.pushed)
        lost = ", ".join(f"{one.name}:{one.tag}" for one in built.pushed if one.overtaken)
        warning = f" Another push has taken {lost} since: use the digest." if lost else ""
        return clip(f"Built and pushed as {names}.{warning}", MESSAGE_BYTES)
    return "Built. Nothing was pushed, because spec.images names nothing."


def _clean(message: str) -> str:
    return clip(redact(printable(message)), MESSAGE_BYTES)
