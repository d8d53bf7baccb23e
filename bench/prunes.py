"""A prune of what one build left: a BuildCachePrune against `buildctl prune`."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import Pair
from devstack.prunes import Prunes

STEPS = 8
"""Of the build whose records are pruned; each leaves a record of its own."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class PruneArms:
    """Both ways to prune one daemon, each after a build that filled it."""

    prunes: Prunes
    buildctl: Sequence[str]
    filling: Sequence[str]
    """What buildctl is told to fill the cache."""

    async def pairs(self, count: int) -> list[Pair]:
        """So many pairs, each in random order."""
        return [await self._pair() for _ in range(count)]

    async def _pair(self) -> Pair:
        if random.random() < 0.5:  # noqa: S311  # a coin
            first = await self._operator()
            return Pair(operator=first, direct=await self._direct())
        second = await self._direct()
        return Pair(operator=await self._operator(), direct=second)

    async def _operator(self) -> float:
        """Seconds from just before the POST to Complete at a watcher."""
        await self._fill()
        name = f"prune-{next(_numbers)}"
        began = time.monotonic()
        await self.prunes.create(name, {"all": True, "include": ["buildCache"]})
        ended = await self.prunes.ended(name)
        if not ended.status.get("cachesDeleted"):
            raise RuntimeError(f"{name} freed nothing: {ended.status}")
        await self.prunes.delete(name)
        return ended.at - began

    async def _direct(self) -> float:
        """Seconds that buildctl takes, from its start to its end."""
        await self._fill()
        began = time.monotonic()
        await self._run("prune", "--all")
        return time.monotonic() - began

    async def _fill(self) -> None:
        arguments = [*self.filling, "--opt", f"build-arg:N={next(_numbers)}"]
        await self._run(*arguments)

    async def _run(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *self.buildctl,
            *arguments,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"buildctl failed: {said.decode()[-1000:]}")


def filling_text(base: str) -> str:
    """A Dockerfile whose every step leaves a record of some 100 kB."""
    step = "RUN head -c 100000 /dev/urandom > /random$N-{0}\n"
    return f"FROM {base}\nARG N\n" + "".join(step.format(one) for one in range(STEPS))
