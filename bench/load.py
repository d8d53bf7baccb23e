"""A thousand builds of ten namespaces on four workers, against as many runs of buildctl."""

import argparse
import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import devstack
from bench import scale
from bench.mix import REPOSITORIES, Job, Mix
from bench.processes import cpu_seconds, peak_mb
from bench.single import writes_in
from devstack.builds import Builds, Seen
from devstack.crew import Member, crew
from devstack.operator import OperatorProcess, start_operator
from devstack.teams import teams

WORKERS, SLOTS = 4, 2
AT_ONCE = 16
"""Creating clients, as many as a GitOps tool has."""
REBUILDS = 9
LOAD_SECONDS = 1800.0
SINGLE = "single"
"""The namespace of whoever has but one build while the others have a hundred each."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What a user may choose of this suite."""
    parser.add_argument("--builds", type=int, default=1000, help="builds in each arm")
    parser.add_argument("--finished", type=int, default=10000, help="finished objects, at most")


async def measure(stack: devstack.Stack, folder: Path, options: argparse.Namespace) -> None:
    """All figures, in their order."""
    with crew(stack, WORKERS) as members, _operator(stack, members, folder) as running:
        mix = Mix(stack, folder)
        direct = Direct(stack, members)
        async with teams(stack, [*mix.namespaces, SINGLE]) as found_teams:
            load = Load(stack, running, found_teams, mix)
            await warm(mix, direct, members)
            half = options.builds // 2
            seconds = await direct.run(mix.jobs(half, "before"))
            found = await load.run(mix.jobs(options.builds, "load"))
            print(f"{options.builds} builds at once: {found}", flush=True)
            seconds += await direct.run(mix.jobs(options.builds - half, "after"))
            affinity = await load.affinity()
            overtaken = await load.overtaken(mix.crowd(options.builds // 4, "crowd"))
            await settled(running)
    efficiency = seconds / found.seconds
    print(f"{options.builds} builds: {found.seconds:.1f} s; buildctl: {seconds:.1f} s")
    counts = [one for one in (0, 1000, 3000) if one < options.finished]
    grown = await scale.measure(stack, folder, [*counts, options.finished])
    print(
        f"bench: efficiency={efficiency:.3f} writes_per_build={found.writes:.2f} "
        f"overtaken_max={overtaken} affinity={affinity:.3f} rss_mb={found.rss_mb:.1f} "
        f"mb_per_1k={grown.mb_per_1k:.2f} cold_start_s={grown.cold_start_s:.2f} "
        f"cpu_ms_per_build={found.cpu_ms:.1f} writes_on_finished={grown.writes_on_finished}"
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What a load showed; writes and CPU are for each build."""

    seconds: float
    writes: float
    rss_mb: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Direct:
    """The direct arm: as many lanes as there are slots, each with its own worker."""

    stack: devstack.Stack
    members: Sequence[Member]

    async def run(self, jobs: Iterable[Job]) -> float:
        """Seconds that buildctl takes for all. Raises RuntimeError where one ends wrong."""
        left = iter(jobs)
        began = time.monotonic()
        async with asyncio.TaskGroup() as lanes:
            for lane in range(WORKERS * SLOTS):
                lanes.create_task(self._lane(self.members[lane % WORKERS], left))
        return time.monotonic() - began

    async def one(self, member: Member, job: Job) -> None:
        """One run. Raises RuntimeError where it does not end as it should."""
        process = await asyncio.create_subprocess_exec(
            self.stack.binaries["buildctl"],
            f"--addr={member.address}",
            *job.buildctl,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if (process.returncode == 0) != (job.right == "Succeeded"):
            raise RuntimeError(f"{job.name} ended wrong: {said.decode()[-1000:]}")

    async def _lane(self, member: Member, left: Iterator[Job]) -> None:
        for job in left:
            await self.one(member, job)


async def warm(mix: Mix, direct: Direct, members: Sequence[Member]) -> None:
    """Build every repository once on every worker, so that both arms find the same caches."""
    jobs = [mix.job("cached", f"warm-{number}", number) for number in range(REPOSITORIES)]
    for member in members:
        for job in jobs:
            await direct.one(member, job)


@dataclass(slots=True)
class Load:
    """The operator's arm, and what is seen of it from outside."""

    stack: devstack.Stack
    running: OperatorProcess
    teams: dict[str, Builds]
    mix: Mix

    async def run(self, jobs: Sequence[Job]) -> Found:
        """Create all at once, and wait until all have ended, each as it should."""
        written, used = len(writes_in(self.stack.audit_log)), cpu_seconds(self.running.pid)
        began = time.monotonic()
        ends = await self._ends(jobs)
        return Found(
            seconds=max(one.at for one in ends) - began,
            writes=(len(writes_in(self.stack.audit_log)) - written) / len(jobs),
            rss_mb=peak_mb(self.running.pid),
            cpu_ms=(cpu_seconds(self.running.pid) - used) * 1000 / len(jobs),
        )

    async def overtaken(self, jobs: Sequence[Job]) -> int:
        """The most of these, queued by one namespace, that end before another's only build begins.

        The other one applies a build as soon as its last one has ended, for as long as that takes.
        """
        await self._create(jobs)
        later = jobs[len(jobs) // 4]
        await self.teams[later.namespace].until(later.name, lambda one: "phase" in one.status)
        lone = asyncio.create_task(self._lone_builds())
        await self._wait(jobs)
        lone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await lone
        crowd = self.teams[jobs[0].namespace].history
        ends = [ended(crowd[job.name]) for job in jobs]
        waits = [(version(seen[0]), started(seen)) for seen in self.teams[SINGLE].history.values()]
        return max(sum(begin < end < until for end in ends) for begin, until in waits)

    async def affinity(self) -> float:
        """The share of rebuilds on a worker that has the image's cache."""
        homes = await self.homes()
        hits = await self.rebuilt(REBUILDS, "again", homes)
        return sum(hits) / len(hits)

    async def homes(self) -> list[set[str]]:
        """The worker of each image's first build, all of which are asked for at once."""
        jobs = self.mix.rebuilds(1, "first")
        await self._ends(jobs)
        return [{self._worker(job)} for job in jobs]

    async def rebuilt(self, times: int, title: str, homes: Sequence[set[str]]) -> list[bool]:
        """Whether each rebuild met a worker that had built its image before, image by image.

        Each image is built so many times, again as soon as it has ended, and all images at once.
        `homes` are the workers of each image, and grow by those that build it now.
        """
        jobs = self.mix.rebuilds(times, title)
        one_by_one = (
            self._one_by_one(jobs[number::REPOSITORIES], known)
            for number, known in enumerate(homes)
        )
        return [hit for hits in await asyncio.gather(*one_by_one) for hit in hits]

    async def _one_by_one(self, jobs: Sequence[Job], homes: set[str]) -> list[bool]:
        hits = []
        for job in jobs:
            await self._ends([job])
            hits.append(self._worker(job) in homes)
            homes.add(self._worker(job))
        return hits

    def _worker(self, job: Job) -> str:
        return self.teams[job.namespace].worker(job.name)

    async def _ends(self, jobs: Sequence[Job]) -> list[Seen]:
        await self._create(jobs)
        return await self._wait(jobs)

    async def _create(self, jobs: Sequence[Job]) -> None:
        clients = asyncio.Semaphore(AT_ONCE)

        async def create(job: Job) -> None:
            async with clients:
                await self.teams[job.namespace].create(job.name, job.spec)

        async with asyncio.TaskGroup() as created:
            for job in jobs:
                created.create_task(create(job))

    async def _wait(self, jobs: Sequence[Job]) -> list[Seen]:
        """The end of each. Raises RuntimeError where one does not end as it should."""
        ends = [
            await self.teams[job.namespace].ended(job.name, seconds=LOAD_SECONDS) for job in jobs
        ]
        for job, end in zip(jobs, ends, strict=True):
            if end.status["phase"] != job.right:
                raise RuntimeError(f"{job.name} ended wrong: {end.status}")
        return ends

    async def _lone_builds(self) -> None:
        """One build after another of a namespace that has no other, until cancelled."""
        for number in itertools.count():
            name = f"lone-{number}"
            await self.teams[SINGLE].create(name, self.mix.job("cached", name, 0).spec)
            await self.teams[SINGLE].ended(name, seconds=LOAD_SECONDS)


async def settled(running: OperatorProcess, seconds: float = 30) -> None:
    """Wait until no slot is in use and nobody waits. Raises TimeoutError with what is left."""
    names = ("imagebuild_slots_in_use{", "imagebuild_queue_depth{", "imagebuild_running")
    deadline = time.monotonic() + seconds
    while True:
        found = (await asyncio.to_thread(running.metrics)).items()
        left = {series: value for series, value in found if value and series.startswith(names)}
        if not left:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"All builds have ended, and yet: {left}")
        await asyncio.sleep(0.05)


def started(seen: Sequence[Seen]) -> int:
    """The version of a build that first said that it runs; 0 where none did yet."""
    return next((version(one) for one in seen if "startTime" in one.status), 0)


def ended(seen: Sequence[Seen]) -> int:
    """The version of a build that first said how it ended; 0 where none did yet."""
    return next((version(one) for one in seen if "completionTime" in one.status), 0)


def version(seen: Seen) -> int:
    """Of the object: in etcd's order, which is that of all writes of the cluster."""
    return int(seen.body["metadata"]["resourceVersion"])


@contextlib.contextmanager
def _operator(
    stack: devstack.Stack, members: Sequence[Member], folder: Path
) -> Iterator[OperatorProcess]:
    pool = {"workers": [member.address for member in members], "slots": SLOTS}
    running = start_operator(folder / "load", stack.operator_kubeconfig, pools=[pool])
    try:
        yield running
    finally:
        running.stop()
