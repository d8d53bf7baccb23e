"""The rules, as a table: the ids are the specification."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.api.buildstatus import FINAL, Phase
from imagewright.api.reason import Reason
from imagewright.domain.decide import RULES, decide, look_again_at, rest_after
from imagewright.domain.decision import (
    Begin,
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
    Job,
    Lacking,
    Prepared,
    Preparing,
    Refused,
    Resting,
    Running,
    Waiting,
)
from imagewright.domain.outcome import Broken, Built
from imagewright.domain.status import summarize
from tests.support.makers import GIT, LATER, NOW, a_build, some_facts

RUNNING = {"phase": "Running", "attempt": 1, "startTime": NOW.isoformat()}
DONE = {"phase": "Succeeded", "completionTime": NOW.isoformat()}
WORKING = Running(10, "RUN x", NOW)
TURN = Granted("w")
LOST = "The worker was lost."
OUTAGE = Broken(Reason.BUILDER_UNAVAILABLE, LOST, retryable=True)
NO_TIME = (
    "No time is left for attempt 4: it would begin after 4 s (spec.activeDeadlineSeconds) had "
    "passed. Attempt 3: The worker was lost."
)
FAILED = Broken(Reason.BUILD_FAILED, "exit code: 1")
BUILT = Built("sha256:a", "sha256:b")
COMMIT = "c" * 40
CANCEL = {"cancel": True}
_GOOD = a_build()
UNNAMED = _GOOD.model_copy(update={"spec": _GOOD.spec.model_copy(update={"images": ["A@b"]})})
"""As the API server of an older kind could let it through."""

NEEDY: dict[str, Any] = {"registryAuth": [{"secretRef": {"name": "pull"}}]}
LACKING = Lacking(
    Reason.SECRET_NOT_FOUND,
    "The Secret pull is not there yet.",
    NOW - timedelta(seconds=60),
    NOW + timedelta(seconds=5),
)
TABLE: dict[str, tuple[Facts, object]] = {
    "gone: nothing of it is kept": (some_facts(None), Forget),
    "about to go: the same": (
        some_facts(a_build(deletionTimestamp=NOW.isoformat())),
        Forget,
    ),
    "new: it asks for a turn": (some_facts(a_build()), Enter),
    "in the queue: it waits for what the queue says": (
        some_facts(a_build(), turn=Waiting(Reason.QUEUED, "full", 3)),
        Wait(Reason.QUEUED, "full", 3),
    ),
    "just in the queue: there is nothing to say yet": (
        some_facts(a_build(), turn=Entered()),
        Leave(),
    ),
    "denied by the pool: it has failed, with the pool's own reason": (
        some_facts(a_build(), turn=Refused("no", Reason.POLICY_DENIED)),
        Stop(Phase.FAILED, Reason.POLICY_DENIED, "no"),
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
    "resolving for longer than it has time, and holding a slot all the while: it is stopped": (
        some_facts(
            a_build({**GIT, "activeDeadlineSeconds": 60}), Preparing(NOW - timedelta(seconds=60))
        ),
        Stop(
            Phase.FAILED,
            Reason.DEADLINE_EXCEEDED,
            "Its source was not resolved within 60 s (spec.activeDeadlineSeconds).",
        ),
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
        Finish(replace(OUTAGE, message=f"{LOST} It was tried 4 times (spec.backoffLimit: 3).")),
    ),
    "an outage, and by chance half of the pause: so be it": (
        some_facts(a_build(status={**RUNNING, "attempt": 3}), Ended(OUTAGE), chance=0.5),
        Retry(OUTAGE, NOW + timedelta(seconds=2)),
    ),
    "an outage, and no retry is wanted: it has failed": (
        some_facts(a_build({"backoffLimit": 0}, RUNNING), Ended(OUTAGE)),
        Finish(replace(OUTAGE, message=f"{LOST} It was tried once (spec.backoffLimit: 0).")),
    ),
    "an outage in the fourth attempt, and ten retries are wanted: another attempt": (
        some_facts(a_build({"backoffLimit": 10}, {**RUNNING, "attempt": 4}), Ended(OUTAGE)),
        Retry(OUTAGE, NOW + timedelta(seconds=8)),
    ),
    "an outage in a third attempt that was never claimed: it counts": (
        some_facts(a_build(GIT, {"phase": "Pending", "attempt": 2}), Ended(OUTAGE)),
        Retry(OUTAGE, NOW + timedelta(seconds=4)),
    ),
    "an outage in the first attempt at new inputs: the old ones do not count": (
        some_facts(
            a_build(GIT, {**RUNNING, "attempt": 4, "inputsDigest": "sha256:old"}), Ended(OUTAGE)
        ),
        Retry(OUTAGE, NOW + timedelta(seconds=1)),
    ),
    "an outage, and the pause would pass the deadline: there is no time": (
        some_facts(
            a_build({"activeDeadlineSeconds": 4}, {**RUNNING, "attempt": 3}), Ended(OUTAGE)
        ),
        Stop(Phase.FAILED, Reason.DEADLINE_EXCEEDED, NO_TIME),
    ),
    "an outage, and the pause ends just before the deadline: another attempt": (
        some_facts(
            a_build({"activeDeadlineSeconds": 5}, {**RUNNING, "attempt": 3}), Ended(OUTAGE)
        ),
        Retry(OUTAGE, NOW + timedelta(seconds=4)),
    ),
    "an outage that ends it in any case, after the deadline: the outage is told": (
        some_facts(a_build({"backoffLimit": 0}, RUNNING), Ended(OUTAGE), now=LATER),
        Finish,
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
    "the operator died in mid build, and it is its turn: it is claimed again": (
        some_facts(
            a_build(status={**RUNNING, "claim": {"holder": "x", "worker": "w", "ref": "r"}}),
            turn=TURN,
        ),
        Begin("w", ""),
    ),
    "edited while git of the old inputs was known: the new ones are resolved": (
        some_facts(
            a_build(
                GIT,
                {**RUNNING, "inputsDigest": "sha256:old", "source": {"revision": COMMIT}},
            ),
            turn=TURN,
        ),
        Prepare("w"),
    ),
    "its turn, a download of unknown digest: there is nothing to resolve": (
        some_facts(a_build({"source": {"http": {"url": "https://a.example/c"}}}), turn=TURN),
        Begin("w", ""),
    ),
    "no name of an image: it can never be accepted": (
        some_facts(UNNAMED),
        Stop(
            Phase.FAILED,
            Reason.INVALID_REFERENCE,
            "spec.images: 'A@b' carries a digest: a name to push has a tag only, such as app:1.2.",
        ),
    ),
    "a refused name, but the object is cancelled: that is said": (
        some_facts(UNNAMED.model_copy(update={"spec": UNNAMED.spec.model_copy(update=CANCEL)})),
        Stop(Phase.CANCELLED, Reason.CANCELLED, "Cancelled by spec.cancel."),
    ),
    "cancelled by annotation, with a long reason: its beginning is shown": (
        some_facts(a_build(annotations={"imagewright.dev/cancel": "x" * 999})),
        Stop(Phase.CANCELLED, Reason.CANCELLED, f"Cancelled by annotation: {'x' * 256}."),
    ),
    "cancelled when it had failed: it is cancelled": (
        some_facts(a_build({"cancel": True}, RUNNING), Ended(FAILED)),
        Stop,
    ),
    "cancelled and suspended: the end wins over the pause": (
        some_facts(a_build({"cancel": True, "suspend": True}), WORKING),
        Stop(Phase.CANCELLED, Reason.CANCELLED, "Cancelled by spec.cancel."),
    ),
    "suspended when it had ended well already: that is told": (
        some_facts(a_build({"suspend": True}, RUNNING), Ended(BUILT)),
        Finish(BUILT),
    ),
    "suspended when it is finished: nothing": (
        some_facts(a_build({"suspend": True}, DONE)),
        Leave,
    ),
    "edited after the end, its old time over: it begins anew instead of going": (
        some_facts(
            a_build({"ttlSecondsAfterFinished": 0}, {**DONE, "inputsDigest": "sha256:old"})
        ),
        Enter,
    ),
    "ended for inputs that nobody asks for any more: that is not told": (
        some_facts(a_build(status=RUNNING), job=Job("sha256:old", Ended(BUILT))),
        Discard,
    ),
    "the deadline is the very moment": (
        some_facts(
            a_build({"activeDeadlineSeconds": 60}, RUNNING),
            WORKING,
            now=NOW + timedelta(seconds=60),
        ),
        Stop(
            Phase.FAILED,
            Reason.DEADLINE_EXCEEDED,
            "It ran longer than 60 s (spec.activeDeadlineSeconds) and was stopped.",
        ),
    ),
    "a moment before the deadline: it is kept": (
        some_facts(
            a_build({"activeDeadlineSeconds": 60}, RUNNING),
            WORKING,
            now=NOW + timedelta(seconds=59),
        ),
        Keep(WORKING),
    ),
    "the time of other inputs does not count": (
        some_facts(
            a_build({"activeDeadlineSeconds": 1}, {**RUNNING, "inputsDigest": "sha256:old"}),
            now=LATER,
        ),
        Enter,
    ),
    "out of time while it rests: it is stopped": (
        some_facts(a_build({"activeDeadlineSeconds": 60}, RUNNING), Resting(LATER), now=LATER),
        Stop,
    ),
    "it names what nobody has looked for: look": (some_facts(a_build(NEEDY)), Gather),
    "that is looked for: wait": (some_facts(a_build(NEEDY), Gathering(NOW)), Leave),
    "that is looked for, for long: say so": (
        some_facts(a_build(NEEDY), Gathering(NOW - timedelta(seconds=3))),
        Wait,
    ),
    "it is not there: say so": (
        some_facts(a_build(NEEDY), LACKING),
        Wait(Reason.SECRET_NOT_FOUND, "The Secret pull is not there yet."),
    ),
    "it is not there, and the cluster has not changed: wait, however long": (
        some_facts(a_build(NEEDY), replace(LACKING, until=None), now=NOW + timedelta(minutes=50)),
        Wait(Reason.SECRET_NOT_FOUND, "The Secret pull is not there yet."),
    ),
    "it was not there a while ago: look again": (
        some_facts(a_build(NEEDY), replace(LACKING, until=NOW)),
        Gather,
    ),
    "it was not there, and the spec has no need of it any more: look": (
        some_facts(a_build(), replace(LACKING, until=NOW)),
        Enter,
    ),
    "it is not there, and time is up: stop": (
        some_facts(a_build({**NEEDY, "activeDeadlineSeconds": 60}), LACKING, now=LATER),
        Stop,
    ),
    "it is there: ask for a turn": (some_facts(a_build(NEEDY), Gathered()), Enter),
    "it is there, and it has a turn: begin": (
        some_facts(a_build(NEEDY), Gathered(), turn=TURN),
        Begin("w", ""),
    ),
    "a retry looks again": (
        some_facts(a_build(NEEDY, RUNNING), Resting(NOW)),
        Gather,
    ),
    "cancelled while something lacks: stop": (
        some_facts(a_build({**NEEDY, "cancel": True}), LACKING),
        Stop,
    ),
    "a field that its builder does not know: refused": (
        some_facts(a_build({"limits": {"memory": "1Gi"}})),
        Stop,
    ),
    "a builder that no worker has: refused": (
        some_facts(a_build(), turn=Refused("No worker has it.")),
        Stop(Phase.FAILED, Reason.FEATURE_UNSUPPORTED, "No worker has it."),
    ),
    "an image is resolved on its worker": (
        some_facts(a_build({"source": {"oci": {"image": "r.example/a"}}}), turn=TURN),
        Prepare("w"),
    ),
    "going down while it rests: nothing": (
        some_facts(a_build(status=RUNNING), Resting(NOW), closing=Closing.DRAINING),
        Leave,
    ),
    "down while it resolves: nothing, for nothing is claimed": (
        some_facts(a_build(GIT), Preparing(NOW), closing=Closing.CLOSED),
        Leave,
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
        if not spoke:
            silent.append(rule.__name__)
    assert silent == []


moments = st.integers(-7200, 7200).map(lambda seconds: NOW + timedelta(seconds=seconds))
states = st.one_of(
    st.none(),
    st.builds(Preparing, moments),
    st.just(Prepared(COMMIT, "w")),
    st.builds(Running, st.integers(0, 100), st.sampled_from(["", "RUN x"]), moments),
    st.builds(Ended, st.sampled_from([BUILT, FAILED, OUTAGE])),
    st.builds(Resting, moments),
    st.builds(Gathering, moments),
    st.just(Gathered()),
    st.builds(Lacking, st.just(Reason.SECRET_NOT_FOUND), st.just("No."), moments, moments),
)
statuses = st.none() | st.fixed_dictionaries(
    {"phase": st.sampled_from(Phase).map(str)},
    optional={
        "attempt": st.integers(1, 6),
        "startTime": moments.map(datetime.isoformat),
        "completionTime": moments.map(datetime.isoformat),
        "inputsDigest": st.just("sha256:old"),
        "source": st.just({"revision": COMMIT}),
    },
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "source": st.just(GIT["source"]),
        "registryAuth": st.just(NEEDY["registryAuth"]),
        "cancel": st.booleans(),
        "suspend": st.booleans(),
        "activeDeadlineSeconds": st.integers(1, 7200),
        "backoffLimit": st.integers(0, 10),
        "ttlSecondsAfterFinished": st.integers(0, 7200),
    },
)
builds = st.builds(a_build, specs, statuses)
turns = st.sampled_from([None, TURN, Refused("no"), Waiting(Reason.NO_WORKER, "none")])
all_facts = st.builds(
    lambda build, state, turn, closing: some_facts(build, state, turn=turn, closing=closing),
    builds,
    states,
    turns,
    st.sampled_from(Closing),
)


@given(all_facts)
def test_some_rule_speaks_for_all_facts_and_always_the_same(facts: Facts) -> None:
    decision = decide(facts)
    assert decision == decide(replace(facts))
    summarize(facts, decision)


@given(all_facts)
def test_what_would_begin_is_neither_running_nor_over_nor_held_back(facts: Facts) -> None:
    if isinstance(decide(facts), Begin | Prepare):
        spec = facts.existing.spec
        assert not spec.cancel
        assert not spec.suspend
        assert facts.closing is Closing.OPEN
        assert not isinstance(facts.state, Running | Ended)
        assert facts.existing.status.phase not in FINAL or not facts.same_inputs


@given(all_facts)
def test_a_build_that_ended_well_is_told_as_such_or_asked_for_no_more(facts: Facts) -> None:
    if isinstance(facts.state, Ended) and facts.state.outcome == BUILT:
        told = isinstance(decide(facts), Finish)
        over = facts.existing.status.phase in FINAL and facts.same_inputs
        refused = isinstance(decide(facts), Stop)
        assert told or over
        assert not refused


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (20, 30)],
    ids=str,
)
def test_the_pause_doubles_up_to_half_a_minute(attempts: int, seconds: int) -> None:
    longest = timedelta(seconds=seconds)
    assert [rest_after(attempts, chance) for chance in (0, 0.25, 1)] == [
        timedelta(0),
        longest / 4,
        longest,
    ]


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
    "retried: when the pause is over": (
        some_facts(a_build(status={**RUNNING, "attempt": 2}), Ended(OUTAGE)),
        timedelta(seconds=2),
    ),
    "just ended, with a ttl: when its time is over": (
        some_facts(a_build({"ttlSecondsAfterFinished": 60}, RUNNING), Ended(BUILT)),
        timedelta(seconds=60),
    ),
    "just ended and kept: never": (some_facts(a_build(status=RUNNING), Ended(BUILT)), None),
    "cancelled, with a ttl: when its time is over": (
        some_facts(a_build({"cancel": True, "ttlSecondsAfterFinished": 60}), WORKING),
        timedelta(seconds=60),
    ),
    "waits for its second attempt: at the deadline": (
        some_facts(a_build(status=RUNNING), turn=Waiting(Reason.QUEUED, "full")),
        timedelta(hours=1),
    ),
    "waits for its first: never, for its clock does not run": (
        some_facts(a_build(), turn=Waiting(Reason.QUEUED, "full")),
        None,
    ),
    "begins: never, its end will wake us": (some_facts(a_build(), turn=TURN), None),
    "something lacks: when it is looked for again": (
        some_facts(a_build(NEEDY), LACKING),
        timedelta(seconds=5),
    ),
    "something lacks, and a change is told: at the deadline": (
        some_facts(a_build(NEEDY), replace(LACKING, until=None)),
        timedelta(minutes=59),
    ),
    "something lacks: at the deadline, where that is sooner": (
        some_facts(a_build({**NEEDY, "activeDeadlineSeconds": 61}), LACKING),
        timedelta(seconds=1),
    ),
    "looks for what it names: when it must say so": (
        some_facts(a_build(NEEDY)),
        timedelta(seconds=2),
    ),
    "resolving for long: at the deadline": (
        some_facts(a_build(GIT), Preparing(NOW - timedelta(seconds=100))),
        timedelta(seconds=3500),
    ),
    "resolving: when it must say so": (
        some_facts(a_build(GIT), Preparing(NOW)),
        timedelta(seconds=2),
    ),
}


@pytest.mark.parametrize(("facts", "after"), LOOKS.values(), ids=LOOKS)
def test_it_is_looked_at_again_in_time(facts: Facts, after: timedelta | None) -> None:
    due = look_again_at(facts, decide(facts))
    assert due == (None if after is None else NOW + after)
