"""What every Builder promises; a new one adds a maker here."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

import devstack
from bench.processes import appeared, vanished
from devstack.gitserver import make_repository, serve_git
from devstack.images import crane
from imagewright.backend import BUILDKIT, Backend
from imagewright.builders.buildkit import BuildKitBuilder
from imagewright.builders.memory import MemoryBuilder
from imagewright.clients.buildkit.control import Control
from imagewright.domain.plan import Git, Inline, Plan
from imagewright.domain.progress import Progress
from imagewright.ports import Builder, Failed, Rejected
from tests.support.stack import REPOSITORY

HELLO = {"Dockerfile": "FROM scratch\nCOPY hello.txt /\n", "hello.txt": "hello\n"}
_numbers = iter(range(1, 10_000))


@pytest.fixture(params=["memory", "buildkit"])
async def builder(request: pytest.FixtureRequest, stack: devstack.Stack) -> AsyncIterator[Builder]:
    """Each kind in turn."""
    if request.param == "memory":
        yield MemoryBuilder()
        return
    control = Control(stack.buildkit)
    yield BuildKitBuilder(control)
    await control.close()


@pytest.fixture
def backend(builder: Builder) -> Backend:
    """A backend over the builder."""
    return Backend({BUILDKIT: builder})


def ref() -> str:
    """A run's id that no other run has."""
    return f"contract-{next(_numbers)}"


async def test_an_image_has_a_digest_and_all_its_names(
    backend: Backend, stack: devstack.Stack
) -> None:
    names = (f"{stack.registry}/contract:1", f"{stack.registry}/contract")
    progress = Progress()
    built = await backend.build(ref(), Plan(Inline(HELLO), images=names), progress.apply)
    assert built.image_digest.startswith("sha256:")
    assert [one.tag for one in built.pushed] == ["1", "latest"]
    assert all(one.digest == built.image_digest for one in built.pushed)
    assert progress.percent > 0


async def test_without_a_name_there_is_no_digest(backend: Backend) -> None:
    built = await backend.build(ref(), Plan(Inline(HELLO)), Progress().apply)
    assert (built.image_digest, built.pushed) == ("", ())


async def test_a_bad_name_ends_it_before_anything_is_sent(backend: Backend) -> None:
    progress = Progress()
    with pytest.raises(Rejected, match="no image name"):
        await backend.build(ref(), Plan(Inline(HELLO), images=("Bad Name",)), progress.apply)
    assert progress.steps == {}


async def test_equal_plans_give_equal_digests(backend: Backend, stack: devstack.Stack) -> None:
    plan = Plan(Inline(HELLO), images=(f"{stack.registry}/equal:1",))
    first = await backend.build(ref(), plan, Progress().apply)
    second = await backend.build(ref(), plan, Progress().apply)
    assert first.image_digest == second.image_digest


async def test_a_revision_is_resolved_once(
    backend: Backend, builder: Builder, tmp_path: Path
) -> None:
    commit = make_repository(tmp_path / "app", REPOSITORY, tag="v1")
    with serve_git(tmp_path) as url:
        plan = await backend.resolve(Plan(Git(f"{url}/app", "main")))
        assert isinstance(plan.source, Git)
        assert await backend.resolve(plan) is plan
        if isinstance(builder, BuildKitBuilder):
            assert plan.source.commit == commit
            with pytest.raises(Failed, match="no such revision"):
                await backend.resolve(Plan(Git(f"{url}/app", "nope")))


@pytest.mark.row("seed-16")
async def test_a_cancelled_task_is_a_cancelled_build(
    builder: Builder, backend: Backend, stack: devstack.Stack
) -> None:
    seconds = str(600_000 + next(_numbers))
    text = f"FROM {stack.base_image}\nRUN sleep {seconds}\n"
    if isinstance(builder, MemoryBuilder):
        builder.go.clear()
    name = f"{stack.registry}/cancelled:1"
    plan = Plan(Inline({"Dockerfile": text}), images=(name,))
    running = asyncio.create_task(backend.build(ref(), plan, Progress().apply))
    gone = await begun(builder, seconds)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone()
    with pytest.raises(Exception, match="exit status 1"):
        crane(stack, "digest", name)


async def begun(builder: Builder, seconds: str) -> Callable[[], Awaitable[object]]:
    """Wait until the build runs; what is returned waits until it does no more."""
    if isinstance(builder, MemoryBuilder):
        while not builder.orders:
            await asyncio.sleep(0)

        async def stopped() -> None:
            assert builder.cancelled

        return stopped
    pid = await appeared(seconds)
    return lambda: vanished(pid, seconds=2)
