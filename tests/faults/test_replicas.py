"""Two operators of the same builds: one leads, whatever becomes of it, and the other follows."""

import asyncio
import random
import signal
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import devstack
from bench.processes import appeared
from devstack.builds import Builds, condition
from devstack.crew import crew
from devstack.images import digest_of
from tests.support.replicas import history, replicas, writers
from tests.support.specs import HELLO, inline, sleeping
from tests.support.waiting import becomes

TAKEOVER_SECONDS, HANDOVER_SECONDS = 15, 2


def settings(stack: devstack.Stack, builds: Builds, **more: Any) -> dict[str, Any]:
    """For operators of this namespace only."""
    pool = {"workers": [stack.buildkit], "slots": 4}
    return {"namespaces": [builds.namespace], "pools": [pool], **more}


def holders(builds: Builds, name: str) -> list[str]:
    """Who claimed the build, in order."""
    found: list[str] = []
    for seen in builds.history[name]:
        holder = seen.status.get("claim", {}).get("holder")
        if holder and found[-1:] != [holder]:
            found.append(holder)
    return found


@pytest.mark.row("F50")
async def test_of_two_that_start_together_one_builds(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    async with replicas(stack, tmp_path, **settings(stack, builds)) as both:
        names = [f"one-{number}" for number in range(12)]
        await asyncio.gather(*(builds.create(name, inline(HELLO)) for name in names))
        ended = [await builds.ended(name) for name in names]
        assert {one.status["phase"] for one in ended} == {"Succeeded"}
        assert {one.status["attempt"] for one in ended} == {1}
        assert len({holder for name in names for holder in holders(builds, name)}) == 1
        leader = await both.leading(seconds=TAKEOVER_SECONDS)
        standby = both.other(leader)
        assert leader.metrics()['imagebuild_status_writes_total{result="written"}'] >= 24
        assert 'imagebuild_status_writes_total{result="written"}' not in standby.metrics()
        with urllib.request.urlopen(f"{standby.ops}/readyz", timeout=5) as answer:  # noqa: ASYNC210, S310
            assert answer.status == 200


@pytest.mark.row("F52")
async def test_a_killed_leader_is_followed_and_its_build_is_begun_again(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    async with replicas(stack, tmp_path, **settings(stack, builds)) as both:
        leader = await both.leading(seconds=TAKEOVER_SECONDS)
        standby = both.other(leader)
        await builds.create("killed", sleeping(stack, "3.0625"))
        await appeared("3.0625")
        await asyncio.to_thread(leader.kill)
        assert await both.leading(seconds=TAKEOVER_SECONDS) == standby
        ended = await builds.ended("killed", seconds=30)
        assert (ended.status["phase"], ended.status["attempt"]) == ("Succeeded", 2)
        assert standby.metrics()["imagebuild_lease_transitions"] >= 1


@pytest.mark.row("F7")
async def test_a_leader_that_is_told_to_stop_drains_and_then_gives_the_lease_back(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    async with replicas(stack, tmp_path, **settings(stack, builds, drainSeconds=3)) as both:
        leader = await both.leading(seconds=TAKEOVER_SECONDS)
        standby = both.other(leader)
        await builds.create("ends", sleeping(stack, "1.5625"))
        await builds.create("goes-on", sleeping(stack, "6.0625"))
        await appeared("1.5625")
        await appeared("6.0625")
        leader.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(leader.process.wait, 20) == 0
        assert await both.leading(seconds=HANDOVER_SECONDS) == standby
        first = await builds.ended("ends")
        assert (first.status["phase"], first.status["attempt"]) == ("Succeeded", 1)
        paused = await builds.phase("goes-on", "Pending")
        assert condition(paused.body, "Succeeded")["reason"] == "Interrupted"
        second = await builds.ended("goes-on")
        assert (second.status["phase"], second.status["attempt"]) == ("Succeeded", 2)
        assert len(holders(builds, "goes-on")) == 2


@pytest.mark.row("F51")
@pytest.mark.timeout(150)
async def test_a_leader_that_slept_changes_nothing_when_it_wakes_up(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    with crew(stack, 1) as [worker]:
        pool = {"workers": [worker.address], "slots": 4}
        async with replicas(stack, tmp_path, **settings(stack, builds, pools=[pool])) as both:
            leader = await both.leading(seconds=TAKEOVER_SECONDS)
            standby = both.other(leader)
            start = stack.audit_log.stat().st_size
            await builds.create("long", sleeping(stack, "55.0625"))
            await builds.create("expires", inline(HELLO, ttlSecondsAfterFinished=20))
            await appeared("55.0625")
            await builds.ended("expires")
            uid = (await builds.get("long"))["metadata"]["uid"]
            (token,) = writers(stack, start, "long")
            slept = asyncio.get_running_loop().time()
            leader.process.send_signal(signal.SIGSTOP)
            try:
                await becomes(
                    lambda: standby.metrics()["imagebuild_leader"], 1.0, TAKEOVER_SECONDS
                )
                await builds.until("long", lambda seen: seen.status.get("attempt") == 2)
                mark = stack.audit_log.stat().st_size
                await builds.create("meanwhile", inline(HELLO))
                await builds.ended("meanwhile")
                # How long it sleeps is the fault itself; the other one has led for long then.
                await asyncio.sleep(slept + 40 - asyncio.get_running_loop().time())
            finally:
                leader.process.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(leader.process.wait, 20) == 1
            assert [one for one in leader.events() if "was lost" in str(one.get("why"))]
            await becomes(
                lambda: history(stack, worker.address)[f"{uid}-1-1"].get("CompletedAt") is None,
                expected=False,
                seconds=10,
            )
            ended = await builds.ended("long", seconds=60)
            assert (ended.status["phase"], ended.status["attempt"]) == ("Succeeded", 2)
            assert len(holders(builds, "long")) == 2
            await builds.gone("expires")
            assert token in writers(stack, start)
            assert token not in writers(stack, mark)
            assert writers(stack, mark, "long")


@pytest.mark.row("F52")
@pytest.mark.timeout(300)
async def test_of_two_hundred_builds_under_leaders_that_are_killed_none_is_lost_or_doubled(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    chance = random.Random(52)  # noqa: S311  # repeatable, nothing secret
    names = [f"many-{number:03}" for number in range(200)]
    images = {name: f"{stack.registry}/{builds.namespace}/{name}:1" for name in names}
    with crew(stack, 1) as [worker]:
        pool = {"workers": [worker.address], "slots": 8}
        own = settings(stack, builds, pools=[pool])
        async with replicas(stack, tmp_path, seconds=3, **own) as both:
            for number, name in enumerate(names):
                text = f"FROM {stack.base_image}\nRUN echo {name} > /name; sleep 0.2\n"
                files = {"Dockerfile": text} if number % 2 else HELLO
                await builds.create(name, inline(files, images=[images[name]]))
            for ended in sorted(chance.sample(range(5, 180), 5)):
                await becomes(partial(so_many_ended, builds, ended), expected=True, seconds=60)
                leader = await both.leading(seconds=TAKEOVER_SECONDS)
                # Somewhere within what it does then.
                await asyncio.sleep(chance.uniform(0, 0.3))
                await asyncio.to_thread(leader.kill)
                await both.start()
            for name in names:
                await builds.ended(name, seconds=90)
        final = {name: builds.history[name][-1].body for name in names}
        assert {one["status"]["phase"] for one in final.values()} == {"Succeeded"}
        assert all(builds.phases(name).count("Succeeded") == 1 for name in names)
        known = {one["metadata"]["uid"]: one["status"]["attempt"] for one in final.values()}
        for ref, record in history(stack, worker.address).items():
            uid, _, attempt = ref.rsplit("-", 2)
            assert record.get("CompletedAt"), f"{ref} still runs."
            assert int(attempt) <= known[uid], f"{ref} is no attempt that its object knows."
        assert max(known.values()) >= 2
    for name in names:
        digest = await asyncio.to_thread(digest_of, stack, images[name])
        assert final[name]["status"]["imageDigest"] == digest
        assert ever_tagged(stack, f"{builds.namespace}/{name}") == [digest]


def so_many_ended(builds: Builds, number: int) -> bool:
    """Whether that many builds have been seen to end."""
    # A copy at one stroke: it grows while it is looked at from another thread.
    last = [seen[-1].status.get("phase") for seen in list(builds.history.values())]
    return last.count("Succeeded") >= number


def ever_tagged(stack: devstack.Stack, repository: str) -> list[str]:
    """All digests that tag 1 of the repository ever stood for, as the registry's disk has them."""
    root = stack.folder / "registry" / "docker" / "registry" / "v2" / "repositories"
    index = root / repository / "_manifests" / "tags" / "1" / "index" / "sha256"
    return [f"sha256:{one.name}" for one in index.iterdir()]
