"""The sparse view of a text: TF-IDF of words and pairs, the same for papers and interests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer

WORD = re.compile(r"[^\W_](?:[\w-]*[^\W_])?")
# "models" is "model", but "bias", "analysis", "loss" and "corpus" stay themselves.
PLURAL = re.compile(r"(?<=[^\Wasiu_]{1})s$|(?<=ie)s$")
MAX_TERMS = 12_000
LONGEST_TEXT = 20_000  # characters that count; no profile needs more, and no reader can stall a run


def terms(text: str) -> list[str]:
    """Words and pairs of neighbouring words, folded to lower case and singular."""
    words = [
        PLURAL.sub("", word) if len(word) > 3 else word
        for word in WORD.findall(text[:LONGEST_TEXT].lower())
        if word not in ENGLISH_STOP_WORDS
    ]
    return words + [f"{first} {second}" for first, second in pairwise(words)]


class SparseView:
    """TF-IDF with sublinear counts, rows of unit length (or zero where no term is known)."""

    def __init__(self, max_terms: int = MAX_TERMS) -> None:
        self.max_terms = max_terms

    def fit(self, texts: Sequence[str]) -> Self:
        """Learn terms and their weights from n texts; forgets an earlier fit."""
        self.vectorizer_ = TfidfVectorizer(
            analyzer=terms, sublinear_tf=True, max_features=self.max_terms, dtype=np.float32
        )
        # A pool of nothing but stop words has no terms, which scikit-learn calls an error.
        self.vectorizer_.fit([*texts, "paper"])
        self.terms_: NDArray[np.str_] = self.vectorizer_.get_feature_names_out()
        return self

    def transform(self, texts: Sequence[str]) -> csr_matrix:
        """(n, t) float32 unit rows; a text without a known term is a row of zeros."""
        if not texts:  # which scikit-learn calls an error
            return csr_matrix((0, len(self.terms_)), dtype=np.float32)
        return csr_matrix(self.vectorizer_.transform(texts))

    def shared_terms(self, one: csr_matrix, other: csr_matrix, most: int = 3) -> list[str]:
        """The terms that make two (1, t) rows similar, the weightiest first; no word twice."""
        product = one.multiply(other).tocsr()
        names = self.terms_[product.indices]
        # A pair says more than its words: "reinforcement learning" before "learning".
        weights = product.data * np.where(np.char.find(names.astype(str), " ") > 0, 2, 1)
        return list(_distinct(names[np.argsort(-weights, kind="stable")], most))


def _distinct(candidates: Sequence[str], most: int) -> Iterator[str]:
    words: set[str] = set()
    for term in candidates:
        if most == 0:
            return
        if words.isdisjoint(term.split()):
            words.update(term.split())
            most -= 1
            yield term
