"""Daemons that die, stop or vanish in the middle of a build, and objects that we fail at."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import devstack
from bench.processes import appeared
from devstack.builds import Builds, Seen, condition
from devstack.crew import Member, crew
from devstack.operator import OperatorProcess, start_operator
from imagewright.clients.buildkit.control import Control
from tests.support.specs import numbers
from tests.support.wire import Wire

pytestmark = pytest.mark.timeout(120)
SLOTS = 'imagebuild_slots_in_use{pool="default"}'
UP = 'imagebuild_workers_up{pool="default"}'
_numbers = numbers(931)


def seconds() -> str:
    """So long a step sleeps; no two are the same, so that its process can be found."""
    return f"2.0{next(_numbers)}"


DEADLINE = 20
"""Seconds: enough for a stall to be noticed, for which a daemon has ten to answer."""


def sleeping(stack: devstack.Stack, how_long: str, **more: Any) -> dict[str, Any]:
    """A spec whose image is another one each time; its step speaks, and then sleeps.

    The first sleep gives time for what it says to arrive: daemons pass it on a little later.
    """
    step = f"cat /proc/sys/kernel/random/uuid > /id && echo begun && sleep 3 && sleep {how_long}"
    text = f"FROM {stack.base_image}\nRUN {step}\n"
    files = {"files": {"Dockerfile": text}}
    return {"source": {"inline": files}, "cache": {"noCache": True}, **more}


@contextlib.asynccontextmanager
async def operating(
    stack: devstack.Stack, builds: Builds, folder: Path, workers: list[str], **more: Any
) -> AsyncIterator[OperatorProcess]:
    """An operator for the test's namespace, with one slot on each of these workers."""
    running = await asyncio.to_thread(
        start_operator,
        folder / "operator",
        stack.operator_kubeconfig,
        namespaces=[builds.namespace],
        prunes=False,
        pools=[{"workers": workers, "slots": 1}],
        **more,
    )
    try:
        await counted(running, UP, len(workers))
        yield running
    finally:
        await asyncio.to_thread(running.stop)


async def counted(operator: OperatorProcess, series: str, value: float) -> None:
    """Until the operator counts so many."""
    async with asyncio.timeout(30):
        while (await asyncio.to_thread(operator.metrics)).get(series, 0) != value:
            await asyncio.sleep(0.05)


@pytest.fixture
def members(stack: devstack.Stack) -> Iterator[list[Member]]:
    """Two daemons; one that a test has stopped goes on first, so that it can end."""
    with crew(stack, 2) as found:
        try:
            yield found
        finally:
            for one in found:
                one.server.signal(signal.SIGCONT)


async def begun(builds: Builds, name: str, members: list[Member], addresses: list[str]) -> Member:
    """The daemon that runs the build's first attempt."""
    await builds.phase(name, "Running")
    return members[addresses.index(builds.worker(name))]


def attempt(number: int, phase: str) -> Any:
    """Whether an event tells of this attempt in this phase."""
    return lambda seen: (seen.status.get("attempt"), seen.status.get("phase")) == (number, phase)


async def retried(builds: Builds, name: str, first: str, reason: str) -> Seen:
    """The end, once a second attempt on another worker has told why the first one broke."""
    paused = await builds.until(name, attempt(1, "Pending"), 45)
    said = condition(paused.body, "Succeeded")
    assert said["reason"] == "Retrying"
    assert said["message"].startswith("The next attempt begins at ")
    again = await builds.until(name, attempt(2, "Running"))
    assert again.status["claim"]["worker"] != first
    for seen in (paused, again):
        last = seen.status["lastAttempt"]
        assert (last["number"], last["reason"]) == (1, reason)
    ended = await builds.ended(name)
    assert (ended.status["phase"], ended.status["attempt"]) == ("Succeeded", 2)
    assert "lastAttempt" not in ended.status
    return ended


