"""Who waits for the API server: soon again while they are few, all at once when it is back."""

import asyncio
import random
from collections.abc import Callable

import structlog

from imagewright.ports import Unavailable

log = structlog.get_logger("outage")
FIRST_PAUSE = 0.1
"""Seconds after a key's first failure in a row."""
SHORTEST_LIMIT, LONGEST_LIMIT = 1.0, 5.0
"""Seconds that a pause may grow to: of a few keys, and of very many."""
A_SECOND = 50
"""Keys that may try again in a second, more or less, while nobody answers."""
TELL_SECONDS = 60.0


class Outage:
    """The keys whose last request was not done, for reasons that pass; `again` takes one up.

    Each tries again by itself. The first that gets through takes up all the others: nobody sits
    out a pause that has lost its reason, whichever key was the one to find that out.
    """

    def __init__(self, again: Callable[[str], None]) -> None:
        self._again = again
        self._failures: dict[str, int] = {}
        self._told: float | None = None

    def __len__(self) -> int:
        return len(self._failures)

    def failed(self, key: str, error: Unavailable) -> float:
        """Seconds until the key is to try again."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._tell(error)
        if error.after:
            # The server has said when; everybody at that very moment would be a storm again.
            return error.after * random.uniform(1.0, 1.1)  # noqa: S311  # spreads load, nothing secret
        limit = min(max(SHORTEST_LIMIT, len(self) / A_SECOND), LONGEST_LIMIT)
        pause = min(FIRST_PAUSE * 2.0 ** min(count - 1, 16), limit)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, nothing secret

    def passed(self, key: str) -> None:
        """The key got through."""
        if self._failures.pop(key, None) is None:
            return
        # One by one they take up the rest: a key that was told to wait is refused again unsent.
        for other in list(self._failures)[:A_SECOND]:
            self._again(other)
        if not self._failures:
            self._told = None

    def _tell(self, error: Unavailable) -> None:
        now = asyncio.get_running_loop().time()
        if self._told is None or now - self._told >= TELL_SECONDS:
            self._told = now
            log.warning(
                "The API server does not take what is written",
                waiting=len(self),
                why=error.message,
            )
