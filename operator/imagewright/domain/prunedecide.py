"""What to do next for a prune: a chain of rules over facts; the first that speaks wins.

Level-triggered, as for builds: the same facts give the same decision, whatever events were lost or
came twice. The order of RULES is the specification; each rule is named for what it finds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from imagewright.api.buildstatus import FINAL, Phase
from imagewright.api.reason import Reason
from imagewright.domain.decision import Discard, Expire, Forget, Leave, Stop
from imagewright.domain.facts import Closing
from imagewright.domain.prune import Swept
from imagewright.domain.prunefacts import PruneFacts
from imagewright.domain.schedule import InvalidScheduleError


@dataclass(frozen=True, slots=True)
class Begin:
    """Write that it runs, and only then prune.

    `due` is the time of the schedule that this is for, `then` the one that comes after; both are
    None where it prunes once.
    """

    due: datetime | None = None
    then: datetime | None = None


@dataclass(frozen=True, slots=True)
class Await:
    """Nothing to do before `due`, the next time of the schedule."""

    due: datetime


@dataclass(frozen=True, slots=True)
class Keep:
    """It runs: let it."""


@dataclass(frozen=True, slots=True)
class Finish:
    """All caches have answered; `then` is the next time of the schedule."""

    results: tuple[Swept, ...]
    then: datetime | None = None


Decision = Forget | Expire | Leave | Stop | Discard | Begin | Await | Keep | Finish
Rule = Callable[[PruneFacts], Decision | None]


def gone(facts: PruneFacts) -> Decision | None:
    """The object does not exist, or is about to not exist."""
    prune = facts.prune
    return Forget() if prune is None or prune.metadata.deletion_timestamp else None


def expired(facts: PruneFacts) -> Decision | None:
    """It ended, and its ttlSecondsAfterFinished has passed since."""
    due = expiry(facts)
    return Expire() if due is not None and facts.now >= due else None


def suspended(facts: PruneFacts) -> Decision | None:
    """spec.suspend holds it back."""
    if not facts.existing.spec.suspend or facts.results is not None or ended(facts):
        return None
    return Stop(
        Phase.SUSPENDED, Reason.SUSPENDED, "Suspended: it begins when spec.suspend is false."
    )


def superseded(facts: PruneFacts) -> Decision | None:
    """What runs was started for a spec that has changed since."""
    sweep = facts.sweep
    changed = sweep is not None and sweep.generation != facts.existing.metadata.generation
    return Discard() if changed else None


def finished(facts: PruneFacts) -> Decision | None:
    """It ended for this very spec, and has no next time: nothing starts it again but an edit."""
    return Leave() if ended(facts) else None


def closing(facts: PruneFacts) -> Decision | None:
    """This operator goes down: it begins nothing, and at last stops what runs."""
    if facts.closing is Closing.OPEN or facts.results is not None:
        return None
    if facts.sweep is None:
        return Leave()
    if facts.closing is Closing.DRAINING:
        return None
    return Stop(
        Phase.PENDING,
        Reason.INTERRUPTED,
        "The operator went down while this was pruning; the next one begins it anew.",
    )


def misscheduled(facts: PruneFacts) -> Decision | None:
    """Its schedule or time zone cannot be used."""
    try:
        following(facts)
    except InvalidScheduleError as error:
        return Stop(Phase.FAILED, Reason.INVALID_SCHEDULE, str(error))
    return None


def swept(facts: PruneFacts) -> Decision | None:
    """Every cache has answered, well or not."""
    return None if facts.results is None else Finish(facts.results, following(facts))


def running(facts: PruneFacts) -> Decision | None:
    """It runs."""
    return Keep() if facts.sweep is not None else None


def interrupted(facts: PruneFacts) -> Decision | None:
    """It was begun and never ended, and nothing runs for it: its operator died. It begins anew."""
    status = facts.existing.status
    begun = status.start_time is not None and status.completion_time is None
    if not begun or not facts.same_generation:
        return None
    return Begin(status.last_schedule_time, following(facts))


def overdue(facts: PruneFacts) -> Decision | None:
    """A time that its status announced has come, however long ago: it runs once for all missed.

    A time that the schedule no longer has counts for nothing.
    """
    schedule, announced = facts.schedule, facts.existing.status.next_schedule_time
    if schedule is None or announced is None or facts.now < announced:
        return None
    if not schedule.has(announced):
        return None
    return Begin(schedule.until(facts.now), following(facts))


def early(facts: PruneFacts) -> Decision | None:
    """It has a schedule, and its time has not come."""
    due = following(facts)
    return None if due is None else Await(due)


def not_begun(_: PruneFacts) -> Decision | None:
    """It prunes once, now."""
    return Begin()


RULES: tuple[Rule, ...] = (
    gone,
    expired,
    suspended,
    finished,
    superseded,
    closing,
    misscheduled,
    swept,
    running,
    interrupted,
    overdue,
    early,
    not_begun,
)


def decide(facts: PruneFacts) -> Decision:
    """The first rule's word. Some rule always speaks."""
    for rule in RULES:
        decision = rule(facts)
        if decision is not None:
            return decision
    raise AssertionError("not_begun speaks for every prune")


def ended(facts: PruneFacts) -> bool:
    """It is over for this very spec, and nothing of a schedule is to come."""
    status = facts.existing.status
    return status.phase in FINAL and facts.same_generation and status.next_schedule_time is None


def following(facts: PruneFacts) -> datetime | None:
    """The next time of its schedule, which may be the first; None where it prunes once."""
    schedule = facts.schedule
    return None if schedule is None else schedule.after(facts.now)


def expiry(facts: PruneFacts) -> datetime | None:
    """When the finished object is to be deleted; None where it is kept or has not ended."""
    prune = facts.existing
    over, ttl = prune.status.completion_time, prune.spec.ttl_seconds_after_finished
    if over is None or ttl is None or not ended(facts):
        return None
    return over + timedelta(seconds=ttl)


def look_again_at(facts: PruneFacts, decision: Decision) -> datetime | None:
    """When this prune must be looked at again even if nothing happens."""
    match decision:
        case Await():
            return decision.due
        case Leave():
            return expiry(facts)
        case Finish() if decision.then is not None:
            return decision.then
        case Finish() | Stop(phase=Phase.FAILED):
            ttl = facts.existing.spec.ttl_seconds_after_finished
            return None if ttl is None else facts.now + timedelta(seconds=ttl)
        case _:
            return None
