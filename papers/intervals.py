"""How sure a mean is, by resampling what it is the mean of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % bootstrap interval; formats as a number does."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self:.4f}"

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def interval(mean: float, means: NDArray[np.float64]) -> Interval:
    """The percentile interval.

    Args:
        means: (r,), each of a sample drawn with replacement.
    """
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(mean), float(low), float(high))
