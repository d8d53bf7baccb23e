"""How soon what a build does ends when the build is deleted."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from devstack.builds import Builds

STOPPED_SECONDS = 0.3
"""Within so long after the API server's watch has told of the delete a daemon stops."""


async def stops(
    builds: Builds,
    name: str,
    ending: Coroutine[Any, Any, float],
    within: float = STOPPED_SECONDS,
) -> None:
    """Delete the build: it is gone within a second, and what it does stops with it.

    `ending` waits for the end of that, and returns its moment, of the monotonic clock.
    """
    watching, began = asyncio.create_task(ending), time.monotonic()
    await builds.delete(name)
    told = await builds.gone(name, seconds=1)
    ended = await watching
    assert ended > began, "It had ended before it was deleted."
    late = ended - told.at
    assert late <= within, f"It went on for {late:.3f} s after the watch had told of it."
