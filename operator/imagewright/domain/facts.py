"""All that a decision may look at, gathered once before it is made."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import cached_property

from imagewright.api.buildstatus import Phase
from imagewright.api.imagebuild import ImageBuild
from imagewright.api.reason import Reason
from imagewright.domain.outcome import Outcome
from imagewright.domain.plan import Plan
from imagewright.domain.planning import inputs_digest, make_plan


@dataclass(frozen=True, slots=True)
class Entered:
    """It stands in the queue, and there is nothing to say of that yet."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """It stands in the queue: `reason` says for what, `position` where; 0: in no place."""

    reason: Reason
    message: str
    position: int = 0


@dataclass(frozen=True, slots=True)
class Granted:
    """A slot on `worker` is its own until it is given back."""

    worker: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nobody here will ever build it; `message` says why."""

    message: str
    reason: Reason = Reason.FEATURE_UNSUPPORTED


Turn = Entered | Waiting | Granted | Refused
"""Whose turn it is, as the scheduler sees it; None where it was never asked."""


@dataclass(frozen=True, slots=True)
class Preparing:
    """The job finds out what its source stands for."""

    since: datetime


@dataclass(frozen=True, slots=True)
class Prepared:
    """The job knows: `revision` is what will be built, on `worker`."""

    revision: str
    worker: str


@dataclass(frozen=True, slots=True)
class Running:
    """The job builds."""

    percent: int
    step: str
    reported_at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is over, and nobody has been told yet."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Resting:
    """The last attempt met an outage; the next one begins at `until`."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Gathering:
    """The job looks for what the build names in the cluster."""

    since: datetime


@dataclass(frozen=True, slots=True)
class Gathered:
    """All of it is there."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """Something is not, since then; it is looked for again at `until`.

    None: not before the cluster has changed, which is then told.
    """

    reason: Reason
    message: str
    since: datetime
    until: datetime | None


JobState = Gathering | Gathered | Lacking | Preparing | Prepared | Running | Ended | Resting


@dataclass(frozen=True, slots=True)
class Job:
    """What this process does for a build: `inputs` is the digest of what it was started for."""

    inputs: str
    state: JobState


class Closing(Enum):
    """How far this operator is with going down."""

    OPEN = "open"
    DRAINING = "draining"
    """It begins nothing more; what runs may end."""
    CLOSED = "closed"
    """What still runs is stopped."""


@dataclass(frozen=True)
class Facts:
    """Everything seen before deciding. `build` is None where the object is gone."""

    build: ImageBuild | None
    now: datetime
    holder: str
    job: Job | None = None
    turn: Turn | None = None
    uid: str = ""
    closing: Closing = Closing.OPEN
    chance: float = 1.0
    """Drawn anew for each look, uniform in 0 to 1: so much of a pause is kept."""

    @cached_property
    def inputs(self) -> str:
        """The digest of what the spec asks for now."""
        return inputs_digest(self.existing.spec)

    @cached_property
    def plan(self) -> Plan:
        """What the spec asks for now."""
        return make_plan(self.existing.spec)

    @property
    def existing(self) -> ImageBuild:
        """The build, for rules that come after the one that looks for a missing one."""
        if self.build is None:
            raise LookupError("The rule about builds that are gone comes first.")
        return self.build

    @property
    def same_inputs(self) -> bool:
        """The status speaks of what the spec asks for now."""
        return self.existing.status.inputs_digest == self.inputs

    @property
    def state(self) -> JobState | None:
        """What the job does."""
        return self.job.state if self.job else None

    @property
    def attempt(self) -> int:
        """The number of the next attempt, from 1."""
        return (self.existing.status.attempt or 0) + 1 if self.same_inputs else 1

    @property
    def tried(self) -> int:
        """Attempts that have ended once the job has, one that broke before its claim included."""
        claimed = self.same_inputs and self.existing.status.phase is Phase.RUNNING
        return self.attempt - 1 if claimed else self.attempt

    @property
    def started(self) -> datetime | None:
        """When the first attempt of this run began."""
        return self.existing.status.start_time if self.same_inputs else None
