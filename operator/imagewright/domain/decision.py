"""What can be decided about a build: values, which the shell carries out and the status tells."""

from dataclasses import dataclass
from datetime import datetime

from imagewright.api.buildstatus import Phase
from imagewright.api.reason import Reason
from imagewright.domain.facts import Running
from imagewright.domain.outcome import Broken, Built


@dataclass(frozen=True, slots=True)
class Forget:
    """The object is gone: stop what runs for it and remember nothing."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Its time after the end is over: delete the object."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing to do; only `observedGeneration` may have to follow."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End what runs and write this end, or, for SUSPENDED and PENDING, this pause."""

    phase: Phase
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Stop what runs for other inputs, and look again."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Look for the Secrets and ConfigMaps that it names."""


@dataclass(frozen=True, slots=True)
class Enter:
    """Ask the scheduler for a turn, and look again."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Find out on the granted worker what the source stands for."""

    worker: str


@dataclass(frozen=True, slots=True)
class Begin:
    """Claim the build with a write, and only then run it on `worker`."""

    worker: str
    revision: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait where it is; `reason` and `message` say for what, `position` where in the queue.

    That is 0 where it has no place there, and None where it waits for something else.
    """

    reason: Reason
    message: str
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """It runs: let it."""

    running: Running


@dataclass(frozen=True, slots=True)
class Finish:
    """The attempt is over, and the run with it."""

    outcome: Built | Broken


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt met an outage: rest until then, and try again."""

    broken: Broken
    until: datetime


Decision = (
    Forget
    | Expire
    | Leave
    | Stop
    | Discard
    | Gather
    | Enter
    | Prepare
    | Begin
    | Wait
    | Keep
    | Finish
    | Retry
)
