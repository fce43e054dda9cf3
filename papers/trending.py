"""Snapshots of counters -> trend scores with their terms. No Django.

Of each counter, the level and the growth over the last day each become a percentile among the
papers of the same primary category and listing day (those of unknown category are one cohort), so
that a small field is not drowned by a large one. The counter's percentile is the weighted mean of
the two, the score the weighted mean of the counters; whatever was never seen is neutral.

Level and growth are ranked apart because their scales differ with the hour, the field and the
counter; their ranks do not. The upvotes of the readers here are few, and most papers have none:
ranked, a single one would throw a paper to the bottom of those counted elsewhere, or to the top of
those that are not. They are no part of the percentiles; they lift the score towards 1, the first
ones most, and never more than halfway. How well the score foretells is papers/trend_evaluation.py's
matter.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Chosen on the days of even ordinal of hf_counters (`evaluate_trending --days even`): over raw
# upvotes +.028, and +.024 to +.028 around it, for a growth of 0.7 to 0.8 and 0 to 0.09 for comments
# and stars together; at 0.3 for these two, +.017. Both were counted only once there, at first
# sight: they neither help nor harm, and order the papers nobody votes on.
WEIGHTS = {"upvotes": 0.94, "comments": 0.02, "stars": 0.04}
GROWTH = 0.75  # weight of a counter's growth, its level being 1
NEUTRAL = 0.5
GROWTH_SPAN = timedelta(days=1)  # growth is since the newest count that is at least so old,
LEAST_GROWTH_SPAN = GROWTH_SPAN / 2  # else since the earliest count, if at least so old
VOTES_TO_HALF = 10  # upvotes here that make half of what they can,
MOST_LIFT = 0.5  # which is this share of the way to 1
SMALL_COHORT = 5  # a percentile among fewer says nothing: those join the cohort of all such


@dataclass(frozen=True, slots=True)
class Trend:
    """Scores with their terms.

    score: (n,) in [0, 1]. By counter, (n,) in [0, 1] each: levels and growths, percentiles in the
    cohort, NaN where unknown; percentiles, the two blended with an unknown growth as neutral, NaN
    where nothing was counted.
    """

    score: Floats
    levels: dict[str, Floats]
    growths: dict[str, Floats]
    percentiles: dict[str, Floats]


def lifted(score: Floats, votes: Floats) -> Floats:
    """(n,) scores in [0, 1] -> the same with the readers' upvotes here, (n,), counted in.

    More votes never lower a score, and no votes change none.
    """
    return score + (1.0 - score) * MOST_LIFT * votes / (votes + VOTES_TO_HALF)


def trend_scores(
    now: dict[str, Floats], before: dict[str, Floats], cohorts: Sequence[Hashable]
) -> Trend:
    """Score n papers.

    More of a counter never lowers a paper's own score, and never raises another's.

    Args:
        now: counter -> (n,) newest counts, NaN where the counter was never seen.
        before: counter -> (n,) counts up to a day earlier, NaN where unknown: the growth is then
            neutral. A count that has fallen has not grown.
        cohorts: n keys; percentiles are taken among equal ones.

    Reference: on hf_counters, mean within-day Spearman with the upvotes gained later was .717, of
    raw upvotes .693 and of log(1 + x) + log(1 + growth) .714; above raw upvotes by .024 (95 %
    interval over days .015 to .034), on the days the weights were not chosen on by .021 (.009 to
    .034). How it is measured: papers/trend_evaluation.py.
    """
    n = len(cohorts)
    groups = _groups(cohorts)
    unknown = np.full(n, np.nan)
    levels, growths, percentiles = {}, {}, {}
    total, weight = np.zeros(n), 0.0
    for counter, share in WEIGHTS.items():
        count = np.asarray(now.get(counter, unknown), dtype=np.float64)
        earlier = np.asarray(before.get(counter, unknown), dtype=np.float64)
        level = levels[counter] = _percentiles(count, groups)
        growth = growths[counter] = _percentiles(np.maximum(count - earlier, 0.0), groups)
        blend = (level + GROWTH * np.where(np.isnan(growth), NEUTRAL, growth)) / (1 + GROWTH)
        percentiles[counter] = blend
        total += share * np.where(np.isnan(blend), NEUTRAL, blend)
        weight += share
    score = np.clip(total / weight, 0.0, 1.0)
    return Trend(score, levels, growths, percentiles)


def _groups(cohorts: Sequence[Hashable]) -> NDArray[np.intp]:
    sizes: dict[Hashable, int] = {}
    for key in cohorts:
        sizes[key] = sizes.get(key, 0) + 1
    numbers: dict[Hashable, int] = {}
    small = object()
    return np.array(
        [
            numbers.setdefault(key if sizes[key] >= SMALL_COHORT else small, len(numbers))
            for key in cohorts
        ],
        dtype=np.intp,
    )


def _percentiles(values: Floats, groups: NDArray[np.intp]) -> Floats:
    """Mid-rank percentiles in [0, 1] within each group; NaN stays NaN, a lone value is neutral."""
    result = np.full(len(values), np.nan)
    for group in np.unique(groups):
        rows = np.flatnonzero((groups == group) & ~np.isnan(values))
        ordered = np.sort(values[rows])
        below = np.searchsorted(ordered, values[rows], side="left")
        up_to = np.searchsorted(ordered, values[rows], side="right")
        result[rows] = (below + up_to) / (2 * max(len(rows), 1))
    return result
