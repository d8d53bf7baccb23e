"""Conditions as they are written: one word and one sentence for all that hold at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from imagewright.api.condition import Condition, Truth, Type
from imagewright.api.reason import Reason
from imagewright.domain.redact import clip

CONDITION_BYTES = 320
"""Of a condition's message: four of these leave room for the rest of a status of 8 kB."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was told of an object before, and of which of its generations is told now."""

    before: Sequence[Condition]
    generation: int
    now: datetime


def conditions(
    held: Mapping[Type, Truth], reason: Reason, message: str, told: Told
) -> list[Condition]:
    """The conditions in `held`, in their order; a transition's time moves only with its truth."""
    old = {condition.type: condition for condition in told.before}
    return [
        Condition(
            type=kind,
            status=truth,
            reason=reason,
            message=clip(message, CONDITION_BYTES),
            observed_generation=told.generation,
            last_transition_time=_since(old.get(kind), truth, told.now),
        )
        for kind, truth in held.items()
    ]


def _since(old: Condition | None, truth: Truth, now: datetime) -> datetime:
    return old.last_transition_time if old is not None and old.status == truth else now
