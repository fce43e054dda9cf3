"""The rankers ours is measured against, each by the recipe its makers published.

- tfidf centroid: the cosine of a candidate with the sum of a reader's papers.
- zotero-arxiv-daily: Σ cos(candidate, library item i) · wᵢ, wᵢ ∝ 1 / (1 + log10 i), newest first.
- arxiv-sanity-lite: LinearSVC(class_weight="balanced", C=0.01) of a reader's papers against all
  others of the archive; its C is a setting, and 0.1 is stronger at the top of the list.
- Scholar Inbox (arXiv 2504.08385): logistic regression, C = 0.1, of a reader's papers against
  5,000 random others; its explicit down-votes have no counterpart in a library.

All read the features of arxiv-sanity-lite: TF-IDF of words and pairs (no pairs where texts are
unordered), 20,000 of them, sublinear, in at least 5 papers and at most a tenth of them. They are
learned from the known papers, as ours are. zotero-arxiv-daily and Scholar Inbox use a sentence
encoder themselves: where there is one, they run a second time, on its vectors.

A recipe's `prepare` does what is done once for all readers and returns a Scorer, which does the
rest for some of them; `slow` ones fit a model a reader, and are run in several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from newsletter.recommender.ranking import Views

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Matrix: TypeAlias = csr_matrix | NDArray[np.float64]

SEED = 0
FEATURES = 20_000
LEAST_PAPERS, LARGEST_SHARE = 5, 0.1  # with a term
SMALL = 100  # papers; in fewer, every term counts: five papers and a tenth leave none
NEGATIVES = 5_000
SVM_C = (0.01, 0.1)
LOGISTIC_C = 0.1
# arxiv-sanity-lite's own words; unordered words are taken as they are.
WORDS, GIVEN_WORDS = r"(?u)\b[a-zA-Z_][a-zA-Z0-9_]+\b", r"\S+"


@dataclass(frozen=True)
class Task:
    """What is asked of a ranker: the order of n new papers, for readers of k known ones.

    known_texts, new_texts: what the peers read; `ordered` where pairs of words mean something.
    known, new: the same papers in our views.
    histories: of every reader, places among the known papers, the newest first.
    relevant: of every reader, places among the new papers.
    compared: (m,) the readers the comparison is about; the others only lend their libraries.
    """

    known_texts: Sequence[str]
    new_texts: Sequence[str]
    ordered: bool
    known: Views
    new: Views
    histories: Sequence[Indices]
    relevant: Sequence[Indices]
    compared: Indices

    @cached_property
    def features(self) -> tuple[csr_matrix, csr_matrix]:
        """The peers' TF-IDF of the known and the new papers, float64 as liblinear wants it."""
        few = len(self.known_texts) < SMALL
        vectorizer = TfidfVectorizer(
            strip_accents="unicode",
            token_pattern=WORDS if self.ordered else GIVEN_WORDS,
            stop_words="english" if self.ordered else None,
            ngram_range=(1, 2) if self.ordered else (1, 1),
            max_features=FEATURES,
            min_df=1 if few else LEAST_PAPERS,
            max_df=1.0 if few else LARGEST_SHARE,
            sublinear_tf=True,
        )
        known = csr_matrix(vectorizer.fit_transform(self.known_texts))
        known.sort_indices()
        return known, csr_matrix(vectorizer.transform(self.new_texts))

    @property
    def encoded(self) -> bool:
        """Whether a sentence encoder has read the papers."""
        return bool(self.known.dense.any())

    def vectors(self, dense: bool) -> tuple[Matrix, Matrix]:
        if dense:
            return self.known.dense.astype(np.float64), self.new.dense.astype(np.float64)
        return self.features

    def weights(
        self, readers: Indices, of: Callable[[int], NDArray[np.float32]] | None = None
    ) -> csr_matrix:
        """(b, k) float32: what each known paper counts for b readers, 1 unless `of` a number of
        papers gives other weights, the newest first."""
        chosen = [self.histories[reader] for reader in readers]
        sizes = [len(history) for history in chosen]
        values = [of(size) if of else np.ones(size, dtype=np.float32) for size in sizes]
        shape = (len(readers), len(self.known_texts))
        if not chosen:
            return csr_matrix(shape, dtype=np.float32)
        rows = np.repeat(np.arange(len(readers)), sizes)
        entries = (np.concatenate(values), (rows, np.concatenate(chosen)))
        return csr_matrix(entries, shape=shape, dtype=np.float32)


class Scorer(Protocol):
    """(b,) readers -> (b, n) float32 scores of the new papers; higher is better."""

    def __call__(self, readers: Indices) -> Floats: ...


