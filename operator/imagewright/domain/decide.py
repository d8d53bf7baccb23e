"""What to do next for a build: a chain of rules over facts; the first that speaks wins.

Level-triggered: the same facts give the same decision, whatever events were lost or came twice.
The order of RULES is the specification; each rule is named for what it finds.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from imagewright.api.imagebuild import CANCEL_ANNOTATION, FINAL, Phase
from imagewright.api.reason import Reason
from imagewright.domain.facts import (
    Closing,
    Ended,
    Facts,
    Granted,
    Prepared,
    Preparing,
    Resting,
    Running,
    Waiting,
)
from imagewright.domain.outcome import Broken, Built
from imagewright.domain.plan import Git, Http, make_plan
from imagewright.domain.reference import InvalidReference, parse_all

BACKOFF_LIMIT = 3
"""Attempts after the first that an outage is given."""
PATIENCE = timedelta(seconds=2)
"""How long a source may take to be resolved before the status says so."""
PROGRESS_EVERY = timedelta(seconds=10)
LONGEST_REST = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Forget:
    """The object is gone: stop what runs for it and remember nothing."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Its time after the end is over: delete the object."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing to do; only `observedGeneration` may have to follow."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End what runs and write this end, or, for SUSPENDED and PENDING, this pause."""

    phase: Phase
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Stop what runs for other inputs, and look again."""


@dataclass(frozen=True, slots=True)
class Enter:
    """Ask the scheduler for a turn, and look again."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Find out on the granted worker what the source stands for."""

    worker: str


@dataclass(frozen=True, slots=True)
class Begin:
    """Claim the build with a write, and only then run it on `worker`."""

    worker: str
    revision: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait where it is; `reason` and `message` say for what."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Keep:
    """It runs: let it."""

    running: Running


@dataclass(frozen=True, slots=True)
class Finish:
    """The attempt is over, and the run with it."""

    outcome: Built | Broken


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt met an outage: rest until then, and try again."""

    broken: Broken
    until: datetime


Decision = (
    Forget
    | Expire
    | Leave
    | Stop
    | Discard
    | Enter
    | Prepare
    | Begin
    | Wait
    | Keep
    | Finish
    | Retry
)
Rule = Callable[[Facts], Decision | None]


def gone(facts: Facts) -> Decision | None:
    """The object does not exist, or is about to not exist."""
    build = facts.build
    return Forget() if build is None or build.metadata.deletion_timestamp else None


def expired(facts: Facts) -> Decision | None:
    """It ended, and its ttlSecondsAfterFinished has passed since."""
    due = expiry(facts)
    return Expire() if due is not None and facts.now >= due else None


def finished(facts: Facts) -> Decision | None:
    """It ended for these very inputs: nothing starts it again but other inputs."""
    return Leave() if facts.existing.status.phase in FINAL and facts.same_inputs else None


def cancelled(facts: Facts) -> Decision | None:
    """Somebody asked for its end, and it has not ended well in the meantime."""
    if isinstance(facts.state, Ended) and isinstance(facts.state.outcome, Built):
        return None
    build = facts.existing
    if build.spec.cancel:
        return Stop(Phase.CANCELLED, Reason.CANCELLED, "Cancelled by spec.cancel.")
    if CANCEL_ANNOTATION in build.metadata.annotations:
        why = build.metadata.annotations[CANCEL_ANNOTATION][:256] or "no reason was given"
        return Stop(Phase.CANCELLED, Reason.CANCELLED, f"Cancelled by annotation: {why}.")
    return None


def suspended(facts: Facts) -> Decision | None:
    """spec.suspend holds it back."""
    if not facts.existing.spec.suspend or isinstance(facts.state, Ended):
        return None
    return Stop(
        Phase.SUSPENDED, Reason.SUSPENDED, "Suspended: it begins when spec.suspend is false."
    )


def superseded(facts: Facts) -> Decision | None:
    """What runs was started for inputs that the spec no longer asks for."""
    return Discard() if facts.job and facts.job.inputs != facts.inputs else None


def closing(facts: Facts) -> Decision | None:
    """This operator goes down: it begins nothing, and at last stops what runs."""
    if facts.closing is Closing.OPEN or isinstance(facts.state, Ended):
        return None
    if not isinstance(facts.state, Running):
        return Leave()
    if facts.closing is Closing.DRAINING:
        return None
    return Stop(
        Phase.PENDING,
        Reason.INTERRUPTED,
        "The operator went down while this was building; the next one begins another attempt.",
    )


def refused(facts: Facts) -> Decision | None:
    """It can never be accepted as it is written."""
    try:
        parse_all(facts.existing.spec.images)
    except InvalidReference as error:
        return Stop(Phase.FAILED, Reason.INVALID_REFERENCE, f"spec.images: {error}")
    return None


def out_of_time(facts: Facts) -> Decision | None:
    """It has had its activeDeadlineSeconds, counted from the first attempt."""
    due = deadline(facts)
    if due is None or facts.now < due or isinstance(facts.state, Ended):
        return None
    seconds = facts.existing.spec.active_deadline_seconds
    return Stop(
        Phase.FAILED,
        Reason.DEADLINE_EXCEEDED,
        f"It ran longer than {seconds} s (spec.activeDeadlineSeconds) and was stopped.",
    )


def job_ended(facts: Facts) -> Decision | None:
    """The attempt is over: well, for good, or for another try."""
    if not isinstance(facts.state, Ended):
        return None
    outcome = facts.state.outcome
    if isinstance(outcome, Built) or not outcome.retryable:
        return Finish(outcome)
    attempts = facts.existing.status.attempt or 0
    if attempts > BACKOFF_LIMIT:
        tried = f"{outcome.message} It was tried {attempts} times."
        return Finish(replace(outcome, message=tried))
    return Retry(outcome, facts.now + rest_after(attempts))


def running(facts: Facts) -> Decision | None:
    """The job builds."""
    return Keep(facts.state) if isinstance(facts.state, Running) else None


def preparing(facts: Facts) -> Decision | None:
    """The job finds out what the source stands for; after a while the status says so."""
    if not isinstance(facts.state, Preparing):
        return None
    if facts.now - facts.state.since < PATIENCE:
        return Leave()
    return Wait(Reason.QUEUED, "Resolving the source: the worker asks the repository.")


def prepared(facts: Facts) -> Decision | None:
    """The source is resolved, on a slot that the job holds."""
    state = facts.state
    return Begin(state.worker, state.revision) if isinstance(state, Prepared) else None


def resting(facts: Facts) -> Decision | None:
    """It waits for the pause between two attempts to pass."""
    return Leave() if isinstance(facts.state, Resting) and facts.now < facts.state.until else None


def queued(facts: Facts) -> Decision | None:
    """It has no slot yet."""
    if facts.turn is None:
        return Enter()
    if isinstance(facts.turn, Waiting):
        return Wait(facts.turn.reason, facts.turn.message)
    return None


def not_begun(facts: Facts) -> Decision | None:
    """A slot is its own: resolve the source, then claim it.

    A claim of another holder counts for nothing here: only the leader acts, so its operator is
    dead.
    """
    if not isinstance(facts.turn, Granted):
        return None
    revision = revision_known(facts)
    if revision is None:
        return Prepare(facts.turn.worker)
    return Begin(facts.turn.worker, revision)


RULES: tuple[Rule, ...] = (
    gone,
    expired,
    finished,
    cancelled,
    suspended,
    superseded,
    closing,
    refused,
    out_of_time,
    job_ended,
    running,
    preparing,
    prepared,
    resting,
    queued,
    not_begun,
)


def decide(facts: Facts) -> Decision:
    """The first rule's word. Some rule always speaks."""
    for rule in RULES:
        decision = rule(facts)
        if decision is not None:
            return decision
    raise AssertionError("not_begun speaks for every build that has a turn")


