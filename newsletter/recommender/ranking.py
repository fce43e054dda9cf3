"""How close each new paper is to what each reader has chosen.

A reader's library is weights over papers, so everything that does not depend on readers is one
matrix, papers of libraries × new papers, made once an edition; a reader's scores are a weighted sum
of its rows. Its entries come about in four steps, each of which earned its place in
`manage.py evaluate_ranking`:

1. In each view, sparse (TF-IDF) and dense (a sentence encoder), similarity after whitening:
   cᵤ·(XᵀX + λI)⁻¹·x, with X the archive. That is the ridge regression of a reader's papers against
   all others, solved once for every reader; what is common to the whole archive counts little.
2. Each row is standardised, so that an example of a crowded subject says no more than another.
3. Co-reading: a paper's row is joined by the rows of the papers that were read together with it.
4. Nearness counts more than in proportion: one very close example is worth several vague ones.

The sums are then measured against a background of archive papers, in deviations from chance, so
that a number means the same for every interest and on every day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, issparse, vstack
from sklearn.utils.extmath import randomized_svd

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

RANK = 256  # directions of the sparse view that are damped; 1,024 gained nothing
SPARSE_RIDGE = 16.0  # λ, in papers: 8 to 32 are alike, for 1,500 papers and for 20,000
DENSE_RIDGE = 1 / 30  # λ as a share of the archive's papers; 0.013 to 0.07 are alike
DENSE_WEIGHT = 2.0  # of the dense view against the sparse one; 1 to 4 are alike
COREAD_WEIGHT = 0.5  # of the papers read together with an example; 0.4 to 1 are alike
COREAD_MOST = 50  # papers kept as read together with one paper
NEAR_WEIGHT = 0.1  # of the square of a closeness; with more, long libraries lose
PUSH = 0.5  # what a paper that was judged "less" takes, for each 1 that a liked one gives
BACKGROUND = 256  # archive papers that stand for chance
LEAST_BACKGROUND = 64
SELF = 0.99  # cosine from which a background paper is the example itself
CHUNK = 2_048  # rows worked on at a time

WORDS_WEIGHT = 2.0  # of an interest's words, counted in example papers
CATEGORY_BONUS = 1.0  # deviations from chance for a stated category, beside words or examples
CATEGORY_ALONE = 3.0  # and where an interest states nothing else
AUTHOR_BONUS = 4.0  # deviations from chance for a followed author
LEAST_DEVIATION = 0.5  # of a library of one paper: below it is no difference, but rounding
HALF = 4.0  # deviations that make a relevance of one half
ENOUGH = 1.5  # deviations where chance ends: about one random paper of ten reaches it
THRESHOLD = ENOUGH / (ENOUGH + HALF)  # and as a relevance


@dataclass(frozen=True, slots=True)
class Views:
    """n texts as each view sees them.

    sparse: (n, t) csr float32, unit rows, zero where no term is known.
    dense: (n, d) float32, unit rows, zero where a text has no vector; d is 0 without an encoder.
    """

    sparse: csr_matrix
    dense: Floats

    def __len__(self) -> int:
        return int(self.sparse.shape[0])

    def of(self, rows: Indices | slice) -> Views:
        return Views(self.sparse[rows], self.dense[rows])

    def then(self, other: Views) -> Views:
        """These texts, followed by those of another."""
        return Views(
            csr_matrix(vstack([self.sparse, other.sparse])),
            np.concatenate([self.dense, other.dense]),
        )


class Whitening:
    """Similarity under (XᵀX + λI)⁻¹, by damping the strongest directions of an archive X.

    Of directions beyond `rank` only the weakest known strength is assumed, which loses nothing that
    could be measured and needs no n × n or t × t matrix.

    Args:
        ridge: λ, in papers. rank: how many directions are known at most.

    Learns:
        components_: (k, t) float32 orthonormal directions. damping_: (k,) in [0, 1), what each one
        loses.
    """

    def __init__(self, ridge: float, rank: int) -> None:
        self.ridge = ridge
        self.rank = rank

    def fit(self, archive: csr_matrix | Floats) -> Self:
        """Learn from the (n, t) unit rows of an archive; forgets an earlier fit."""
        n, t = archive.shape
        if issparse(archive):
            k = min(self.rank, n - 1, t - 1)
            components, strengths = _strongest(archive, k)
            weakest = float(strengths[-1]) if len(strengths) else 0.0
        else:
            values, vectors = np.linalg.eigh((archive.T @ archive).astype(np.float64))
            components, strengths = vectors.T, np.maximum(values, 0)
            weakest = 0.0  # all directions are known
        self.components_: Floats = np.ascontiguousarray(components, dtype=np.float32)
        total = self.ridge + weakest
        self.damping_: Floats = (1 - total / np.maximum(strengths + self.ridge, total)).astype(
            np.float32
        )
        return self

    def project(self, rows: csr_matrix | Floats) -> Floats:
        """(n, k) float32 shares of the known directions in (n, t) rows."""
        return np.asarray(rows @ self.components_.T, dtype=np.float32)


def _strongest(archive: csr_matrix, k: int) -> tuple[Floats, NDArray[np.float64]]:
    """The k strongest directions of an archive's rows, and their squared singular values."""
    if k < 1 or archive.nnz == 0:
        return np.zeros((0, archive.shape[1]), dtype=np.float32), np.zeros(0)
    _, values, directions = randomized_svd(archive, k, n_oversamples=32, n_iter=2, random_state=0)
    return directions, np.asarray(values, dtype=np.float64) ** 2


