"""The rules of prunes, as a table: the ids are the specification."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.api.buildcacheprune import BuildCachePruneStatus
from imagewright.api.condition import Truth
from imagewright.api.reason import Reason
from imagewright.domain.decision import Discard, Expire, Forget, Leave, Stop
from imagewright.domain.facts import Closing
from imagewright.domain.prune import Fault, Reclaimed, Swept, Target
from imagewright.domain.prunedecide import Await, Begin, Finish, Keep, decide, look_again_at
from imagewright.domain.prunefacts import PruneFacts, Sweep
from imagewright.domain.prunestatus import summarize
from tests.support.makers import LATER, NOW
from tests.support.prunemakers import ONE, SOURCE, TWO, a_prune, prune_facts

NIGHTLY = {"schedule": "0 3 * * *"}
"""It is 03:04:05 UTC: today's time has just passed."""
TODAY, TOMORROW = NOW.replace(minute=0, second=0), NOW.replace(day=3, minute=0, second=0)
WELL = (Swept(ONE, Reclaimed(5, ("a",)), 9, 4), Swept(TWO, Reclaimed(7, ("b", "c")), 7, 0))
BADLY = (WELL[0], Swept(TWO, fault=Fault(Reason.BUILDER_UNAVAILABLE, "It does not answer.")))
DONE = {"phase": "Succeeded", "startTime": NOW.isoformat(), "completionTime": NOW.isoformat()}
RUNNING = {"phase": "Running", "startTime": NOW.isoformat()}
WAITING = {"phase": "Pending", "nextScheduleTime": TOMORROW.isoformat()}
SWEEP = Sweep(1)

