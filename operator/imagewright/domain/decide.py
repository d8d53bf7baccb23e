"""What to do next for a build: a chain of rules over facts; the first that speaks wins.

Level-triggered: the same facts give the same decision, whatever events were lost or came twice.
The order of RULES is the specification; each rule is named for what it finds.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from imagewright.api.buildstatus import FINAL, Phase
from imagewright.api.imagebuild import CANCEL_ANNOTATION
from imagewright.api.reason import Reason
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
from imagewright.domain.facts import (
    Closing,
    Ended,
    Entered,
    Facts,
    Gathered,
    Gathering,
    Granted,
    Lacking,
    Prepared,
    Preparing,
    Refused,
    Resting,
    Running,
    Waiting,
)
from imagewright.domain.outcome import Built
from imagewright.domain.plan import Git, Http, Oci
from imagewright.domain.reference import InvalidReference, parse_all
from imagewright.domain.support import unsupported

PATIENCE = timedelta(seconds=2)
"""How long a source may take to be resolved before the status says so."""
PROGRESS_EVERY = timedelta(seconds=10)
LONGEST_REST = timedelta(seconds=30)


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
    gap = unsupported(facts.plan)
    return Stop(Phase.FAILED, Reason.FEATURE_UNSUPPORTED, gap) if gap else None


def out_of_time(facts: Facts) -> Decision | None:
    """It has had its activeDeadlineSeconds, counted from the first attempt."""
    due = deadline(facts)
    if due is None or facts.now < due or isinstance(facts.state, Ended):
        return None
    seconds = facts.existing.spec.active_deadline_seconds
    message = f"It ran longer than {seconds} s (spec.activeDeadlineSeconds) and was stopped."
    if isinstance(facts.state, Lacking) and facts.started is None:
        message = (
            f"It waited longer than {seconds} s (spec.activeDeadlineSeconds): "
            f"{facts.state.message}"
        )
    if isinstance(facts.state, Preparing) and facts.started is None:
        message = f"Its source was not resolved within {seconds} s (spec.activeDeadlineSeconds)."
    return Stop(Phase.FAILED, Reason.DEADLINE_EXCEEDED, message)


def job_ended(facts: Facts) -> Decision | None:
    """The attempt is over: well, for good, or for another try."""
    if not isinstance(facts.state, Ended):
        return None
    outcome = facts.state.outcome
    if isinstance(outcome, Built) or not outcome.retryable:
        return Finish(outcome)
    spec, tried = facts.existing.spec, facts.tried
    if tried > spec.backoff_limit:
        times = f"{tried} times" if tried > 1 else "once"
        told = f"It was tried {times} (spec.backoffLimit: {spec.backoff_limit})."
        return Finish(replace(outcome, message=f"{outcome.message} {told}"))
    until, due = facts.now + rest_after(tried, facts.chance), deadline(facts)
    if due is None or until < due:
        return Retry(outcome, until)
    return Stop(
        Phase.FAILED,
        Reason.DEADLINE_EXCEEDED,
        f"No time is left for attempt {tried + 1}: it would begin after "
        f"{spec.active_deadline_seconds} s (spec.activeDeadlineSeconds) had passed. "
        f"Attempt {tried}: {outcome.message}",
    )


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


def lacking(facts: Facts) -> Decision | None:
    """Something that it names is not there, and is looked for again at its time."""
    state = facts.state
    if not isinstance(state, Lacking) or (state.until and facts.now >= state.until):
        return None
    return Wait(state.reason, state.message)


def gathering(facts: Facts) -> Decision | None:
    """The job looks for what the build names; after a while the status says so."""
    if not isinstance(facts.state, Gathering):
        return None
    if facts.now - facts.state.since < PATIENCE:
        return Leave()
    return Wait(Reason.QUEUED, "Reading the Secrets and ConfigMaps that it names.")


def needy(facts: Facts) -> Decision | None:
    """It names something in the cluster, and nobody has looked for it in this attempt."""
    return Gather() if facts.plan.needs and not isinstance(facts.state, Gathered) else None


def queued(facts: Facts) -> Decision | None:
    """It has no slot yet, or never will."""
    match facts.turn:
        case None:
            return Enter()
        case Entered():
            return Leave()
        case Refused(message, reason):
            return Stop(Phase.FAILED, reason, message)
        case Waiting(reason, message, position):
            return Wait(reason, message, position)
        case _:
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
    lacking,
    gathering,
    needy,
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
    source = facts.plan.source
    if isinstance(source, Http) and source.sha256:
        return f"sha256:{source.sha256}"
    return None if isinstance(source, Git | Oci) else ""


def deadline(facts: Facts) -> datetime | None:
    """When the run has had its time; None before it began.

    It begins with the first attempt, or with the wait for a Secret or for its source before that.
    """
    waits = facts.state.since if isinstance(facts.state, Lacking | Preparing) else None
    began = facts.started or waits
    if began is None:
        return None
    return began + timedelta(seconds=facts.existing.spec.active_deadline_seconds)


def expiry(facts: Facts) -> datetime | None:
    """When the finished object is to be deleted; None where it is kept or has not ended."""
    build = facts.existing
    ended, ttl = build.status.completion_time, build.spec.ttl_seconds_after_finished
    if ended is None or ttl is None or build.status.phase not in FINAL or not facts.same_inputs:
        return None
    return ended + timedelta(seconds=ttl)


def rest_after(attempts: int, chance: float) -> timedelta:
    """The pause after so many attempts: `chance` of 1 s, doubled each time, 30 s at most.

    With a chance uniform in 0 to 1 this is what "Exponential Backoff and Jitter" of the AWS
    Architecture Blog (2015) calls full jitter: those who broke together come back apart.
    """
    return min(timedelta(seconds=2 ** (attempts - 1)), LONGEST_REST) * chance


def progress_due(facts: Facts, decision: Keep) -> bool:
    """Whether progress may be written again."""
    return facts.now - decision.running.reported_at >= PROGRESS_EVERY


def look_again_at(facts: Facts, decision: Decision) -> datetime | None:
    """When this build must be looked at again even if nothing happens."""
    match decision:
        case Leave():
            return _after_leaving(facts)
        case Finish() | Stop():
            return _expiry_of(facts, decision)
        case Keep():
            due = [decision.running.reported_at + PROGRESS_EVERY, deadline(facts)]
            return min(moment for moment in due if moment is not None)
        case Retry():
            return decision.until
        case Gather() | Prepare() | Expire():
            # A delete that was answered well, and yet came to nothing, is asked for again.
            return facts.now + PATIENCE
        case Wait():
            again = facts.state.until if isinstance(facts.state, Lacking) else None
            return min((one for one in (again, deadline(facts)) if one), default=None)
        case _:
            return None


def _after_leaving(facts: Facts) -> datetime | None:
    """When what is left alone must be looked at again."""
    match facts.state:
        case Preparing() | Gathering():
            return facts.state.since + PATIENCE
        case Resting():
            return facts.state.until
        case _:
            return expiry(facts)


def _expiry_of(facts: Facts, decision: Finish | Stop) -> datetime | None:
    """When the object that this decision ends will expire; None where it is kept or paused."""
    ttl = facts.existing.spec.ttl_seconds_after_finished
    if ttl is None or (isinstance(decision, Stop) and decision.phase not in FINAL):
        return None
    return facts.now + timedelta(seconds=ttl)
