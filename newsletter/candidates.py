"""An edition as everybody's ranking sees it: computed once, used for every batch of subscribers.

How close its papers are to every paper of anybody's library depends on no reader. A batch of
subscribers is then a few matrix products.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import chain

import numpy as np
from django.db import connection
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from newsletter import learning
from newsletter.recommender import selection
from newsletter.recommender.profiles import author_key
from newsletter.recommender.ranking import Affinity, Floats, Indices, Views
from papers import editions
from papers.abstracts import OWN_WORK, sentences
from papers.models import Edition

SENTENCE_RANK = 128  # directions in which sentences are compared
MOST_JOINED = 3_000  # papers of several editions at once: memory grows with them
MOST_HELD = 60_000  # papers of libraries held between batches, likewise
OWN = 1.2  # how much more a sentence counts that speaks of the paper's own work


@dataclass(slots=True)
class Library:
    """The papers of anybody's library, as close as they are to an edition's papers.

    ids: (N,) ascending. affinity: its N rows. latent: (N, SENTENCE_RANK).
    """

    ids: NDArray[np.int64]
    affinity: Affinity
    latent: Floats

    def rows(self, ids: NDArray[np.int64]) -> Indices:
        """The rows of papers, -1 for those that are not here."""
        if not len(self.ids):
            return np.full(len(ids), -1, dtype=np.intp)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, place, -1)


@dataclass(slots=True)
class Today:
    """The pool of n papers of an edition, or of several, and what was computed of it.

    sentences: (n, s, SENTENCE_RANK) rows of length 1, or OWN, zeros where an abstract has fewer.
    fields: the categories of the pool, in the order of papers.fields.
    base: the library that everybody's begins with; library: with what batches added to it.
    """

    pool: editions.Pool
    fitted: learning.Fitted
    views: Views
    papers: selection.Papers
    fields: dict[str, int]
    sentences: Floats
    base: Library
    library: Library = field(init=False)
    unknown: set[int] = field(default_factory=set)
    matches: dict[tuple[str, str], Indices] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.library = self.base

    def missing(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of these papers, those that the library lacks, as far as they exist."""
        wanted = np.unique(ids[self.library.rows(ids) < 0]).tolist()
        return np.array([pk for pk in wanted if pk not in self.unknown], dtype=np.int64)

    def latent(self, sparse: csr_matrix) -> Floats:
        """(m, l) unit rows in which texts are compared with the sentences."""
        return _latent(self.fitted, sparse)

    def matching(self, kind: str, text: str) -> Indices:
        """The papers a rule names: "term" in title, abstract or keywords as whole words,
        "category", "author"."""
        key = (kind, text)
        if key not in self.matches:
            self.matches[key] = np.flatnonzero(self._test(kind, text))
        return self.matches[key]

    def _test(self, kind: str, text: str) -> list[bool]:
        match kind:
            case "category":
                wanted = text.strip().casefold()
                return [wanted in map(str.casefold, row) for row in self.pool.categories]
            case "author":
                name = author_key(text)
                return [name in map(author_key, row) for row in self.pool.authors]
            case _:
                words = r"\s+".join(map(re.escape, text.split()))
                if not words:
                    return [False] * len(self.pool.texts)
                pattern = re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
                return [bool(pattern.search(paper)) for paper in self.pool.texts]


def today(newest: Edition, *older: Edition) -> Today:
    """The edition as the newest ranking model sees it; kept until either changes. With older ones
    it is what they hold together, for readers who skip days."""
    versions = tuple((edition.pk, edition.changed_at) for edition in (newest, *older))
    make = _joined if older else _today
    return make(versions, learning.current().pk)


Versions = tuple[tuple[int, datetime], ...]  # ids of editions, the newest first, as they stand


@lru_cache(maxsize=2)
def _today(versions: Versions, model: int) -> Today:
    return _seen(versions, model)


# The largest there are. Two: on a Monday a batch has readers of weekdays and weekly ones.
@lru_cache(maxsize=2)
def _joined(versions: Versions, model: int) -> Today:
    return _seen(versions, model)


def _seen(versions: Versions, model: int) -> Today:
    fitted = learning.load(model)
    found = Edition.objects.in_bulk([pk for pk, _ in versions])
    pool = editions.pool(*(found[pk] for pk, _ in versions), most=MOST_JOINED)
    views = Views(fitted.view.transform(pool.texts), fitted.dense_of(pool.paper_ids))
    codes = sorted({code for row in pool.categories for code in row})
    fields = {code: place for place, code in enumerate(codes)}
    papers = selection.Papers(
        trend=pool.trend,
        pinned=pool.pinned,
        similarity=_similarity(views),
        fields=_incidence(pool.categories, fields),
    )
    library = _library(fitted, views, _everybodys())
    return Today(
        pool, fitted, views, papers, fields, _sentence_vectors(fitted, pool.abstracts), library
    )