TABLE: dict[str, tuple[PruneFacts, object]] = {
    "gone: nothing of it is kept": (prune_facts(None), Forget),
    "about to go: the same": (prune_facts(a_prune(deletionTimestamp=NOW.isoformat())), Forget),
    "new: it begins": (prune_facts(a_prune()), Begin(None, None)),
    "running: it is kept": (prune_facts(a_prune(status=RUNNING), sweep=SWEEP), Keep),
    "every cache has answered: it is finished": (
        prune_facts(a_prune(status=RUNNING), WELL),
        Finish(WELL),
    ),
    "one has failed: it is finished all the same": (
        prune_facts(a_prune(status=RUNNING), BADLY),
        Finish(BADLY),
    ),
    "finished: nothing": (prune_facts(a_prune(status=DONE)), Leave),
    "failed: nothing, it is not tried again": (
        prune_facts(a_prune(status={**DONE, "phase": "Failed"})),
        Leave,
    ),
    "finished for an older spec: it begins anew": (
        prune_facts(a_prune(status={**DONE, "observedGeneration": 1}, generation=2)),
        Begin(None, None),
    ),
    "finished, its time over: it is deleted": (
        prune_facts(a_prune({"ttlSecondsAfterFinished": 0}, DONE)),
        Expire,
    ),
    "finished, its time not over: it stays": (
        prune_facts(a_prune({"ttlSecondsAfterFinished": 60}, DONE)),
        Leave,
    ),
    "finished for an older spec, its time over: it begins anew": (
        prune_facts(
            a_prune(
                {"ttlSecondsAfterFinished": 0}, {**DONE, "observedGeneration": 1}, generation=2
            )
        ),
        Begin(None, None),
    ),
    "suspended, new: it is held back": (prune_facts(a_prune({"suspend": True})), Stop),
    "suspended, running: it is stopped": (
        prune_facts(a_prune({"suspend": True}, RUNNING), sweep=SWEEP),
        Stop,
    ),
    "suspended, just ended: its end is told": (
        prune_facts(a_prune({"suspend": True}, RUNNING), WELL),
        Finish(WELL),
    ),
    "suspended, a time of its schedule past: it is held back": (
        prune_facts(a_prune({**NIGHTLY, "suspend": True}, WAITING)),
        Stop,
    ),
    "running for an older spec: that is stopped": (
        prune_facts(a_prune(status=RUNNING, generation=2), sweep=SWEEP),
        Discard,
    ),
    "ended for an older spec: the figures are of no use": (
        prune_facts(a_prune(status=RUNNING, generation=2), sweep=Sweep(1, WELL)),
        Discard,
    ),
    "begun by an operator that died: it begins anew": (
        prune_facts(a_prune(status=RUNNING)),
        Begin(None, None),
    ),
    "begun for a time by an operator that died: it begins anew for that time": (
        prune_facts(
            a_prune(
                NIGHTLY,
                {
                    **RUNNING,
                    "lastScheduleTime": TODAY.isoformat(),
                    "nextScheduleTime": TOMORROW.isoformat(),
                },
            )
        ),
        Begin(TODAY, TOMORROW),
    ),
    "a schedule, new: it waits, though today's time has just passed": (
        prune_facts(a_prune(NIGHTLY)),
        Await(TOMORROW),
    ),
    "a schedule, its time not come: it waits": (
        prune_facts(a_prune(NIGHTLY, WAITING)),
        Await(TOMORROW),
    ),
    "a schedule, its time come: it begins for that": (
        prune_facts(a_prune(NIGHTLY, {**WAITING, "nextScheduleTime": TODAY.isoformat()})),
        Begin(TODAY, TOMORROW),
    ),
    "a schedule, three of its times missed: it begins once, for the last": (
        prune_facts(
            a_prune(
                NIGHTLY,
                {**WAITING, "nextScheduleTime": (TODAY - timedelta(days=3)).isoformat()},
            )
        ),
        Begin(TODAY, TOMORROW),
    ),
    "a schedule, edited: a time that is no longer its own was not missed": (
        prune_facts(
            a_prune(
                {"schedule": "0 4 * * *"},
                {**WAITING, "observedGeneration": 1, "nextScheduleTime": TODAY.isoformat()},
                generation=2,
            )
        ),
        Await(TODAY.replace(hour=4)),
    ),
    "a schedule, edited: a time that is later than the new one's is not waited for": (
        prune_facts(
            a_prune(
                NIGHTLY,
                {
                    **WAITING,
                    "observedGeneration": 1,
                    "nextScheduleTime": (TODAY + timedelta(days=300)).isoformat(),
                },
                generation=2,
            )
        ),
        Await(TOMORROW),
    ),
    "a schedule, its last run over: it waits for the next": (
        prune_facts(a_prune(NIGHTLY, {**DONE, "nextScheduleTime": TOMORROW.isoformat()})),
        Await(TOMORROW),
    ),
    "a schedule, every cache has answered: the next time is told with it": (
        prune_facts(a_prune(NIGHTLY, RUNNING), WELL),
        Finish(WELL, TOMORROW),
    ),
    "the schedule taken away: it begins, once": (
        prune_facts(a_prune(status={**WAITING, "observedGeneration": 1}, generation=2)),
        Begin(None, None),
    ),
    "a schedule that never comes: it has failed": (
        prune_facts(a_prune({"schedule": "0 0 31 2 *"})),
        Stop,
    ),
    "a time zone that the operator does not know: it has failed": (
        prune_facts(a_prune({**NIGHTLY, "timeZone": "Mars/Base"})),
        Stop,
    ),
    "failed for its schedule: it is not said again": (
        prune_facts(a_prune({"schedule": "0 0 31 2 *"}, {**DONE, "phase": "Failed"})),
        Leave,
    ),
    "going down: it begins nothing": (prune_facts(a_prune(), closing=Closing.DRAINING), Leave),
    "going down: what runs may end": (
        prune_facts(a_prune(status=RUNNING), sweep=SWEEP, closing=Closing.DRAINING),
        Keep,
    ),
    "gone down: what runs is stopped": (
        prune_facts(a_prune(status=RUNNING), sweep=SWEEP, closing=Closing.CLOSED),
        Stop,
    ),
    "gone down: what has ended is told": (
        prune_facts(a_prune(status=RUNNING), WELL, closing=Closing.CLOSED),
        Finish(WELL),
    ),
}


@pytest.mark.parametrize(("facts", "expected"), TABLE.values(), ids=TABLE)
def test_the_first_rule_that_speaks_decides(facts: PruneFacts, expected: object) -> None:
    decision = decide(facts)
    if isinstance(expected, type):
        assert isinstance(decision, expected)
    else:
        assert decision == expected


@pytest.mark.parametrize("facts", [facts for facts, _ in TABLE.values()], ids=TABLE)
def test_what_was_written_is_not_written_again(facts: PruneFacts) -> None:
    if facts.prune is None:
        return
    status = summarize(facts, decide(facts))
    told = facts.prune.model_copy(update={"status": status})
    # The sweep of a prune whose end was told is forgotten, and one that begins is there.
    sweep = None if facts.results or isinstance(decide(facts), Stop | Discard) else facts.sweep
    if isinstance(decide(facts), Begin):
        sweep = Sweep(told.metadata.generation)
    after = PruneFacts(
        told, NOW + timedelta(seconds=1), facts.zones, sweep, facts.uid, facts.closing
    )
    again = decide(after)
    if isinstance(again, Begin | Expire):
        # Only what was stopped for an older spec, or is to be deleted, goes on from here.
        assert isinstance(decide(facts), Discard | Expire)
        return
    assert summarize(after, again) == status