def revision_known(facts: Facts) -> str | None:
    """What will be built, as far as it can be known without asking; None: ask the worker.

    The commit that an earlier attempt of this run resolved is kept: retries build the same one. A
    source that has no revision of its own, such as inline files, is known to be nothing: empty.
    """
    resolved = facts.existing.status.source
    if resolved and facts.same_inputs:
        return resolved.revision
    source = make_plan(facts.existing.spec).source
    if isinstance(source, Http) and source.sha256:
        return f"sha256:{source.sha256}"
    return None if isinstance(source, Git) else ""


def deadline(facts: Facts) -> datetime | None:
    """When the run has had its time; None before it began."""
    if facts.started is None:
        return None
    return facts.started + timedelta(seconds=facts.existing.spec.active_deadline_seconds)


def expiry(facts: Facts) -> datetime | None:
    """When the finished object is to be deleted; None where it is kept or has not ended."""
    build = facts.existing
    ended, ttl = build.status.completion_time, build.spec.ttl_seconds_after_finished
    if ended is None or ttl is None or build.status.phase not in FINAL or not facts.same_inputs:
        return None
    return ended + timedelta(seconds=ttl)


def rest_after(attempts: int) -> timedelta:
    """The pause after so many attempts: 1 s, doubled each time, half a minute at most."""
    return min(timedelta(seconds=2 ** max(0, attempts - 1)), LONGEST_REST)


def progress_due(facts: Facts, decision: Keep) -> bool:
    """Whether progress may be written again."""
    return facts.now - decision.running.reported_at >= PROGRESS_EVERY


def look_again_at(facts: Facts, decision: Decision) -> datetime | None:
    """When this build must be looked at again even if nothing happens."""
    match decision:
        case Leave() if isinstance(facts.state, Preparing):
            return facts.state.since + PATIENCE
        case Leave() if isinstance(facts.state, Resting):
            return facts.state.until
        case Leave():
            return expiry(facts)
        case Finish() | Stop():
            return _expiry_of(facts, decision)
        case Keep():
            due = [decision.running.reported_at + PROGRESS_EVERY, deadline(facts)]
            return min(moment for moment in due if moment is not None)
        case Retry():
            return decision.until
        case Wait():
            return deadline(facts)
        case _:
            return None


def _expiry_of(facts: Facts, decision: Finish | Stop) -> datetime | None:
    """When the object that this decision ends will expire; None where it is kept or paused."""
    ttl = facts.existing.spec.ttl_seconds_after_finished
    if ttl is None or (isinstance(decision, Stop) and decision.phase not in FINAL):
        return None
    return facts.now + timedelta(seconds=ttl)
