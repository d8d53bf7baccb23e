"""An hour of everything at once, and whether what the operator holds stays as it was.

Sixty builds a minute of ten namespaces, of which some fail, are cancelled, deleted, edited or
suspended on the way; caches are pruned, and workers die and come back.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import devstack
from bench.figures import slope
from bench.load import settled
from bench.mix import REPOSITORIES, Job, Mix
from bench.processes import PROC, rss_mb
from devstack.builds import Builds
from devstack.crew import Member, crew
from devstack.operator import OperatorProcess, start_operator
from devstack.prunes import Prunes
from devstack.teams import teams

KINDS: Mapping[str, int] = {
    "cached": 60,
    "changed": 15,
    "step": 5,
    "failing": 5,
    "cancelled": 5,
    "deleted": 5,
    "edited": 3,
    "suspended": 2,
}
"""What is done, by weight."""
WARM_UP_MINUTES = 20.0
"""The operator remembers the last 1,024 builds that ended: until then it has reason to grow."""
WORKERS, SLOTS = 2, 2
SAMPLE_SECONDS = 15.0
PRUNE_MINUTES, LOSS_MINUTES = 5.0, 10.0
KEPT_SECONDS = 60
"""Half of the objects expire so long after their end; the others are deleted by who made them."""
END_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the operator holds at a moment; MB are 10^6 bytes."""

    at: float
    rss_mb: float
    files_open: int
    threads: int
    tasks: int
    files: int

    def __str__(self) -> str:
        held = f"{self.files_open} open, {self.threads} threads, {self.tasks} tasks"
        return f"{self.at / 60:5.1f} min: {self.rss_mb:6.1f} MB, {held}, {self.files} files"


@dataclass(slots=True)
class Day:
    """Makes builds as developers do, and sees to it that each ends as it should."""

    teams: Mapping[str, Builds]
    mix: Mix
    wrong: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    _draw: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311  # no secret

    async def run(self, seconds: float, per_minute: float) -> None:
        """Begin so many a minute, and wait for the last of them."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as builds:
            for number in itertools.count():
                due = began + number * 60 / per_minute
                if due - began >= seconds:
                    break
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                (kind,) = self._draw.choices(list(KINDS), list(KINDS.values()))
                builds.create_task(self._one(kind, f"{kind}-{number}", number % REPOSITORIES))

    async def _one(self, kind: str, name: str, repository: int) -> None:
        made = "step" if kind in {"cancelled", "deleted", "edited"} else kind
        job = self.mix.job("cached" if made == "suspended" else made, name, repository)
        builds = self.teams[job.namespace]
        expires = repository % 2 == 0
        spec = {**job.spec, "suspend": kind == "suspended"}
        if expires:
            spec["ttlSecondsAfterFinished"] = KEPT_SECONDS
        try:
            await builds.create(name, spec)
            await self._live(kind, builds, job)
            if kind != "deleted":
                if not expires:
                    await builds.delete(name)
                await builds.gone(name, END_SECONDS)
        except AssertionError as error:
            self.wrong.append(f"{name}: {error}")
        self.done[kind] += 1
        builds.history.pop(name, None)

    async def _live(self, kind: str, builds: Builds, job: Job) -> None:
        """What happens to a build between its creation and its end. Raises AssertionError."""
        name, right, generation = job.name, job.right, 1
        if kind in {"cancelled", "deleted", "edited"}:
            await builds.phase(name, "Running", END_SECONDS)
        if kind == "deleted":
            await builds.delete(name)
            await builds.gone(name, END_SECONDS)
            return
        if kind == "suspended":
            await builds.phase(name, "Suspended", END_SECONDS)
        edits: dict[str, dict[str, Any]] = {
            "cancelled": {"cancel": True},
            "edited": {"buildArgs": [{"name": "EDITED", "value": "yes"}]},
            "suspended": {"suspend": False},
        }
        if kind in edits:
            generation = 2
            await builds.patch(name, {"spec": edits[kind]})
            right = "Cancelled" if kind == "cancelled" else "Succeeded"
        end = await builds.ended(name, generation, END_SECONDS)
        if end.status["phase"] != right:
            raise AssertionError(f"it should have {right}: {json.dumps(end.status)}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What a user may choose of this suite."""
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument(
        "--warm-up", type=float, default=WARM_UP_MINUTES, help="minutes that do not count"
    )
    parser.add_argument("--per-minute", type=float, default=60, help="builds begun")


