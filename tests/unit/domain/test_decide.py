"""The rules, as a table: the ids are the specification."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.api.imagebuild import Phase
from imagewright.api.reason import Reason
from imagewright.domain.decide import (
    RULES,
    Begin,
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
)
from imagewright.domain.facts import (
    Closing,
    Ended,
    Facts,
    Granted,
    Job,
    Prepared,
    Preparing,
    Resting,
    Running,
    Waiting,
)
from imagewright.domain.outcome import Broken, Built
from tests.support.makers import GIT, LATER, NOW, a_build, some_facts

RUNNING = {"phase": "Running", "attempt": 1, "startTime": NOW.isoformat()}
DONE = {"phase": "Succeeded", "completionTime": NOW.isoformat()}
WORKING = Running(10, "RUN x", NOW)
TURN = Granted("w")
OUTAGE = Broken(Reason.BUILDER_UNAVAILABLE, "The worker was lost.", retryable=True)
FAILED = Broken(Reason.BUILD_FAILED, "exit code: 1")
BUILT = Built("sha256:a", "sha256:b")
COMMIT = "c" * 40

TABLE: dict[str, tuple[Facts, object]] = {
    "gone: nothing of it is kept": (some_facts(None), Forget),
    "about to go: the same": (
        some_facts(a_build(deletionTimestamp=NOW.isoformat())),
        Forget,
    ),
    "new: it asks for a turn": (some_facts(a_build()), Enter),
    "in the queue: it waits for what the queue says": (
        some_facts(a_build(), turn=Waiting(Reason.QUEUED, "full")),
        Wait(Reason.QUEUED, "full"),
    ),
    "its turn: it is claimed": (some_facts(a_build(), turn=TURN), Begin("w", "")),
    "its turn, a branch to resolve: the worker is asked first": (
        some_facts(a_build(GIT), turn=TURN),
        Prepare("w"),
    ),
    "its turn, a digest is given: that is its revision": (
        some_facts(
            a_build({"source": {"http": {"url": "https://a.example/c", "sha256": "a" * 64}}}),
            turn=TURN,
        ),
        Begin("w", f"sha256:{'a' * 64}"),
    ),
    "resolving, just begun: nothing is said yet": (
        some_facts(a_build(GIT), Preparing(NOW - timedelta(seconds=1))),
        Leave,
    ),
    "resolving for long: it says so": (
        some_facts(a_build(GIT), Preparing(NOW - timedelta(seconds=3))),
        Wait,
    ),
    "resolved: it is claimed at the commit": (
        some_facts(a_build(GIT), Prepared(COMMIT, "w")),
        Begin("w", COMMIT),
    ),
    "a retry builds the commit of the first attempt": (
        some_facts(a_build(GIT, {**RUNNING, "source": {"revision": COMMIT}}), turn=TURN),
        Begin("w", COMMIT),
    ),
    "running elsewhere, and only the leader acts: it asks for a turn again": (
        some_facts(
            a_build(status={**RUNNING, "claim": {"holder": "x", "worker": "w", "ref": "r"}})
        ),
        Enter,
    ),
    "running: it is kept": (some_facts(a_build(status=RUNNING), WORKING), Keep(WORKING)),
    "ended well: it is finished": (
        some_facts(a_build(status=RUNNING), Ended(BUILT)),
        Finish(BUILT),
    ),
    "ended badly: it is finished, never tried again": (
        some_facts(a_build(status=RUNNING), Ended(FAILED)),
        Finish(FAILED),
    ),
    "an outage: another attempt after a pause": (
        some_facts(a_build(status=RUNNING), Ended(OUTAGE)),
        Retry(OUTAGE, NOW + timedelta(seconds=1)),
    ),
    "a third outage: the pause has doubled twice": (
        some_facts(a_build(status={**RUNNING, "attempt": 3}), Ended(OUTAGE)),
        Retry(OUTAGE, NOW + timedelta(seconds=4)),
    ),
    "an outage in the last attempt: it has failed": (
        some_facts(a_build(status={**RUNNING, "attempt": 4}), Ended(OUTAGE)),
        Finish(replace(OUTAGE, message="The worker was lost. It was tried 4 times.")),
    ),
    "resting: nothing yet": (some_facts(a_build(status=RUNNING), Resting(LATER)), Leave),
    "rested: it asks for a turn": (some_facts(a_build(status=RUNNING), Resting(NOW)), Enter),
    "finished for these inputs: nothing": (some_facts(a_build(status=DONE)), Leave),
    "finished, then asked to cancel: nothing": (
        some_facts(a_build({"cancel": True}, DONE)),
        Leave,
    ),
    "finished for other inputs: it begins anew": (
        some_facts(a_build(status={**DONE, "inputsDigest": "sha256:other"})),
        Enter,
    ),
    "finished, its time over: it is deleted": (
        some_facts(a_build({"ttlSecondsAfterFinished": 0}, DONE)),
        Expire,
    ),
    "finished, its time not over: it stays": (
        some_facts(a_build({"ttlSecondsAfterFinished": 60}, DONE)),
        Leave,
    ),
    "cancelled by field": (
        some_facts(a_build({"cancel": True}), WORKING),
        Stop(Phase.CANCELLED, Reason.CANCELLED, "Cancelled by spec.cancel."),
    ),
    "cancelled by annotation, without a reason": (
        some_facts(a_build(annotations={"imagewright.dev/cancel": ""})),
        Stop(Phase.CANCELLED, Reason.CANCELLED, "Cancelled by annotation: no reason was given."),
    ),
    "cancelled when it had ended well already: what is pushed is pushed": (
        some_facts(a_build({"cancel": True}, RUNNING), Ended(BUILT)),
        Finish(BUILT),
    ),
    "cancelled when it had met an outage: it is cancelled": (
        some_facts(a_build({"cancel": True}, RUNNING), Ended(OUTAGE)),
        Stop,
    ),
    "suspended while it runs": (some_facts(a_build({"suspend": True}, RUNNING), WORKING), Stop),
    "edited while it runs: what runs is for other inputs": (
        some_facts(a_build(status=RUNNING), job=Job("sha256:old", WORKING)),
        Discard,
    ),
    "out of time": (
        some_facts(a_build({"activeDeadlineSeconds": 60}, RUNNING), WORKING, now=LATER),
        Stop,
    ),
    "out of time, but ended well in that very moment": (
        some_facts(a_build({"activeDeadlineSeconds": 60}, RUNNING), Ended(BUILT), now=LATER),
        Finish(BUILT),
    ),
    "going down: nothing begins": (
        some_facts(a_build(), turn=TURN, closing=Closing.DRAINING),
        Leave,
    ),
    "going down: what runs may end": (
        some_facts(a_build(status=RUNNING), WORKING, closing=Closing.DRAINING),
        Keep,
    ),
    "down: what runs is stopped, for the next operator": (
        some_facts(a_build(status=RUNNING), WORKING, closing=Closing.CLOSED),
        Stop,
    ),
    "down: what has ended is told": (
        some_facts(a_build(status=RUNNING), Ended(BUILT), closing=Closing.CLOSED),
        Finish(BUILT),
    ),
}


@pytest.mark.parametrize(("facts", "expected"), TABLE.values(), ids=TABLE)
def test_the_first_rule_that_speaks_wins(facts: Facts, expected: object) -> None:
    decision = decide(facts)
    if isinstance(expected, type):
        assert isinstance(decision, expected)
    else:
        assert decision == expected


def test_every_rule_speaks_for_some_row() -> None:
    silent = []
    for rule in RULES:
        before = RULES[: RULES.index(rule)]
        spoke = any(
            rule(facts) is not None
            for facts, _ in TABLE.values()
            if all(earlier(facts) is None for earlier in before)
        )
        if not spoke and rule.__name__ != "refused":
            silent.append(rule.__name__)
    assert silent == []


states = st.sampled_from(
    [
        None,
        Preparing(NOW),
        Prepared(COMMIT, "w"),
        WORKING,
        Ended(BUILT),
        Ended(OUTAGE),
        Resting(LATER),
    ]
)
builds = st.sampled_from(
    [
        a_build(),
        a_build(GIT),
        a_build(status=RUNNING),
        a_build(status=DONE),
        a_build({"cancel": True}),
    ]
)
turns = st.sampled_from([None, TURN, Waiting(Reason.NO_WORKER, "none")])


@given(builds, states, turns, st.sampled_from(Closing))
def test_some_rule_speaks_for_all_facts_and_always_the_same(
    build: object, state: object, turn: object, closing: object
) -> None:
    facts = some_facts(build, state, turn=turn, closing=closing)  # type: ignore[arg-type]
    assert decide(facts) == decide(facts)


LOOKS: dict[str, tuple[Facts, timedelta | None]] = {
    "kept: when progress may be written again": (
        some_facts(a_build(status=RUNNING), WORKING),
        timedelta(seconds=10),
    ),
    "kept: at the deadline, where that is sooner": (
        some_facts(a_build({"activeDeadlineSeconds": 5}, RUNNING), WORKING),
        timedelta(seconds=5),
    ),
    "resting: when the pause is over": (
        some_facts(a_build(status=RUNNING), Resting(LATER)),
        LATER - NOW,
    ),
    "finished: when its time is over": (
        some_facts(a_build({"ttlSecondsAfterFinished": 60}, DONE)),
        timedelta(seconds=60),
    ),
    "finished and kept: never": (some_facts(a_build(status=DONE)), None),
    "resolving: when it must say so": (
        some_facts(a_build(GIT), Preparing(NOW)),
        timedelta(seconds=2),
    ),
}


@pytest.mark.parametrize(("facts", "after"), LOOKS.values(), ids=LOOKS)
def test_it_is_looked_at_again_in_time(facts: Facts, after: timedelta | None) -> None:
    due = look_again_at(facts, decide(facts))
    assert due == (None if after is None else NOW + after)
