"""What is told of a transition: one Event for each, in the words that people look for."""

from dataclasses import dataclass
from enum import StrEnum

from imagewright.api.buildcacheprune import BuildCachePruneStatus
from imagewright.api.buildstatus import ImageBuildStatus, Phase
from imagewright.api.reason import Reason
from imagewright.domain.redact import clip

NOTE_BYTES = 1024
"""Of an Event's note, at most (events.k8s.io/v1)."""


class Word(StrEnum):
    """An Event's reason; those of builds are OpenShift's."""

    BUILD_STARTED = "BuildStarted"
    BUILD_COMPLETED = "BuildCompleted"
    BUILD_FAILED = "BuildFailed"
    BUILD_CANCELLED = "BuildCancelled"
    BUILD_RETRYING = "BuildRetrying"
    CACHE_PRUNED = "CachePruned"
    PRUNE_FAILED = "PruneFailed"

    @property
    def action(self) -> str:
        """What the operator was doing; an Event names it beside the reason."""
        return "Prune" if self in (Word.CACHE_PRUNED, Word.PRUNE_FAILED) else "Build"


WARNINGS = frozenset({Word.BUILD_FAILED, Word.BUILD_RETRYING, Word.PRUNE_FAILED})
PHASES = {
    Phase.RUNNING: Word.BUILD_STARTED,
    Phase.SUCCEEDED: Word.BUILD_COMPLETED,
    Phase.FAILED: Word.BUILD_FAILED,
    Phase.CANCELLED: Word.BUILD_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Notice:
    """What happened, and a sentence about it."""

    word: Word
    note: str

    @property
    def warning(self) -> bool:
        """Whether somebody may have to do something."""
        return self.word in WARNINGS


def build_notice(old: ImageBuildStatus, new: ImageBuildStatus) -> Notice | None:
    """What the step from one status of a build to the next is told as; None for most steps."""
    if _stage(old) == _stage(new) or new.phase is None:
        return None
    told = new.conditions[0]
    again = Word.BUILD_RETRYING if told.reason in (Reason.RETRYING, Reason.INTERRUPTED) else None
    word = PHASES.get(new.phase, again)
    note = new.failure.message if new.failure is not None else told.message
    return None if word is None else Notice(word, clip(note, NOTE_BYTES))


def prune_notice(ended: BuildCachePruneStatus) -> Notice:
    """What a prune's end is told as."""
    word = Word.CACHE_PRUNED if ended.phase is Phase.SUCCEEDED else Word.PRUNE_FAILED
    return Notice(word, clip(ended.conditions[0].message, NOTE_BYTES))


def _stage(status: ImageBuildStatus) -> tuple[object, ...]:
    """What differs between two stages of a build's life, and stays the same within one."""
    reason = status.conditions[0].reason if status.conditions else ""
    return status.phase, reason, status.attempt, status.inputs_digest, status.completion_time
