"""Settings, the scheduler's queue, and what answers of the API server mean."""

from pathlib import Path

import pytest

from imagewright.builders.memory import MemoryBuilder
from imagewright.domain.facts import Granted, Refused, Waiting
from imagewright.domain.plan import CLASSIC, Inline, Plan
from imagewright.kube.client import translate
from imagewright.metrics import Metrics
from imagewright.pools.pool import Pool, Worker
from imagewright.ports import Conflict, Gone, Rejected, Unavailable
from imagewright.scheduler import Scheduler
from imagewright.settings import SettingsError, load_settings
from tests.support.parts import a_backend


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, Unavailable),
        (403, Unavailable),
        (404, Gone),
        (409, Conflict),
        (410, Rejected),
        (422, Rejected),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
def test_every_class_of_answer_has_a_meaning(status: int, kind: type[Exception]) -> None:
    for content in (b'{"message": "why"}', b"<html>", b"[]", b""):
        error = translate(status, "GET /x", content)
        assert type(error) is kind
        assert str(status) in error.message


def test_settings_come_from_the_file_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("pool: {slots: 2, workers: ['tcp://b:1']}\ndrainSeconds: 3\n")
    monkeypatch.setenv("IMAGEWRIGHT_POOL__SLOTS", "7")
    settings = load_settings(path)
    assert (settings.pool.slots, settings.drain_seconds) == (7, 3)
    assert settings.pool.workers == ["tcp://b:1"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pol: {}\n", "pol: Extra inputs are not permitted"),
        ("pool: {slots: 0}\n", "pool.slots: Input should be greater than or equal to 1"),
        ("pool: {workers: []}\n", "pool.workers: List should have at least 1 item"),
        ("pool: [\n", "is no YAML"),
        ("- a\n", "must hold keys and values"),
    ],
)
def test_wrong_settings_are_named_by_their_key(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_settings_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "nope.yaml")


PLAIN, OF_CLASSIC = Plan(Inline()), Plan(Inline(), builder=CLASSIC)


class Queue:
    """A scheduler over workers with so many slots each, and who was woken."""

    def __init__(self, *slots: int) -> None:
        async def probe() -> None:
            return

        backend = a_backend()
        self.workers = [
            Worker(f"w{number}", count, backend, probe, up=True)
            for number, count in enumerate(slots)
        ]
        self.woken: list[str] = []
        metrics = Metrics()
        self.pool = Pool("p", self.workers, metrics)
        self.scheduler = Scheduler(self.pool, self.woken.append, metrics)


async def test_the_oldest_goes_first_and_the_freest_worker_is_chosen() -> None:
    queue = Queue(1, 2)
    for uid, created in (("b", "2"), ("c", "3"), ("d", "4"), ("a", "1")):
        queue.scheduler.enter((created, uid), PLAIN)
        queue.scheduler.enter((created, uid), PLAIN)
    assert queue.scheduler.turn("b") == Granted("w1")
    assert isinstance(queue.scheduler.turn("a"), Waiting)
    lease = queue.scheduler.take("b")
    assert queue.scheduler.turn("b") is None
    lease.release()
    lease.release()
    assert queue.scheduler.turn("a") == Granted("w1")
    assert sum(worker.leased for worker in queue.workers) == 3


async def test_who_leaves_gives_back_what_was_granted() -> None:
    queue = Queue(1)
    queue.scheduler.enter(("1", "a"), PLAIN)
    queue.scheduler.enter(("2", "b"), PLAIN)
    queue.scheduler.leave("a")
    assert queue.scheduler.turn("a") is None
    assert queue.scheduler.turn("b") == Granted("w0")
    queue.scheduler.leave("b")
    assert queue.workers[0].leased == 0


async def test_a_worker_that_goes_away_takes_no_build_with_it() -> None:
    queue = Queue(1)
    queue.scheduler.enter(("1", "a"), PLAIN)
    queue.workers[0].suspect()
    queue.workers[0].trouble = "connection refused"
    queue.woken.clear()
    queue.pool.changed()
    assert queue.scheduler.turn("a") is None
    assert queue.woken == ["a"]
    queue.scheduler.enter(("1", "a"), PLAIN)
    turn = queue.scheduler.turn("a")
    assert isinstance(turn, Waiting)
    assert "connection refused" in turn.message
    queue.workers[0].up = True
    queue.pool.changed()
    assert queue.scheduler.turn("a") == Granted("w0")


async def test_a_thousand_builds_go_in_the_order_they_were_created_within_the_slots() -> None:
    queue = Queue(2, 1)
    ages = [f"{number * 617 % 1000:04}" for number in range(1000)]
    for age in ages:
        queue.scheduler.enter((age, f"uid-{age}"), PLAIN)
    first = ages[:3]
    went: list[str] = []
    while queue.woken:
        uid = queue.woken.pop(0)
        assert sum(worker.leased for worker in queue.workers) <= 3
        queue.scheduler.take(uid).release()
        went.append(uid.removeprefix("uid-"))
    assert went[:3] == first
    assert went[3:] == sorted(set(ages) - set(first))


async def test_a_build_waits_for_a_worker_with_its_builder_and_others_pass_it() -> None:
    queue = Queue(1, 1)
    queue.workers[1].backend = a_backend(classic=MemoryBuilder())
    queue.scheduler.enter(("1", "a"), OF_CLASSIC)
    queue.scheduler.enter(("2", "b"), OF_CLASSIC)
    queue.scheduler.enter(("3", "c"), PLAIN)
    assert queue.scheduler.turn("a") == Granted("w1")
    assert isinstance(queue.scheduler.turn("b"), Waiting)
    assert queue.scheduler.turn("c") == Granted("w0")
    queue.scheduler.take("a").release()
    assert queue.scheduler.turn("b") == Granted("w1")


async def test_a_builder_that_no_worker_has_is_refused_and_not_waited_for() -> None:
    queue = Queue(1)
    queue.scheduler.enter(("1", "a"), OF_CLASSIC)
    turn = queue.scheduler.turn("a")
    assert isinstance(turn, Refused)
    assert "No worker of pool p can build this" in turn.message
    queue.scheduler.leave("a")
    assert queue.scheduler.turn("a") is None


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("IMAGEWRIGHT_POOL__SLOTS", "many", "pool.slots"),
        ("IMAGEWRIGHT_LOG_LEVEL", "loud", "log_level"),
        ("IMAGEWRIGHT_OPS__PORT", "70000", "ops.port"),
    ],
    ids=["a word for a number", "an unknown level", "a port that is none"],
)
def test_a_wrong_variable_of_the_environment_is_named_by_its_key(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(None)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("the environment: ")


def test_without_a_file_and_with_an_empty_one_the_settings_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("")
    assert load_settings(path) == load_settings(None)
    assert load_settings(None).pool.workers == ["unix:///run/buildkit/buildkitd.sock"]
