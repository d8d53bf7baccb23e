"""Who acts, and what an operator does when it begins to and when it may no more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from imagewright.cli import main, run
from imagewright.domain.facts import Closing
from imagewright.leadership import Alone, LostError, leadership
from imagewright.lifecycle import Operator, live
from imagewright.main import Process
from imagewright.metrics import Metrics
from imagewright.settings import LeaseSettings, Settings
from tests.support.makers import Told


class Candidate(Alone):
    """A leader whose election a test decides."""

    def __init__(self) -> None:
        super().__init__()
        self.led.clear()

    def leads(self) -> bool:
        return self.led.is_set() and not self.lost

    def lose(self) -> None:
        """At the deadline."""
        self.lost = "it was not renewed in time"
        self.on_loss()


class Part:
    """Stands for every part of an operator, and notes what is asked of it."""

    def __init__(self, notes: list[str]) -> None:
        self.notes, self.ready, self.closing = notes, True, Closing.OPEN

    async def run(self) -> None:
        self.notes.append("runs")
        await asyncio.Event().wait()

    def start(self) -> None:
        self.notes.append("watches")

    async def stop(self) -> None:
        self.notes.append("watches no more")

    def anew(self) -> None:
        self.notes.append("looks anew")

    def cancel_all(self) -> None:
        self.notes.append("cancels")

    def uids(self) -> tuple[str, ...]:
        return ()

    async def drained(self, seconds: float) -> None:
        self.notes.append("drains")

    def trouble(self) -> str:
        return ""

    async def quiet(self) -> None:
        self.notes.append("is quiet")

    async def idle(self) -> None:
        self.notes.append("is idle")


class House:
    """An operator whose parts are stand-ins."""

    def __init__(self) -> None:
        self.leader, self.stop = Candidate(), asyncio.Event()
        self.notes: list[str] = []
        self.acts: list[str] = []
        part: Any = Part(self.notes)
        acting: Any = Part(self.acts)
        self.operator = Operator(self.leader, acting, acting, acting, part, acting, None, part)

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[None]:
        self.acts.append("opens")
        try:
            yield
        finally:
            self.acts.append("closes")

    @asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """While it lives; it must have ended by itself at the end."""
        life = asyncio.create_task(live(self.operator, self.gateway(), self.stop, 1))
        async with asyncio.timeout(1.5):
            yield
            await life

    async def until(self, right: Callable[[], object]) -> None:
        """Let the loop turn until it is right."""
        while not right():
            await asyncio.sleep(0)


async def test_a_standby_watches_and_does_nothing_else_until_it_leads() -> None:
    house = House()
    async with house.living():
        await house.until(lambda: house.notes == ["watches", "runs"])
        assert house.operator.not_ready() == ""
        assert house.acts == []
        house.leader.led.set()
        await house.until(lambda: "runs" in house.acts)
        assert "looks anew" in house.notes
        house.stop.set()
    assert house.acts == ["opens", "runs", "runs", "drains", "is idle", "is quiet", "closes"]
    assert house.notes[-1] == "watches no more"


async def test_a_standby_that_is_told_to_stop_ends_without_having_acted() -> None:
    house = House()
    async with house.living():
        await house.until(lambda: house.notes)
        house.stop.set()
    assert house.acts == []


@pytest.mark.row("F51")
async def test_one_that_loses_its_lead_cancels_all_at_that_moment_and_drains_nothing() -> None:
    house = House()
    async with house.living():
        house.leader.led.set()
        await house.until(lambda: "runs" in house.acts)
        house.leader.lose()
        assert house.acts[-1] == "cancels"
    assert house.acts[-1] == "closes"
    assert "drains" not in house.acts


async def test_one_whose_watch_is_not_up_yet_leaves_the_list_to_it() -> None:
    house = House()
    watch: Any = house.operator.watch
    watch.ready = False
    async with house.living():
        house.leader.led.set()
        await house.until(lambda: "runs" in house.acts)
        house.stop.set()
    assert "looks anew" not in house.notes


@pytest.mark.parametrize(
    ("leads", "woken"), [(True, ["uid"]), (False, [])], ids=["a leader", "a standby"]
)
def test_what_is_seen_is_looked_at_only_by_a_leader(leads: bool, woken: list[str]) -> None:
    leader, queued = Candidate(), []

    class Queue:
        def add(self, uid: str) -> None:
            queued.append(uid)

    if leads:
        leader.led.set()
    queue: Any = Queue()
    Process(Settings(), Metrics(), leader, "me", Told()).waking(queue)("uid")
    assert queued == woken


async def test_an_operator_without_a_lease_leads_from_its_start() -> None:
    metrics = Metrics()
    async with leadership(Settings(), "me", metrics) as leader:
        assert leader.leads()
        assert leader.led.is_set()
        leader.fence()
    assert metrics.registry.get_sample_value("imagebuild_leader") == 1


def test_an_operator_that_lost_its_lead_ends_with_a_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lose(_settings: Settings) -> None:
        raise LostError("The Lease was lost.")

    monkeypatch.setattr(run, "run_operator", lose)
    monkeypatch.setattr(run, "configure_logs", lambda _settings: None)
    assert CliRunner().invoke(main, ["run"]).exit_code == 1


@pytest.mark.parametrize("seconds", [3, 12, 3600])
def test_a_lease_lasts_for_whole_seconds(seconds: int) -> None:
    assert LeaseSettings(namespace="ns", seconds=seconds).seconds == seconds
    assert LeaseSettings(namespace="ns").name == "imagewright"
