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


async def turns(right: Callable[[], object], seconds: float = 1.5) -> None:
    """Let the loop turn until that is right; `right` is called in it. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not right():
            await asyncio.sleep(0.001)