class Ranker:
    """What is learned from an archive, to say how close papers are.

    Args:
        dense_weight: of the dense view against a sparse one of sparse_weight.
        coread_weight: of co-reading.
    """

    def __init__(
        self,
        *,
        sparse_weight: float = 1.0,
        dense_weight: float = DENSE_WEIGHT,
        coread_weight: float = COREAD_WEIGHT,
    ) -> None:
        self.sparse_weight = sparse_weight
        self.dense_weight = dense_weight
        self.coread_weight = coread_weight

    def fit(self, archive: Views) -> Self:
        """Learn from n papers; forgets an earlier fit."""
        n = len(archive)
        rows = np.unique(np.linspace(0, max(n - 1, 0), min(n, BACKGROUND)).astype(np.intp))
        # In a small archive the few papers that are close would stand for chance themselves: empty
        # ones, which are close to nothing, make up the number.
        empty = _empty(max(LEAST_BACKGROUND - len(rows), 0), archive)
        self.background_ = archive.of(rows).then(empty)
        self.sparse_ = Whitening(SPARSE_RIDGE, RANK).fit(archive.sparse)
        encoded = archive.dense[archive.dense.any(axis=1)]
        self.dense_ = Whitening(DENSE_RIDGE * max(len(encoded), 1), RANK).fit(encoded)
        return self.settle()

    def settle(self) -> Self:
        """Learn from the background how far the rows of each view usually spread."""
        self.spreads_ = np.ones(3, dtype=np.float32)
        columns = self._columns(self.background_)
        parts = [
            self._parts(self.background_.of(chunk), columns)
            for chunk in _chunks(len(self.background_))
        ]
        self.spreads_[0] = _typical([sparse for sparse, _, _ in parts])
        self.spreads_[1] = _typical([dense for _, dense, _ in parts])
        blended = [self._blend(*part, columns) for part in parts]
        self.spreads_[2] = _typical(blended)
        return self

    def affinity(
        self,
        library: Views,
        candidates: Views,
        coread: csr_matrix | None = None,
        *,
        texts: bool = False,
    ) -> Affinity:
        """How close N papers of libraries are to n candidates.

        Args:
            library: papers, or texts taken for papers.
            candidates: the new papers.
            coread: (N, N) what was read together, from `coreading`.
            texts: they are no papers: a candidate that says just the same is close, not known.

        Memory: N (n + BACKGROUND) floats, twice that with co-reading.
        """
        columns = self._columns(candidates.then(self.background_))
        values = np.empty((len(library), len(columns.views)), dtype=np.float32)
        for chunk in _chunks(len(library)):
            values[chunk] = self._close(library.of(chunk), columns, len(candidates) * texts)
        if coread is not None and coread.nnz and self.coread_weight:
            self._join(values, coread)
        for chunk in _chunks(len(values)):
            part = values[chunk]
            part += NEAR_WEIGHT * np.square(np.maximum(part, 0))
        return Affinity(values, len(candidates))

    def _columns(self, views: Views) -> _Columns:
        return _Columns(
            views=views,
            transposed=csr_matrix(views.sparse.T),
            sparse=self.sparse_.project(views.sparse),
            dense=self.dense_.project(views.dense),
            encoded=np.asarray(views.dense.any(axis=1)),
        )

    def _close(self, rows: Views, columns: _Columns, others: int = 0) -> Floats:
        """others: so many of the first columns are no paper of the rows, whatever they say."""
        sparse, dense, itself = self._parts(rows, columns)
        itself[:, :others] = False
        return _standardised(self._blend(sparse, dense, itself, columns), self.spreads_[2], itself)

    def _parts(self, rows: Views, columns: _Columns) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Whitened similarities by each view, (rows, columns), and which ones are a paper's with
        itself: they say nothing about what is usual."""
        plain = np.asarray((rows.sparse @ columns.transposed).toarray(), dtype=np.float32)
        itself = plain >= SELF
        share = self.sparse_.project(rows.sparse) * self.sparse_.damping_
        plain -= share @ columns.sparse.T
        dense = rows.dense @ columns.views.dense.T
        dense -= (self.dense_.project(rows.dense) * self.dense_.damping_) @ columns.dense.T
        return plain, dense, itself

    def _blend(
        self, sparse: Floats, dense: Floats, itself: NDArray[np.bool_], columns: _Columns
    ) -> Floats:
        blended = self.sparse_weight * _standardised(sparse, self.spreads_[0], itself)
        if self.dense_weight and columns.encoded.any():
            part = _standardised(
                dense[:, columns.encoded], self.spreads_[1], itself[:, columns.encoded]
            )
            blended[:, columns.encoded] += self.dense_weight * part
        return blended

    def _join(self, values: Floats, coread: csr_matrix) -> None:
        """Add to each paper's row those of the papers read together with it, standardised too."""
        having = np.flatnonzero(np.diff(coread.indptr))
        some = having[:: max(1, len(having) // BACKGROUND)]
        spread = _typical([np.asarray(coread[some] @ values, dtype=np.float32)])
        joined = np.empty_like(values)
        for chunk in _chunks(len(values)):
            part = np.asarray(coread[chunk] @ values, dtype=np.float32)
            joined[chunk] = _standardised(part, spread, None)
        values += np.float32(self.coread_weight) * joined


@dataclass(frozen=True, slots=True)
class _Columns:
    """Candidates and background, with what every row needs of them."""

    views: Views
    transposed: csr_matrix
    sparse: Floats
    dense: Floats
    encoded: NDArray[np.bool_]


def _empty(n: int, like: Views) -> Views:
    """n texts that say nothing, as wide as others."""
    return Views(
        csr_matrix((n, like.sparse.shape[1]), dtype=np.float32),
        np.zeros((n, like.dense.shape[1]), dtype=np.float32),
    )


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, n, CHUNK))


