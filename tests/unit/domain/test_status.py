"""What a status says for each decision, as tools read it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from imagewright.api.buildstatus import ImageBuildStatus, Phase
from imagewright.api.reason import Reason
from imagewright.domain.conditions import Told, with_fault
from imagewright.domain.decision import (
    Begin,
    Decision,
    Enter,
    Finish,
    Keep,
    Leave,
    Retry,
    Stop,
    Wait,
)
from imagewright.domain.facts import Ended, JobState, Running
from imagewright.domain.outcome import Broken, Built, Pushed
from imagewright.domain.redact import json_bytes
from imagewright.domain.status import summarize
from tests.support.makers import GIT, LATER, NOW, a_build, some_facts

DIGEST = "sha256:" + "d" * 64
BUILT = Built(DIGEST, DIGEST, (Pushed("r.example/a", "1", DIGEST, f"r.example/a@{DIGEST}"),), 1, 2)
BROKEN = Broken(Reason.BUILD_FAILED, "exit code: 7.", "RUN x", 3, 7, log_tail="oh no\n")
RUNNING = {"phase": "Running", "attempt": 1, "startTime": NOW.isoformat()}
DECISIONS: dict[str, Decision] = {
    "waits": Wait(Reason.QUEUED, "Waits."),
    "runs": Begin("w", ""),
    "rests": Retry(Broken(Reason.BUILDER_UNAVAILABLE, "Lost.", retryable=True), LATER),
    "succeeded": Finish(BUILT),
    "failed": Finish(BROKEN),
    "failed, may pass later": Finish(Broken(Reason.REGISTRY_UNAVAILABLE, "Out.", retryable=True)),
    "cancelled": Stop(Phase.CANCELLED, Reason.CANCELLED, "Cancelled."),
    "suspended": Stop(Phase.SUSPENDED, Reason.SUSPENDED, "Suspended."),
    "interrupted": Stop(Phase.PENDING, Reason.INTERRUPTED, "Down."),
}
CONDITIONS = {
    "waits": ("Unknown", "Unknown", "Unknown", "True", None),
    "runs": ("Unknown", "Unknown", "Unknown", "True", None),
    "rests": ("Unknown", "Unknown", "Unknown", "True", None),
    "succeeded": ("True", "True", "True", None, None),
    "failed": ("False", "True", "False", None, "True"),
    "failed, may pass later": ("False", "True", "False", None, None),
    "cancelled": ("False", "True", "False", None, None),
    "suspended": ("Unknown", "Unknown", "Unknown", None, None),
    "interrupted": ("Unknown", "Unknown", "Unknown", "True", None),
}
KSTATUS = {
    "waits": "InProgress",
    "runs": "InProgress",
    "rests": "InProgress",
    "succeeded": "Current",
    "failed": "Failed",
    "failed, may pass later": "InProgress",
    "cancelled": "InProgress",
    "suspended": "InProgress",
    "interrupted": "InProgress",
}


def status_of(name: str) -> ImageBuildStatus:
    """The status that this decision leads to, from a running build."""
    return summarize(some_facts(a_build(status=RUNNING)), DECISIONS[name])


def truths(status: ImageBuildStatus) -> dict[str, str]:
    """Condition types and what they say."""
    return {condition.type: condition.status.value for condition in status.conditions}


def kstatus(status: ImageBuildStatus, generation: int) -> str:
    """The verdict of kstatus, by its published rules for a kind it does not know."""
    said = truths(status)
    if status.observed_generation != generation:
        return "InProgress"
    if said.get("Stalled") == "True":
        return "Failed"
    if said.get("Reconciling") == "True" or said.get("Ready") in ("False", "Unknown"):
        return "InProgress"
    return "Current"


@pytest.mark.parametrize("name", DECISIONS)
def test_the_conditions_say_it_to_every_tool(name: str) -> None:
    said = truths(status_of(name))
    kinds = ("Succeeded", "Complete", "Ready", "Reconciling", "Stalled")
    assert tuple(said.get(kind) for kind in kinds) == CONDITIONS[name]
    assert kstatus(status_of(name), generation=1) == KSTATUS[name]


@pytest.mark.parametrize("name", DECISIONS)
def test_a_status_speaks_of_one_generation_and_one_input(name: str) -> None:
    status = status_of(name)
    assert status.observed_generation == 1
    assert all(condition.observed_generation == 1 for condition in status.conditions)
    assert status.inputs_digest == some_facts(a_build()).inputs


def test_a_failure_is_told_whole() -> None:
    status = status_of("failed").dump()
    assert status["phase"] == "Failed"
    assert status["failure"] == {
        "reason": "BuildFailed",
        "message": "exit code: 7.",
        "step": "RUN x",
        "line": 3,
        "exitCode": 7,
        "retryable": False,
    }
    assert status["logTail"] == "oh no\n"
    assert "claim" not in status


def test_a_success_names_what_was_pushed() -> None:
    status = status_of("succeeded").dump()
    assert status["images"][0]["reference"] == f"r.example/a@{DIGEST}"
    assert status["imageDigest"] == DIGEST
    assert status["cache"] == {"cachedSteps": 1, "totalSteps": 2}
    assert status["startTime"] == "2026-01-02T03:04:05Z"


def test_a_name_that_was_taken_by_another_push_is_warned_of() -> None:
    taken = replace(BUILT, pushed=(replace(BUILT.pushed[0], overtaken=True),))
    status = summarize(some_facts(a_build()), Finish(taken)).dump()
    assert status["phase"] == "Succeeded"
    assert status["images"][0]["state"] == "TagOverwritten"
    assert status["images"][0]["digest"] == DIGEST
    message = status["conditions"][0]["message"]
    assert "Another push has taken r.example/a:1 since: use the digest." in message


def test_the_time_of_a_condition_moves_only_when_it_flips() -> None:
    running = a_build(status=summarize(some_facts(a_build()), Begin("w", "")).dump())
    later = some_facts(running, now=LATER)
    waiting = {c.type: c for c in summarize(later, Wait(Reason.NO_WORKER, "x")).conditions}
    assert waiting["Succeeded"].last_transition_time == NOW
    ended = {c.type: c for c in summarize(later, Finish(BUILT)).conditions}
    assert ended["Succeeded"].last_transition_time == LATER


def test_the_last_success_outlives_a_failure() -> None:
    good = a_build(status=status_of("succeeded").dump())
    failed = summarize(some_facts(good), Finish(BROKEN))
    assert failed.last_success is not None
    assert failed.last_success.image_digest == DIGEST


def test_a_retry_is_the_next_attempt_from_the_same_start() -> None:
    begun = summarize(some_facts(a_build(status=RUNNING), now=LATER), Begin("w", ""))
    assert (begun.attempt, begun.start_time) == (2, NOW)
    anew = summarize(
        some_facts(a_build(status={**RUNNING, "inputsDigest": "other"}), now=LATER), Begin("w", "")
    )
    assert (anew.attempt, anew.start_time) == (1, LATER)


def test_a_suspended_clock_stands_still() -> None:
    assert status_of("suspended").start_time is None
    assert status_of("interrupted").start_time == NOW


def test_progress_is_told_every_ten_seconds_at_most() -> None:
    facts = some_facts(a_build(status=RUNNING), now=LATER)
    told = summarize(facts, Keep(Running(40, "RUN x", NOW)))
    assert told.progress is not None
    assert told.progress.percent == 40
    soon = summarize(facts, Keep(Running(40, "RUN x", LATER)))
    assert soon == facts.existing.status


def test_an_edit_that_changes_no_input_is_followed_in_the_generation_only() -> None:
    done = status_of("succeeded").dump()
    edited = a_build(status=done, generation=2)
    status = summarize(some_facts(edited), Leave())
    assert status.observed_generation == 2
    assert {condition.observed_generation for condition in status.conditions} == {2}
    assert status.completion_time == NOW


@pytest.mark.row("F71")
def test_a_status_stays_small_whatever_it_is_told() -> None:
    huge = "é" * 100_000
    broken = Broken(Reason.BUILD_FAILED, huge, "s" * 256, 1, 1, log_tail="x\n" * 1536)
    status = summarize(some_facts(a_build(status=RUNNING)), Finish(broken)).dump()
    assert len(json.dumps(status, ensure_ascii=False).encode()) <= 8192


CONTENT = ("failure", "logTail", "imageDigest", "images", "cache", "completionTime", "progress")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("runs", set()),
        ("waits", set()),
        ("suspended", set()),
        ("succeeded", {"imageDigest", "images", "cache", "completionTime"}),
        ("failed", {"failure", "logTail", "completionTime"}),
        ("cancelled", {"completionTime"}),
    ],
)
def test_nothing_of_an_earlier_run_shines_through(name: str, kept: set[str]) -> None:
    old = {
        **status_of("succeeded").dump(),
        **status_of("failed").dump(),
        "progress": {"percent": 4, "step": "RUN x"},
    }
    assert set(CONTENT) <= set(old)
    status = summarize(some_facts(a_build(status=old)), DECISIONS[name]).dump()
    assert {field for field in CONTENT if field in status} == kept


@pytest.mark.parametrize("name", DECISIONS)
def test_only_a_running_build_is_claimed(name: str) -> None:
    claimed = {**RUNNING, "claim": {"holder": "old", "worker": "w", "ref": "r"}}
    status = summarize(some_facts(a_build(status=claimed)), DECISIONS[name])
    holder = status.claim.holder if status.claim else None
    assert holder == ("me" if name == "runs" else None)


def test_a_run_has_an_id_of_the_object_its_generation_and_attempt() -> None:
    facts = some_facts(a_build(status={**RUNNING, "attempt": 2}, generation=7))
    claim = summarize(facts, Begin("w", "")).claim
    assert claim is not None
    assert (claim.ref, claim.worker) == ("uid-1-7-3", "w")


@pytest.mark.parametrize("name", ["waits", "interrupted", "failed", "cancelled"])
def test_the_commit_of_this_run_is_kept_and_one_of_other_inputs_is_not(name: str) -> None:
    resolved = {**RUNNING, "source": {"revision": "c" * 40}}
    same = summarize(some_facts(a_build(status=resolved)), DECISIONS[name])
    assert same.source is not None
    assert (same.source.revision, same.attempt) == ("c" * 40, 1)
    edited = a_build(status={**resolved, "inputsDigest": "sha256:old"})
    other = summarize(some_facts(edited), DECISIONS[name])
    assert (other.source, other.attempt, other.start_time) == (None, None, None)


def test_an_edit_of_the_inputs_is_not_observed_before_something_is_done_about_it() -> None:
    done = {**status_of("succeeded").dump(), "inputsDigest": "sha256:old"}
    facts = some_facts(a_build(status=done, generation=2))
    assert summarize(facts, Leave()) == facts.existing.status


@pytest.mark.row("S14")
@pytest.mark.parametrize("name", ["waits", "rests", "failed", "stopped"])
def test_no_credential_reaches_a_status(name: str) -> None:
    text = "fatal: https://me:hunter2@git.example/app?token=hunter2 Bearer hunter2hunter2."
    told: dict[str, Decision] = {
        "waits": Wait(Reason.NO_WORKER, text),
        "rests": Retry(Broken(Reason.SOURCE_UNAVAILABLE, text, retryable=True), LATER),
        "failed": Finish(Broken(Reason.SOURCE_UNAVAILABLE, text)),
        "stopped": Stop(Phase.CANCELLED, Reason.CANCELLED, text),
    }
    status = summarize(some_facts(a_build(status=RUNNING)), told[name]).dump()
    assert "git.example" in json.dumps(status)
    assert "hunter2" not in json.dumps(status)


@pytest.mark.parametrize("reason", Reason)
def test_a_failure_stalls_where_only_the_user_can_mend_it(reason: Reason) -> None:
    said = truths(summarize(some_facts(a_build()), Finish(Broken(reason, "No."))))
    ends = {
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
    assert ("Stalled" in said) is (reason in ends)


def test_a_build_without_names_says_that_nothing_was_pushed() -> None:
    status = summarize(some_facts(a_build(status=RUNNING)), Finish(Built())).dump()
    assert "Nothing was pushed" in status["conditions"][0]["message"]
    assert not {"imageDigest", "imageID", "images"} & set(status)
    assert status["lastSuccess"]["generation"] == 1


PLACES = {
    "in the queue": (Wait(Reason.QUEUED, "Waits.", 3), {"position": 3, "reason": "Queued"}),
    "for a pool that there is not": (
        Wait(Reason.POOL_UNKNOWN, "No such pool.", 0),
        {"reason": "PoolUnknown"},
    ),
    "for a Secret": (Wait(Reason.SECRET_NOT_FOUND, "Not there."), None),
    "no more": (Begin("w", ""), None),
}


@pytest.mark.parametrize(("decision", "place"), PLACES.values(), ids=PLACES)
def test_it_says_where_it_waits(decision: Decision, place: object) -> None:
    waiting = {"phase": "Pending", "queue": {"position": 7, "reason": "Queued"}}
    status = summarize(some_facts(a_build(status=waiting)), decision)
    assert status.dump().get("queue") == place


OUTAGE = Broken(
    Reason.STALLED, "https://u:pw@w.example fell silent.", "RUN x", retryable=True, log_tail="oh\n"
)
KEPT = {"number": 1, "reason": "BuilderUnavailable", "message": "Lost."}
TOLD = {
    "number": 1,
    "reason": "Stalled",
    "message": "https://***@w.example fell silent.",
    "step": "RUN x",
    "logTail": "oh\n",
}
LATE = Stop(Phase.FAILED, Reason.DEADLINE_EXCEEDED, "No time is left.")
LAST: dict[str, tuple[dict[str, Any], JobState | None, Decision, dict[str, Any] | None]] = {
    "an outage ends an attempt": (RUNNING, Ended(OUTAGE), Retry(OUTAGE, LATER), TOLD),
    "an outage ends the last one that there is time for": (RUNNING, Ended(OUTAGE), LATE, TOLD),
    "the next attempt waits": ({"lastAttempt": KEPT}, None, DECISIONS["waits"], KEPT),
    "the next attempt begins": ({"lastAttempt": KEPT}, None, DECISIONS["runs"], KEPT),
    "the next attempt runs": (
        {**RUNNING, "lastAttempt": KEPT},
        Running(1, "RUN x", NOW),
        Keep(Running(1, "RUN x", NOW)),
        KEPT,
    ),
    "the next attempt is interrupted": (
        {"lastAttempt": KEPT},
        None,
        DECISIONS["interrupted"],
        KEPT,
    ),
    "it is cancelled": ({"lastAttempt": KEPT}, None, DECISIONS["cancelled"], KEPT),
    "its time is over": ({"lastAttempt": KEPT}, None, LATE, KEPT),
    "it ends well": ({"lastAttempt": KEPT}, None, DECISIONS["succeeded"], None),
    "it fails, and the failure tells of the last attempt": (
        {"lastAttempt": KEPT},
        None,
        DECISIONS["failed"],
        None,
    ),
    "other inputs are built": (
        {"lastAttempt": KEPT, "inputsDigest": "sha256:old"},
        None,
        DECISIONS["runs"],
        None,
    ),
}


@pytest.mark.row("F10")
@pytest.mark.parametrize(("old", "state", "decision", "last"), LAST.values(), ids=LAST)
def test_what_an_outage_ended_is_told_until_the_run_has_ended(
    old: dict[str, Any], state: JobState | None, decision: Decision, last: dict[str, Any] | None
) -> None:
    status = summarize(some_facts(a_build(status=old), state), decision).dump()
    assert status.get("lastAttempt") == last


def test_when_the_next_attempt_begins_is_told_first_so_that_no_long_message_hides_it() -> None:
    outage = Broken(Reason.BUILDER_UNAVAILABLE, "x" * 9999, retryable=True)
    facts = some_facts(a_build(status=RUNNING), Ended(outage))
    message = summarize(facts, Retry(outage, LATER)).conditions[0].message
    assert message.startswith("The next attempt begins at 2026-01-02T05:04:05Z. Attempt 1: xxx")


def test_an_attempt_that_broke_before_its_claim_counts_and_starts_the_clock() -> None:
    facts = some_facts(a_build(GIT), Ended(OUTAGE))
    status = summarize(facts, Retry(OUTAGE, LATER))
    assert (status.attempt, status.start_time) == (1, NOW)


def test_a_status_of_an_attempt_before_stays_small_whatever_that_said() -> None:
    outage = Broken(Reason.STALLED, "é" * 9999, "s" * 256, retryable=True, log_tail="x\n" * 1536)
    facts = some_facts(a_build(status=RUNNING), Ended(outage))
    stop = Stop(Phase.FAILED, Reason.DEADLINE_EXCEEDED, "é" * 9999)
    for decision in (Retry(outage, LATER), stop):
        status = summarize(facts, decision)
        told = status.last_attempt
        assert told is not None
        assert told.log_tail is not None
        assert json_bytes(told.log_tail) <= 1024
        assert len(json.dumps(status.dump(), ensure_ascii=False).encode()) <= 8192


FAULTLESS = {"succeeded", "failed", "failed, may pass later", "cancelled"}


@pytest.mark.row("F73")
@pytest.mark.parametrize("name", [*DECISIONS, "left", "entered"])
def test_a_fault_of_the_operator_is_told_until_an_end_or_a_whole_look(name: str) -> None:
    decision = {"left": Leave(), "entered": Enter(), **DECISIONS}[name]
    held = with_fault(status_of("runs").conditions, "No.", Told((), 1, NOW))
    faulty = {**RUNNING, "conditions": [one.model_dump(by_alias=True) for one in held]}
    said = truths(summarize(some_facts(a_build(status=faulty)), decision))
    assert said.get("OperatorError") == (None if name in FAULTLESS else "True")


@pytest.mark.row("F73")
def test_a_fault_of_the_operator_leaves_a_status_small() -> None:
    broken = Broken(Reason.BUILD_FAILED, "é" * 9999, "s" * 256, 1, 1, log_tail="x\n" * 1536)
    status = summarize(some_facts(a_build(status=RUNNING)), Finish(broken))
    held = with_fault(status.conditions, "é" * 9999, Told(status.conditions, 1, NOW))
    whole = status.model_copy(update={"conditions": held}).dump()
    assert len(json.dumps(whole, ensure_ascii=False).encode()) <= 8192
