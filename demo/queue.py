"""A queue that is seen: more builds than slots, of several teams."""

import asyncio
import contextlib
import itertools
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import devstack
from demo.page import Page
from devstack.builds import Builds
from devstack.operator import start_operator
from devstack.teams import teams

TEAMS = ("red", "green", "blue")
EACH, SLOTS, SECONDS = 4, 2, 3
COLUMNS = (
    "NAMESPACE:.metadata.namespace,NAME:.metadata.name,STATUS:.status.phase,"
    "QUEUE:.status.queue.position,REASON:.status.queue.reason"
)


async def show_queue(stack: devstack.Stack, folder: Path, page: Page) -> None:
    """Twelve builds of three namespaces on two slots, as kubectl prints them."""
    page.title(f"(j) the queue: {EACH * len(TEAMS)} builds of three namespaces on {SLOTS} slots")
    pool = {"workers": [stack.buildkit], "slots": SLOTS}
    operator = await asyncio.to_thread(
        start_operator, folder / "queue", stack.operator_kubeconfig, pools=[pool]
    )
    try:
        async with watched(stack, folder / "watch.log"), teams(stack, TEAMS) as builds:
            for name in TEAMS:
                for number in range(1, EACH + 1):
                    await builds[name].create(f"build-{number}", spec(stack, f"{name}{number}"))
            ends = [
                await builds[name].ended(f"build-{number}")
                for name in TEAMS
                for number in range(1, EACH + 1)
            ]
    finally:
        await asyncio.to_thread(operator.stop)
    page.say((folder / "watch.log").read_text().strip())
    page.check("all succeeded", {end.status["phase"] for end in ends} == {"Succeeded"})
    last = places(builds["blue"], f"build-{EACH}")
    page.check(f"the last one was told its places: {last}", len(last) > 1 and is_falling(last))
    order = sorted(TEAMS, key=lambda name: started(builds[name], "build-1"))
    held = started(builds[order[0]], f"build-{EACH}") > started(builds[order[-1]], "build-1")
    page.check("no team's fourth build began before every team's first", held)


@contextlib.asynccontextmanager
async def watched(stack: devstack.Stack, log: Path) -> AsyncIterator[None]:
    """kubectl get -w writes into the log meanwhile."""
    command = [str(stack.binaries["kubectl"]), f"--kubeconfig={stack.kubeconfig}"]
    command += [
        "get",
        "ib",
        "--all-namespaces",
        "--watch-only",
        f"--output=custom-columns={COLUMNS}",
    ]
    with log.open("wb") as output:
        watching = await asyncio.create_subprocess_exec(
            *command, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        watching.terminate()
        await watching.wait()


def spec(stack: devstack.Stack, name: str) -> dict[str, object]:
    """A build of some seconds that nothing is known of before."""
    text = f"FROM {stack.base_image}\nRUN echo {name} && sleep {SECONDS}\n"
    return {"source": {"inline": {"files": {"Dockerfile": text}}}}


def places(builds: Builds, name: str) -> list[int]:
    """The positions that the build was told, in order."""
    told = [
        seen.status["queue"]["position"] for seen in builds.history[name] if "queue" in seen.status
    ]
    return list(dict.fromkeys(told))


def is_falling(found: list[int]) -> bool:
    """Whether each is lower than the one before."""
    return all(one > other for one, other in itertools.pairwise(found))


def started(builds: Builds, name: str) -> float:
    """When the build was seen to run."""
    return next(seen.at for seen in builds.history[name] if "startTime" in seen.status)
