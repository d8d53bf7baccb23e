"""What a candidate makes of a Lease that it sees."""

import pytest

from imagewright.domain.lease import Record, Renew, Sighting, Stand, Take, Verdict, decide, sight

HELD = Record("other", "12:00:00", 12, 3)
MINE = Record("me", "12:00:00", 12, 3)
FREE = Record("", "12:00:00", 12, 3)


@pytest.mark.row("F53")
@pytest.mark.parametrize(
    ("seen", "now", "verdict"),
    [
        pytest.param(None, 100.0, Take(0), id="no Lease is there: it is made"),
        pytest.param(Sighting(FREE, 100), 100.0, Take(4), id="it was given back: taken at once"),
        pytest.param(Sighting(MINE, 100), 109.0, Renew(), id="one's own is renewed"),
        pytest.param(Sighting(MINE, 100), 999.0, Renew(), id="one's own, which nobody took"),
        pytest.param(Sighting(HELD, 100), 100.0, Stand("other", 12), id="seen just now"),
        pytest.param(Sighting(HELD, 100), 111.5, Stand("other", 0.5), id="nearly over"),
        pytest.param(Sighting(HELD, 100), 112.0, Take(4), id="silent for all of its time"),
        pytest.param(
            Sighting(Record("other", "13:00:00", 12, 3), 100),
            112.0,
            Take(4),
            id="silent, of a clock that is an hour ahead",
        ),
        pytest.param(
            Sighting(Record("other", "11:00:00", 12, 3), 100),
            111.0,
            Stand("other", 1),
            id="alive, of a clock that is an hour behind",
        ),
        pytest.param(
            Sighting(Record("other", "12:00:00", 30, 3), 100),
            112.0,
            Stand("other", 18),
            id="a holder that promised a longer time",
        ),
    ],
)
def test_what_is_done_about_a_lease(seen: Sighting | None, now: float, verdict: Verdict) -> None:
    assert decide("me", seen, now) == verdict


@pytest.mark.row("F53")
@pytest.mark.parametrize(
    ("record", "since"),
    [
        pytest.param(HELD, 100.0, id="the same words: it counts from when they were first seen"),
        pytest.param(Record("other", "12:00:02", 12, 3), 107.0, id="renewed"),
        pytest.param(Record("other", "11:00:00", 12, 3), 107.0, id="renewed by a clock put back"),
        pytest.param(Record("third", "12:00:00", 12, 4), 107.0, id="another holder"),
        pytest.param(FREE, 107.0, id="given back"),
    ],
)
def test_a_record_that_says_something_new_counts_from_now(record: Record, since: float) -> None:
    assert sight(Sighting(HELD, 100), record, 107.0) == Sighting(record, since)


def test_a_first_look_counts_from_now() -> None:
    assert sight(None, HELD, 107.0) == Sighting(HELD, 107.0)
