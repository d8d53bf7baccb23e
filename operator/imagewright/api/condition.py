"""Conditions: what tools wait on (`kubectl wait`, kstatus, Argo CD)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from imagewright.api.rule import Model


class Truth(StrEnum):
    """The status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Type(StrEnum):
    """The types we own, in the order they are written."""

    SUCCEEDED = "Succeeded"
    COMPLETE = "Complete"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    OPERATOR_ERROR = "OperatorError"


class Condition(Model):
    """One of metav1.Condition; lastTransitionTime moves only when the status flips."""

    type: Annotated[str, Field(max_length=64)] = Field(
        description="Succeeded, Complete, Ready, Reconciling, Stalled or OperatorError."
    )
    status: Truth = Field(description="True, False or Unknown.")
    reason: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="One of the documented reasons."
    )
    message: Annotated[str, Field(max_length=4096)] = Field(description="A sentence for people.")
    observed_generation: int = Field(
        description="The metadata.generation that this condition speaks of."
    )
    last_transition_time: datetime = Field(description="When the status last flipped.")