def conditions(status: BuildCachePruneStatus) -> dict[str, tuple[Truth, str]]:
    """The conditions by type."""
    return {one.type: (one.status, one.reason) for one in status.conditions}


def told_of(facts: PruneFacts) -> BuildCachePruneStatus:
    """What is written once it is decided."""
    return summarize(facts, decide(facts))


def test_while_it_runs_nothing_is_said_of_its_end() -> None:
    status = told_of(
        prune_facts(
            a_prune(NIGHTLY, {**DONE, "reclaimedBytes": 7, "nextScheduleTime": TODAY.isoformat()})
        )
    )
    assert (status.phase, status.start_time, status.completion_time) == ("Running", NOW, None)
    assert (status.last_schedule_time, status.next_schedule_time) == (TODAY, TOMORROW)
    assert status.reclaimed_bytes is None
    assert conditions(status) == {
        "Succeeded": ("Unknown", "Pruning"),
        "Complete": ("Unknown", "Pruning"),
        "Ready": ("Unknown", "Pruning"),
        "Reconciling": ("True", "Pruning"),
    }


def test_a_schedule_that_waits_for_its_first_time_is_ready() -> None:
    assert conditions(told_of(prune_facts(a_prune(NIGHTLY)))) == {
        "Succeeded": ("Unknown", "Scheduled"),
        "Complete": ("Unknown", "Scheduled"),
        "Ready": ("True", "Scheduled"),
    }


@pytest.mark.row("seed-14")
@pytest.mark.row("P21")
def test_all_well_the_sums_are_over_all_caches() -> None:
    results = (*WELL, Swept(SOURCE, Reclaimed(100, ("s",)), 100, 0))
    status = told_of(prune_facts(a_prune(status=RUNNING), results))
    assert (status.phase, status.completion_time) == ("Succeeded", NOW)
    assert (status.reclaimed_bytes, status.caches_deleted) == (112, 4)
    assert status.cache_ids is not None
    assert sorted(status.cache_ids) == ["a", "b", "c", "s"]
    assert conditions(status) == {
        "Succeeded": ("True", "Succeeded"),
        "Complete": ("True", "Succeeded"),
        "Ready": ("True", "Succeeded"),
    }


@pytest.mark.row("seed-14")
def test_one_that_failed_is_named_and_stands_first_and_the_others_figures_count() -> None:
    status = told_of(prune_facts(a_prune(status=RUNNING), BADLY))
    assert conditions(status)["Succeeded"] == ("False", "PruneFailed")
    assert "Stalled" not in conditions(status)
    assert "1 of 2 caches could not be pruned: worker two: It does not answer." in (
        status.conditions[0].message
    )
    assert status.reclaimed_bytes == 5
    assert status.targets is not None
    assert [one.worker for one in status.targets] == ["two", "one"]
    assert [one.message for one in status.targets] == ["It does not answer.", None]


def test_what_only_the_user_can_mend_is_stalled() -> None:
    fault = Swept(ONE, fault=Fault(Reason.FEATURE_UNSUPPORTED, "Too old."))
    for results, reason in (((fault,), "FeatureUnsupported"), ((), "NoTarget")):
        held = conditions(told_of(prune_facts(a_prune(status=RUNNING), results)))
        assert held["Succeeded"] == ("False", reason)
        assert held["Stalled"] == ("True", reason)


def test_a_dry_run_says_that_nothing_went() -> None:
    status = told_of(prune_facts(a_prune({"dryRun": True}, RUNNING), WELL))
    assert status.conditions[0].message == "A dry run: it would free 0.0 MB in 3 records."


def test_an_interrupted_prune_is_begun_anew_by_the_next_operator() -> None:
    facts = prune_facts(
        a_prune(NIGHTLY, {**RUNNING, "lastScheduleTime": TODAY.isoformat()}),
        sweep=SWEEP,
        closing=Closing.CLOSED,
    )
    status = told_of(facts)
    assert (status.phase, conditions(status)["Succeeded"]) == (
        "Pending",
        ("Unknown", "Interrupted"),
    )
    next_one = prune_facts(facts.existing.model_copy(update={"status": status}))
    assert decide(next_one) == Begin(TODAY, TOMORROW)


