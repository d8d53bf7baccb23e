"""Prunes against real daemons: workers of a module's own, filled caches, and what they hold."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import devstack
from devstack.builds import Builds, Seen
from devstack.crew import crew
from devstack.operator import OperatorProcess, start_operator
from devstack.prunes import Prunes
from imagewright.clients.buildkit.control import Control
from imagewright.clients.buildkit.usage import Record

_numbers = itertools.count(810_001)


@pytest.fixture(scope="module")
def workers(stack: devstack.Stack) -> Iterator[tuple[str, ...]]:
    """The addresses of two buildkitds that no other module's builds use."""
    with crew(stack, 2) as members:
        yield tuple(member.address for member in members)


@pytest.fixture
async def prunes(stack: devstack.Stack) -> AsyncIterator[Prunes]:
    """The BuildCachePrunes, watched; all deleted at the end."""
    async with Prunes(str(stack.kubeconfig)) as watched:
        yield watched
        left = [name for name, seen in watched.history.items() if seen[-1].type != "DELETED"]
        await asyncio.gather(*(watched.delete(name) for name in left))


@asynccontextmanager
async def operating(
    stack: devstack.Stack, folder: Path, addresses: Sequence[str], **more: Any
) -> AsyncIterator[OperatorProcess]:
    """An operator of its own over these workers."""
    pools = [{"workers": list(addresses), "slots": 2}]
    running = await asyncio.to_thread(
        start_operator, folder, stack.operator_kubeconfig, pools=pools, **more
    )
    try:
        yield running
    finally:
        await asyncio.to_thread(running.stop)


def unique() -> str:
    """A name that no other object has."""
    return f"prune-{next(_numbers)}"


async def records_of(address: str) -> dict[str, Record]:
    """What that daemon's cache holds, as the daemon says."""
    control = Control(address)
    try:
        return {record.id: record for record in await control.disk_usage()}
    finally:
        await control.close()


async def all_records(addresses: Sequence[str]) -> dict[str, Record]:
    """What the caches of all of them hold."""
    found = await asyncio.gather(*(records_of(address) for address in addresses))
    return {name: record for records in found for name, record in records.items()}


def size_of(records: dict[str, Record]) -> int:
    """Their bytes."""
    return sum(record.size for record in records.values())


async def filled(stack: devstack.Stack, builds: Builds, count: int = 2) -> None:
    """Builds of layers and cache mounts, at once, so that both workers get some."""
    names = [unique() for _ in range(count)]
    for name in names:
        text = (
            f"FROM {stack.base_image}\n"
            f"RUN echo {name} && dd if=/dev/urandom of=/layer bs=1M count=2\n"
            f"RUN --mount=type=cache,id={name},target=/c "
            "dd if=/dev/urandom of=/c/f bs=1M count=1\n"
        )
        spec = {"source": {"inline": {"files": {"Dockerfile": text}}}, "cache": {"noCache": True}}
        await builds.create(name, spec)
    for name in names:
        assert (await builds.ended(name)).status["phase"] == "Succeeded"


async def run(prunes: Prunes, **spec: Any) -> Seen:
    """A prune by this spec, to its end."""
    name = unique()
    await prunes.create(name, spec)
    return await prunes.ended(name)