def _similarity(views: Views) -> Floats:
    """(n, n) cosines: the mean of both views where a pair has both."""
    sparse = np.asarray((views.sparse @ views.sparse.T).toarray(), dtype=np.float32)
    encoded = views.dense.any(axis=1)
    both = np.outer(encoded, encoded)
    return np.where(both, (sparse + views.dense @ views.dense.T) / 2, sparse)


def _incidence(rows: Sequence[Sequence[str]], fields: dict[str, int]) -> NDArray[np.bool_]:
    matrix = np.zeros((len(rows), len(fields)), dtype=bool)
    for place, row in enumerate(rows):
        matrix[place, [fields[code] for code in row if code in fields]] = True
    return matrix


def _latent(fitted: learning.Fitted, sparse: csr_matrix) -> Floats:
    """(n, SENTENCE_RANK) unit rows of the strongest directions, damped as in the ranking."""
    whitening = fitted.ranker.sparse_
    rows = whitening.project(sparse) * np.sqrt(1 - whitening.damping_)
    rows = rows[:, :SENTENCE_RANK]
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))


def _sentence_vectors(fitted: learning.Fitted, abstracts: Sequence[str]) -> Floats:
    found = [sentences(abstract) for abstract in abstracts]
    longest = max(map(len, found), default=0)
    latent = _latent(fitted, fitted.view.transform(list(chain.from_iterable(found))))
    vectors = np.zeros((len(found), longest, latent.shape[1]), dtype=np.float32)
    start = 0
    for place, row in enumerate(found):
        vectors[place, : len(row)] = latent[start : start + len(row)]
        vectors[place, [at for at, text in enumerate(row) if OWN_WORK.search(text)]] *= OWN
        start += len(row)
    return vectors


def _everybodys() -> NDArray[np.int64]:
    """Ids of the papers in the libraries of everybody who gets mail, at most ARCHIVE of them: those
    of the most readers. A batch that needs others adds them."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT paper FROM (
                SELECT unnest(example_ids) AS paper
                FROM newsletter_interest JOIN newsletter_subscriber s ON s.id = subscriber_id
                WHERE s.state = 'active'
                UNION ALL SELECT paper_id FROM newsletter_feedback
            ) AS libraries
            GROUP BY paper ORDER BY count(*) DESC, paper LIMIT %s
            """,
            [learning.ARCHIVE],
        )
        return np.array([row[0] for row in cursor.fetchall()], dtype=np.int64)


def _library(fitted: learning.Fitted, candidates: Views, ids: NDArray[np.int64]) -> Library:
    """Rows for these papers and for those that co-reading knows."""
    views, ids = fitted.views_of(np.union1d(ids, fitted.coread_ids))
    place = np.searchsorted(ids, fitted.coread_ids)
    there = np.isin(fitted.coread_ids, ids)  # not those deleted since
    coread = fitted.coread[there][:, there].tocoo()
    place = place[there]
    joined = csr_matrix(
        (coread.data, (place[coread.row], place[coread.col])), shape=(len(ids), len(ids))
    )
    affinity = fitted.ranker.affinity(views, candidates, joined)
    return Library(ids, affinity, _latent(fitted, views.sparse))


def take_in(today: Today, ids: NDArray[np.int64]) -> None:
    """Add papers that no library held when the edition was looked at first; where they become too
    many, those of earlier batches go."""
    missing = today.missing(ids)
    if len(today.library.ids) + len(missing) > MOST_HELD:
        today.library = today.base
        missing = today.missing(ids)
    if not len(missing):
        return
    views, found = today.fitted.views_of(missing)
    today.unknown.update(set(missing.tolist()) - set(found.tolist()))
    if not len(found):
        return
    more = today.fitted.ranker.affinity(views, today.views)
    old = today.library
    ids = np.concatenate([old.ids, found])
    order = np.argsort(ids)
    values = np.concatenate([old.affinity.values, more.values])[order]
    latent = np.concatenate([old.latent, _latent(today.fitted, views.sparse)])[order]
    today.library = Library(ids[order], Affinity(values, old.affinity.candidates), latent)