class Recipe(Protocol):
    """How one ranker works."""

    @property
    def name(self) -> str: ...

    @property
    def slow(self) -> bool:
        """Whether it fits a model a reader."""

    def prepare(self, task: Task) -> Scorer: ...


def flat(size: int) -> NDArray[np.float32]:
    """(size,) the same for each paper."""
    return np.ones(size, dtype=np.float32)


def recency(size: int) -> NDArray[np.float32]:
    """(size,) 1 / (1 + log10 i) for i from 1; newest first."""
    return np.asarray(1 / (1 + np.log10(np.arange(1, size + 1))), dtype=np.float32)


@dataclass(frozen=True)
class Similarity:
    """The weighted sum of cosines with a reader's papers."""

    name: str
    weighting: Callable[[int], NDArray[np.float32]]
    dense: bool = False
    slow: bool = False

    def prepare(self, task: Task) -> Scorer:
        known, new = task.vectors(self.dense)
        return _Sums(task, self.weighting, known, new)


@dataclass(frozen=True)
class _Sums:
    task: Task
    weighting: Callable[[int], NDArray[np.float32]]
    known: Matrix
    new: Matrix

    def __call__(self, readers: Indices) -> Floats:
        product = (self.task.weights(readers, self.weighting) @ self.known) @ self.new.T
        if isinstance(product, csr_matrix):
            product = product.toarray()
        return np.asarray(product, dtype=np.float32)


class Classifier(Protocol):
    """A linear model of scikit-learn."""

    coef_: NDArray[np.float64]

    def fit(self, X: Matrix, y: NDArray[np.float64]) -> object: ...


@dataclass(frozen=True)
class LinearModel:
    """One linear classifier a reader: the reader's papers against `negatives` random others, or
    against all of them where it is 0."""

    name: str
    model: Callable[[float], Classifier]
    strength: float  # C
    negatives: int = 0
    dense: bool = False
    slow: bool = True

    def prepare(self, task: Task) -> Scorer:
        known, new = task.vectors(self.dense)
        histories = {int(reader): task.histories[reader] for reader in task.compared}
        return _Fits(self, histories, known, new)


@dataclass(frozen=True)
class _Fits:
    recipe: LinearModel
    histories: dict[int, Indices]
    known: Matrix
    new: Matrix

    def __call__(self, readers: Indices) -> Floats:
        scores = np.zeros((len(readers), self.new.shape[0]), dtype=np.float32)
        for row, reader in zip(scores, readers, strict=True):
            rows, labels = self._examples(int(reader))
            if labels.all():  # the archive holds nothing else: there is nothing to tell apart
                continue
            model = self.recipe.model(self.recipe.strength)
            model.fit(self.known if rows is None else self.known[rows], labels)
            # Without the intercept, which moves all candidates alike.
            row[:] = self.new @ model.coef_[0]
        return scores

    def _examples(self, reader: int) -> tuple[Indices | None, NDArray[np.float64]]:
        liked = self.histories[reader]
        labels = np.zeros(self.known.shape[0])
        labels[liked] = 1
        if not self.recipe.negatives:
            return None, labels
        others = np.flatnonzero(labels == 0)
        if len(others) > self.recipe.negatives:
            draw = np.random.default_rng([SEED, reader])
            others = draw.choice(others, self.recipe.negatives, replace=False)
        rows = np.concatenate([liked, others])
        return rows, labels[rows]


def svm(strength: float) -> Classifier:
    """By its dual, which takes a third of the primal's time to the same optimum."""
    model: Classifier = LinearSVC(
        C=strength, class_weight="balanced", dual=True, max_iter=10_000, random_state=SEED
    )
    return model


def logistic(strength: float) -> Classifier:
    """liblinear's: the same optimum as lbfgs but for a penalised intercept, in half the time."""
    model: Classifier = LogisticRegression(
        C=strength, class_weight="balanced", solver="liblinear", random_state=SEED
    )
    return model


def recipes(encoded: bool) -> list[Recipe]:
    """All peers; those on dense vectors too where an encoder has read the papers."""
    found: list[Recipe] = [
        Similarity("tfidf centroid", flat),
        Similarity("zotero-arxiv-daily", recency),
        *(LinearModel(f"arxiv-sanity-lite SVM C={c}", svm, c) for c in SVM_C),
        LinearModel("Scholar Inbox", logistic, LOGISTIC_C, NEGATIVES),
    ]
    if encoded:
        found += [
            Similarity("zotero-arxiv-daily dense", recency, dense=True),
            LinearModel("Scholar Inbox dense", logistic, LOGISTIC_C, NEGATIVES, dense=True),
        ]
    return found
