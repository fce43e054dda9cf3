"""How much each paper matters to each interest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Scores = NDArray[np.float32]

CATEGORY_SHARE = 0.15  # what a shared category adds to a similarity that tops out near 0.5


def relevance(interests: csr_matrix, papers: csr_matrix) -> Scores:
    """(m, n) float32 cosines of m interests with n papers, both unit rows; never NaN."""
    product = (interests @ papers.T).toarray()
    return np.nan_to_num(np.asarray(product, dtype=np.float32), copy=False)


def category_bonus(wanted: Sequence[Sequence[str]], papers: Sequence[Sequence[str]]) -> Scores:
    """(m, n) float32: CATEGORY_SHARE where interest and paper share a category, else 0."""
    codes = {code: i for i, code in enumerate(sorted({c for row in papers for c in row}))}

    def incidence(rows: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        matrix = np.zeros((len(rows), len(codes)), dtype=np.float32)
        for i, row in enumerate(rows):
            matrix[i, [codes[code] for code in row if code in codes]] = 1
        return matrix

    shared = incidence(wanted) @ incidence(papers).T
    return (CATEGORY_SHARE * (shared > 0)).astype(np.float32)


def best_of(
    scores: Scores, owners: NDArray[np.intp], readers: int
) -> tuple[Scores, NDArray[np.intp]]:
    """A reader's relevance is that of the interest it fits best.

    Args:
        scores: (m, n), one row an interest.
        owners: (m,) the reader each interest belongs to, in ascending order.
        readers: how many readers there are.

    Returns:
        (readers, n) best scores, 0 for a reader without interests, and (readers, n) the row of the
        interest that won, -1 where there is none.
    """
    best = np.zeros((readers, scores.shape[1]), dtype=np.float32)
    winner = np.full((readers, scores.shape[1]), -1, dtype=np.intp)
    for row, owner in enumerate(owners):
        better = scores[row] > best[owner]
        best[owner][better] = scores[row][better]
        winner[owner][better] = row
    return best, winner
