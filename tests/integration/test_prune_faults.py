"""Prunes that something goes wrong with: a worker, a daemon's age, the operator itself."""

import asyncio
from pathlib import Path

import pytest

import devstack
from devstack.builds import Builds, condition
from devstack.prunes import Prunes
from tests.support.daemon import FakeDaemon, serving
from tests.support.pruning import filled, operating, records_of, run, size_of, unique


@pytest.mark.row("seed-14")
async def test_a_worker_that_does_not_answer_hides_nothing_of_the_others(
    stack: devstack.Stack, prunes: Prunes, builds: Builds, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    dead = f"unix://{tmp_path}/nobody.sock"
    async with operating(stack, tmp_path, [workers[0], dead]):
        await filled(stack, builds)
        before = size_of(await records_of(workers[0]))
        ended = await run(prunes, all=True)
        after = size_of(await records_of(workers[0]))
    told = condition(ended.body, "Succeeded")
    assert (told["status"], told["reason"]) == ("False", "PruneFailed")
    assert dead in told["message"]
    assert "1 of 3 caches" in told["message"]
    assert condition(ended.body, "Complete")["status"] == "True"
    told_by = {one["worker"]: one for one in ended.status["targets"]}
    failed, other = told_by[dead], told_by[workers[0]]
    assert set(told_by) == {"", dead, workers[0]}
    assert "does not answer" in failed["message"]
    assert other["reclaimedBytes"] == before - after == ended.status["reclaimedBytes"] > 0


@pytest.mark.row("P5")
async def test_a_limit_is_not_sent_to_a_daemon_that_would_overlook_it(
    stack: devstack.Stack, prunes: Prunes, tmp_path: Path
) -> None:
    async with (
        serving(FakeDaemon("v0.16.0")) as old,
        serving(FakeDaemon("v0.17.0")) as new,
        operating(stack, tmp_path, [old.address, new.address]),
    ):
        ended = await run(prunes, maxUsedSpace="1Gi")
        assert condition(ended.body, "Succeeded")["reason"] == "FeatureUnsupported"
        assert "v0.16.0" in ended.status["targets"][0]["message"]
        assert old.pruned == []
        assert [request.maxUsedSpace for request in new.pruned] == [1 << 30]
        only = await run(prunes, minFreeSpace="1", workers=[old.address])
        assert condition(only.body, "Succeeded")["reason"] == "FeatureUnsupported"
        assert condition(only.body, "Stalled")["status"] == "True"
        assert old.pruned == []
        assert (await run(prunes, reservedSpace="1Gi")).status["phase"] == "Succeeded"
        assert [request.reservedSpace for request in old.pruned] == [1 << 30]


async def test_a_deleted_prune_is_cancelled_at_the_daemon(
    stack: devstack.Stack, prunes: Prunes, tmp_path: Path
) -> None:
    async with (
        serving(FakeDaemon()) as daemon,
        operating(stack, tmp_path, [daemon.address]) as operator,
    ):
        daemon.go.clear()
        name = unique()
        await prunes.create(name, {})
        await asyncio.wait_for(daemon.begun.wait(), 10)
        await prunes.delete(name)
        await prunes.gone(name, seconds=5)
        await asyncio.wait_for(daemon.cancelled.wait(), 5)
        daemon.go.set()
        assert (await run(prunes)).status["phase"] == "Succeeded"
        assert operator.process.poll() is None


async def test_a_prune_that_the_operator_left_is_begun_anew_by_the_next(
    stack: devstack.Stack, prunes: Prunes, tmp_path: Path
) -> None:
    async with serving(FakeDaemon()) as daemon:
        daemon.go.clear()
        name = unique()
        async with operating(stack, tmp_path / "1", [daemon.address], drainSeconds=0):
            await prunes.create(name, {})
            await asyncio.wait_for(daemon.begun.wait(), 10)
        left = await prunes.phase(name, "Pending")
        assert condition(left.body, "Succeeded")["reason"] == "Interrupted"
        async with operating(stack, tmp_path / "2", [daemon.address]) as killed:
            await prunes.until(name, lambda _: prunes.phases(name)[-1] == "Running")
            await asyncio.to_thread(killed.kill)
        daemon.go.set()
        async with operating(stack, tmp_path / "3", [daemon.address]):
            assert (await prunes.ended(name)).status["phase"] == "Succeeded"
        assert len(daemon.pruned) == 3


async def test_an_operator_that_is_to_leave_prunes_alone_does(
    stack: devstack.Stack, prunes: Prunes, builds: Builds, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    name = unique()
    async with operating(stack, tmp_path, workers, prunes=False):
        await prunes.create(name, {})
        await filled(stack, builds, 1)
        assert (await prunes.get(name))["status"]["observedGeneration"] == -1