def _typical(parts: list[Floats]) -> np.float32:
    """The median spread of rows; 1 where nothing varies."""
    spreads = np.concatenate([part.std(axis=1) for part in parts]) if parts else np.ones(1)
    spreads = spreads[spreads > 0]
    return np.float32(np.median(spreads)) if len(spreads) else np.float32(1)


def _standardised(values: Floats, typical: np.float32, itself: NDArray[np.bool_] | None) -> Floats:
    """(rows, columns) with mean 0 in each row and a spread of about 1; what is a paper's with
    itself becomes 0.

    A spread is drawn towards the typical one, since that of a row of few terms is a matter of luck.
    Rows of zeros stay so.
    """
    if itself is not None and itself.any():
        values = np.where(itself, np.float32(0), values)
    mean = values.mean(axis=1, keepdims=True)
    spread = values.std(axis=1, keepdims=True)
    result = (values - mean) / np.sqrt(spread**2 + typical**2)
    if itself is not None:
        result[itself] = 0
    return np.asarray(result, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Affinity:
    """How close N papers are to n candidates and to the background; see `Ranker.affinity`.

    values: (N, n + b) float32, 0 for chance, 1 for a usual deviation from it.
    """

    values: Floats
    candidates: int

    def sums(self, weights: csr_matrix) -> Floats:
        """(m, n + b) sums over m libraries, given as (m, N) weights: more than 0 for what is liked,
        less for what is not, which takes from papers that are close to it and gives to none."""
        liked = weights.maximum(0)
        total = np.asarray(liked @ self.values, dtype=np.float32)
        if liked.nnz < weights.nnz:
            disliked = (liked - weights).tocsr()
            near = np.flatnonzero(np.bincount(disliked.indices, minlength=len(self.values)))
            total -= PUSH * (disliked[:, near] @ np.maximum(self.values[near], 0))
        return total

    def scores(self, weights: csr_matrix) -> Floats:
        """(m, n) float32 scores of the candidates for m libraries, in deviations from chance;
        higher is better, all 0 for an empty library."""
        sums = self.sums(weights)
        middle, deviation = chance(sums[:, self.candidates :], sizes(weights))
        scores: Floats = (sums[:, : self.candidates] - middle[:, None]) / deviation[:, None]
        return scores


def sizes(weights: csr_matrix) -> Floats:
    """(m,) how far the sums over m libraries vary if their papers have nothing in common."""
    squares = np.asarray(weights.multiply(weights).sum(axis=1)).ravel()
    return np.asarray(np.sqrt(squares), dtype=np.float32)


def chance(background: Floats, size: Floats) -> tuple[Floats, Floats]:
    """The middle of m rows of background sums, and how far chance deviates from it.

    Only what lies below the median tells of chance: above it are the papers that really are close,
    a third of a small archive perhaps.

    Args:
        background: (m, b). size: (m,) of each library, from `sizes`.

    Returns:
        (m,) median, and (m,) deviation, never 0.
    """
    if not background.shape[1]:
        return np.zeros(len(size), dtype=np.float32), np.maximum(size, np.float32(1))
    middle = np.median(background, axis=1).astype(np.float32)
    below = np.minimum(background - middle[:, None], 0)
    count = np.maximum(np.count_nonzero(below, axis=1), 1)
    deviation = np.sqrt(np.einsum("ij,ij->i", below, below) / count)
    least = np.where(size > 0, LEAST_DEVIATION * size, 1)
    return middle, np.maximum(deviation, least).astype(np.float32)


def relevance(scores: Floats) -> Floats:
    """Deviations from chance -> [0, 1): 0 for chance and less, one half at HALF."""
    above = np.nan_to_num(np.maximum(scores, 0), nan=0.0, posinf=1e6)
    return np.asarray(above / (above + HALF), dtype=np.float32)


def coreading(libraries: csr_matrix, most: int = COREAD_MOST) -> csr_matrix:
    """What was read together, from the libraries of all readers.

    Each pair of papers in one library counts 1 / the library's size, less for a paper that
    everybody has; of each paper the `most` strongest companions are kept.

    Args:
        libraries: (readers, N), 1 where a reader has a paper.

    Returns:
        (N, N) csr float32 without a diagonal; a row is empty where a paper was read alone.
    """
    has = csr_matrix(libraries, dtype=np.float32)
    size = np.maximum(np.asarray(has.sum(axis=1)).ravel(), 1)
    readers = np.maximum(np.asarray(has.sum(axis=0)).ravel(), 1)
    right = csr_matrix(diags(1 / size) @ has @ diags(1 / np.sqrt(readers)), dtype=np.float32)
    left = csr_matrix(has.T)
    rows = []
    for chunk in _chunks(left.shape[0]):
        together = csr_matrix(left[chunk] @ right)
        rows.append(_strongest_companions(together, chunk.start, most))
    if not rows:
        return csr_matrix((0, 0), dtype=np.float32)
    return csr_matrix(vstack(rows), dtype=np.float32)


def _strongest_companions(together: csr_matrix, first: int, most: int) -> csr_matrix:
    """Keep the `most` largest entries of each row but the one of the paper itself."""
    n, columns = together.shape
    row = np.repeat(np.arange(n), np.diff(together.indptr))
    data = np.where(together.indices == row + first, 0, together.data)
    order = np.lexsort((together.indices, -data, row))
    place = np.arange(len(row)) - together.indptr[row]  # the order keeps the rows where they are
    kept = order[(place < most) & (data[order] > 0)]
    return csr_matrix(
        (data[kept], (row[kept], together.indices[kept])), shape=(n, columns), dtype=np.float32
    )
