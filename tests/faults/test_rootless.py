"""A daemon that cannot kill what a step has started: the object goes, the slot is counted."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

import devstack
from bench.processes import alive, appeared, vanished
from devstack.builds import Builds
from devstack.operator import start_operator
from tests.support.rootless import rootless_worker
from tests.support.waiting import becomes

IN_USE = 'imagebuild_slots_in_use{pool="default"}'
HELLO = {"Dockerfile": "FROM scratch\nLABEL of=the-next\n"}


@pytest.mark.row("F16")
async def test_the_slot_of_a_step_that_runs_on_is_free_when_the_daemon_says_so(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    with rootless_worker(stack) as address:
        operator = await asyncio.to_thread(
            start_operator,
            tmp_path,
            stack.operator_kubeconfig,
            namespaces=[builds.namespace],
            pools=[{"workers": [address], "slots": 1}],
        )
        try:
            step = "RUN sleep 599.0625 & wait"
            text = f"FROM {stack.base_image}\n{step}\n"
            await builds.create("runs-on", {"source": {"inline": {"files": {"Dockerfile": text}}}})
            pid = await appeared("599.0625")
            await builds.delete("runs-on")
            await builds.gone("runs-on", seconds=2)
            await builds.create("next", {"source": {"inline": {"files": HELLO}}})
            await builds.phase("next", "Pending")
            assert alive(pid)
            assert (await asyncio.to_thread(operator.metrics))[IN_USE] == 1
            os.kill(pid, signal.SIGKILL)
            await vanished(pid)
            assert (await builds.ended("next")).status["phase"] == "Succeeded"
            assert builds.phases("next") == ["Pending", "Running", "Succeeded"]
            await becomes(lambda: operator.metrics()[IN_USE], 0.0)
        finally:
            await asyncio.to_thread(operator.stop)
