"""The operator over workers that come and go: real daemons, one process, one API server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import devstack
from bench.processes import alive, appeared
from devstack.builds import Builds, condition
from devstack.operator import OperatorProcess, start_operator
from imagewright.kube.scale import HOLD
from tests.support.specs import numbers
from tests.support.waiting import becomes
from tests.support.worker_player import WorkerPlayer

HELLO = {"source": {"inline": {"files": {"Dockerfile": "FROM scratch\nLABEL a=b\n"}}}}
_numbers = numbers(811)
pytestmark = [pytest.mark.usefixtures("worker_rights"), pytest.mark.timeout(180)]


def sleeping(stack: devstack.Stack, seconds: str) -> dict[str, Any]:
    """A spec whose one step sleeps."""
    text = f"FROM {stack.base_image}\nRUN sleep {seconds}\n"
    return {"source": {"inline": {"files": {"Dockerfile": text}}}, "cache": {"noCache": True}}


@asynccontextmanager
async def operating(
    stack: devstack.Stack, folder: Path, namespace: str, **pool: Any
) -> AsyncIterator[OperatorProcess]:
    """An operator of its own, over the Pods behind the Service bk."""
    pool = {"service": {"name": "bk", "namespace": namespace}, **pool}
    given = {"namespaces": [namespace], "prunes": False, "pools": [pool]}
    running = await asyncio.to_thread(start_operator, folder, stack.operator_kubeconfig, **given)
    try:
        yield running
    finally:
        await asyncio.to_thread(running.stop)


async def test_a_pool_grows_from_nothing_for_a_build_and_is_nothing_again(
    stack: devstack.Stack, builds: Builds, player: WorkerPlayer, tmp_path: Path
) -> None:
    autoscale = {"statefulSet": "bk", "max": 2, "idleSeconds": 1}
    async with operating(stack, tmp_path, builds.namespace, slots=1, autoscale=autoscale):
        # Long enough for the second look of the guard.
        await builds.create("first", sleeping(stack, "12.0625"))
        waits = await builds.phase("first", "Pending")
        assert condition(waits.body, "Succeeded")["reason"] == "NoWorker"
        assert waits.status["queue"]["reason"] == "NoWorker"
        assert "The pool is being scaled" in condition(waits.body, "Succeeded")["message"]
        await becomes(lambda: player.pods.replicas, 1)
        async with player.following():
            await builds.phase("first", "Running")
            await becomes(lambda: player.pods.annotations(0).get(HOLD), "false")
            assert (await builds.ended("first")).status["phase"] == "Succeeded"
            await player.empty()
            for name in ("a", "b", "c"):
                await builds.create(name, sleeping(stack, "2.0625"))
            for name in ("a", "b", "c"):
                ended = await builds.ended(name)
                assert (ended.status["phase"], ended.status["attempt"]) == ("Succeeded", 1)
            await player.empty()
    assert player.most == 2


async def test_a_worker_that_leaves_is_not_cut_and_one_that_is_back_is_used_at_once(
    stack: devstack.Stack,
    builds: Builds,
    player: WorkerPlayer,
    tmp_path: Path,
) -> None:
    async def used(name: str) -> None:
        running = await builds.phase(name, "Running")
        took = running.at - player.running[0].told
        print(f"\n{name} ran {took:.2f} s after its worker was told of")  # noqa: T201
        assert (await builds.ended(name)).status["phase"] == "Succeeded"

    await asyncio.to_thread(player.start, 0)
    seconds = f"10.{next(_numbers)}"
    async with operating(stack, tmp_path, builds.namespace, slots=2):
        await builds.create("long", sleeping(stack, seconds))
        pid = await appeared(seconds)
        await asyncio.to_thread(player.leave, 0)
        await builds.create("next", HELLO)
        waits = await builds.phase("next", "Pending")
        assert condition(waits.body, "Succeeded")["reason"] == "NoWorker"
        assert alive(pid)
        ended = await builds.ended("long")
        assert (ended.status["phase"], ended.status["attempt"]) == ("Succeeded", 1)
        assert builds.phases("next") == ["Pending"]
        await asyncio.to_thread(player.come, 0)
        await used("next")
        # The Pod is made anew, and is at another address.
        await asyncio.to_thread(player.stop, 0)
        await builds.create("later", HELLO)
        await builds.phase("later", "Pending")
        await asyncio.to_thread(player.start, 0)
        await used("later")
