"""What people are told of, once for each step."""

from typing import Any

import pytest

from imagewright.api.buildcacheprune import BuildCachePruneStatus
from imagewright.api.buildstatus import ImageBuildStatus
from imagewright.domain.notice import Notice, build_notice, prune_notice


def a_status(phase: str, reason: str, **more: Any) -> ImageBuildStatus:
    """A status with one condition."""
    told = {
        "type": "Succeeded",
        "status": "Unknown",
        "reason": reason,
        "message": f"It is {reason}.",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    return ImageBuildStatus.model_validate({"phase": phase, "conditions": [told], **more})


FRESH = ImageBuildStatus()
QUEUED = a_status("Pending", "Queued")
FIRST = a_status("Running", "Building", attempt=1)
AGAIN = a_status("Pending", "Retrying", attempt=1)
SECOND = a_status("Running", "Building", attempt=2)
ENDED = {"completionTime": "2026-01-02T03:05:00Z"}
GOOD = a_status("Succeeded", "Succeeded", attempt=1, **ENDED)
FAILURE = {"reason": "BuildFailed", "message": "make: *** [all] Error 2", "retryable": False}
BAD = a_status("Failed", "BuildFailed", attempt=1, failure=FAILURE, **ENDED)
STEPS = {
    "an object that is met for the first time and waits": (FRESH, QUEUED, ""),
    "a build that begins at once": (FRESH, FIRST, "BuildStarted"),
    "a build that has waited begins": (QUEUED, FIRST, "BuildStarted"),
    "a running build that is further": (
        FIRST,
        FIRST.model_copy(update={"observed_generation": 2}),
        "",
    ),
    "a worker was lost": (FIRST, AGAIN, "BuildRetrying"),
    "the operator goes down": (FIRST, a_status("Pending", "Interrupted"), "BuildRetrying"),
    "the next attempt begins": (AGAIN, SECOND, "BuildStarted"),
    "an attempt is taken over from an operator that died": (FIRST, SECOND, "BuildStarted"),
    "a build ends well": (FIRST, GOOD, "BuildCompleted"),
    "a build fails": (FIRST, BAD, "BuildFailed"),
    "somebody cancels it": (FIRST, a_status("Cancelled", "Cancelled"), "BuildCancelled"),
    "it is suspended": (FIRST, a_status("Suspended", "Suspended"), ""),
    "an edit that fails as it did before": (
        BAD,
        BAD.model_copy(update={"inputs_digest": "sha256:other"}),
        "BuildFailed",
    ),
    "a finished build whose ttl was edited": (GOOD, GOOD, ""),
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_is_told_once(name: str) -> None:
    old, new, word = STEPS[name]
    notice = build_notice(old, new)
    assert (notice.word if notice else "") == word


def test_a_failure_is_told_in_its_own_words_and_is_a_warning() -> None:
    notice = build_notice(FIRST, BAD)
    assert notice is not None
    assert notice.note == FAILURE["message"]
    assert notice.warning


def test_no_note_is_longer_than_an_event_takes() -> None:
    failure = {**FAILURE, "message": "ü" * 5000}
    notice = build_notice(FIRST, a_status("Failed", "BuildFailed", failure=failure))
    assert notice is not None
    assert len(notice.note.encode()) <= 1024


@pytest.mark.parametrize(
    ("phase", "word"), [("Succeeded", "CachePruned"), ("Failed", "PruneFailed")]
)
def test_a_prune_is_told_of_at_its_end(phase: str, word: str) -> None:
    told = a_status(phase, "Succeeded").conditions
    notice: Notice = prune_notice(BuildCachePruneStatus(phase=phase, conditions=told))
    assert notice.word == word
    assert notice.warning is (phase == "Failed")
