"""What a person reads, and what was true of it."""

import time

from rich.console import Console
from rich.markup import escape


class Page:
    """Prints scenes and checks; `close()` is the exit status."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._right = self._wrong = 0

    def title(self, text: str) -> None:
        """A new scene."""
        self._console.print(f"\n[bold]{escape(text)}[/bold]")

    def say(self, text: str) -> None:
        """A line, or several."""
        for line in text.splitlines():
            self._console.print(f"    {escape(line)}")

    def check(self, what: str, truth: object) -> None:
        """A claim, marked with whether it is true."""
        if truth:
            self._right += 1
            self._console.print(f"  [green]✓[/green] {escape(what)}")
        else:
            self._wrong += 1
            self._console.print(f"  [red]✗ {escape(what)}[/red]")

    def same(self, one: str, found: object, other: str, expected: object) -> None:
        """Two answers side by side."""
        width = max(len(one), len(other))
        self.say(f"{one:{width}}  {found}")
        self.say(f"{other:{width}}  {expected}")
        self.check(f"{one} is what {other} says", found == expected)

    def close(self) -> int:
        """Say how it went; 0 only if all of it was true."""
        seconds = time.monotonic() - self._began
        self._console.print(
            f"\ndemo: right={self._right} wrong={self._wrong} seconds={seconds:.1f}"
        )
        return 1 if self._wrong or not self._right else 0
