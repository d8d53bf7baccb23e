"""What a classic build prints, read as steps: the engine tells its progress in text only."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from imagewright.domain.progress import Advance, Output, Step

_STEP = re.compile(r"^Step (\d+/\d+) : (.*)")
CACHED = "---> Using cache"
DONE = re.compile(r"^ ---> [0-9a-f]{12}$|^Successfully built ")


@dataclass(slots=True)
class Transcript:
    """The steps of one build. `clock` gives seconds since 1970."""

    clock: Callable[[], float]
    step: Step | None = None
    _line: str = field(default="")

    def read(self, text: str) -> Advance:
        """What a piece of the stream says; a line may come in several pieces."""
        steps: list[Step] = []
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            steps += self._take(line)
        step = self.step.id if self.step else ""
        return Advance(tuple(steps), (Output(step, text.encode()),))

    def failed(self, message: str) -> Advance:
        """The step that was running is the one that failed."""
        if self.step is None:
            return Advance()
        self.step = Step(self.step.id, self.step.name, started=self.step.started, error=message)
        return Advance((self.step,))

    def _take(self, line: str) -> list[Step]:
        if found := _STEP.match(line):
            ended = self._end()
            number, command = found.groups()
            self.step = Step(number, f"[{number}] {command}", started=self.clock())
            return [*ended, self.step]
        if self.step is not None and line.strip() == CACHED:
            self.step = Step(self.step.id, self.step.name, cached=True, started=self.step.started)
            return [self.step]
        return self._end() if DONE.match(line) else []

    def _end(self) -> list[Step]:
        step = self.step
        if step is None or step.completed is not None:
            return []
        self.step = Step(step.id, step.name, step.cached, step.started, self.clock())
        return [self.step]
