"""A build is deleted in every phase: its object is gone at once, and so is its work.

The phases before a build begins, and a step that runs, are in tests/integration/test_cancel.py;
the wait between two attempts is in tests/integration/test_outages.py.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest

import devstack
from bench.processes import appeared, vanished
from devstack.builds import Builds
from devstack.operator import OperatorProcess
from tests.faults.scene import moment
from tests.support.replicas import history
from tests.support.silent import silent
from tests.support.specs import HELLO, numbers
from tests.support.stopping import stops
from tests.support.waiting import becomes

PACKED_SECONDS = 1.0
"""A daemon that packs compresses on all cores, and takes back what it has written: mostly it has
ended after 0.1 s, but up to 0.6 s on two busy cores (the most of 98 times)."""
_numbers = numbers(940)


def inline(files: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A spec of inline files."""
    return {"source": {"inline": {"files": dict(files)}}, **more}


async def deleted(builds: Builds, name: str, operator: OperatorProcess) -> None:
    """Delete it: the object goes at once, and the operator holds nothing for it any more."""
    await builds.delete(name)
    await builds.gone(name, seconds=1)
    await idle(operator)


async def completed(stack: devstack.Stack, ref: str) -> float:
    """The moment (monotonic) at which the build was over, as the daemon's history tells it."""

    def record() -> dict[str, Any]:
        return history(stack, stack.buildkit)[ref]

    await becomes(lambda: "CompletedAt" in record(), expected=True)
    told = await asyncio.to_thread(record)
    return moment(told["CompletedAt"]) - time.time() + time.monotonic()


async def idle(operator: OperatorProcess) -> None:
    """Nothing runs, and all slots are free: each comes back only when its daemon has let go."""
    for series in ("imagebuild_running", 'imagebuild_slots_in_use{pool="default"}'):
        await becomes(lambda: operator.metrics()[series], 0.0, seconds=5)  # noqa: B023  # awaited here
    assert not [one for one in operator.events() if one["level"] == "error"]


@pytest.mark.row("F60")
async def test_a_build_that_is_deleted_while_its_source_is_fetched(
    builds: Builds, operator: OperatorProcess
) -> None:
    async with silent() as host:
        git = {"url": f"http://{host.address}/app"}
        await builds.create("fetching", {"source": {"git": git}})
        await host.came.wait()
        await stops(builds, "fetching", host.left())
        await idle(operator)
    assert "Running" not in builds.phases("fetching")


@pytest.mark.row("F60")
async def test_a_build_that_is_deleted_while_its_layers_are_packed(
    stack: devstack.Stack, builds: Builds, operator: OperatorProcess
) -> None:
    seconds = f"0.{next(_numbers)}"
    # Noise cannot be packed quickly, and nothing is pushed before all of it is.
    step = f"RUN head -c 200000000 /dev/urandom >/noise && sleep {seconds}"
    async with silent() as registry:
        text = f"FROM {stack.base_image}\n{step}\n"
        spec = inline({"Dockerfile": text}, images=[f"{registry.address}/app:1"])
        await builds.create("packing", {**spec, "cache": {"noCache": True}})
        await vanished(await appeared(seconds))
        ref = (await builds.phase("packing", "Running")).status["claim"]["ref"]
        await stops(builds, "packing", completed(stack, ref), PACKED_SECONDS)
        await idle(operator)
        assert not registry.came.is_set()


@pytest.mark.row("F60")
async def test_a_build_that_is_deleted_while_it_is_pushed(
    builds: Builds, operator: OperatorProcess
) -> None:
    async with silent() as registry:
        await builds.create("pushing", inline(HELLO, images=[f"{registry.address}/app:1"]))
        await registry.came.wait()
        assert builds.phases("pushing") == ["Running"]
        await stops(builds, "pushing", registry.left())
        await idle(operator)


@pytest.mark.row("F60")
@pytest.mark.parametrize(
    ("text", "phase"),
    [("FROM scratch\nLABEL a=b\n", "Succeeded"), ("FROM scratch\nCOPY nothing /\n", "Failed")],
    ids=["succeeded", "failed"],
)
async def test_a_build_that_is_deleted_after_its_end(
    builds: Builds, operator: OperatorProcess, text: str, phase: str
) -> None:
    await builds.create("over", inline({"Dockerfile": text}))
    assert (await builds.ended("over")).status["phase"] == phase
    await deleted(builds, "over", operator)
