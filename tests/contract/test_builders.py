"""What every Builder promises, with the image store of its worker; a new one adds a kind here."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import devstack
from bench.processes import appeared, vanished
from devstack.gitserver import make_repository, serve_git
from devstack.images import crane, files_of
from devstack.webserver import Archive, serve_archive
from imagewright.assembly import Shared, buildkit_worker, engine_worker, shared_of
from imagewright.backend import Backend
from imagewright.builders.memory import MemoryBuilder
from imagewright.domain.outcome import Built
from imagewright.domain.plan import BUILDKIT, CLASSIC, Git, Http, Inline, Oci, Plan
from imagewright.domain.progress import Advance, Progress
from imagewright.main import clock
from imagewright.ports import Failed, Rejected
from imagewright.settings import ENGINE, Settings, SourceSettings
from tests.support.parts import FakeKeyring, a_backend
from tests.support.stack import REPOSITORY

HELLO = {"Dockerfile": b"FROM scratch\nCOPY hello.txt /\n", "hello.txt": b"hello\n"}
KINDS = {
    "memory": ("", BUILDKIT),
    "buildkit": ("", BUILDKIT),
    "buildkit in an engine": ("new", BUILDKIT),
    "buildkit in an engine with a containerd store": ("containerd", BUILDKIT),
    "classic": ("new", CLASSIC),
    "classic with a containerd store": ("containerd", CLASSIC),
    "classic of an old engine": ("old", CLASSIC),
}
_numbers = iter(range(1, 10_000))


@dataclass(slots=True)
class Bench:
    """A backend, and which of its builders is asked."""

    backend: Backend
    builder: str
    memory: MemoryBuilder | None = None

    async def build(self, plan: Plan, progress: Progress | None = None) -> Built:
        """Build it under an id that no other build has."""
        report = (progress or Progress()).apply
        ref = f"contract-{next(_numbers)}"
        return await self.backend.build(
            ref, replace(plan, builder=self.builder), FakeKeyring(), report
        )

    async def resolve(self, plan: Plan) -> Plan:
        """Resolve its source."""
        return await self.backend.resolve(replace(plan, builder=self.builder), FakeKeyring())


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[Shared]:
    """What workers have in common."""
    own = SourceSettings(folder=tmp_path / "fetched", allow_loopback=True)
    async with shared_of(Settings(sources=own), clock) as made:
        yield made


@pytest.fixture(params=list(KINDS))
async def bench(
    request: pytest.FixtureRequest, stack: devstack.Stack, shared: Shared
) -> AsyncIterator[Bench]:
    """Each kind in turn."""
    engine, builder = KINDS[request.param]
    if request.param == "memory":
        memory = MemoryBuilder()
        yield Bench(a_backend(memory), BUILDKIT, memory)
        return
    async with AsyncExitStack() as running:
        if engine:
            found = await asyncio.to_thread(stack.engine, engine, lambda _: None)
            made = engine_worker(found.address, None, shared)
            worker = await running.enter_async_context(made)
            assert worker.name == ENGINE + found.address
        else:
            worker = await running.enter_async_context(
                buildkit_worker(stack.buildkit, None, shared)
            )
        assert isinstance(worker.backend, Backend)
        yield Bench(worker.backend, builder)


@pytest.mark.row("seed-3")
@pytest.mark.row("seed-4")
async def test_an_image_has_an_id_a_digest_and_all_its_names(
    bench: Bench, stack: devstack.Stack
) -> None:
    names = (f"{stack.registry}/contract:1", f"{stack.registry}/contract")
    progress = Progress()
    built = await bench.build(Plan(Inline(HELLO), images=names), progress)
    assert built.image_digest.startswith("sha256:")
    assert built.image_id.startswith("sha256:")
    assert [one.tag for one in built.pushed] == ["1", "latest"]
    assert {one.digest for one in built.pushed} == {built.image_digest}
    assert progress.percent > 0
    if bench.memory is None:
        for name in names:
            assert crane(stack, "digest", name).strip() == built.image_digest


@pytest.mark.row("seed-12")
async def test_the_log_ends_with_the_familiar_names(bench: Bench, stack: devstack.Stack) -> None:
    printed = bytearray()

    def heard(new: Advance) -> None:
        for output in new.outputs:
            printed.extend(output.data)

    progress = Progress(heard)
    names = (f"{stack.registry}/contract:2", f"{stack.registry}/contract:3")
    await bench.build(Plan(Inline(HELLO), images=names), progress)
    lines = printed.decode().splitlines()
    assert lines[-2:] == [f"Successfully tagged {name}" for name in names]


async def test_without_a_name_nothing_is_pushed(bench: Bench) -> None:
    built = await bench.build(Plan(Inline(HELLO)))
    assert (built.image_digest, built.pushed) == ("", ())


async def test_a_bad_name_ends_it_before_anything_is_sent(bench: Bench) -> None:
    progress = Progress()
    with pytest.raises(Rejected, match="no image name"):
        await bench.build(Plan(Inline(HELLO), images=("Bad Name",)), progress)
    assert progress.steps == {}


async def test_equal_plans_give_equal_digests(bench: Bench, stack: devstack.Stack) -> None:
    plan = Plan(Inline(HELLO), images=(f"{stack.registry}/equal:1",))
    first, second = await bench.build(plan), await bench.build(plan)
    assert first.image_digest == second.image_digest


@pytest.mark.row("T12")
async def test_a_name_stands_for_what_was_built_last(bench: Bench, stack: devstack.Stack) -> None:
    name = f"{stack.registry}/moved:1"
    first = await bench.build(Plan(Inline(HELLO), images=(name,)))
    second = await bench.build(Plan(Inline({**HELLO, "hello.txt": b"2\n"}), images=(name,)))
    assert first.image_digest != second.image_digest
    if bench.memory is None:
        assert crane(stack, "digest", name).strip() == second.image_digest


@pytest.mark.row("B55")
async def test_two_builds_of_one_name_both_end_and_each_knows_its_own_digest(
    bench: Bench, stack: devstack.Stack
) -> None:
    name = f"{stack.registry}/raced:1"
    plans = [
        Plan(Inline({**HELLO, "hello.txt": text}), images=(name,)) for text in (b"a", b"b", b"c")
    ]
    built = await asyncio.gather(*map(bench.build, plans))
    assert len({one.image_digest for one in built}) == 3
    if bench.memory is None:
        assert crane(stack, "digest", name).strip() in {one.image_digest for one in built}


async def test_a_failing_step_is_named_with_its_exit_code(
    bench: Bench, stack: devstack.Stack
) -> None:
    if bench.memory is not None:
        bench.memory.error = Failed("exit code 7").at("1", 2, 7)
    text = f"FROM {stack.base_image}\nRUN echo about-to-fail && exit 7\n"
    progress = Progress()
    with pytest.raises(Failed) as caught:
        await bench.build(Plan(Inline({"Dockerfile": text.encode()})), progress)
    assert caught.value.exit_code == 7
    step = caught.value.step or progress.failed_step()
    if bench.memory is None:
        assert "about-to-fail" in progress.log_tail(step)
        assert "exit 7" in progress.name_of(step)


async def test_a_revision_is_resolved_once(bench: Bench, tmp_path: Path) -> None:
    commit = make_repository(tmp_path / "app", REPOSITORY, tag="v1")
    with serve_git(tmp_path) as url:
        plan = await bench.resolve(Plan(Git(f"{url}/app", "main")))
        assert isinstance(plan.source, Git)
        assert await bench.resolve(plan) == plan
        if bench.memory is None:
            assert plan.source.commit == commit
            with pytest.raises(Failed, match=r"no such revision|no branch or tag"):
                await bench.resolve(Plan(Git(f"{url}/app", "nope")))


@pytest.mark.row("seed-20")
@pytest.mark.row("R1")
@pytest.mark.row("R2")
@pytest.mark.parametrize("revision", ["", "main", "v1", "commit"])
async def test_a_folder_of_a_repository_is_built_at_its_commit(
    bench: Bench, stack: devstack.Stack, tmp_path: Path, revision: str
) -> None:
    commit = make_repository(tmp_path / "app", REPOSITORY, tag="v1")
    revision = commit if revision == "commit" else revision
    with serve_git(tmp_path) as url:
        source = Git(f"{url}/app", revision)
        plan = Plan(source, context_dir="app", images=(f"{stack.registry}/git:1",))
        ready = await bench.resolve(plan)
        built = await bench.build(ready)
    assert built.pushed[0].digest == built.image_digest
    if bench.memory is None:
        assert ready.resolved == commit
        found = await asyncio.to_thread(files_of, stack, f"{stack.registry}/git:1")
        assert found["main.txt"] == b"from git\n"


@pytest.mark.row("seed-20")
@pytest.mark.row("R3")
async def test_an_archive_behind_a_url_is_built(bench: Bench, stack: devstack.Stack) -> None:
    with closing_archive(REPOSITORY) as archive:
        source = Http(archive.url, archive.sha256)
        plan = Plan(source, context_dir="app", images=(f"{stack.registry}/http:1",))
        built = await bench.build(plan)
    assert built.pushed[0].digest == built.image_digest


@pytest.mark.row("seed-20")
async def test_an_image_is_the_context_of_another(bench: Bench, stack: devstack.Stack) -> None:
    name = f"{stack.registry}/context:1"
    await bench.build(Plan(Inline(HELLO), images=(name,)))
    text = "FROM scratch\nCOPY hello.txt /again\n"
    plan = Plan(Oci(name), dockerfile_inline=text, images=(f"{stack.registry}/oci:1",))
    if bench.memory is not None:
        assert (await bench.resolve(plan)).resolved == "sha256:resolved"
        return
    ready = await bench.resolve(plan)
    assert ready.resolved == crane(stack, "digest", name)
    await bench.build(ready)
    found = await asyncio.to_thread(files_of, stack, f"{stack.registry}/oci:1")
    assert found == {"again": b"hello\n"}


@contextmanager
def closing_archive(files: Mapping[str, str]) -> Iterator[Archive]:
    """The files as an archive behind a URL, until the context is left."""
    archive = serve_archive(files)
    try:
        yield archive
    finally:
        archive.stop()


@pytest.mark.row("seed-16")
@pytest.mark.row("C1")
async def test_a_cancelled_task_is_a_cancelled_build(bench: Bench, stack: devstack.Stack) -> None:
    seconds = str(600_000 + next(_numbers))
    text = f"FROM {stack.base_image}\nRUN sleep {seconds}\n"
    if bench.memory is not None:
        bench.memory.go.clear()
    name = f"{stack.registry}/cancelled:1"
    plan = Plan(Inline({"Dockerfile": text.encode()}), images=(name,))
    running = asyncio.create_task(bench.build(plan))
    gone = await begun(bench, seconds)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone()
    with pytest.raises(Exception, match="exit status 1"):
        crane(stack, "digest", name)


async def begun(bench: Bench, seconds: str) -> Callable[[], Awaitable[object]]:
    """Wait until the build runs; what is returned waits until it does no more."""
    memory = bench.memory
    if memory is None:
        pid = await appeared(seconds)
        return lambda: vanished(pid, seconds=2)
    while not memory.orders:
        await asyncio.sleep(0)

    async def stopped() -> None:
        assert memory.cancelled

    return stopped
