"""Silence ends nothing by itself: only together with a worker that does not answer."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from imagewright import stall
from imagewright.api.reason import Reason
from imagewright.ports import Failed, Unavailable
from imagewright.stall import Attendant
from tests.support.pooling import a_worker, answers
from tests.support.waiting import turns

Probe = Callable[[], Awaitable[frozenset[str]]]
SILENCE = 0.01


async def refuses() -> frozenset[str]:
    """A daemon that is not there."""
    raise Unavailable("The worker does not answer: refused.")


async def hangs() -> frozenset[str]:
    """A daemon that was stopped."""
    await asyncio.Event().wait()
    return frozenset()


class Bed:
    """An attendant, work that ends when `go` is set, and how often the worker was asked."""

    def __init__(self, probe: Probe = answers) -> None:
        self.probe, self.asked = probe, 0
        self.go, self.cancelled = asyncio.Event(), False
        self.worker = a_worker("w")
        self.worker.probe = self.counted
        self.attendant = Attendant(self.worker, SILENCE)

    async def counted(self) -> frozenset[str]:
        self.asked += 1
        return await self.probe()

    async def work(self) -> str:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "built"

    def begin(self) -> "asyncio.Task[str]":
        """Attend to the work."""
        return asyncio.create_task(self.attendant.attend(self.work()))

    async def until(self, right: Callable[[], object]) -> None:
        """Let the loop turn until it is right."""
        await turns(right)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a unit test has time for."""
    monkeypatch.setattr(stall, "ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(stall, "PARTING_SECONDS", 0.02)


@pytest.mark.row("F12")
@pytest.mark.parametrize(
    ("probe", "why"),
    [(refuses, "The worker does not answer: refused."), (hangs, "no answer within 0 s.")],
    ids=["a worker that is not there", "a worker that was stopped"],
)
async def test_silent_work_on_a_silent_worker_has_stalled(probe: Probe, why: str) -> None:
    bed = Bed(probe)
    with pytest.raises(Unavailable, match=r"said nothing for 0 s") as caught:
        await bed.begin()
    assert caught.value.reason is Reason.STALLED
    assert caught.value.message.endswith(f"did not answer when asked: {why}")
    assert bed.cancelled


async def test_silent_work_on_a_worker_that_answers_is_left_alone_however_long() -> None:
    bed = Bed()
    task = bed.begin()
    await bed.until(lambda: bed.asked >= 3)
    assert not task.done()
    bed.go.set()
    assert await task == "built"


async def test_a_worker_is_not_asked_while_something_is_heard() -> None:
    bed = Bed(refuses)
    bed.attendant = Attendant(bed.worker, 60)
    task = bed.begin()
    await asyncio.sleep(0)
    bed.go.set()
    assert await task == "built"
    assert bed.asked == 0


async def test_what_is_heard_while_the_worker_is_asked_counts() -> None:
    bed = Bed()

    async def speaks_then_refuses() -> frozenset[str]:
        bed.attendant.beat()
        return await refuses()

    bed.probe = speaks_then_refuses
    task = bed.begin()
    await bed.until(lambda: bed.asked >= 2)
    assert not task.done()
    bed.go.set()
    assert await task == "built"


async def test_work_that_ends_while_the_worker_is_asked_has_ended() -> None:
    bed = Bed()

    async def ends_then_refuses() -> frozenset[str]:
        bed.go.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return await refuses()

    bed.probe = ends_then_refuses
    assert await bed.begin() == "built"


async def test_what_work_raises_comes_out_as_it_is() -> None:
    async def fails() -> None:
        raise Failed("exit code: 1.")

    with pytest.raises(Failed, match="exit code: 1"):
        await Bed().attendant.attend(fails())


async def test_who_is_cancelled_ends_the_work_first() -> None:
    bed = Bed()
    task = bed.begin()
    await bed.until(lambda: bed.asked)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bed.cancelled


async def stubborn(release: asyncio.Event) -> None:
    """Work that goes on when it is cancelled, until it is released."""
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            continue


@pytest.mark.row("F16")
async def test_work_that_goes_on_counts_for_as_long_as_its_worker_answers() -> None:
    release, bed = asyncio.Event(), Bed()
    task = asyncio.create_task(bed.attendant.attend(stubborn(release)))
    await asyncio.sleep(0)
    task.cancel()
    await bed.until(lambda: bed.asked > 3)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)


async def test_work_that_goes_on_where_the_worker_does_not_answer_holds_nobody_up() -> None:
    release = asyncio.Event()
    task = asyncio.create_task(Bed(refuses).attendant.attend(stubborn(release)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)
    release.set()
