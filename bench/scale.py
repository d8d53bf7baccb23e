"""The operator among thousands of objects: its memory, and how soon it works after a start."""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import devstack
from bench.figures import slope
from bench.filling import Archive, Body, archive
from bench.processes import cpu_seconds, peak_mb, rss_mb
from devstack.builds import Builds, Seen
from devstack.operator import OperatorProcess, start_operator

COUNTS = (0, 1000, 3000, 10000)
COLD, WAITING, STARTS = 3000, 50, 3
QUIET_SECONDS, QUIET_SHARE = 2.0, 0.05
"""Settled is who used less than this share of one core for so many seconds."""
LIST_SECONDS, LIFE_SECONDS = 8.0, 10.0
"""Memory is looked at once the operator has made a list of its own besides the watch's."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Start:
    """One start among many objects; seconds from just before exec."""

    first: float
    """Until the first status write on one of the builds that waited was seen."""
    fresh: float
    """The same for a build that was created as the process began."""
    all_ended: float
    """Until all of these had ended."""
    writes_on_finished: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What `measure` found; MB are 10^6 bytes of RSS."""

    rss_idle_mb: float
    """With the fewest finished objects."""
    mb_per_1k: float
    peak_mb_per_1k: float
    cold_start_s: float
    fresh_s: float
    writes_on_finished: int


async def measure(
    stack: devstack.Stack, folder: Path, counts: Sequence[int] = COUNTS, cold: int = COLD
) -> Figures:
    """Memory over so many finished objects, and starts among `cold` of them.

    A slope needs two different counts at least. The stack's ImageBuilds are all this operator's.
    """
    rss: dict[int, float] = {}
    peak: dict[int, float] = {}
    starts: list[Start] = []
    async with Builds(str(stack.kubeconfig)) as builds:
        like = await _one_build(stack, folder, builds)
        async with archive(str(stack.kubeconfig), like) as finished:
            for count in sorted({*counts, cold}):
                began = time.monotonic()
                await finished.grow(count)
                print(f"{count} finished objects, made in {time.monotonic() - began:.0f} s")
                if count in counts:
                    rss[count], peak[count] = await _memory(stack, folder)
                    print(f"  RSS {rss[count]:.1f} MB, peak {peak[count]:.1f} MB", flush=True)
                if count == cold:
                    print(f"  an object has {await finished.size()} bytes")
                    starts = [await _start(stack, folder, builds, finished) for _ in range(STARTS)]
    return Figures(
        rss_idle_mb=rss[min(rss)],
        mb_per_1k=slope(rss) * 1000,
        peak_mb_per_1k=slope(peak) * 1000,
        cold_start_s=statistics.median(one.first for one in starts),
        fresh_s=statistics.median(one.fresh for one in starts),
        writes_on_finished=sum(one.writes_on_finished for one in starts),
    )


@contextlib.asynccontextmanager
async def _operator(
    stack: devstack.Stack, folder: Path, **more: Any
) -> AsyncIterator[OperatorProcess]:
    """A fresh operator on the stack's one worker, ended afterwards."""
    settings = {"pools": [{"workers": [stack.buildkit], "slots": 8}], **more}
    running = await asyncio.to_thread(
        start_operator, folder / "scale", stack.operator_kubeconfig, **settings
    )
    try:
        yield running
    finally:
        await asyncio.to_thread(running.stop)


async def _one_build(stack: devstack.Stack, folder: Path, builds: Builds) -> Body:
    """A build that has run through the operator: what all others are like."""
    async with _operator(stack, folder):
        name = await _create(stack, builds)
        ended = await builds.ended(name)
        if ended.status["phase"] != "Succeeded":
            raise RuntimeError(f"{name} did not succeed: {ended.status}")
    await builds.delete(name)
    return ended.body


async def _create(stack: devstack.Stack, builds: Builds) -> str:
    name = f"scale-{next(_numbers)}"
    text = f"FROM {stack.base_image}\nCOPY app/ /app/\nRUN cat /app/main.txt\n"
    files = {"Dockerfile": text, "app/main.txt": "a line of a source of two kB\n" * 64}
    images = [f"{stack.registry}/bench/scale:latest"]
    await builds.create(name, {"source": {"inline": {"files": files}}, "images": images})
    return name


async def _memory(stack: devstack.Stack, folder: Path) -> tuple[float, float]:
    """RSS in MB of an operator that has settled, and the most it ever had."""
    async with _operator(stack, folder, resyncSeconds=LIST_SECONDS) as running:
        await asyncio.sleep(LIFE_SECONDS)
        await _settled(running.pid)
        return rss_mb(running.pid), peak_mb(running.pid)


async def _settled(pid: int) -> None:
    while True:
        used = cpu_seconds(pid)
        await asyncio.sleep(QUIET_SECONDS)
        if cpu_seconds(pid) - used < QUIET_SECONDS * QUIET_SHARE:
            return


async def _start(stack: devstack.Stack, folder: Path, builds: Builds, finished: Archive) -> Start:
    waiting = [await _create(stack, builds) for _ in range(WAITING)]
    before = await finished.versions()
    began = time.monotonic()
    starting = _operator(stack, folder)
    entered = asyncio.create_task(starting.__aenter__())
    fresh = await _create(stack, builds)
    running = await entered
    try:
        ended = [await builds.ended(name) for name in (*waiting, fresh)]
        firsts = [await builds.until(name, _handled) for name in waiting]
        seen = await builds.until(fresh, _handled)
        written = int(await asyncio.to_thread(_status_writes, running))
        ours = sum(len(_written_versions(builds, name)) for name in (*waiting, fresh))
        after = await finished.versions()
    finally:
        await starting.__aexit__(None, None, None)
    touched = sum(before[name] != version for name, version in after.items())
    for name in (*waiting, fresh):
        await builds.delete(name)
    start = Start(
        first=min(one.at for one in firsts) - began,
        fresh=seen.at - began,
        all_ended=max(one.at for one in ended) - began,
        writes_on_finished=max(touched, written - ours),
    )
    print(f"  {start}", flush=True)
    return start


def _handled(seen: Seen) -> bool:
    return bool(seen.status.get("phase"))


def _written_versions(builds: Builds, name: str) -> set[str]:
    """The versions of a build that a status write made."""
    events = [one for one in builds.history[name] if _handled(one) and one.type == "MODIFIED"]
    return {one.body["metadata"]["resourceVersion"] for one in events}


def _status_writes(running: OperatorProcess) -> float:
    """All status writes of this process so far, those that met a conflict left out."""
    return running.metrics()['imagebuild_status_writes_total{result="written"}']
