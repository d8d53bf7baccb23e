"""Electors over one Lease: their clocks are put forward by hand, and nobody waits."""

import asyncio
import copy
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from imagewright.kube.lease import Candidacy, Clocks, Elector
from imagewright.metrics import Metrics
from imagewright.ports import Body, Conflict, Fenced, Gone, Unavailable

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Api:
    """The API server, as far as one Lease asks it; `down` is what it answers instead."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down: Exception | None = None
        self.swallows = False
        self.delay = 0.0
        self.clock = Clock()
        self.versions = 0

    async def get(self, path: str) -> dict[str, Any]:
        self._answers()
        if self.lease is None:
            raise Gone("no such Lease")
        return copy.deepcopy(self.lease)

    async def create(self, path: str, body: Body) -> dict[str, Any]:
        self._answers()
        if self.lease is not None:
            raise Conflict("it exists")
        self.lease = {"metadata": dict(body["metadata"]), "spec": dict(body["spec"])}
        return self._written()

    async def patch(self, path: str, patch: Body) -> dict[str, Any]:
        self._answers()
        if self.lease is None:
            raise Gone("no such Lease")
        if patch["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("it was written meanwhile")
        self.lease["spec"] = merged(self.lease["spec"], patch["spec"])
        return self._written()

    def spec(self) -> dict[str, Any]:
        """What the Lease says."""
        assert self.lease is not None
        found: dict[str, Any] = self.lease["spec"]
        return found

    def _answers(self) -> None:
        self.clock.now += self.delay
        if self.down is not None:
            raise self.down

    def _written(self) -> dict[str, Any]:
        assert self.lease is not None
        self.versions += 1
        self.lease["metadata"]["resourceVersion"] = str(self.versions)
        if self.swallows:
            raise Unavailable("the answer was lost")
        return copy.deepcopy(self.lease)


def merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch of one level."""
    return {key: value for key, value in {**old, **patch}.items() if value is not None}


class Clock:
    """The steady clock of one machine, and the wrong one on its wall."""

    def __init__(self, wrong: timedelta = timedelta()) -> None:
        self.now, self.wrong = 1000.0, wrong

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.now, lambda: NOON + timedelta(seconds=self.now) + self.wrong)


def elector(api: Api, name: str, clock: Clock | None = None) -> tuple[Elector, Clock, Metrics]:
    """A candidate for twelve seconds at a time, on a machine of its own."""
    clock, metrics = clock or Clock(), Metrics()
    own = Candidacy("ns", "imagewright", name, 12)
    return Elector(api, own, metrics, clock.clocks()), clock, metrics


