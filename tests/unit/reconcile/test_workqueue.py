"""The queue of keys: each once, soon, and again after a failure."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from imagewright.ports import Conflict, Unavailable
from imagewright.reconcile.outage import Outage
from imagewright.reconcile.workqueue import (
    FIRST_PAUSE,
    LONGEST_FAULT_PAUSE,
    LONGEST_PAUSE,
    WorkQueue,
)


class Desk:
    """A queue, and what was worked on, in order."""

    def __init__(self, workers: int = 16) -> None:
        self.done: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.busy, self.most = 0, 0
        self.queue = WorkQueue(self.work, workers)

    async def work(self, key: str) -> None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        await self.gate.wait()
        self.busy -= 1
        self.done.append(key)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Desk"]:
        """While the queue runs."""
        task = asyncio.create_task(self.queue.run())
        try:
            async with asyncio.timeout(1.5):
                yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_keys_are_worked_on_in_the_order_they_came_and_each_once() -> None:
    desk = Desk(workers=1)
    for key in ("b", "a", "b", "a", "c"):
        desk.queue.add(key)
    assert len(desk.queue) == 3
    async with desk.open():
        await desk.queue.idle()
    assert desk.done == ["b", "a", "c"]


@pytest.mark.parametrize("workers", [1, 2, 5])
async def test_so_many_are_worked_on_at_once_and_no_more(workers: int) -> None:
    desk = Desk(workers)
    desk.gate.clear()
    for number in range(5):
        desk.queue.add(str(number))
    async with desk.open():
        while desk.busy < workers:
            await asyncio.sleep(0)
        desk.gate.set()
        await desk.queue.idle()
    assert desk.most == workers
    assert sorted(desk.done) == ["0", "1", "2", "3", "4"]


async def test_the_soonest_of_several_times_counts_and_is_met_once() -> None:
    desk = Desk()
    async with desk.open():
        desk.queue.add_in("a", 60)
        desk.queue.add_in("a", 0.01)
        desk.queue.add_in("a", 30)
        while not desk.done:
            await asyncio.sleep(0.001)
        await desk.queue.idle()
        assert desk.queue._timers == {}
    assert desk.done == ["a"]


async def test_a_time_that_is_over_is_now() -> None:
    desk = Desk()
    async with desk.open():
        desk.queue.add_in("a", -5)
        while not desk.done:
            await asyncio.sleep(0)
    assert desk.done == ["a"]


async def test_what_is_due_later_keeps_nobody_waiting_and_ends_with_the_queue() -> None:
    desk = Desk()
    async with desk.open():
        desk.queue.add_in("a", 60)
        desk.queue.add("now")
        await desk.queue.idle()
        assert set(desk.queue._timers) == {"a"}
    assert desk.queue._timers == {}
    assert desk.done == ["now"]


@pytest.mark.row("F73")
@pytest.mark.parametrize("longest", [LONGEST_PAUSE, LONGEST_FAULT_PAUSE])
async def test_the_pause_grows_with_every_failure_up_to_a_bound(longest: float) -> None:
    queue = Desk().queue
    pauses = [queue._pause_after_failure("bad", longest) for _ in range(40)]
    assert FIRST_PAUSE / 2 <= pauses[0] <= FIRST_PAUSE * 1.5
    assert max(pauses) <= longest * 1.5
    assert min(pauses[10:]) >= longest / 2
    assert queue._pause_after_failure("other", longest) <= FIRST_PAUSE * 1.5


@pytest.mark.row("F73")
@pytest.mark.parametrize(
    ("error", "longest"),
    [
        (Conflict("Somebody else wrote first."), LONGEST_PAUSE),
        (ZeroDivisionError("a fault of ours"), LONGEST_FAULT_PAUSE),
    ],
    ids=["a conflict is met soon again", "a fault of ours is left alone for longer"],
)
async def test_what_failed_often_waits_by_what_failed(error: Exception, longest: float) -> None:
    async def work(_: str) -> None:
        raise error

    seen: list[Exception] = []
    queue = WorkQueue(work, failed=seen.append)
    queue._failures["a"] = 30
    running = asyncio.create_task(queue.run())
    queue.add("a")
    await queue.idle()
    due = queue._timers["a"][0] - asyncio.get_running_loop().time()
    assert longest / 2 - 1 <= due <= longest * 1.5
    assert (seen, queue.backing_off) == ([error], 1)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.row("F73")
async def test_what_woke_itself_and_failed_waits_all_the_same() -> None:
    worked: list[str] = []

    async def work(key: str) -> None:
        worked.append(key)
        queue.add(key)
        raise ZeroDivisionError

    queue = WorkQueue(work)
    queue.add("a")
    running = asyncio.create_task(queue.run())
    await queue.idle()
    assert worked == ["a"]
    assert set(queue._timers) == {"a"}
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.row("F73")
async def test_a_success_ends_the_row_of_failures() -> None:
    desk = Desk()
    desk.queue._failures["a"] = 7
    async with desk.open():
        desk.queue.add("a")
        await desk.queue.idle()
    assert desk.queue.backing_off == 0


class Wall:
    """What keys run into while it stands; `tries` are theirs, in order."""

    def __init__(self, after: float = 0.0) -> None:
        self.stands, self.after = True, after
        self.tries: list[str] = []
        self.queue = WorkQueue(self.work)

    async def work(self, key: str) -> None:
        """Raises Unavailable while it stands."""
        self.tries.append(key)
        if self.stands:
            error = Unavailable("nobody is there")
            error.after = self.after
            raise error


@contextlib.asynccontextmanager
async def running(queue: WorkQueue) -> AsyncIterator[None]:
    """While the queue runs."""
    task = asyncio.create_task(queue.run())
    try:
        async with asyncio.timeout(1.5):
            yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_the_first_that_gets_through_brings_all_that_wait_for_the_api_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall = Wall()
    async with running(wall.queue):
        for number in range(100):
            wall.queue.add(str(number))
        await wall.queue.idle()
        # From here on a key that waits for its own pause would come too late for this test.
        monkeypatch.setattr("imagewright.reconcile.outage.FIRST_PAUSE", 60.0)
        monkeypatch.setattr("imagewright.reconcile.outage.SHORTEST_LIMIT", 60.0)
        monkeypatch.setattr("imagewright.reconcile.outage.LONGEST_LIMIT", 60.0)
        wall.stands = False
        wall.tries.clear()
        wall.queue.add("7")
        while len(set(wall.tries)) < 100:
            await asyncio.sleep(0.001)
    assert wall.tries[0] == "7"


async def test_who_was_told_when_to_ask_again_is_not_asked_for_sooner_by_its_own_pause() -> None:
    outage = Outage(lambda _: None)
    error = Unavailable("busy")
    error.after = 5.0
    assert all(5.0 <= outage.failed("a", error) <= 5.5 for _ in range(50))


@pytest.mark.parametrize(
    ("keys", "longest"),
    [(1, 1.0), (50, 1.0), (150, 3.0), (1000, 5.0)],
    ids=["one", "few", "many", "very many"],
)
async def test_few_keys_try_again_within_a_second_and_many_take_turns(
    keys: int, longest: float
) -> None:
    outage = Outage(lambda _: None)
    rounds = [
        [outage.failed(str(key), Unavailable("down")) for key in range(keys)] for _ in range(12)
    ]
    pauses = rounds[-1]
    assert longest / 2 - 0.01 <= max(pauses) <= longest
    assert min(pauses) >= longest / 2 - 0.01
