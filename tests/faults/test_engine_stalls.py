"""Docker Engines that stop answering in mid build, whichever of their builders has it."""

import contextlib
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

import devstack
from bench.processes import appeared
from devstack.builds import Builds
from devstack.engines import Engine
from tests.faults.test_daemons import (
    DEADLINE,
    SLOTS,
    UP,
    counted,
    operating,
    retried,
    sleeping,
)
from tests.support.specs import HELLO, inline, numbers
from tests.support.wire import Wire

pytestmark = [pytest.mark.row("F12"), pytest.mark.timeout(180)]
BUILDERS = ["buildkit", "classic"]
LEEWAY_SECONDS = 5
_numbers = numbers(932)


def seconds() -> str:
    """So long a step sleeps; no two are the same, so that its process can be found."""
    return f"2.0{next(_numbers)}"


@pytest.fixture
def engine(stack: devstack.Stack) -> Iterator[Engine]:
    """An engine that goes on at the end, however a test has left it."""
    found = stack.engine("new", lambda _: None)
    yield found
    found.server.signal(signal.SIGCONT)


def ran(status: dict[str, str]) -> float:
    """Seconds from the first attempt to the end."""
    began, over = (datetime.fromisoformat(status[one]) for one in ("startTime", "completionTime"))
    return (over - began).total_seconds()


@pytest.mark.parametrize("builder", BUILDERS)
async def test_an_engine_behind_a_cut_wire_has_its_build_done_by_another(
    stack: devstack.Stack, builds: Builds, tmp_path: Path, engine: Engine, builder: str
) -> None:
    async with contextlib.AsyncExitStack() as wires:
        cables = [
            await wires.enter_async_context(Wire(engine.address.removeprefix("unix://")))
            for _ in range(2)
        ]
        addresses = [f"docker+{one.address}" for one in cables]
        async with operating(stack, builds, tmp_path, addresses, stallSeconds=1) as operator:
            how_long = seconds()
            await builds.create("cut", sleeping(stack, how_long, builder=builder))
            await builds.phase("cut", "Running")
            first = addresses.index(builds.worker("cut"))
            await appeared(how_long)
            cables[first].cut()
            # A busy engine passes on late what a step says, so how far it came may not be known.
            ended = await retried(builds, "cut", addresses[first], "Stalled")
            await counted(operator, SLOTS, 0)
            cables[first].mend()
            await counted(operator, UP, 2)
            assert (await builds.get("cut"))["status"] == ended.status


@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_stopped_engine_fails_a_build_that_may_not_be_tried_again_and_serves_the_next(
    stack: devstack.Stack, builds: Builds, tmp_path: Path, engine: Engine, builder: str
) -> None:
    worker = f"docker+{engine.address}"
    async with operating(stack, builds, tmp_path, [worker], stallSeconds=1) as operator:
        how_long = seconds()
        spec = sleeping(stack, how_long, builder=builder, backoffLimit=0)
        await builds.create("stopped", {**spec, "activeDeadlineSeconds": DEADLINE})
        await appeared(how_long)
        engine.server.signal(signal.SIGSTOP)
        ended = (await builds.ended("stopped", seconds=60)).status
        assert (ended["phase"], ended["failure"]["reason"]) == ("Failed", "Stalled")
        assert "did not answer when asked" in ended["failure"]["message"]
        assert ran(ended) <= DEADLINE + LEEWAY_SECONDS
        await counted(operator, SLOTS, 0)
        engine.server.signal(signal.SIGCONT)
        await counted(operator, UP, 1)
        await builds.create("next", inline(HELLO, builder=builder))
        assert (await builds.ended("next")).status["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("builder", "stall", "deadline", "last"),
    [("classic", 120, 15, None), ("buildkit", 1, 30, "Stalled")],
    ids=["before it is noticed", "while no other worker is there"],
)
async def test_the_deadline_is_kept_though_the_engine_is_stopped(
    stack: devstack.Stack,
    builds: Builds,
    tmp_path: Path,
    engine: Engine,
    builder: str,
    stall: int,
    deadline: int,
    last: str | None,
) -> None:
    worker = f"docker+{engine.address}"
    async with operating(stack, builds, tmp_path, [worker], stallSeconds=stall) as operator:
        how_long = seconds()
        spec = sleeping(stack, how_long, builder=builder, activeDeadlineSeconds=deadline)
        await builds.create("late", spec)
        await appeared(how_long)
        engine.server.signal(signal.SIGSTOP)
        ended = (await builds.ended("late", seconds=60)).status
        assert ended["failure"]["reason"] == "DeadlineExceeded"
        assert (ended.get("lastAttempt") or {}).get("reason") == last, ended
        assert ran(ended) <= deadline + LEEWAY_SECONDS
        await counted(operator, SLOTS, 0)


@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_build_on_a_stopped_engine_is_cancelled_all_the_same(
    stack: devstack.Stack, builds: Builds, tmp_path: Path, engine: Engine, builder: str
) -> None:
    worker = f"docker+{engine.address}"
    async with operating(stack, builds, tmp_path, [worker]) as operator:
        how_long = seconds()
        await builds.create("cancelled", sleeping(stack, how_long, builder=builder))
        await appeared(how_long)
        engine.server.signal(signal.SIGSTOP)
        await builds.patch("cancelled", {"spec": {"cancel": True}})
        ended = (await builds.ended("cancelled", generation=2)).status
        assert ended["phase"] == "Cancelled"
        await counted(operator, SLOTS, 0)