def gauge(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(name)


@pytest.mark.row("F50")
async def test_of_two_one_takes_it_and_the_other_stands_by() -> None:
    api = Api()
    (one, _, seen), (two, _, others) = elector(api, "one"), elector(api, "two")
    await one.step()
    await two.step()
    assert (one.leads(), two.leads()) == (True, False)
    assert api.spec()["holderIdentity"] == "one"
    assert api.spec()["leaseTransitions"] == 0
    assert api.spec()["leaseDurationSeconds"] == 12
    assert gauge(seen, "imagebuild_leader") == 1
    assert gauge(others, "imagebuild_leader") == 0
    one.fence()
    with pytest.raises(Fenced, match="nothing is written"):
        two.fence()


@pytest.mark.row("F50")
async def test_two_that_see_it_free_at_once_do_not_both_get_it() -> None:
    api = Api()
    (one, _, _), (two, _, _) = elector(api, "one"), elector(api, "two")
    await one.step()
    await one.release()
    await two._look()
    late, _, _ = elector(api, "late")
    await late._look()
    await asyncio.gather(two.step(), late.step())
    assert [two.leads(), late.leads()].count(True) == 1


@pytest.mark.row("F53")
@pytest.mark.parametrize("hours", [-1, 0, 1])
async def test_a_wrong_clock_makes_nobody_take_what_is_renewed(hours: int) -> None:
    api = Api()
    one, mine, _ = elector(api, "one")
    two, theirs, _ = elector(api, "two", Clock(timedelta(hours=hours)))
    theirs.now = 77.0
    for _ in range(30):
        await one.step()
        await two.step()
        mine.now, theirs.now = mine.now + 2, theirs.now + 2
    assert (one.leads(), two.leads(), one.lost) == (True, False, "")


@pytest.mark.row("F53")
async def test_a_clock_that_is_put_back_ends_no_lease_and_lengthens_none() -> None:
    api = Api()
    (one, mine, _), (two, theirs, _) = elector(api, "one"), elector(api, "two")
    await one.step()
    await two.step()
    mine.wrong = timedelta(hours=-1)
    mine.now, theirs.now = mine.now + 6, theirs.now + 6
    await one.step()
    await two.step()
    theirs.now += 11.9
    await two.step()
    assert not two.leads()
    theirs.now += 0.1
    await two.step()
    assert two.leads()


@pytest.mark.row("F52")
async def test_one_that_is_silent_is_followed_after_its_time_and_stopped_long_before() -> None:
    api = Api()
    (one, mine, _), (two, theirs, seen) = elector(api, "one"), elector(api, "two")
    await one.step()
    pause = await two.step()
    assert pause <= 1.2
    theirs.now, mine.now = theirs.now + 8, mine.now + 8
    assert not one.leads()
    assert await two.step() <= 1.2
    assert not two.leads()
    theirs.now += 3.5
    assert await two.step() == pytest.approx(0.5)
    theirs.now += 0.5
    await two.step()
    assert two.leads()
    assert api.spec()["leaseTransitions"] == 1
    assert gauge(seen, "imagebuild_lease_transitions") == 1


@pytest.mark.row("F51")
async def test_one_that_slept_may_write_nothing_before_it_has_looked() -> None:
    api = Api()
    one, mine, metrics = elector(api, "one")
    two, theirs, _ = elector(api, "two")
    lost: list[str] = []
    one.on_loss = lambda: lost.append(one.lost)
    await one.step()
    await two.step()
    theirs.now += 40
    await two.step()
    mine.now += 40
    with pytest.raises(Fenced):
        one.fence()
    versions = api.versions
    await one.step()
    assert lost == ["The Lease imagewright was lost: two holds it."]
    assert api.versions == versions
    assert gauge(metrics, "imagebuild_leader") == 0
    mine.now -= 40
    assert not one.leads()


async def test_one_that_could_not_renew_leads_again_where_nobody_else_has() -> None:
    api = Api()
    (one, mine, metrics), (two, _, _) = elector(api, "one"), elector(api, "two")
    await one.step()
    api.down = Unavailable("The API server is away.")
    mine.now += 16
    await one.step()
    assert (one.leads(), one.lost) == (False, "")
    with pytest.raises(Fenced):
        one.fence()
    api.down = None
    await one.step()
    one.fence()
    await two.step()
    assert (one.leads(), two.leads()) == (True, False)
    assert api.spec()["leaseTransitions"] == 0
    assert gauge(metrics, "imagebuild_leader") == 1


@pytest.mark.parametrize("given_back", [True, False], ids=["and gave it back", "and removed it"])
async def test_one_that_could_not_renew_is_lost_where_another_led_meanwhile(
    given_back: bool,
) -> None:
    api = Api()
    (one, mine, _), (two, theirs, _) = elector(api, "one"), elector(api, "two")
    await one.step()
    await two.step()
    theirs.now += 13
    await two.step()
    assert two.leads()
    if given_back:
        await two.release()
    else:
        api.lease = None
    mine.now += 13
    await one.step()
    assert one.lost == "The Lease imagewright was lost: somebody else has had it."


async def test_the_loss_is_told_by_a_timer_where_nobody_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imagewright.kube.lease.ADRIFT_SECONDS", 0.1)
    one = Elector(Api(), Candidacy("ns", "imagewright", "one", 1), Metrics())
    lost = asyncio.Event()
    one.on_loss = lost.set
    await one.step()
    assert one.leads()
    await lost.wait()
    assert "not renewed in time" in one.lost


async def test_renewals_that_fail_are_tried_again_until_the_deadline() -> None:
    api = Api()
    one, mine, _ = elector(api, "one")
    await one.step()
    api.down = Unavailable("The API server is away.")
    for _ in range(7):
        mine.now += 1
        assert await one.step() <= 1.2
        assert one.leads()
    api.down = None
    await one.step()
    mine.now += 7
    assert one.leads()
    api.down = Unavailable("The API server is away.")
    mine.now += 1
    await one.step()
    assert (one.leads(), one.lost) == (False, "")
    mine.now += 60
    await one.step()
    assert "not renewed in time" in one.lost


async def test_a_renewal_counts_from_before_it_was_asked() -> None:
    api = Api()
    one, mine, _ = elector(api, "one", api.clock)
    await one.step()
    api.delay = 2.5
    mine.now += 2
    await one.step()
    mine.now += 5.4
    assert one.leads()
    mine.now += 0.2
    assert not one.leads()


async def test_an_answer_that_came_too_late_makes_no_leader() -> None:
    api = Api()
    one, _, _ = elector(api, "one", api.clock)
    api.delay = 8.5
    await one.step()
    assert not one.leads()
    assert not one.led.is_set()
    api.delay = 0
    await one.step()
    assert one.leads()


async def test_an_answer_that_was_lost_is_looked_for() -> None:
    api = Api()
    one, _, _ = elector(api, "one")
    api.swallows = True
    await one.step()
    assert not one.leads()
    api.swallows = False
    await one.step()
    assert one.leads()
    api.swallows = True
    await one.step()
    api.swallows = False
    await one.step()
    assert one.leads()
    assert api.spec()["leaseTransitions"] == 0


async def test_one_whose_lease_was_given_to_another_stops_at_once() -> None:
    api = Api()
    one, mine, _ = elector(api, "one")
    await one.step()
    api.spec()["holderIdentity"] = "two"
    assert api.lease is not None
    api.lease["metadata"]["resourceVersion"] = "99"
    mine.now += 2
    await one.step()
    assert one.leads()
    await one.step()
    assert one.lost == "The Lease imagewright was lost: two holds it."


async def test_a_lease_that_was_deleted_is_made_again() -> None:
    api = Api()
    one, mine, _ = elector(api, "one")
    await one.step()
    api.lease = None
    mine.now += 2
    await one.step()
    await one.step()
    assert one.leads()
    assert api.spec()["holderIdentity"] == "one"


@pytest.mark.row("F7")
async def test_what_is_given_back_is_taken_at_the_next_look() -> None:
    api = Api()
    (one, _, seen), (two, _, _) = elector(api, "one"), elector(api, "two")
    await one.step()
    assert await two.step() <= 1.2
    await one.release()
    assert "holderIdentity" not in api.spec()
    assert gauge(seen, "imagebuild_leader") == 0
    with pytest.raises(Fenced):
        one.fence()
    await two.step()
    assert two.leads()
    assert api.spec()["leaseTransitions"] == 1


async def test_a_long_lease_is_looked_at_as_often_as_a_short_one() -> None:
    api = Api()
    one, _, _ = elector(api, "one")
    await one.step()
    long = Elector(api, Candidacy("ns", "imagewright", "two", 600), Metrics())
    assert await long.step() <= 1.2


async def test_what_one_does_not_hold_is_not_given_back() -> None:
    api = Api()
    (one, _, _), (two, _, _) = elector(api, "one"), elector(api, "two")
    await one.step()
    await two.release()
    assert api.spec()["holderIdentity"] == "one"
    api.spec()["holderIdentity"] = "two"
    await one.release()
    assert api.spec()["holderIdentity"] == "two"


async def test_a_server_that_is_away_keeps_nobody_from_ending() -> None:
    api = Api()
    one, _, _ = elector(api, "one")
    await one.step()
    api.down = Unavailable("The API server is away.")
    await one.release()
    assert not one.leads()
