"""Conditions as they are written: one word and one sentence for all that hold at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from imagewright.api.buildcacheprune import BuildCachePruneStatus
from imagewright.api.buildstatus import FINAL, ImageBuildStatus
from imagewright.api.condition import Condition, Truth, Type
from imagewright.api.reason import Reason
from imagewright.domain.redact import clip

CONDITION_BYTES = 320
"""Of a condition's message: four of these leave room for the rest of a status of 8 kB."""
SHORT_BYTES = 208
"""Of the other conditions' messages where there is a fault to tell of."""
StatusT = TypeVar("StatusT", ImageBuildStatus, BuildCachePruneStatus)


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


def with_fault(before: Sequence[Condition], message: str, told: Told) -> list[Condition]:
    """The conditions as they stand, in short, and one that says that the operator failed at it."""
    held = {Type.OPERATOR_ERROR: Truth.TRUE}
    kept = [
        one.model_copy(update={"message": clip(one.message, SHORT_BYTES)})
        for one in faultless(before)
    ]
    return [*kept, *conditions(held, Reason.OPERATOR_ERROR, message, told)]


def faultless(conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions without the one that says that the operator failed at the object."""
    return [one for one in conditions if one.type != Type.OPERATOR_ERROR]


def keeping_fault(status: StatusT, before: StatusT, generation: int) -> StatusT:
    """The status with the fault that was told before; without it where it tells of an end.

    Only a whole look shows that a fault is over: what is written on the way does not say so.
    """
    held = faultless(status.conditions)
    if status.phase not in FINAL or status.observed_generation != generation:
        held += [one for one in before.conditions if one.type == Type.OPERATOR_ERROR]
    return status if held == status.conditions else status.model_copy(update={"conditions": held})


def _since(old: Condition | None, truth: Truth, now: datetime) -> datetime:
    return old.last_transition_time if old is not None and old.status == truth else now
