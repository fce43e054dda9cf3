"""Which papers make a reader's mail, and in which section."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

RELEVANT = 0.06  # cosine below which words in common are chance
RELEVANCE_WEIGHT = 0.8
TRENDING_PLACES = 2  # kept for what everybody reads, in the mail of a reader with interests


class Section(IntEnum):
    PINNED = 1
    FOR_YOU = 2
    TRENDING = 3


@dataclass(frozen=True, slots=True)
class Selection:
    """k picks in the order of the mail. papers, sections: (k,); terms: (k, 3) float64, the
    relevance, trend and score of each."""

    papers: NDArray[np.intp]
    sections: NDArray[np.int16]
    terms: NDArray[np.float64]


def select(
    relevance: NDArray[np.float32],
    trend: NDArray[np.float32],
    pinned: NDArray[np.intp],
    count: int,
) -> Selection:
    """Choose at most `count` of n papers for one reader.

    Pinned papers come first and take places of the count; then the relevant ones by a blend of
    relevance and trend; the rest is trending. A reader to whom nothing is relevant gets trending.

    Args:
        relevance: (n,) in [0, 1]. trend: (n,) in [0, 1], of papers in descending order of trend.
        pinned: indices, in the curators' order.
        count: places in the mail.
    """
    score = RELEVANCE_WEIGHT * relevance + (1 - RELEVANCE_WEIGHT) * trend
    taken = np.zeros(len(trend), dtype=bool)
    chosen: list[tuple[int, Section]] = [(int(i), Section.PINNED) for i in pinned[:count]]
    taken[pinned] = True

    wanted = np.flatnonzero((relevance >= RELEVANT) & ~taken)
    places = max(count - len(chosen) - TRENDING_PLACES, 0)
    for_you = wanted[np.argsort(-score[wanted], kind="stable")][:places]
    chosen += [(int(i), Section.FOR_YOU) for i in for_you]
    taken[for_you] = True

    rest = np.flatnonzero(~taken)
    trending = rest[np.argsort(-trend[rest], kind="stable")][: count - len(chosen)]
    chosen += [(int(i), Section.TRENDING) for i in trending]

    papers = np.array([paper for paper, _ in chosen], dtype=np.intp)
    return Selection(
        papers=papers,
        sections=np.array([section for _, section in chosen], dtype=np.int16),
        terms=np.stack([relevance[papers], trend[papers], score[papers]], axis=1).astype(float),
    )
