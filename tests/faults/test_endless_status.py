"""A daemon whose status streams never end: neither results nor slots are held by that."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import devstack
from bench.processes import appeared, vanished
from devstack.builds import Builds
from imagewright.builders import buildkit as module
from imagewright.builders.buildkit import BuildKitBuilder
from imagewright.clients.buildkit.control import Control, Solve
from imagewright.clients.registry.tokens import TokenClient
from imagewright.domain.plan import Inline, Plan
from imagewright.jobs import Jobs, Task
from imagewright.metrics import Metrics
from imagewright.scheduler import Scheduler
from tests.faults.daemonproxy import DaemonProxy
from tests.faults.test_daemons import SLOTS, counted, operating
from tests.support.makers import NOW, UID
from tests.support.parts import FakeKeyring, a_backend
from tests.support.pooling import a_pool, a_worker, an_entry
from tests.support.specs import HELLO, inline, numbers
from tests.support.waiting import turns

pytestmark = [pytest.mark.row("F13"), pytest.mark.timeout(120)]
CONFIRM_SECONDS = 3
_numbers = numbers(970)


@pytest.fixture
async def proxy(stack: devstack.Stack, tmp_path: Path) -> AsyncIterator[DaemonProxy]:
    """The stack's buildkitd behind a proxy that lets no status stream end."""
    async with DaemonProxy(stack.buildkit, tmp_path / "daemon.sock") as running:
        running.endless = "Status"
        yield running


async def test_results_are_told_and_slots_are_free_though_no_status_stream_ends(
    stack: devstack.Stack, builds: Builds, tmp_path: Path, proxy: DaemonProxy
) -> None:
    failing = {"Dockerfile": f"FROM {stack.base_image}\nRUN echo why && exit 3\n"}
    async with operating(stack, builds, tmp_path, [proxy.address]) as operator:
        # There is one slot: each of them waits for the one before.
        await builds.create("good", inline(HELLO))
        await builds.create("bad", inline(failing, cache={"noCache": True}))
        await builds.create("next", inline(HELLO))
        good, bad, after = [(await builds.ended(one)).status for one in ("good", "bad", "next")]
        assert (good["phase"], good["attempt"]) == ("Succeeded", 1), good
        assert (bad["failure"]["reason"], bad["failure"]["exitCode"]) == ("BuildFailed", 3)
        assert bad["logTail"] == "why\n"
        assert (after["phase"], after["attempt"]) == ("Succeeded", 1)
        await counted(operator, SLOTS, 0)
    assert proxy.withheld >= 3


class Site:
    """Jobs on one slot of a daemon, with a build that has begun there."""

    def __init__(self, control: Control, files: Mapping[str, str]) -> None:
        plan = Plan(Inline({name: text.encode() for name, text in files.items()}))
        self.worker = a_worker("w", 1, a_backend(BuildKitBuilder(control, TokenClient())))
        metrics = Metrics()
        scheduler = Scheduler([a_pool(self.worker)], time.monotonic, metrics)
        self.jobs = Jobs(lambda _: None, lambda: NOW, metrics)
        scheduler.enter("default", an_entry(UID, plan))
        ref = f"endless-{next(_numbers)}"
        self.jobs.begin(UID, Task("inputs", plan, FakeKeyring()), ref, scheduler.take(UID))

    async def until(self, right: Callable[[], object]) -> None:
        """Let the loop turn until it is right."""
        await turns(right, 20)


@asynccontextmanager
async def client(proxy: DaemonProxy) -> AsyncIterator[Control]:
    """A client of the daemon behind the proxy."""
    control = Control(proxy.address)
    try:
        yield control
    finally:
        await control.close()


async def test_a_cancelled_step_is_waited_for_no_longer_than_it_may(
    stack: devstack.Stack, proxy: DaemonProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONFIRM_SECONDS", CONFIRM_SECONDS)
    sleep = f"599.{next(_numbers)}"
    async with client(proxy) as control:
        site = Site(control, {"Dockerfile": f"FROM {stack.base_image}\nRUN sleep {sleep}\n"})
        pid = await appeared(sleep)
        site.jobs.cancel(UID)
        await vanished(pid, 5)
        # The daemon has ended it, and cannot be heard to say so.
        assert site.worker.leased == 1
        await site.until(lambda: site.worker.leased == 0)
        await site.until(lambda: not followers())
    assert proxy.withheld == 1


async def test_a_build_that_is_cancelled_when_it_has_been_built_waits_for_nothing(
    proxy: DaemonProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLLOW_SECONDS", 60)
    solved = asyncio.Event()
    async with client(proxy) as control:
        solve = control.solve

        async def noted(request: Solve) -> dict[str, str]:
            answer = await solve(request)
            solved.set()
            return answer

        monkeypatch.setattr(control, "solve", noted)
        site = Site(control, HELLO)
        await site.until(lambda: solved.is_set() and proxy.withheld)
        assert site.worker.leased == 1
        site.jobs.cancel(UID)
        await site.until(lambda: site.worker.leased == 0)
        await site.until(lambda: not followers())


def followers() -> list["asyncio.Task[object]"]:
    """Tasks that still follow a status stream."""
    return [task for task in asyncio.all_tasks() if "_follow" in repr(task.get_coro())]
