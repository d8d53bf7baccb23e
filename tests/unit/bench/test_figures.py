"""What is made of the benchmark's samples."""

import statistics

import pytest

from bench.figures import slope


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ({0: 95.0, 1000: 97.0}, 0.002),
        ({0: 95.0, 1000: 95.0, 3000: 95.0}, 0.0),
        ({0: 91.0, 1000: 92.0, 2000: 96.0}, 0.0025),
    ],
    ids=["of two points, what lies between", "of a flat line, nothing", "of many, the best fit"],
)
def test_the_slope_is_that_of_the_line_of_least_squares(
    points: dict[int, float], expected: float
) -> None:
    assert slope(points) == pytest.approx(expected, abs=1e-6)


def test_one_point_has_no_slope() -> None:
    with pytest.raises(statistics.StatisticsError):
        slope({0: 95.0})
