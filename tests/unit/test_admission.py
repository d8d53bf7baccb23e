"""Clients of the gateway in a pool's queue: who is let in, who waits, and who is told to go."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from imagewright.admission import Admission, WorkerTls
from imagewright.metrics import Metrics
from imagewright.scheduler import Scheduler
from imagewright.servers.gateway import DENIED, EXHAUSTED, Caller, TurnedAway, WorkerLost
from imagewright.settings import GatewaySettings
from tests.support.gateway import until
from tests.support.pooling import a_pool, a_worker, an_entry

WEB, API, OTHER = Caller("team", "web"), Caller("team", "api"), Caller("other", "web")


class Desk:
    """An admission to one pool, whose only worker has one slot."""

    def __init__(self, terms: dict[str, Any] | None = None, **limits: Any) -> None:
        self.worker = a_worker("w", address="unix:///w")
        self.pool = a_pool(self.worker, **(terms or {}))
        self.scheduler = Scheduler([self.pool], lambda: 0.0, Metrics())
        file = Path("/none")
        settings = GatewaySettings(ca=file, cert=file, key=file, **limits)
        self.admission = Admission(
            self.scheduler, settings, WorkerTls(server_name="w"), lambda: datetime.now(UTC)
        )

    @property
    def waiting(self) -> int:
        """How many stand in the pool's line."""
        return self.scheduler.lines["default"].waiting

    async def use(self, caller: Caller, stack: AsyncExitStack) -> str:
        """Come in and stay until the stack is closed; the address of the worker."""
        upstream = await stack.enter_async_context(self.admission.admit(caller))
        return upstream.address


async def test_a_slot_is_had_at_once_and_given_back() -> None:
    desk = Desk(waiting=0)
    async with desk.admission.admit(WEB) as upstream:
        assert (upstream.address, upstream.tls, upstream.server_name) == ("unix:///w", None, "w")
        assert desk.worker.leased == 1
    assert desk.worker.leased == 0


async def test_who_waits_has_the_next_slot_and_builds_of_others_have_their_share() -> None:
    desk = Desk()
    async with AsyncExitStack() as second:
        async with AsyncExitStack() as first:
            await desk.use(WEB, first)
            waits = asyncio.create_task(desk.use(API, second))
            await until(lambda: desk.waiting == 1)
            desk.scheduler.enter("default", an_entry("build", namespace="another"))
            assert desk.waiting == 2
        # It came later, and its namespace has had nothing yet.
        assert (desk.waiting, desk.worker.leased, waits.done()) == (1, 1, False)
        desk.scheduler.take("build").release()
        assert await waits == "unix:///w"
    assert (desk.waiting, desk.worker.leased) == (0, 0)


@pytest.mark.parametrize(
    ("limits", "caller", "said"),
    [
        ({"waiting": 1}, OTHER, "all 1 places"),
        ({"waiting_per_tenant": 1}, API, "the 1 of team"),
    ],
    ids=["in all", "of one tenant"],
)
async def test_one_too_many_is_refused_and_a_place_comes_free_again(
    limits: dict[str, Any], caller: Caller, said: str
) -> None:
    desk = Desk(**limits)
    async with AsyncExitStack() as stack:
        await desk.use(OTHER, stack)
        waits = asyncio.create_task(desk.use(WEB, stack))
        await until(lambda: desk.waiting == 1)
        for _ in range(2):
            with pytest.raises(TurnedAway, match=said) as caught:
                await desk.use(caller, stack)
            assert caught.value.status == EXHAUSTED
        waits.cancel()
        await asyncio.wait([waits])
        assert desk.waiting == 0
        again = asyncio.create_task(desk.use(caller, stack))
        await until(lambda: desk.waiting == 1)
        again.cancel()
        await asyncio.wait([again])
    assert desk.worker.leased == 0


async def test_a_tenant_that_the_pool_is_closed_to_is_refused() -> None:
    desk = Desk({"namespaces": frozenset({"team"})})
    async with AsyncExitStack() as stack:
        with pytest.raises(TurnedAway, match="not open to the namespace other") as caught:
            await desk.use(OTHER, stack)
        assert caught.value.status == DENIED
        assert await desk.use(WEB, stack) == "unix:///w"


async def test_a_worker_that_was_lost_is_looked_at_before_it_is_leased_again() -> None:
    desk = Desk()
    with pytest.raises(WorkerLost):
        async with desk.admission.admit(WEB):
            raise WorkerLost
    assert (desk.worker.up, desk.worker.leased) == (False, 0)
    async with AsyncExitStack() as stack:
        waits = asyncio.create_task(desk.use(WEB, stack))
        await until(lambda: desk.waiting == 1)
        desk.worker.up = True
        desk.pool.changed()
        assert await waits == "unix:///w"


async def test_a_grant_that_is_lost_before_it_is_taken_is_waited_for_again() -> None:
    desk = Desk()
    async with AsyncExitStack() as second:
        async with AsyncExitStack() as first:
            await desk.use(WEB, first)
            waits = asyncio.create_task(desk.use(API, second))
            await until(lambda: desk.waiting == 1)
        # Granted, and its task has not run yet.
        desk.worker.suspect()
        desk.pool.changed()
        await until(lambda: desk.waiting == 1)
        desk.worker.up = True
        desk.pool.changed()
        assert await waits == "unix:///w"
