"""What a text says: its terms by TF-IDF, and the names of its authors."""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer

from papers.abstracts import LONGEST_TEXT

WORD = re.compile(r"[^\W_](?:[\w-]*[^\W_])?")
# "models" is "model", but "bias", "analysis", "loss" and "corpus" stay themselves.
PLURAL = re.compile(r"(?<=[^\Wasiu_]{1})s$|(?<=ie)s$")
MAX_TERMS = 12_000


def words(text: str) -> list[str]:
    """Words without stop words, folded to lower case and singular."""
    return [
        PLURAL.sub("", word) if len(word) > 3 else word
        for word in WORD.findall(text[:LONGEST_TEXT].lower())
        if word not in ENGLISH_STOP_WORDS
    ]


def terms(text: str) -> list[str]:
    """Words, and pairs of neighbouring words."""
    found = words(text)
    return found + [f"{first} {second}" for first, second in pairwise(found)]


def spelled(text: str) -> dict[str, str]:
    """How a text spells each of its terms: what is folded for counting is shown as it was written.

    A pair is spelled with whatever stop words stood between its words.
    """
    found = [
        (match.group(), match.start(), match.end())
        for match in WORD.finditer(text[:LONGEST_TEXT])
        if match.group().lower() not in ENGLISH_STOP_WORDS
    ]
    spellings: dict[str, str] = {}
    for word, _, _ in found:
        for term in words(word):
            spellings.setdefault(term, word)
    for (first, start, _), (second, _, end) in pairwise(found):
        for pair in (f"{one} {two}" for one in words(first) for two in words(second)):
            spellings.setdefault(pair, " ".join(text[start:end].split()))
    return spellings


def author_key(name: str) -> str:
    """A name as it is compared: without accents, case and punctuation, "Last, First" turned round.

    Two spellings of initials ("A. Turing", "Alan Turing") stay two names: a follower of one would
    rather miss a paper than get a stranger's.
    """
    last, comma, first = name.partition(",")
    if comma and first.strip():
        name = f"{first} {last}"
    plain = unicodedata.normalize("NFKD", name.casefold())
    return " ".join(re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c))))


class SparseView:
    """TF-IDF with sublinear counts, rows of unit length (or zero where no term is known).

    Args:
        max_terms: the most frequent ones are kept.
        pairs: whether neighbouring words make terms too; not where a text is a bag of words.
    """

    def __init__(self, max_terms: int = MAX_TERMS, *, pairs: bool = True) -> None:
        self.max_terms = max_terms
        self.pairs = pairs

    def fit(self, texts: Sequence[str], wanted: Iterable[str] = ()) -> Self:
        """Learn terms and their weights from n texts; forgets an earlier fit.

        Args:
            texts: of the archive.
            wanted: texts whose terms are kept however rare they are in the archive, up to a quarter
                of all: a reader's word for a small field is what their mail hangs on.
        """
        count: Counter[str] = Counter()
        documents: Counter[str] = Counter()
        for text in texts:
            found = self._analyze(text)
            count.update(found)
            documents.update(set(found))
        asked = {term for text in wanted for term in self._analyze(text) if term in count}
        kept = set(heapq.nlargest(self.max_terms // 4, asked, key=lambda term: (count[term], term)))
        rest = (term for term in count if term not in kept)
        kept.update(
            heapq.nlargest(self.max_terms - len(kept), rest, key=lambda term: (count[term], term))
        )
        names = sorted(kept) or ["paper"]  # no terms at all are an error to scikit-learn
        frequency = np.array([documents[name] for name in names], dtype=np.float64)
        return self.restore(names, np.log((1 + len(texts)) / (1 + frequency)) + 1)

    def _analyze(self, text: str) -> list[str]:
        return terms(text) if self.pairs else words(text)

    def restore(self, names: Sequence[str], weights: NDArray[np.float32]) -> Self:
        """As `fit` left it: t terms in their order, and (t,) inverse document frequencies."""
        self.vectorizer_ = TfidfVectorizer(
            analyzer=self._analyze, vocabulary=list(names), sublinear_tf=True, dtype=np.float32
        )
        self.vectorizer_.idf_ = np.asarray(weights, dtype=np.float32)
        self.terms_: NDArray[np.str_] = np.array(list(names), dtype=str)
        return self

    @property
    def weights_(self) -> NDArray[np.float32]:
        """(t,) inverse document frequencies, in the order of terms_."""
        return np.asarray(self.vectorizer_.idf_, dtype=np.float32)

    def transform(self, texts: Sequence[str]) -> csr_matrix:
        """(n, t) float32 unit rows; a text without a known term is a row of zeros."""
        if not texts:  # which scikit-learn calls an error
            return csr_matrix((0, len(self.terms_)), dtype=np.float32)
        return csr_matrix(self.vectorizer_.transform(texts), dtype=np.float32)

    def shared_terms(self, some: csr_matrix, others: csr_matrix, most: int = 3) -> list[list[str]]:
        """For each of k pairs of (k, t) rows, the terms that make the two similar, the weightiest
        first; no word twice."""
        product = some.multiply(others).tocsr()
        shared = []
        for start, end in pairwise(product.indptr):
            names = self.terms_[product.indices[start:end]]
            # A pair says more than its words: "reinforcement learning" before "learning".
            weights = product.data[start:end] * np.where(np.char.find(names, " ") > 0, 2, 1)
            shared.append(list(_distinct(names[np.argsort(-weights, kind="stable")], most)))
        return shared


def _distinct(candidates: Sequence[str], most: int) -> Iterator[str]:
    seen: set[str] = set()
    for term in candidates:
        if most == 0:
            return
        if seen.isdisjoint(term.split()):
            seen.update(term.split())
            most -= 1
            yield str(term)
