"""The list: what the watch has missed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from imagewright.api.imagebuild import ImageBuild
from imagewright.ports import Body, Unavailable
from imagewright.reconcile.resync import Resync
from imagewright.reconcile.store import BUILDS, Store
from tests.support.makers import FakeCluster, a_body


class ListedCluster(FakeCluster):
    """A cluster whose list can be broken, and during which something can happen."""

    def __init__(self, store: Store[ImageBuild]) -> None:
        super().__init__()
        self.store, self.lists, self.broken = store, 0, 0
        self.meanwhile: list[Body] = []

    async def list_objects(self) -> AsyncIterator[Body]:
        self.lists += 1
        if self.broken:
            self.broken -= 1
            raise Unavailable("The API server did not answer.")
        for body in self.meanwhile:
            self.store.see(body)
        async for body in super().list_objects():
            yield body


class World:
    """A store, what it woke, and the list that fills it."""

    def __init__(self, seconds: float = 300) -> None:
        self.woken: list[str] = []
        self.store = Store(BUILDS, self.woken.append)
        self.cluster = ListedCluster(self.store)
        self.resync = Resync(self.cluster, self.store, seconds)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the list is made in turn."""
        task = asyncio.create_task(self.resync.run())
        try:
            async with asyncio.timeout(1.8):
                yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_what_is_listed_and_unknown_is_looked_at() -> None:
    world = World()
    world.cluster.put(a_body(name="a", uid="a"))
    await world.resync.once()
    assert world.woken == ["a"]
    await world.resync.once()
    assert world.woken == ["a"]


async def test_what_is_known_and_not_listed_is_gone() -> None:
    world = World()
    world.store.see(a_body(uid="gone"))
    world.cluster.put(a_body(name="a", uid="there"))
    await world.resync.once()
    assert world.store.uids() == {"there"}
    assert world.woken == ["gone", "there", "gone"]


async def test_what_the_watch_tells_of_during_the_list_does_not_vanish() -> None:
    world = World()
    world.cluster.meanwhile = [a_body(uid="new")]
    await world.resync.once()
    assert world.store.uids() == {"new"}


async def test_a_list_that_breaks_makes_nothing_vanish() -> None:
    world = World()
    world.store.see(a_body(uid="known"))
    world.cluster.broken = 1
    with pytest.raises(Unavailable):
        await world.resync.once()
    assert world.store.uids() == {"known"}


async def test_who_asks_is_answered_at_once_and_not_in_turn() -> None:
    world = World(seconds=300)
    async with world.running():
        world.resync.ask()
        while not world.cluster.lists:
            await asyncio.sleep(0)
    assert world.cluster.lists == 1


async def test_it_is_listed_in_turn_without_being_asked() -> None:
    world = World(seconds=0.001)
    async with world.running():
        while world.cluster.lists < 3:
            await asyncio.sleep(0)


async def test_a_list_that_broke_is_made_again_soon() -> None:
    world = World(seconds=300)
    world.cluster.broken = 1
    async with world.running():
        world.resync.ask()
        while world.cluster.lists < 2:
            await asyncio.sleep(0.01)
    assert world.cluster.broken == 0


async def test_who_begins_to_act_looks_at_all_that_is_known_and_lists() -> None:
    world = World(seconds=300)
    world.store.see(a_body(name="a", uid="known"))
    world.woken.clear()
    async with world.running():
        world.resync.anew()
        assert world.woken == ["known"]
        while not world.cluster.lists:
            await asyncio.sleep(0)
    assert world.store.uids() == frozenset()
