"""A long line outlives the operator: who came first is first, and the slots bound it.

The line is fair between namespaces, so what came first counts within each of them.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

import devstack
from bench.processes import PROC, appeared, vanished
from devstack.builds import Builds
from devstack.operator import OperatorProcess, start_operator
from devstack.teams import teams
from tests.support.waiting import becomes

COUNT, SLOTS, LOOKED_AT = 500, 3, 40
"""Cheap builds of each namespace; slots of all; builds that are looked at after the restart."""
AT_ONCE = 50
BLOCKED = 700_000
STEP = "0.2578125"


def sleeping(stack: devstack.Stack, seconds: int) -> dict[str, Any]:
    """A spec whose one step sleeps."""
    text = f"FROM {stack.base_image}\nRUN sleep {seconds}\n"
    return {"source": {"inline": {"files": {"Dockerfile": text}}}}


def cheap(stack: devstack.Stack, own: str) -> dict[str, Any]:
    """A spec that is soon built; each one's own, so that none shares another's step."""
    text = f"FROM {stack.base_image}\nRUN : {own}; exec sleep {STEP}\n"
    return {"source": {"inline": {"files": {"Dockerfile": text}}}}


def name_of(number: int) -> str:
    """Of a cheap build. A list has them by name: the youngest first."""
    return f"n{COUNT - number:04}"


def begun(operator: OperatorProcess) -> list[tuple[str, str]]:
    """The builds that were given to a worker, in that order: each claim is written by then."""
    told = (one for one in operator.events() if one.get("event") == "Build began")
    return [(str(one["namespace"]), str(one["name"])) for one in told]


def passed_over(begun: list[str], created: dict[str, str]) -> list[int]:
    """For each that began, how many older ones had not; claims of one moment may swap."""
    return [
        sum(when < created[name] for when in created.values())
        - sum(created[one] < created[name] for one in begun[:place])
        for place, name in enumerate(begun)
    ]


def running() -> int:
    """How many steps of cheap builds run now."""
    found = 0
    for process in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may have ended since it was listed
            found += (process / "cmdline").read_bytes() == f"sleep\0{STEP}\0".encode()
    return found


async def operate(
    stack: devstack.Stack, namespaces: Iterable[str], folder: Path
) -> OperatorProcess:
    """An operator with few slots, for the test's namespaces only."""
    return await asyncio.to_thread(
        start_operator,
        folder,
        stack.operator_kubeconfig,
        namespaces=list(namespaces),
        pools=[{"workers": [stack.buildkit], "slots": SLOTS}],
    )


async def create_all(stack: devstack.Stack, builds: Builds) -> dict[str, str]:
    """The cheap builds, in batches, with the second at which each was created."""
    made: list[dict[str, Any]] = []
    for first in range(0, COUNT, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, COUNT))
        made += await asyncio.gather(
            *(
                builds.create(name_of(one), cheap(stack, f"{builds.namespace} {one}"))
                for one in numbers
            )
        )
    return {one["metadata"]["name"]: one["metadata"]["creationTimestamp"] for one in made}


async def hold_all_slots(stack: devstack.Stack, builds: Builds) -> list[int]:
    """The processes of builds that would take for ever."""
    for slot in range(SLOTS):
        await builds.create(f"holds{slot}", sleeping(stack, BLOCKED + slot))
    return [await appeared(str(BLOCKED + slot)) for slot in range(SLOTS)]


def waiting(operator: OperatorProcess, namespaces: Iterable[str]) -> list[float]:
    """How many of each namespace wait."""
    depth = 'imagebuild_queue_depth{{namespace="{}",pool="default"}}'
    found = operator.metrics()
    return [found.get(depth.format(namespace), 0.0) for namespace in namespaces]


@pytest.fixture
async def crowds(stack: devstack.Stack, namespace: str) -> AsyncIterator[dict[str, Builds]]:
    """The builds of two namespaces."""
    async with teams(stack, [f"{namespace}-a", f"{namespace}-b"]) as found:
        yield found


@pytest.mark.row("F72")
@pytest.mark.timeout(240)
async def test_a_thousand_that_wait_keep_their_order_and_the_bound_through_a_restart(
    stack: devstack.Stack, crowds: dict[str, Builds], tmp_path: Path
) -> None:
    operator = await operate(stack, crowds, tmp_path / "one")
    early = next(iter(crowds.values()))
    try:
        pids = await hold_all_slots(stack, early)
        # The second crowd is younger as a whole, and is to wait no longer for that.
        created = {one: await create_all(stack, builds) for one, builds in crowds.items()}
        full = [float(COUNT)] * len(crowds)
        await becomes(lambda: waiting(operator, crowds), full, seconds=60)
        await asyncio.to_thread(operator.kill)
        assert len(begun(operator)) == SLOTS
        for pid in pids:
            await vanished(pid)
        await asyncio.gather(*(early.delete(f"holds{slot}") for slot in range(SLOTS)))
        operator = await operate(stack, crowds, tmp_path / "two")
        at_once = set()
        async with asyncio.timeout(90):
            while len(first := begun(operator)[:LOOKED_AT]) < LOOKED_AT:
                at_once.add(await asyncio.to_thread(running))
    finally:
        await asyncio.to_thread(operator.kill)
    taken = Counter(where for where, _ in first)
    for namespace in crowds:
        own = [name for where, name in first if where == namespace]
        assert max(passed_over(own, created[namespace])) < SLOTS
    # What is fair is how many slots each holds: of two builds one may last longer than the other.
    assert min(taken[namespace] for namespace in crowds) >= LOOKED_AT // 4
    assert 0 < max(at_once) <= SLOTS
