"""What is made of samples: medians, and how sure they are."""

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Pair:
    """One block: both arms once, in seconds, in random order."""

    operator: float
    direct: float

    @property
    def ratio(self) -> float:
        """Operator over direct."""
        return self.operator / self.direct

    @property
    def difference(self) -> float:
        """Operator less direct, in ms."""
        return (self.operator - self.direct) * 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}..{self.high:.3f}]"


def estimate(samples: Sequence[float], seed: int = 1) -> Estimate:
    """The median of the samples and how far it may be off."""
    draw = random.Random(seed)  # noqa: S311  # a bootstrap wants to be repeatable
    medians = sorted(
        statistics.median(draw.choices(samples, k=len(samples))) for _ in range(RESAMPLES)
    )
    low, high = medians[RESAMPLES * 25 // 1000], medians[RESAMPLES * 975 // 1000]
    return Estimate(statistics.median(samples), low, high)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The sample that so many percent are not above."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def spread(samples: Sequence[float]) -> str:
    """min / p50 / p99 in ms, of samples in seconds."""
    parts = (min(samples), statistics.median(samples), percentile(samples, 99))
    return " / ".join(f"{part * 1000:.1f}" for part in parts)


def slope(points: Mapping[int, float]) -> float:
    """Of the straight line through the points, by least squares; of two points at least."""
    return statistics.linear_regression(list(points), list(points.values())).slope
