"""Cases by name: a workload, a pattern after Sieve (OSDI '22), and the point where it strikes.

`success/crash/write-2` kills the operator once its second write was answered, before it hears of
it; `success/crash/write-2-before` before the write left. `call-3` is the third call to the daemon.
`success/stale/…` does the same, and shows the next operator the state before that write for a
while. `success/unobserved/event-2` loses the second event of the object's watch. `success/calm` is
the undisturbed run.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tests.faults.scene import Scene
from tests.faults.strike import Strike

Pattern = Literal["calm", "crash", "stale", "unobserved"]
PATTERNS: tuple[Pattern, ...] = ("crash", "stale", "unobserved")
NAME = re.compile(
    r"(?P<workload>[a-z]+)/((?P<calm>calm)|(?P<pattern>crash|stale)/(?P<at>write|call)-(?P<n>\d+)"
    r"(?P<before>-before)?|unobserved/event-(?P<event>\d+))"
)


class NoSuchCase(Exception):
    """The text is no name of a case."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run: which story, and what happens to it where."""

    workload: str
    pattern: Pattern = "calm"
    at: Literal["write", "call", "event", ""] = ""
    number: int = 0
    before: bool = False

    def __str__(self) -> str:
        if self.pattern == "calm":
            return f"{self.workload}/calm"
        side = "-before" if self.before else ""
        return f"{self.workload}/{self.pattern}/{self.at}-{self.number}{side}"

    @property
    def kills(self) -> bool:
        """Whether the operator dies of it."""
        return self.pattern in {"crash", "stale"}

    def arm(self, scene: Scene) -> None:
        """Make it happen when its time comes."""
        if self.pattern == "unobserved":
            scene.api.lose = self.number
        elif self.kills:
            strike = Strike(self.number, self.before, self._act(scene))
            if self.at == "write":
                scene.api.strike = strike
            else:
                scene.daemon.strike = strike

    def _act(self, scene: Scene) -> Callable[[], None]:
        def act() -> None:
            scene.kill()
            if self.pattern == "stale":
                scene.api.freeze(scene.version_before())

        return act


def case_of(name: str) -> Case:
    """The case of that name. Raises NoSuchCase."""
    found = NAME.fullmatch(name)
    if found is None:
        raise NoSuchCase(
            f"{name!r} names no case: write it like success/crash/write-2, "
            "success/stale/call-1-before, success/unobserved/event-3 or success/calm."
        )
    if found["calm"]:
        return Case(found["workload"])
    if found["event"]:
        return Case(found["workload"], "unobserved", "event", int(found["event"]))
    pattern: Pattern = "stale" if found["pattern"] == "stale" else "crash"
    at: Literal["write", "call"] = "call" if found["at"] == "call" else "write"
    return Case(found["workload"], pattern, at, int(found["n"]), bool(found["before"]))


def cases(workload: str, writes: int, calls: int, events: int) -> Iterator[Case]:
    """All cases of a workload whose undisturbed run has so many of each."""
    for pattern in ("crash", "stale"):
        for number in range(1, writes + 1):
            yield Case(workload, pattern, "write", number, before=True)
            yield Case(workload, pattern, "write", number)
        for number in range(1, calls + 1):
            yield Case(workload, pattern, "call", number, before=True)
            yield Case(workload, pattern, "call", number)
    for number in range(1, events + 1):
        yield Case(workload, "unobserved", "event", number)
