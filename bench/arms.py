"""The two arms of a pair: the same build through the operator, and by buildctl."""

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Pair
from bench.processes import appeared, vanished
from devstack.builds import Builds

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Workload:
    """A build in both languages: a spec, and what buildctl is told for the same."""

    name: str
    spec: Mapping[str, Any]
    buildctl: Sequence[str]
    fresh: bool = False
    """Every run gets a build argument of its own, so that nothing is found in the cache."""


@dataclass(slots=True)
class Arms:
    """Runs both, and keeps what the operator's side showed by the way."""

    builds: Builds
    buildctl: Sequence[str]
    running: list[float] = field(default_factory=list)
    """Seconds from the POST to Running seen."""

    async def pairs(self, workload: Workload, count: int, warm_ups: int = 3) -> list[Pair]:
        """So many pairs, each in random order, after some that are not counted."""
        for _ in range(warm_ups):
            await self._pair(workload)
        self.running.clear()
        return [await self._pair(workload) for _ in range(count)]

    async def operator(self, workload: Workload) -> float:
        """Seconds from just before the POST to Succeeded at a watcher."""
        number = next(_numbers)
        name, spec = f"{workload.name}-{number}", dict(workload.spec)
        if workload.fresh:
            spec["buildArgs"] = [{"name": "N", "value": str(number)}]
        began = time.monotonic()
        await self.builds.create(name, spec)
        ended = await self.builds.ended(name)
        if ended.status["phase"] != "Succeeded":
            raise RuntimeError(f"{name} did not succeed: {ended.status}")
        first = await self.builds.phase(name, "Running")
        self.running.append(first.at - began)
        await self.builds.delete(name)
        await self.builds.gone(name)
        return ended.at - began

    async def direct(self, workload: Workload) -> float:
        """Seconds that buildctl takes, from its start to its end."""
        arguments = list(workload.buildctl)
        if workload.fresh:
            arguments += ["--opt", f"build-arg:N={next(_numbers)}"]
        return await timed([*self.buildctl, *arguments])

    async def cancel_operator(self, workload: Workload) -> float:
        """Seconds from just before the DELETE until the step's process is gone."""
        number = next(_numbers)
        name, seconds = f"cancel-{number}", str(900000 + number)
        spec = {**workload.spec, "buildArgs": [{"name": "N", "value": seconds}]}
        await self.builds.create(name, spec)
        pid = await appeared(seconds)
        began = time.monotonic()
        delete = asyncio.create_task(self.builds.delete(name))
        ended = await vanished(pid)
        await delete
        return ended - began

    async def cancel_direct(self, workload: Workload) -> float:
        """Seconds from SIGTERM to buildctl until the step's process is gone."""
        seconds = str(900000 + next(_numbers))
        process = await asyncio.create_subprocess_exec(
            *self.buildctl,
            *workload.buildctl,
            "--opt",
            f"build-arg:N={seconds}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        pid = await appeared(seconds)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        ended = await vanished(pid)
        await process.wait()
        return ended - began

    async def cancels(self, workload: Workload, count: int) -> list[Pair]:
        """So many pairs of cancels."""
        return [
            await _both(self.cancel_operator(workload), self.cancel_direct(workload))
            for _ in range(count)
        ]

    async def _pair(self, workload: Workload) -> Pair:
        return await _both(self.operator(workload), self.direct(workload))


async def timed(command: Sequence[str]) -> float:
    """Seconds that buildctl takes, from its start to its end. Raises RuntimeError if it fails."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    took = time.monotonic() - began
    if process.returncode:
        raise RuntimeError(f"buildctl failed: {said.decode()[-1000:]}")
    return took


async def _both(operator: Any, direct: Any) -> Pair:
    """One after the other, in random order: drift of the machine falls on both alike."""
    if random.random() < 0.5:  # noqa: S311  # a coin
        first = await operator
        return Pair(operator=first, direct=await direct)
    second = await direct
    return Pair(operator=await operator, direct=second)


def write_tree(folder: Path, files: Mapping[str, str]) -> Path:
    """The files in a folder, for the arm that reads them from disk."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
