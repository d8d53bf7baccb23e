"""The lines in front of the pools: who is let in where, and what those are told who wait."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewright.api.reason import Reason
from imagewright.builders.memory import MemoryBuilder
from imagewright.domain.affinity import ranked
from imagewright.domain.facts import Entered, Granted, Refused, Waiting
from imagewright.domain.plan import CLASSIC, Inline, Plan, Sandbox
from imagewright.metrics import Metrics
from imagewright.pools.notice import TOLD_SECONDS, WORDS
from imagewright.pools.placement import HOLD_OUT_SECONDS
from imagewright.pools.pool import Worker
from imagewright.scheduler import Scheduler
from tests.support.parts import a_backend
from tests.support.pooling import PLAIN, a_pool, a_worker, an_entry

OF_CLASSIC = Plan(Inline(), builder=CLASSIC)


class Desk:
    """A scheduler over one pool, whose clock stands until it is moved, and who was woken."""

    def __init__(self, *slots: int, **terms: Any) -> None:
        self.now, self.woken, self.metrics = 0.0, list[str](), Metrics()
        self.workers = [a_worker(f"w{number}", count) for number, count in enumerate(slots)]
        self.pool = a_pool(*self.workers, metrics=self.metrics, **terms)
        self.scheduler = Scheduler([self.pool], lambda: self.now, self.metrics)

    def enter(self, uid: str, plan: Plan = PLAIN, **ticket: object) -> None:
        """A build asks for a turn."""
        self.scheduler.enter("default", an_entry(uid, plan, self.woken.append, **ticket))

    def worker_of(self, uid: str) -> str | None:
        """Where the build was let in."""
        turn = self.scheduler.turn(uid)
        return turn.worker if isinstance(turn, Granted) else None

    def end(self, uid: str) -> None:
        """The build has run."""
        self.scheduler.take(uid).release()

    def tell(self, after: float = 0.0) -> None:
        """So many seconds later those who wait are told where."""
        self.now += after
        self.scheduler.lines["default"].tell()

    def offer(self, after: float) -> None:
        """So many seconds later the free slots are offered again."""
        self.now += after
        self.scheduler.lines["default"].offer()

    def told(self, uid: str) -> tuple[Reason, int]:
        """What the build was told."""
        turn = self.scheduler.turn(uid)
        assert isinstance(turn, Waiting), turn
        return turn.reason, turn.position

    @property
    def leased(self) -> int:
        """Slots that are taken."""
        return sum(worker.leased for worker in self.workers)


def test_a_free_slot_is_had_at_once_and_the_oldest_that_waits_has_the_next() -> None:
    desk = Desk(1)
    for uid in ("b", "c", "a"):
        desk.enter(uid)
        desk.enter(uid)
    assert desk.worker_of("b") == "w0"
    assert desk.scheduler.turn("a") == Entered()
    lease = desk.scheduler.take("b")
    assert desk.scheduler.turn("b") is None
    lease.release()
    lease.release()
    assert (desk.worker_of("a"), desk.worker_of("c"), desk.leased) == ("w0", None, 1)


def test_who_leaves_gives_back_what_was_granted() -> None:
    desk = Desk(1)
    desk.enter("a")
    desk.enter("b")
    desk.scheduler.leave("a")
    assert desk.scheduler.turn("a") is None
    assert desk.worker_of("b") == "w0"
    desk.scheduler.leave("b")
    desk.scheduler.leave("never came")
    assert desk.leased == 0


def test_a_worker_that_goes_away_takes_no_build_with_it() -> None:
    desk = Desk(1)
    desk.enter("a")
    desk.workers[0].suspect()
    desk.workers[0].trouble = "connection refused"
    desk.woken.clear()
    desk.pool.changed()
    assert desk.scheduler.turn("a") is None
    assert desk.woken == ["a"]
    desk.enter("a")
    desk.tell()
    assert desk.told("a") == (Reason.NO_WORKER, 1)
    assert "connection refused" in str(desk.scheduler.turn("a"))
    desk.workers[0].up = True
    desk.pool.changed()
    assert desk.worker_of("a") == "w0"


def test_a_thousand_builds_go_in_order_within_the_slots_and_none_is_forgotten() -> None:
    desk = Desk(3)
    ages = [f"{number * 617 % 1000:04}" for number in range(1000)]
    for age in ages:
        desk.enter(age, key="one")
    went: list[str] = []
    while desk.woken:
        uid = desk.woken.pop(0)
        assert desk.leased <= 3
        desk.end(uid)
        went.append(uid)
    assert went[:3] == ages[:3]
    assert went[3:] == sorted(set(ages) - set(ages[:3]))
    assert desk.leased == 0
    assert desk.metrics.slots_used.labels("default")._value.get() == 0
    assert desk.metrics.queue_depth.labels("default", "team")._value.get() == 0


def test_a_build_waits_for_a_worker_with_its_builder_and_others_pass_it() -> None:
    desk = Desk(1, 1)
    desk.workers[1].backend = a_backend(classic=MemoryBuilder())
    desk.enter("a", OF_CLASSIC)
    desk.enter("b", OF_CLASSIC)
    desk.enter("c")
    assert (desk.worker_of("a"), desk.worker_of("b"), desk.worker_of("c")) == ("w1", None, "w0")
    desk.end("a")
    assert desk.worker_of("b") == "w1"


REFUSALS = {
    "a builder that no worker has": ({}, OF_CLASSIC, Reason.FEATURE_UNSUPPORTED, "No worker of"),
    "a pool that is not open to the namespace": (
        {"namespaces": frozenset({"other"})},
        PLAIN,
        Reason.POLICY_DENIED,
        "not open to the namespace team",
    ),
    "a network that the pool does not allow": (
        {},
        Plan(Inline(), sandbox=Sandbox(network="host")),
        Reason.POLICY_DENIED,
        "spec.network: host",
    ),
}


@pytest.mark.parametrize(
    ("terms", "plan", "reason", "sentence"), REFUSALS.values(), ids=list(REFUSALS)
)
def test_it_is_refused_and_not_waited_for(
    terms: dict[str, object], plan: Plan, reason: Reason, sentence: str
) -> None:
    desk = Desk(1, **terms)
    desk.enter("a", plan)
    turn = desk.scheduler.turn("a")
    assert isinstance(turn, Refused)
    assert turn.reason is reason
    assert sentence in turn.message
    desk.scheduler.leave("a")
    assert (desk.scheduler.turn("a"), desk.leased) == (None, 0)


def test_a_pool_that_nobody_knows_is_waited_for_and_named() -> None:
    desk = Desk(1)
    desk.scheduler.enter("gpu", an_entry("a"))
    turn = desk.scheduler.turn("a")
    assert isinstance(turn, Waiting)
    assert (turn.reason, turn.position) == (Reason.POOL_UNKNOWN, 0)
    assert "no pool gpu" in turn.message
    desk.enter("a")
    assert desk.worker_of("a") == "w0"


def test_an_edited_pool_moves_the_build_to_the_other_line() -> None:
    desk = Desk(1)
    desk.enter("first")
    desk.enter("a")
    desk.scheduler.enter("gpu", an_entry("a"))
    desk.end("first")
    assert desk.told("a")[0] is Reason.POOL_UNKNOWN
    assert desk.leased == 0


def test_an_edited_priority_is_a_new_place() -> None:
    desk = Desk(1)
    for uid in ("a", "b", "c"):
        desk.enter(uid)
    desk.enter("c", priority=5)
    desk.tell()
    assert (desk.told("c")[1], desk.told("b")[1]) == (1, 2)
    desk.end("a")
    assert desk.worker_of("c") == "w0"


def test_a_namespace_has_no_more_slots_than_the_pool_gives_it() -> None:
    desk = Desk(4, namespace_slots=2)
    for uid in ("a", "b", "c"):
        desk.enter(uid)
    desk.enter("d", namespace="other")
    desk.tell()
    assert desk.told("c") == (Reason.NAMESPACE_LIMIT, 1)
    assert (desk.worker_of("d"), desk.leased) == ("w0", 3)
    desk.end("a")
    assert desk.worker_of("c") == "w0"


def test_a_platform_that_the_pool_is_not_for_is_waited_for_and_others_pass() -> None:
    desk = Desk(1, platforms=frozenset({"linux/amd64"}))
    desk.enter("a", Plan(Inline(), platforms=("linux/arm64",)))
    desk.enter("b", Plan(Inline(), platforms=("linux/amd64/v1",)))
    desk.tell()
    assert desk.told("a") == (Reason.PLATFORM_UNAVAILABLE, 1)
    assert desk.worker_of("b") == "w0"


def test_a_worker_of_the_platform_is_waited_for_where_there_is_one() -> None:
    desk = Desk(1, 1)
    desk.workers[0].platforms = frozenset({"linux/amd64"})
    desk.workers[1].platforms = frozenset({"linux/amd64", "linux/arm64"})
    arm = Plan(Inline(), platforms=("linux/arm64/v8",))
    desk.enter("a", arm)
    desk.enter("b", arm)
    assert (desk.worker_of("a"), desk.worker_of("b")) == ("w1", None)
    desk.workers[1].platforms = frozenset({"linux/amd64"})
    desk.pool.changed()
    assert desk.worker_of("b") == "w0"


def keys_of(desk: Desk, name: str, count: int) -> list[str]:
    """Keys that like the worker best."""
    names = [worker.name for worker in desk.workers]
    keys = (f"key-{number}" for number in range(1000))
    return [key for key in keys if ranked(key, names)[0] == name][:count]


def test_the_same_key_meets_the_same_worker() -> None:
    desk = Desk(2, 2, 2, 2)
    for name in ("w2", "w0"):
        for key in keys_of(desk, name, 5):
            desk.enter(key, key=key)
            assert desk.worker_of(key) == name
            desk.end(key)


def test_of_one_namespace_the_build_goes_first_whose_cache_is_on_the_free_worker() -> None:
    desk = Desk(1, 1)
    cold, warm = keys_of(desk, "w0", 1)[0], keys_of(desk, "w1", 1)[0]
    desk.enter("0", key=cold)
    desk.enter("1", key=warm)
    for uid, key in (("2", cold), ("3", cold), ("4", warm)):
        desk.enter(uid, key=key)
    desk.end("1")
    assert (desk.worker_of("2"), desk.worker_of("4")) == (None, "w1")
    desk.enter("5", key=cold, priority=1)
    desk.end("4")
    desk.offer(HOLD_OUT_SECONDS)
    assert desk.worker_of("5") == "w1"


def test_a_cold_slot_is_left_alone_for_a_moment_where_a_warm_one_comes_free_soon() -> None:
    desk = Desk(1, 1)
    here, there = keys_of(desk, "w0", 1)[0], keys_of(desk, "w1", 1)[0]
    desk.enter("0", key=here)
    desk.enter("1", key=there)
    desk.enter("2", key=here)
    desk.end("1")
    assert desk.worker_of("2") is None
    desk.end("0")
    assert desk.worker_of("2") == "w0"
    desk.enter("3", key=there)
    desk.enter("4", key=here)
    desk.end("3")
    desk.offer(HOLD_OUT_SECONDS / 2)
    assert desk.worker_of("4") is None
    desk.offer(HOLD_OUT_SECONDS / 2)
    assert desk.worker_of("4") == "w1"


def test_a_cold_slot_is_taken_at_once_where_the_warm_worker_is_far_ahead() -> None:
    desk = Desk(2, 2, 2, 2)
    key = keys_of(desk, "w0", 1)[0]
    for number in range(3):
        desk.enter(f"{number}", key=key)
    workers = [desk.worker_of(f"{number}") for number in range(3)]
    assert None not in workers
    assert workers[0] == "w0"


def test_a_worker_under_suspicion_is_passed_over_until_it_answers() -> None:
    desk = Desk(1, 1)
    desk.enter("0", key="one")
    desk.enter("1", key="two")
    desk.enter("2", key="one")
    desk.tell()
    home = next(one for one in desk.workers if one.name == desk.worker_of("0"))
    home.suspect()
    desk.end("0")
    assert desk.worker_of("2") is None
    desk.end("1")
    desk.offer(HOLD_OUT_SECONDS)
    assert desk.worker_of("2") == next(one.name for one in desk.workers if one is not home)


@given(
    slots=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    keys=st.lists(st.integers(0, 6), min_size=60, max_size=120),
    seed=st.randoms(use_true_random=False),
    before=st.integers(0, 40),
)
@settings(max_examples=60)
def test_a_lone_build_waits_for_no_more_than_slots_and_one_others_whatever_is_warm(
    slots: list[int], keys: list[int], seed: Random, before: int
) -> None:
    desk, total = Desk(*slots), sum(slots)
    for number, key in enumerate(keys):
        desk.enter(f"crowd-{number:03}", namespace="crowd", key=f"key-{key}")
    running: set[str] = set()

    def end_one() -> None:
        running.update(desk.woken)
        desk.woken.clear()
        places = {uid: desk.worker_of(uid) for uid in sorted(running) if desk.worker_of(uid)}
        # The builds of one worker last for ever: it may be the one that the lone build likes.
        uid = seed.choice([uid for uid in places if places[uid] != "w0"] or list(places))
        running.remove(uid)
        desk.end(uid)
        desk.offer(HOLD_OUT_SECONDS / 10)

    for _ in range(min(before, len(keys) - 2 * total - 2)):
        end_one()
    desk.enter("lone", namespace="lone", key=f"key-{before % 7}")
    ends = 0
    while desk.worker_of("lone") is None:
        end_one()
        ends += 1
    assert ends <= total + 1


def test_nobody_is_passed_over_for_ever() -> None:
    desk = Desk(1, 1)
    cold, warm = keys_of(desk, "w0", 1)[0], keys_of(desk, "w1", 1)[0]
    desk.enter("00", key=cold)
    desk.enter("01", key=warm)
    desk.enter("02", key=cold)
    for number in range(3, 40):
        desk.enter(f"{number:02}", key=warm)
    last = "01"
    for _ in range(30):
        desk.end(last)
        last = next(uid for uid in reversed(desk.woken) if desk.worker_of(uid) == "w1")
        if last == "02":
            break
    assert last == "02"


def test_those_who_wait_are_told_once_and_then_only_of_real_steps_now_and_then() -> None:
    desk = Desk(1)
    for number in range(40):
        desk.enter(f"{number:02}")
    assert desk.scheduler.turn("39") == Entered()
    for _ in range(4):
        desk.tell()
    assert desk.told("39") == (Reason.QUEUED, 39)
    assert len(desk.woken) == 40
    desk.woken.clear()
    for number in range(15):
        desk.end(f"{number:02}")
    desk.woken.clear()
    desk.tell(TOLD_SECONDS - 1)
    assert desk.woken == []
    desk.tell(1)
    assert desk.woken == ["16"]
    assert (desk.told("16"), desk.told("39")) == ((Reason.QUEUED, 1), (Reason.QUEUED, 39))
    desk.tell(1)
    assert desk.woken == ["16", "17"]


def test_another_reason_to_wait_is_told_before_any_step_but_not_to_all_at_once() -> None:
    desk = Desk(1)
    for number in range(40):
        desk.enter(f"{number:02}")
    for _ in range(4):
        desk.tell()
    desk.woken.clear()
    desk.workers[0].up = False
    desk.pool.changed()
    desk.tell(TOLD_SECONDS)
    assert len(desk.woken) == WORDS["changed"] + 1
    assert desk.told("01")[0] is Reason.NO_WORKER
    assert desk.told("39")[0] is Reason.QUEUED


def test_a_crowd_is_told_from_the_front_and_not_all_at_once() -> None:
    desk, many = Desk(1), WORDS["first"]
    for number in range(many * 2):
        desk.enter(f"{number:02}")
    desk.tell()
    assert isinstance(desk.scheduler.turn(f"{many}"), Waiting)
    assert desk.scheduler.turn(f"{many + 1}") == Entered()
    desk.tell()
    assert desk.told(f"{many * 2 - 1}") == (Reason.QUEUED, many * 2 - 1)


def test_a_retired_worker_gets_nothing_and_takes_its_lease_back() -> None:
    desk = Desk(1)
    desk.enter("a")
    lease = desk.scheduler.take("a")
    desk.pool.retire("w0")
    desk.enter("b")
    desk.tell()
    assert desk.told("b") == (Reason.NO_WORKER, 1)
    lease.release()
    assert (desk.leased, desk.worker_of("b")) == (0, None)


async def test_a_worker_of_the_same_name_takes_the_place_of_the_old_one() -> None:
    desk = Desk(1)
    desk.enter("a")
    desk.enter("b")
    old = desk.workers[0]
    new: Worker = a_worker("w0", 1)
    desk.pool.add(new)
    desk.enter("a")
    assert (desk.worker_of("a"), desk.worker_of("b")) == ("w0", None)
    assert (old.leased, new.leased, old.retired) == (0, 1, True)
    await desk.pool.close()