def tells_how_far_it_came(builds: Builds, name: str) -> bool:
    """Whether the step that ran in the first attempt, and what it had said, were told."""
    lasts = [
        one.status["lastAttempt"] for one in builds.history[name] if "lastAttempt" in one.status
    ]
    return bool(lasts) and all(
        last.get("logTail") == "begun\n" and "sleep" in last["step"] for last in lasts
    )


async def digest_of(stack: devstack.Stack, image: str) -> str:
    """What the registry has under the name."""
    crane = await asyncio.create_subprocess_exec(
        str(stack.binaries["crane"]), "digest", image, "--insecure", stdout=asyncio.subprocess.PIPE
    )
    return (await crane.communicate())[0].decode().strip()


@pytest.mark.row("F10")
async def test_a_killed_daemon_has_its_build_done_by_another(
    stack: devstack.Stack, builds: Builds, tmp_path: Path, members: list[Member]
) -> None:
    addresses = [one.address for one in members]
    async with operating(stack, builds, tmp_path, addresses) as operator:
        how_long = seconds()
        await builds.create("lost", sleeping(stack, how_long))
        first = await begun(builds, "lost", members, addresses)
        await appeared(how_long)
        await asyncio.to_thread(first.kill)
        await retried(builds, "lost", first.address, "BuilderUnavailable")
        assert tells_how_far_it_came(builds, "lost")
        await counted(operator, SLOTS, 0)


@pytest.mark.row("F12")
async def test_a_stopped_daemon_has_its_build_done_by_another_and_changes_nothing_later(
    stack: devstack.Stack, builds: Builds, tmp_path: Path, members: list[Member]
) -> None:
    addresses = [one.address for one in members]
    image = f"{stack.registry}/stopped:{builds.namespace}"
    async with operating(stack, builds, tmp_path, addresses, stallSeconds=1) as operator:
        how_long = seconds()
        await builds.create("stopped", sleeping(stack, how_long, images=[image]))
        first = await begun(builds, "stopped", members, addresses)
        await appeared(how_long)
        claim = (await builds.phase("stopped", "Running")).status["claim"]
        first.server.signal(signal.SIGSTOP)
        ended = await retried(builds, "stopped", first.address, "Stalled")
        assert tells_how_far_it_came(builds, "stopped")
        await counted(operator, SLOTS, 0)
        assert await digest_of(stack, image) == ended.status["imageDigest"]
        first.server.signal(signal.SIGCONT)
        await counted(operator, UP, 2)
        await settled(first.address, claim["ref"])
        assert await digest_of(stack, image) == ended.status["imageDigest"]
        assert (await builds.get("stopped"))["status"] == ended.status


async def settled(address: str, ref: str) -> None:
    """Until the daemon has done with this build, however it ended."""
    daemon = Control(address)
    try:
        async with asyncio.timeout(30):
            async for _ in daemon.follow(ref):
                continue
    finally:
        await daemon.close()


@pytest.mark.row("F12")
async def test_a_daemon_behind_a_cut_wire_has_its_build_done_by_another(
    stack: devstack.Stack, builds: Builds, tmp_path: Path, members: list[Member]
) -> None:
    async with contextlib.AsyncExitStack() as wires:
        cables = [
            await wires.enter_async_context(Wire(one.address.removeprefix("unix://")))
            for one in members
        ]
        addresses = [one.address for one in cables]
        async with operating(stack, builds, tmp_path, addresses, stallSeconds=1) as operator:
            how_long = seconds()
            await builds.create("cut", sleeping(stack, how_long))
            first = members.index(await begun(builds, "cut", members, addresses))
            await appeared(how_long)
            cables[first].cut()
            ended = await retried(builds, "cut", addresses[first], "Stalled")
            assert tells_how_far_it_came(builds, "cut")
            await counted(operator, SLOTS, 0)
            cables[first].mend()
            await counted(operator, UP, 2)
            assert (await builds.get("cut"))["status"] == ended.status


