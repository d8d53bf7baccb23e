"""When schedules come, also where clocks are changed."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.domain.schedule import NAMED, InvalidScheduleError, Schedule

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")


def at(text: str) -> datetime:
    """A moment in UTC, such as 2026-03-29 01:00."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


TIMES = {
    "every night, in winter": ("0 3 * * *", BERLIN, "2026-01-01 12:00", "2026-01-02 02:00"),
    "every night, in summer": ("0 3 * * *", BERLIN, "2026-07-01 12:00", "2026-07-02 01:00"),
    "at that very time: the next one": ("0 3 * * *", UTC, "2026-01-01 03:00", "2026-01-02 03:00"),
    "a second before": ("0 3 * * *", UTC, "2026-01-01 02:59:59", "2026-01-01 03:00"),
    "skipped by the clocks: right after the change": (
        "30 2 * * *",
        BERLIN,
        "2026-03-28 12:00",
        "2026-03-29 01:00",
    ),
    "the night after: as ever": ("30 2 * * *", BERLIN, "2026-03-29 01:00", "2026-03-30 00:30"),
    "twice by the clocks: the first": (
        "30 2 * * *",
        BERLIN,
        "2026-10-24 12:00",
        "2026-10-25 00:30",
    ),
    "twice by the clocks: not again": (
        "30 2 * * *",
        BERLIN,
        "2026-10-25 00:30",
        "2026-10-26 01:30",
    ),
    "every hour, when an hour comes twice: in both": (
        "30 * * * *",
        BERLIN,
        "2026-10-25 00:30",
        "2026-10-25 01:30",
    ),
    "midnight where clocks change at two": (
        "@daily",
        NEW_YORK,
        "2026-03-08 05:00",
        "2026-03-09 04:00",
    ),
    "half an hour skipped": ("15 2 * * *", LORD_HOWE, "2026-10-03 12:00", "2026-10-03 15:30"),
    "a zone of half hours": (
        "0 3 * * *",
        ZoneInfo("Asia/Kolkata"),
        "2026-01-01 00:00",
        "2026-01-01 21:30",
    ),
    "a leap day": ("0 0 29 2 *", UTC, "2026-01-01 00:00", "2028-02-29 00:00"),
    "names of days and months": (
        "0 0 * jan MON-fri",
        UTC,
        "2026-01-02 00:00",
        "2026-01-05 00:00",
    ),
    "Sunday as 7": ("0 0 * * 7", UTC, "2026-01-01 00:00", "2026-01-04 00:00"),
    "every quarter of an hour": ("*/15 * * * *", UTC, "2026-01-01 00:01", "2026-01-01 00:15"),
}


@pytest.mark.parametrize(("expression", "zone", "now", "then"), TIMES.values(), ids=TIMES)
def test_the_next_time(expression: str, zone: ZoneInfo, now: str, then: str) -> None:
    schedule = Schedule(expression, zone)
    due = schedule.after(at(now))
    assert due == at(then)
    assert due.tzinfo is UTC
    assert schedule.has(due)
    assert schedule.until(due) == due
    assert schedule.until(due + timedelta(seconds=59)) == due


@pytest.mark.parametrize("expression", sorted(NAMED))
def test_a_named_schedule_comes_at_a_full_hour(expression: str) -> None:
    due = Schedule(expression, UTC).after(at("2026-05-05 05:05"))
    assert (due.minute, due.second) == (0, 0)


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("0 0 31 2 *", "Bad day-of-month"),
        ("5-1 * * * *", "Bad minute"),
        ("0 3 * *", "Wrong number of fields"),
        ("@reboot", "Wrong number of fields"),
    ],
    ids=[
        "a day that no February has",
        "a range that runs backwards",
        "a column short",
        "a word that is no time",
    ],
)
def test_a_schedule_that_has_no_times_says_so(expression: str, sentence: str) -> None:
    with pytest.raises(InvalidScheduleError, match=sentence) as caught:
        Schedule(expression, UTC)
    assert repr(expression) in str(caught.value)


EXPRESSIONS = st.sampled_from(
    ["* * * * *", "*/7 * * * *", "30 2 * * *", "0 */5 * * *", "15 1,2,3 * * *", "0 0 1 * *"]
)
ZONES = st.sampled_from([UTC, BERLIN, NEW_YORK, LORD_HOWE, timezone(timedelta(hours=-3))])
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(EXPRESSIONS, ZONES, MOMENTS)
@pytest.mark.timeout(20)
def test_times_go_on_and_the_last_one_lies_before_the_next(
    expression: str, zone: ZoneInfo, now: datetime
) -> None:
    schedule = Schedule(expression, zone)
    due = schedule.after(now)
    times = [due]
    for _ in range(3):
        times.append(schedule.after(times[-1]))
    assert all(one < other for one, other in pairwise(times))
    assert now < due
    assert all(map(schedule.has, times))
    assert schedule.until(now) <= now
    assert schedule.until(times[2]) == times[2]


def test_a_moment_that_the_schedule_does_not_name_is_none_of_its_times() -> None:
    assert not Schedule("0 3 * * *", UTC).has(at("2026-01-01 04:00"))
    assert not Schedule("0 3 * * *", UTC).has(at("2026-01-01 03:00:30"))
