"""`make faults`: every case, on real servers, two at a time; or the one that CASE names."""

import argparse
import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence

import devstack
from tests.faults.patterns import Case, NoSuchCase, case_of
from tests.faults.scene import Lane, lanes
from tests.faults.sweep import Run, calm_run, cases_after, play
from tests.faults.workloads import WORKLOADS

LANES = 2


async def sweep(stack: devstack.Stack, names: Sequence[str]) -> list[Run]:
    """All cases of these workloads, shared out to the lanes; each lane has its own calm runs."""
    async with lanes(stack, LANES) as made:
        first = await asyncio.gather(*(_calm(lane, names) for lane in made))
        todo = [case for calm in first[0].values() for case in cases_after(calm)]
        queue = iter(todo)
        done: list[Run] = list(first[0].values())
        for played in await asyncio.gather(
            *(_rest(lane, calm, queue) for lane, calm in zip(made, first, strict=True))
        ):
            done += played
    return done


async def _calm(lane: Lane, names: Sequence[str]) -> dict[str, Run]:
    return {name: await calm_run(lane, name) for name in names}


async def _rest(lane: Lane, calm: dict[str, Run], queue: Iterable[Case]) -> list[Run]:
    played = []
    for case in queue:
        run = await play(lane, case, calm[case.workload])
        tell(run)
        played.append(run)
    return played


async def one(stack: devstack.Stack, case: Case) -> list[Run]:
    """One case, after the undisturbed run that it is compared with."""
    async with lanes(stack, 1) as [lane]:
        say(f"{case.workload} undisturbed, then {case}")
        calm = await calm_run(lane, case.workload)
        run = await play(lane, case, calm)
        tell(run)
        return [run]


def say(line: str) -> None:
    """On stdout, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def tell(run: Run) -> None:
    """What a run broke, as it is found."""
    for breach in run.breaches:
        say(f"{run.case}: {breach}")


def table(runs: Sequence[Run]) -> str:
    """Workload by pattern: runs, violations, the slowest run."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.case.workload, run.case.pattern].append(run)
    lines = [
        f"{'workload':<12}{'pattern':<12}{'runs':>5}{'struck':>8}{'violations':>12}{'slowest':>9}"
    ]
    for (workload, pattern), some in groups.items():
        struck = sum(run.struck for run in some)
        broken = sum(bool(run.breaches) for run in some)
        slowest = max(run.seconds for run in some)
        lines.append(
            f"{workload:<12}{pattern:<12}{len(some):>5}{struck:>8}{broken:>12}{slowest:>8.1f}s"
        )
    return "\n".join(lines)


def main() -> int:
    """The exit status: 1 where anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    words = "such as success/crash/write-2; success alone plays all cases of that workload"
    parser.add_argument("case", nargs="?", default="", help=words)
    options = parser.parse_args()
    workload = options.case.partition("/")[0]
    if workload and workload not in WORKLOADS:
        parser.error(f"there is no workload {workload}: it is one of {', '.join(WORKLOADS)}.")
    try:
        case = case_of(options.case) if "/" in options.case else None
    except NoSuchCase as error:
        parser.error(str(error))
    stack = devstack.up(os.environ.get("DEVSTACK_NAME", "faults"), say)
    try:
        names = [workload] if workload else list(WORKLOADS)
        runs = asyncio.run(one(stack, case) if case else sweep(stack, names))
    except AssertionError as error:
        say(f"An undisturbed run is not as it should be: {error}")
        return 1
    finally:
        if "DEVSTACK_NAME" not in os.environ:
            devstack.down("faults")
    say(table(runs))
    broken = sum(bool(run.breaches) for run in runs)
    say(f"faults: runs={len(runs)} violations={broken}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