@pytest.mark.row("F12")
@pytest.mark.parametrize(
    ("stall", "last"),
    [(120, None), (1, "Stalled")],
    ids=["before it is noticed", "while no other worker is there"],
)
async def test_the_deadline_is_kept_though_the_daemon_is_stopped(
    stack: devstack.Stack,
    builds: Builds,
    tmp_path: Path,
    members: list[Member],
    stall: int,
    last: str | None,
) -> None:
    only = members[0]
    more = {"stallSeconds": stall}
    async with operating(stack, builds, tmp_path, [only.address], **more) as operator:
        how_long = seconds()
        await builds.create("late", sleeping(stack, how_long, activeDeadlineSeconds=DEADLINE))
        await appeared(how_long)
        only.server.signal(signal.SIGSTOP)
        ended = await builds.ended("late", seconds=60)
        assert ended.status["failure"]["reason"] == "DeadlineExceeded"
        assert (ended.status.get("lastAttempt") or {}).get("reason") == last
        began, over = (
            datetime.fromisoformat(ended.status[one]) for one in ("startTime", "completionTime")
        )
        assert (over - began).total_seconds() <= DEADLINE + 5
        await counted(operator, SLOTS, 0)


@pytest.mark.row("F12")
async def test_a_silent_step_on_a_daemon_that_answers_is_left_to_end(
    stack: devstack.Stack, builds: Builds, tmp_path: Path, members: list[Member]
) -> None:
    addresses = [one.address for one in members]
    async with operating(stack, builds, tmp_path, addresses, stallSeconds=0.2):
        await builds.create("silent", sleeping(stack, seconds()))
        ended = await builds.ended("silent")
        assert (ended.status["phase"], ended.status["attempt"]) == ("Succeeded", 1)


@pytest.mark.row("F73")
async def test_an_object_that_we_fail_at_holds_up_no_other_and_says_so(
    stack: devstack.Stack, builds: Builds, tmp_path: Path, members: list[Member]
) -> None:
    """A time at the end of all times makes every sum with it a fault of ours."""
    backing_off = 'imagebuild_reconcile_backing_off{kind="ImageBuild"}'
    async with operating(stack, builds, tmp_path, [members[0].address]) as operator:
        files = {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a"}
        spec = {"source": {"inline": {"files": files}}}
        await builds.create("poisoned", {**spec, "pool": "nowhere"})
        await builds.phase("poisoned", "Pending")
        await status_of(stack, builds.namespace, '{"startTime": "9999-12-31T23:59:59Z"}')
        told = await builds.until("poisoned", lambda seen: told_of(seen) is not None)
        assert "OverflowError" in str(told_of(told))
        for number in range(10):
            await builds.create(f"fine-{number}", spec)
        for number in range(10):
            assert (await builds.ended(f"fine-{number}")).status["phase"] == "Succeeded"
        metrics = await asyncio.to_thread(operator.metrics)
        assert metrics[backing_off] == 1
        failed = 'imagebuild_reconcile_failures_total{error="OverflowError",kind="ImageBuild"}'
        assert metrics[failed] >= 1
        assert operator.process.poll() is None
        await status_of(stack, builds.namespace, '{"startTime": null}')
        await counted(operator, backing_off, 0)
        await builds.until("poisoned", lambda seen: seen.at > told.at and told_of(seen) is None)


def told_of(seen: Seen) -> str | None:
    """What the object says of a fault at it."""
    return condition(seen.body, "OperatorError").get("message")


async def status_of(stack: devstack.Stack, namespace: str, patch: str) -> None:
    """Patch the status of the object, as an admin may."""
    process = await asyncio.create_subprocess_exec(
        str(stack.binaries["kubectl"]),
        f"--kubeconfig={stack.kubeconfig}",
        f"--namespace={namespace}",
        *("patch", "ib", "poisoned", "--subresource=status", "--type=merge"),
        f'--patch={{"status": {patch}}}',
    )
    assert await process.wait() == 0
