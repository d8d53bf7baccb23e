"""What breaks around a build breaks no build: watch, worker, registry, the operator itself."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import devstack
from bench.processes import appeared, vanished
from devstack.builds import Builds, condition
from devstack.components import Place, buildkitd
from devstack.crew import crew
from devstack.operator import start_operator
from devstack.registries import Registries
from devstack.server import await_ready, free_port, start
from tests.support.proxy import ApiProxy
from tests.support.specs import HELLO, inline, numbers, sleeping
from tests.support.waiting import becomes

_numbers = numbers(700)


def settings(stack: devstack.Stack, namespace: str, **more: Any) -> dict[str, Any]:
    """An operator for one namespace, so that it does not meet the other tests' builds."""
    pool = {"workers": [stack.buildkit], "slots": 4}
    return {"namespaces": [namespace], "pools": [pool], **more}


async def test_a_watch_that_breaks_ends_no_build_and_misses_no_delete(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    async with ApiProxy(str(stack.operator_kubeconfig)) as proxy:
        config = tmp_path / "proxy.kubeconfig"
        config.write_text(proxy.kubeconfig())
        operator = await asyncio.to_thread(
            start_operator, tmp_path, config, **settings(stack, builds.namespace)
        )
        try:
            seconds = str(next(_numbers))
            await builds.create("short", sleeping(stack, "3.125"))
            await builds.create("long", sleeping(stack, seconds))
            pid = await appeared(seconds)
            await proxy.break_watches()
            await builds.delete("long")
            await vanished(pid, seconds=5)
            assert (await builds.ended("short")).status["phase"] == "Succeeded"
            await builds.create("next", inline(HELLO))
            assert (await builds.ended("next")).status["phase"] == "Succeeded"
            assert operator.process.poll() is None
            starts = [event for event in operator.events() if event.get("event") == "Watching"]
            assert len(starts) == 2
        finally:
            await asyncio.to_thread(operator.stop)


async def test_a_watch_that_has_no_answer_yet_is_ended_with_one_that_breaks(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    async with ApiProxy(str(stack.operator_kubeconfig)) as proxy:
        config = tmp_path / "proxy.kubeconfig"
        config.write_text(proxy.kubeconfig())
        proxy.ignored = lambda asked: "watch" in asked.query and asked.path.endswith("imagebuilds")
        seconds = str(next(_numbers))
        await builds.create("long", sleeping(stack, seconds))
        operator = await asyncio.to_thread(
            start_operator, tmp_path, config, **settings(stack, builds.namespace)
        )
        try:
            pid = await appeared(seconds)
            proxy.ignored = lambda _: False
            await proxy.break_watches()
            await builds.delete("long")
            await vanished(pid, seconds=5)
            await builds.create("next", inline(HELLO))
            assert (await builds.ended("next")).status["phase"] == "Succeeded"
        finally:
            await asyncio.to_thread(operator.stop)


@pytest.mark.row("F11")
@pytest.mark.row("F10")
async def test_builds_wait_for_a_worker_and_go_on_when_it_is_back(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    with crew(stack, 1) as [worker]:
        worker.kill()
        operator = await asyncio.to_thread(
            start_operator,
            tmp_path / "operator",
            stack.operator_kubeconfig,
            namespaces=[builds.namespace],
            pools=[{"workers": [worker.address], "slots": 2}],
        )
        try:
            await builds.create("waits", inline(HELLO))
            pending = await builds.phase("waits", "Pending")
            assert condition(pending.body, "Succeeded")["reason"] == "NoWorker"
            assert "begins by itself" in condition(pending.body, "Succeeded")["message"]
            await asyncio.to_thread(worker.restart)
            assert (await builds.ended("waits", seconds=10)).status["phase"] == "Succeeded"
            await builds.create("lost", sleeping(stack, "2.0625"))
            await appeared("2.0625")
            worker.kill()
            retrying = await builds.phase("lost", "Pending")
            assert condition(retrying.body, "Succeeded")["reason"] == "Retrying"
            await asyncio.to_thread(worker.restart)
            ended = await builds.ended("lost", seconds=20)
            assert ended.status["phase"] == "Succeeded"
            assert ended.status["attempt"] == 2
        finally:
            await asyncio.to_thread(operator.stop)


@pytest.mark.row("F60")
async def test_a_build_that_is_deleted_between_two_attempts_has_no_further_one(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    with crew(stack, 1) as [worker]:
        operator = await asyncio.to_thread(
            start_operator,
            tmp_path / "operator",
            stack.operator_kubeconfig,
            namespaces=[builds.namespace],
            pools=[{"workers": [worker.address], "slots": 1}],
        )
        try:
            seconds = str(next(_numbers))
            await builds.create("lost", sleeping(stack, seconds))
            await appeared(seconds)
            worker.kill()
            waiting = await builds.phase("lost", "Pending")
            assert condition(waiting.body, "Succeeded")["reason"] == "Retrying"
            await builds.delete("lost")
            await builds.gone("lost", seconds=1)
            await asyncio.to_thread(worker.restart)
            await builds.create("next", inline(HELLO))
            assert (await builds.ended("next")).status["phase"] == "Succeeded"
            begun = [one["name"] for one in operator.events() if one["event"] == "Build began"]
            assert begun == ["lost", "next"]
            slots = 'imagebuild_slots_in_use{pool="default"}'
            await becomes(lambda: operator.metrics()[slots], 0.0, seconds=5)
        finally:
            await asyncio.to_thread(operator.stop)


@pytest.mark.row("F32")
@pytest.mark.timeout(120)
async def test_a_registry_that_is_down_is_tried_again_and_then_named(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    port = free_port()
    place = Place(stack.binaries["buildkitd"], tmp_path)
    address = f"unix://{tmp_path}/b.sock"
    daemon = buildkitd(place, address, Registries(tmp_path, {"plain": port}))
    worker = await_ready(daemon, start(daemon, tmp_path))
    operator = await asyncio.to_thread(
        start_operator,
        tmp_path / "operator",
        stack.operator_kubeconfig,
        namespaces=[builds.namespace],
        pools=[{"workers": [address], "slots": 2}],
    )
    command = Registries(tmp_path, {"plain": port}).one("plain", stack.binaries["registry"])
    server = None
    try:
        await builds.create("down", inline(HELLO, images=[f"127.0.0.1:{port}/a:1"]))
        ended = await builds.ended("down", seconds=90)
        assert ended.status["failure"]["reason"] == "RegistryUnavailable"
        assert "check that it is up" in ended.status["failure"]["message"]
        assert ended.status["failure"]["retryable"] is True
        assert ended.status["attempt"] == 4
        server = await_ready(command, start(command, tmp_path))
        await builds.patch("down", {"spec": {"rebuildToken": "up"}})
        again = await builds.ended("down", generation=2)
        assert again.status["phase"] == "Succeeded"
    finally:
        await asyncio.to_thread(operator.stop)
        worker.stop()
        if server is not None:
            server.stop()


@pytest.mark.row("F3")
@pytest.mark.row("seed-17")
async def test_a_build_of_a_killed_operator_is_begun_again_by_the_next(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    kubeconfig, own = stack.operator_kubeconfig, settings(stack, builds.namespace)
    operator = await asyncio.to_thread(start_operator, tmp_path / "one", kubeconfig, **own)
    await builds.create("killed", sleeping(stack, "2.1875"))
    pid = await appeared("2.1875")
    await asyncio.to_thread(operator.kill)
    await vanished(pid, seconds=5)
    operator = await asyncio.to_thread(start_operator, tmp_path / "two", kubeconfig, **own)
    try:
        ended = await builds.ended("killed", seconds=20)
        assert ended.status["phase"] == "Succeeded"
        assert ended.status["attempt"] == 2
    finally:
        await asyncio.to_thread(operator.stop)


@pytest.mark.row("F7")
async def test_a_stopped_operator_lets_builds_end_and_says_which_it_interrupted(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    own = settings(stack, builds.namespace, drainSeconds=3)
    operator = await asyncio.to_thread(
        start_operator, tmp_path / "one", stack.operator_kubeconfig, **own
    )
    seconds = str(next(_numbers))
    await builds.create("ends", sleeping(stack, "1.4375"))
    await builds.create("stopped", sleeping(stack, seconds))
    await appeared("1.4375")
    pid = await appeared(seconds)
    assert await asyncio.to_thread(operator.stop) == 0
    await vanished(pid, seconds=2)
    assert (await builds.ended("ends")).status["phase"] == "Succeeded"
    paused = await builds.phase("stopped", "Pending")
    assert condition(paused.body, "Succeeded")["reason"] == "Interrupted"
    operator = await asyncio.to_thread(
        start_operator, tmp_path / "two", stack.operator_kubeconfig, **own
    )
    try:
        await appeared(seconds)
        again = await builds.until("stopped", lambda seen: seen.status.get("attempt") == 2)
        assert again.status["phase"] == "Running"
        await builds.delete("stopped")
    finally:
        await asyncio.to_thread(operator.stop)


@pytest.mark.row("F5")
async def test_a_restart_writes_nothing_on_what_is_finished(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    own = settings(stack, builds.namespace)
    operator = await asyncio.to_thread(
        start_operator, tmp_path / "one", stack.operator_kubeconfig, **own
    )
    await builds.create("done", inline(HELLO))
    done = await builds.ended("done")
    await asyncio.to_thread(operator.stop)
    operator = await asyncio.to_thread(
        start_operator, tmp_path / "two", stack.operator_kubeconfig, **own
    )
    try:
        await builds.create("fresh", inline(HELLO))
        await builds.ended("fresh")
        now = await builds.get("done")
        assert now["metadata"]["resourceVersion"] == done.body["metadata"]["resourceVersion"]
    finally:
        await asyncio.to_thread(operator.stop)
