"""How far a build is, from what the builder says of its steps; bounded whatever it is told."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from imagewright.domain.redact import clip, printable, redact, tail

TAIL_BYTES = 3072
"""Of a step's output in a status; JSON makes up to a third more of it."""
STEP_BYTES = 256
CREDENTIAL_BYTES = 512
MOST_TAILS = 64
"""Steps whose output is kept; a build with more of them forgets the oldest."""
EXPORT_SHARE = 10
"""Percent that are left for exporting and pushing."""
INTERNAL = "[internal]"
EXPORTING = ("exporting ", "pushing ", "[auth]")
# "[2/3] RUN x" or "[linux/amd64 build 2/3] RUN x": a step of the Dockerfile.
_NUMBERED = re.compile(r"^\[(?:[^\]]* )?\d+/\d+\] ")


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it now is; it comes again whenever something of it changes."""

    id: str
    name: str
    cached: bool = False
    started: float | None = None
    completed: float | None = None
    error: str = ""

    @property
    def running(self) -> bool:
        """It has begun, or begun again, and has not ended since."""
        return self.started is not None and (
            self.completed is None or self.completed < self.started
        )

    @property
    def done(self) -> bool:
        """It has ended well, or was found in the cache."""
        return self.cached or (self.completed is not None and not self.running)

    @property
    def counts(self) -> bool:
        """It is work of the Dockerfile, not the builder's own."""
        return not self.name.startswith((INTERNAL, *EXPORTING))

    @property
    def instruction(self) -> bool:
        """It is a numbered step of the Dockerfile, so it counts as cached or not."""
        return bool(_NUMBERED.match(self.name))


@dataclass(frozen=True, slots=True)
class Output:
    """Some bytes that a step printed."""

    step: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Advance:
    """What is new: steps and output, in the order they came."""

    steps: tuple[Step, ...] = ()
    outputs: tuple[Output, ...] = ()


@dataclass(slots=True)
class Progress:
    """One attempt's progress. `apply()` what comes; the rest reads. Percent never falls.

    `listener` is told what came, after it was taken in.
    """

    listener: Callable[[Advance], None] | None = None
    steps: dict[str, Step] = field(default_factory=dict)
    percent: int = 0
    current: str = ""
    _tails: dict[str, bytearray] = field(default_factory=dict)

    def apply(self, advance: Advance) -> None:
        """Take in what is new."""
        for step in advance.steps:
            self.steps[step.id] = step
            if step.running and not step.name.startswith(INTERNAL):
                self.current = shown(step.name)
        for output in advance.outputs:
            self._keep(output)
        if advance.steps:
            self.percent = max(self.percent, self._percent())
        if self.listener is not None:
            self.listener(advance)

    def cached_steps(self) -> tuple[int, int]:
        """How many of the Dockerfile's steps came from the cache, of how many."""
        steps = [step for step in self.steps.values() if step.instruction]
        return sum(step.cached for step in steps), len(steps)

    def name_of(self, step: str) -> str:
        """The step's name for people; empty where it was never announced."""
        found = self.steps.get(step)
        return shown(found.name) if found else ""

    def failed_step(self) -> str:
        """The id of the step that failed by itself, not of one that was stopped because of it."""
        failed = [step for step in self.steps.values() if step.error]
        own = [step for step in failed if "context canceled" not in step.error]
        return (own or failed or [Step("", "")])[0].id

    def running_step(self) -> str:
        """The id of the step that began last of those that run; empty where none does."""
        running = [
            step
            for step in self.steps.values()
            if step.running and not step.name.startswith(INTERNAL)
        ]
        return max(running, key=lambda step: step.started or 0.0).id if running else ""

    def log_tail(self, step: str = "", secrets: Iterable[str] = ()) -> str:
        """The last lines of `step`, or of the step that spoke last: 3 KiB of clean text."""
        raw = self._tails.get(step) or next(reversed(self._tails.values()), None)
        if not raw:
            return ""
        return tail(redact(printable(raw.decode(errors="replace")), secrets), TAIL_BYTES)

    def _keep(self, output: Output) -> None:
        # The step that spoke last is the last in the dictionary.
        kept = self._tails.pop(output.step, bytearray())
        kept += output.data[-2 * TAIL_BYTES - 1 :]
        self._tails[output.step] = kept if len(kept) <= 2 * TAIL_BYTES else cut(kept)
        if len(self._tails) > MOST_TAILS:
            del self._tails[next(iter(self._tails))]

    def _percent(self) -> int:
        counted = [step for step in self.steps.values() if step.counts]
        if not counted:
            return 0
        done = sum(step.done for step in counted)
        exporting = any(step.name.startswith(EXPORTING) for step in self.steps.values())
        built = (100 - EXPORT_SHARE) * done // len(counted)
        return max(built, 100 - EXPORT_SHARE) if exporting else built


def shown(name: str) -> str:
    """A step's name, fit for a status."""
    return clip(redact(printable(name)), STEP_BYTES)


def cut(output: bytearray) -> bytearray:
    """The end of some output, without what may be the second half of a credential.

    Credentials are masked by how they begin, so the line that was cut through is dropped; where
    there is no other line, as many bytes as a credential may have.
    """
    end = output[-2 * TAIL_BYTES :]
    whole = end.partition(b"\n")[2]
    return whole or end[CREDENTIAL_BYTES:]
