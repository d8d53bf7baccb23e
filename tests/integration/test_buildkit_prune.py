"""Usage and prune against a daemon of their own: nobody else's builds may be looked at or lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devstack import Stack
from devstack.components import Place, buildkitd
from devstack.server import await_ready, start
from imagewright.clients.buildkit import definition
from imagewright.clients.buildkit.control import Control, Prune, Solve
from imagewright.clients.buildkit.errors import SolveError
from imagewright.clients.buildkit.workers import SPACE_LIMITS

MIB = 1 << 20


@pytest.fixture
async def control(stack: Stack, tmp_path: Path) -> AsyncIterator[Control]:
    """A client of a buildkitd with an empty cache."""
    address = f"unix://{tmp_path / 'd.sock'}"
    command = buildkitd(Place(stack.binaries["buildkitd"], tmp_path), address, stack.registries)
    server = await asyncio.to_thread(lambda: await_ready(command, start(command, tmp_path)))
    client = Control(address)
    yield client
    await client.close()
    await asyncio.to_thread(server.stop)


async def build(control: Control, name: str) -> None:
    """Leaves a record of a MiB that is this name's own."""
    tree = {"Dockerfile": f"FROM scratch\nCOPY {name} /\n".encode(), name: name[:1].encode() * MIB}
    context = definition.files(tree)
    await control.solve(Solve(ref=name, inputs={"context": context, "dockerfile": context}))


async def test_usage_tells_what_is_there_and_a_prune_what_has_gone(control: Control) -> None:
    assert await control.disk_usage() == ()
    await build(control, "one")
    before = await control.disk_usage()
    copies = [one for one in before if "COPY one /" in one.description]

    assert len(copies) == 1
    assert copies[0].size > MIB
    assert copies[0].created is not None
    assert not copies[0].in_use
    regular = await control.disk_usage(["type==regular"])
    assert set(regular) <= set(before)

    gone = await control.prune(Prune(filters=(f"id=={copies[0].id}",)))
    assert [one.id for one in gone] == [copies[0].id]
    assert copies[0].id not in {one.id for one in await control.disk_usage()}

    await control.prune(Prune(all=True))
    assert await control.disk_usage() == ()


async def test_a_bound_keeps_what_was_used_last(control: Control) -> None:
    for name in ("old", "middle", "young"):
        await build(control, name)
    bound = sum(one.size for one in await control.disk_usage()) - MIB // 2
    gone = await control.prune(Prune(max_used_space=bound, all=True))
    left = await control.disk_usage()

    assert gone
    assert sum(one.size for one in left) <= bound
    assert any("COPY young /" in one.description for one in left)
    assert await control.is_since(SPACE_LIMITS)


async def test_what_was_used_lately_is_spared(control: Control) -> None:
    await build(control, "lately")

    assert await control.prune(Prune(all=True, keep_duration_seconds=3600)) == ()


async def test_a_filter_that_is_none_is_refused_with_the_daemons_words(control: Control) -> None:
    with pytest.raises(SolveError, match="parse error"):
        await control.prune(Prune(filters=("!!",)))


async def test_a_worker_says_what_it_runs_and_of_which_version_it_is(control: Control) -> None:
    (worker,) = await control.workers()

    assert "linux/amd64" in worker.platforms or "linux/arm64" in worker.platforms
    assert worker.labels["org.mobyproject.buildkit.worker.executor"] == "oci"
    assert worker.version == await control.info()
