"""Waiting until something is seen, and saying what was seen instead."""

import asyncio
from collections.abc import Callable


async def becomes(look: Callable[[], object], expected: object, seconds: float = 30) -> None:
    """Wait until that is what a look shows. Raises AssertionError with what it shows instead."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while (seen := await asyncio.to_thread(look)) != expected:
        assert loop.time() < deadline, f"{seen!r} is seen after {seconds} s, and no {expected!r}."
        await asyncio.sleep(0.02)
