"""A build's progress for people: live on a terminal, plain lines elsewhere; always on stderr."""

import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from imagewright.domain.progress import INTERNAL, Advance, Output, Progress, Step
from imagewright.domain.redact import printable, redact

LINES = 8
"""Of output that a terminal shows below the steps."""


class Display(Protocol):
    """Shows what a build says of itself."""

    progress: Progress

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

    def show(self, advance: Advance) -> None:
        """Show what is new."""
        ...


def make_display(stream: TextIO) -> "Display":
    """A live display on a terminal, a plain one elsewhere."""
    return LiveDisplay(stream) if stream.isatty() else PlainDisplay(stream)


class PlainDisplay:
    """A line for each step that begins or ends, and each line that it prints."""

    def __init__(self, stream: TextIO) -> None:
        self.progress = Progress(listener=self.show)
        self._stream = stream
        self._numbers: dict[str, int] = {}
        self._told: set[tuple[str, str]] = set()
        self._partial: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for step, rest in self._partial.items():
            if rest:
                self._line(step, rest)

    def show(self, advance: Advance) -> None:
        """Print what is new, as lines."""
        for output in advance.outputs:
            self._output(output)
        for step in advance.steps:
            self._step(step)

    def _step(self, step: Step) -> None:
        if step.started is None and not step.cached:
            return
        self._once(step, "name", redact(step.name))
        if step.cached:
            self._once(step, "end", "CACHED")
        elif step.error:
            self._once(step, "end", f"ERROR {redact(printable(step.error))}")
        elif step.done and not step.name.startswith(INTERNAL):
            self._once(step, "end", f"DONE {seconds_of(step):.1f}s")

    def _once(self, step: Step, what: str, text: str) -> None:
        if (step.id, what) not in self._told:
            self._told.add((step.id, what))
            self._line(step.id, text)

    def _output(self, output: Output) -> None:
        text = self._partial.pop(output.step, "") + output.data.decode(errors="replace")
        *lines, rest = printable(text).split("\n")
        for line in lines:
            self._line(output.step, redact(line))
        self._partial[output.step] = rest[-4096:]

    def _line(self, step: str, text: str) -> None:
        number = self._numbers.setdefault(step, len(self._numbers) + 1)
        self._stream.write(f"#{number} {text}\n")
        self._stream.flush()


class LiveDisplay:
    """All steps with their state, redrawn as they change, and the last lines of output."""

    def __init__(self, stream: TextIO) -> None:
        self.progress = Progress(listener=self.show)
        self._live = Live(console=Console(file=stream), refresh_per_second=10)
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.update(self._drawn(), refresh=True)
        self._live.stop()

    def show(self, advance: Advance) -> None:
        """Take in what is new; the screen follows ten times a second."""
        for output in advance.outputs:
            text = redact(printable(output.data.decode(errors="replace")))
            self._lines = [*self._lines, *text.rstrip("\n").split("\n")][-LINES:]
        self._live.update(self._drawn())

    def _drawn(self) -> Group:
        steps = [
            step for step in self.progress.steps.values() if not step.name.startswith(INTERNAL)
        ]
        rows = [step_row(step, time.time()) for step in steps if step.started or step.cached]
        tail = [Text(f"    {line}", style="dim", no_wrap=True) for line in self._lines]
        return Group(*rows, *tail, Text(f"{self.progress.percent} %", style="bold"))


def step_row(step: Step, now: float) -> Text:
    """One step as a row: its mark, its name, its seconds."""
    name = redact(step.name)
    if step.error:
        return Text(f"✗ {name}", style="red")
    if step.cached:
        return Text(f"✓ {name}  cached", style="cyan")
    if step.done:
        return Text(f"✓ {name}  {seconds_of(step):.1f} s", style="green")
    return Text(f"… {name}  {max(0.0, now - (step.started or now)):.1f} s")


def seconds_of(step: Step) -> float:
    """How long an ended step took."""
    if step.started is None or step.completed is None:
        return 0.0
    return max(0.0, step.completed - step.started)
