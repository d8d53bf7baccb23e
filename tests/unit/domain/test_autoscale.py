"""How many workers are wanted, as a table: the ids are the specification."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.domain.autoscale import Bounds, Facts, Load, Usage, ordinal_of, wanted

NOW = 10_000.0
BOUNDS = Bounds(slots=4, least=0, most=5, idle_seconds=600)
LONG, SHORT = NOW - 600, NOW - 599


def facts(replicas: int, *usages: tuple[int, int, float], waiting: int = 0, **more: Any) -> Facts:
    """Facts of so many replicas, with (ordinal, leased, since) for each worker that is seen."""
    calm = more.pop("calm", LONG)
    load = Load(tuple(Usage(*one) for one in usages), waiting, NOW)
    return Facts(replicas, load, calm, replace(BOUNDS, **more))


TABLE: dict[str, tuple[Facts, int]] = {
    "nothing to do and nobody there: none": (facts(0), 0),
    "the first build waits: one": (facts(0, waiting=1), 1),
    "as many wait as one worker holds: one": (facts(0, waiting=4), 1),
    "one more waits: two": (facts(0, waiting=5), 2),
    "a hundred wait: the most": (facts(0, waiting=100), 5),
    "many wait: at once to what they need": (facts(0, waiting=17), 5),
    "they wait for workers that were asked for already: no more": (facts(2, waiting=8), 2),
    "one waits, and there is a free slot: no more": (facts(1, (0, 3, SHORT), waiting=1), 1),
    "one waits, and every slot is leased: one more": (facts(1, (0, 4, SHORT), waiting=1), 2),
    "slots that are leased anywhere count": (
        facts(3, (0, 1, LONG), (1, 1, LONG), (2, 2, LONG), waiting=9),
        4,
    ),
    "leased for long: it stays": (facts(1, (0, 1, LONG)), 1),
    "idle for long: it goes": (facts(1, (0, 0, LONG)), 0),
    "idle for almost as long: it stays": (facts(1, (0, 0, SHORT)), 1),
    "idle for long, and one waits: it stays": (facts(1, (0, 0, LONG), waiting=1), 1),
    "idle for long, and fewer wait than they hold: all stay": (
        facts(3, (0, 0, LONG), (1, 0, LONG), (2, 0, LONG), waiting=1),
        3,
    ),
    "several idle for long: they go at once": (
        facts(3, (0, 0, LONG), (1, 0, LONG), (2, 0, LONG)),
        0,
    ),
    "the highest are idle: down to the one that is leased": (
        facts(4, (0, 0, LONG), (1, 1, SHORT), (2, 0, LONG), (3, 0, LONG)),
        2,
    ),
    "the highest is leased: those below are kept with it": (
        facts(3, (0, 0, LONG), (1, 0, LONG), (2, 1, LONG)),
        3,
    ),
    "the highest was idle for a moment only: nobody goes": (
        facts(3, (0, 0, LONG), (1, 0, LONG), (2, 0, SHORT)),
        3,
    ),
    "the order in which they are seen does not matter": (
        facts(3, (2, 0, LONG), (0, 1, LONG), (1, 0, LONG)),
        1,
    ),
    "never below the least": (facts(3, (0, 0, LONG), (1, 0, LONG), (2, 0, LONG), least=2), 2),
    "the least is there without any work": (facts(0, least=2), 2),
    "all idle, somebody asked for more than the most: down": (
        facts(9, *((one, 0, LONG) for one in range(9)), least=1),
        1,
    ),
    "more than the most, those above idle for a moment: they go at once": (
        facts(9, *((one, 0, SHORT) for one in range(9))),
        5,
    ),
    "more than the most, and one above is leased: it stays": (
        facts(9, *((one, one == 6, SHORT) for one in range(9))),
        7,
    ),
    "more than the most, and many wait: the most": (facts(9, waiting=99), 5),
    "not seen yet, asked for a moment ago: it is waited for": (facts(1, calm=SHORT), 1),
    "not seen for long: it goes": (facts(1, calm=LONG), 0),
    "not seen, and the one above is idle for a moment: both stay": (
        facts(2, (1, 0, SHORT)),
        2,
    ),
    "one that was told to go still builds: it is not called back": (
        facts(1, (0, 0, SHORT), (3, 1, SHORT)),
        1,
    ),
    "one that was told to go still builds, and none else is there: its slots are needed": (
        facts(0, (3, 1, SHORT)),
        1,
    ),
    "no bounds but one: it is there": (facts(0, least=1, most=1), 1),
}


@pytest.mark.parametrize(("facts", "number"), TABLE.values(), ids=TABLE)
def test_how_many(facts: Facts, number: int) -> None:
    assert wanted(facts) == number


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    """Anything that could be seen."""
    small = st.integers(0, 6)
    times = st.sampled_from([LONG, SHORT, NOW])
    usages = st.lists(
        st.builds(Usage, small, st.integers(0, 4), times), unique_by=lambda one: one.ordinal
    )
    load = Load(tuple(draw(usages)), draw(st.sampled_from([0, 0, 1, 7, 40])), NOW)
    least = draw(st.integers(0, 4))
    bounds = Bounds(draw(st.integers(1, 4)), least, draw(st.integers(max(1, least), 6)), 600)
    return Facts(draw(st.integers(0, 8)), load, draw(times), bounds)


@given(some_facts())
@pytest.mark.timeout(20)
def test_no_leased_worker_is_ever_taken_away(seen: Facts) -> None:
    number = wanted(seen)
    assert not any(
        usage.leased and number <= usage.ordinal < seen.replicas for usage in seen.load.usages
    )


@given(some_facts())
@pytest.mark.timeout(20)
def test_the_bounds_hold_but_for_what_is_leased_above_them(seen: Facts) -> None:
    number, bounds = wanted(seen), seen.bounds
    assert number >= bounds.least
    if number > bounds.most:
        assert number <= seen.replicas
        assert any(usage.leased and usage.ordinal == number - 1 for usage in seen.load.usages)


@given(some_facts())
@pytest.mark.timeout(20)
def test_what_is_wanted_is_wanted_still_when_it_is_there(seen: Facts) -> None:
    number = wanted(seen)
    assert wanted(replace(seen, replicas=number)) == number


@given(some_facts())
@pytest.mark.timeout(20)
def test_while_something_waits_nobody_goes_but_what_stands_above_the_most(seen: Facts) -> None:
    number = wanted(seen)
    if seen.load.waiting:
        assert number >= min(seen.replicas, seen.bounds.most)


@pytest.mark.parametrize(
    ("pod", "ordinal"),
    [
        ("bk-0", 0),
        ("bk-12", 12),
        ("bk-x-0", None),
        ("bk-", None),
        ("bk", None),
        ("10.0.0.1:1234", None),
        ("bk-0-1", None),
    ],
)
def test_the_number_of_a_pod(pod: str, ordinal: int | None) -> None:
    assert ordinal_of(pod, "bk") == ordinal


def test_the_number_of_a_pod_whose_set_has_dashes() -> None:
    assert ordinal_of("team-bk-3", "team-bk") == 3