async def measure(stack: devstack.Stack, folder: Path, options: argparse.Namespace) -> None:
    """What grew, and what was left; the last line is for programs."""
    seconds, warm_up = options.minutes * 60, options.warm_up * 60
    with crew(stack, WORKERS) as members:
        pool = {"workers": [member.address for member in members], "slots": SLOTS}
        running = start_operator(folder / "hour", stack.operator_kubeconfig, pools=[pool])
        try:
            mix = Mix(stack, folder)
            async with teams(stack, mix.namespaces) as found:
                day = Day(found, mix)
                samples = await _hour(day, running, members, (seconds, options.per_minute))
                await settled(running)
                left = _sample(running, folder, seconds)
                slots = sum(
                    value
                    for series, value in running.metrics().items()
                    if series.startswith("imagebuild_slots_in_use{")
                )
        finally:
            running.stop()
    for one in day.wrong:
        print(one)
    steady = [one for one in samples if one.at >= warm_up]
    grown = slope({round(one.at): one.rss_mb for one in steady}) * 3600
    quarter = max(1, len(steady) // 4)
    print(f"{day.done.total()} builds: {dict(day.done)}; at the end {left}")
    growth = {
        name: _median(steady[-quarter:], name) - _median(steady[:quarter], name)
        for name in ("files_open", "threads", "tasks", "files")
    }
    told = " ".join(f"{name}_grown={value:g}" for name, value in growth.items())
    print(
        f"bench: rss_slope_mb_h={grown:.2f} rss_mb={steady[-1].rss_mb:.1f} "
        f"builds={day.done.total()} wrong={len(day.wrong)} {told} slots_left={slots:g}"
    )


async def _hour(
    day: Day,
    running: OperatorProcess,
    members: Sequence[Member],
    load: tuple[float, float],
) -> list[Sample]:
    """Samples of the whole time; `load` is for how many seconds, and how many a minute."""
    samples: list[Sample] = []
    sides = [
        asyncio.create_task(_watched(running, day.mix.folder, samples)),
        asyncio.create_task(_pruned(day.mix.stack)),
        asyncio.create_task(_lost(members)),
    ]
    try:
        await day.run(*load)
    finally:
        for side in sides:
            side.cancel()
        ends = await asyncio.gather(*sides, return_exceptions=True)
    broken = [end for end in ends if not isinstance(end, asyncio.CancelledError)]
    if broken:
        raise RuntimeError(f"The hour went on without some of its parts: {broken}")
    return samples


async def _watched(running: OperatorProcess, folder: Path, samples: list[Sample]) -> None:
    began = time.monotonic()
    while True:
        at = time.monotonic() - began
        samples.append(await asyncio.to_thread(_sample, running, folder, at))
        print(samples[-1], flush=True)
        await asyncio.sleep(SAMPLE_SECONDS)


def _sample(running: OperatorProcess, folder: Path, at: float) -> Sample:
    own = PROC / str(running.pid)
    return Sample(
        at=at,
        rss_mb=rss_mb(running.pid),
        files_open=len(list((own / "fd").iterdir())),
        threads=len(list((own / "task").iterdir())),
        tasks=int(running.metrics()["imagebuild_loop_tasks"]),
        files=sum(path.is_file() for path in (folder / "hour").rglob("*")),
    )


async def _pruned(stack: devstack.Stack) -> None:
    """A prune of what is old, now and again."""
    async with Prunes(str(stack.kubeconfig)) as prunes:
        for number in itertools.count():
            await asyncio.sleep(PRUNE_MINUTES * 60)
            name = f"hour-{number}"
            await prunes.create(name, {"keepDuration": "10m", "include": ["buildCache"]})
            await prunes.ended(name)
            await prunes.delete(name)


async def _lost(members: Sequence[Member]) -> None:
    """A worker dies with what it builds, and comes back, in turns."""
    for member in itertools.cycle(members):
        await asyncio.sleep(LOSS_MINUTES * 60)
        member.kill()
        await asyncio.sleep(SAMPLE_SECONDS)
        await asyncio.to_thread(member.restart)


def _median(samples: Sequence[Sample], name: str) -> float:
    values: list[float] = [getattr(one, name) for one in samples]
    return statistics.median(values)