def test_a_transitions_time_moves_only_with_its_truth() -> None:
    first = told_of(prune_facts(a_prune(status=RUNNING), WELL))
    again = a_prune(status=RUNNING).model_copy(
        update={
            "status": first.model_copy(
                update={"completion_time": None, "phase": None, "next_schedule_time": TODAY}
            )
        }
    )
    later = summarize(prune_facts(again, WELL, now=LATER), Finish(WELL))
    assert [one.last_transition_time for one in later.conditions] == [NOW] * 3
    worse = summarize(prune_facts(again, BADLY, now=LATER), Finish(BADLY))
    moved = {one.type: one.last_transition_time for one in worse.conditions}
    assert moved == {"Succeeded": LATER, "Complete": NOW, "Ready": LATER}


@pytest.mark.row("F71")
@pytest.mark.parametrize("letter", ['"', "\\", "\n", "\x1b", "é", "字", "a"], ids=repr)
def test_a_status_is_small_however_many_caches_there_are_and_whatever_they_say(
    letter: str,
) -> None:
    results = tuple(
        Swept(
            Target("pool", f"{number}.{'w' * 200}", "buildkit"),
            Reclaimed(1 << 60, tuple(letter * 25 + str(one) for one in range(99)), letter * 999),
            1 << 62,
            1 << 62,
            Fault(Reason.PRUNE_FAILED, letter * 9999) if number % 2 else None,
        )
        for number in range(200)
    )
    status = told_of(prune_facts(a_prune(NIGHTLY, RUNNING), results))
    assert len(json.dumps(status.dump(), ensure_ascii=False).encode()) <= 8192
    assert status.caches_deleted == 99 * 200
    assert status.targets
    assert status.cache_ids is not None
    assert len(status.cache_ids) <= 50


LOOKS: dict[str, tuple[PruneFacts, Any]] = {
    "waiting: at its time": (prune_facts(a_prune(NIGHTLY)), TOMORROW),
    "finished, to be deleted: then": (
        prune_facts(a_prune({"ttlSecondsAfterFinished": 60}, DONE)),
        NOW + timedelta(seconds=60),
    ),
    "just finished, to be deleted: then": (
        prune_facts(a_prune({"ttlSecondsAfterFinished": 60}, RUNNING), WELL),
        NOW + timedelta(seconds=60),
    ),
    "just finished, by a schedule: at its next time": (
        prune_facts(a_prune(NIGHTLY, RUNNING), WELL),
        TOMORROW,
    ),
    "finished, kept: never": (prune_facts(a_prune(status=DONE)), None),
    "suspended: never": (prune_facts(a_prune({"suspend": True})), None),
    "running: never": (prune_facts(a_prune(status=RUNNING), sweep=SWEEP), None),
}


@pytest.mark.parametrize(("facts", "due"), LOOKS.values(), ids=LOOKS)
def test_when_it_is_looked_at_again(facts: PruneFacts, due: object) -> None:
    assert look_again_at(facts, decide(facts)) == due


PHASES = st.sampled_from([None, "Pending", "Running", "Succeeded", "Failed", "Suspended"])
TIMES = st.none() | st.sampled_from([TODAY, NOW, TOMORROW, LATER])


@pytest.mark.timeout(30)
@given(
    st.fixed_dictionaries(
        {"phase": PHASES, "startTime": TIMES, "completionTime": TIMES, "nextScheduleTime": TIMES}
    ),
    st.sampled_from([{}, NIGHTLY, {"suspend": True}, {"ttlSecondsAfterFinished": 5}]),
    st.sampled_from([None, SWEEP, Sweep(1, WELL), Sweep(1, ()), Sweep(0)]),
    st.sampled_from(list(Closing)),
)
def test_any_facts_have_a_decision_and_a_status_that_is_read_again(
    status: dict[str, Any], spec: dict[str, Any], sweep: Sweep | None, closing: Closing
) -> None:
    given_status = {
        key: value if isinstance(value, str) else value.isoformat()
        for key, value in status.items()
        if value is not None
    }
    facts = prune_facts(a_prune(spec, given_status), sweep=sweep, closing=closing)
    written = told_of(facts).dump()
    assert BuildCachePruneStatus.model_validate(written).dump() == written
