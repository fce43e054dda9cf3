"""What is learned for ranking, as RankingModel versions: fitted on the archive on a schedule.

A version holds arrays alone, as npz: the terms with their weights, what the archive has in common
in each view, a background of papers that stand for chance, and what was read together. It holds
nothing of any single reader.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain

import numpy as np
from django.conf import settings
from django.db import transaction
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from newsletter.models import Feedback, Interest, RankingModel, Subscriber
from newsletter.recommender.profiles import SparseView
from newsletter.recommender.ranking import Ranker, Views, Whitening, coreading
from papers import embeddings
from papers.locks import Lock, try_lock
from papers.models import Embedding, Paper

log = logging.getLogger(__name__)

LOCK = Lock.FIT
ARCHIVE = 20_000  # papers, the newest, that a model is fitted on
MOST_LIBRARIES = 200_000  # interests that co-reading is learned from, the newest
MOST_COREAD = 20_000  # papers kept in it, those of the most readers
KEPT = 3  # versions whose arrays are kept, for the workers that still use them
LIKING = (Feedback.Kind.MORE, Feedback.Kind.SAVE)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A version, ready for use.

    encoder: the identity of the dense view's encoder, None without one.
    coread_ids: (c,) ascending ids of papers. coread: (c, c) what was read together.
    """

    pk: int
    view: SparseView
    ranker: Ranker
    encoder: str | None
    coread_ids: NDArray[np.int64]
    coread: csr_matrix

    def views_of(self, paper_ids: NDArray[np.int64]) -> tuple[Views, NDArray[np.int64]]:
        """Those of the papers that exist, and their ids, ascending."""
        papers = Paper.objects.filter(pk__in=paper_ids.tolist()).order_by("pk")
        rows = list(papers.only("title", "abstract", "keywords", "categories"))
        ids = np.array([paper.pk for paper in rows], dtype=np.int64)
        return Views(self.view.transform([paper.text for paper in rows]), self.dense_of(ids)), ids

    def dense_of(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, d) vectors of the model's encoder, d = 0 without one."""
        width = self.ranker.dense_.components_.shape[1]
        return _dense(ids, self.encoder, width)


def current() -> Fitted:
    """The newest version; where there is none yet, one is fitted now."""
    newest = RankingModel.objects.exclude(arrays=b"").values_list("pk", flat=True).first()
    return load(newest or fit().pk)


def fit_due(now: datetime) -> RankingModel | None:
    """Fit a new version where the newest one is outdated; one process at a time. Returns the new
    version, if any."""
    newest = RankingModel.objects.defer("arrays").first()
    if newest is None:
        outdated = Paper.objects.exists()
    else:
        aged = now - newest.fitted_at >= timedelta(hours=settings.RANKING_REFIT_HOURS)
        outdated = aged or _vectors_changed(newest)
    if not outdated:
        return None
    with try_lock(LOCK) as alone:
        return fit() if alone else None


def _vectors_changed(model: RankingModel) -> bool:
    """Whether another encoder serves by now, or has read twice as many papers of the archive."""
    serving = embeddings.serving_encoder()
    if model.parameters["encoder"] != serving:
        return True
    if serving is None:
        return False
    archive = Paper.objects.order_by("-listing_day", "-pk").values("pk")[:ARCHIVE]
    read = Embedding.objects.filter(encoder=serving, vector__isnull=False, paper__in=archive)
    return bool(read.count() > 2 * model.parameters["encoded"])


def fit() -> RankingModel:
    """Fit a new version on the newest papers and on everybody's libraries."""
    papers = list(
        Paper.objects.order_by("-listing_day", "-pk").only(
            "title", "abstract", "keywords", "categories"
        )[:ARCHIVE]
    )
    texts = [paper.text for paper in papers]
    ids = np.array([paper.pk for paper in papers], dtype=np.int64)
    encoder = embeddings.serving_encoder()
    active = Interest.objects.filter(subscriber__state=Subscriber.State.ACTIVE)
    view = SparseView().fit(texts, wanted=active.values_list("words", flat=True).iterator())
    dense = _dense(ids, encoder, 0)
    ranker = Ranker().fit(Views(view.transform(texts), dense))
    coread_ids, coread = _coreading()
    background = ranker.background_
    arrays = {
        "terms": np.frombuffer("\n".join(view.terms_).encode(), dtype=np.uint8),
        "weights": view.weights_,
        "sparse_components": ranker.sparse_.components_.astype(np.float16),
        "sparse_damping": ranker.sparse_.damping_,
        "dense_components": ranker.dense_.components_,
        "dense_damping": ranker.dense_.damping_,
        "background_data": background.sparse.data,
        "background_indices": background.sparse.indices,
        "background_indptr": background.sparse.indptr,
        "background_dense": background.dense,
        "coread_ids": coread_ids,
        "coread_data": coread.data,
        "coread_indices": coread.indices,
        "coread_indptr": coread.indptr,
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    with transaction.atomic():
        model = RankingModel.objects.create(
            name="unnamed",
            parameters={
                "terms": len(view.terms_),
                "encoder": encoder,
                "encoded": int(dense.any(axis=1).sum()),
                "ridge": [ranker.sparse_.ridge, ranker.dense_.ridge],
                "coread_papers": len(coread_ids),
            },
            arrays=file.getvalue(),
            papers=len(papers),
        )
        model.name = f"{model.fitted_at:%Y-%m-%d}.{model.pk}"
        model.save(update_fields=["name"])
        kept = RankingModel.objects.exclude(arrays=b"").values_list("pk", flat=True)[:KEPT]
        RankingModel.objects.exclude(pk__in=list(kept)).update(arrays=b"")
    log.info("ranking model %s: fitted on %d papers", model.name, len(papers))
    return model


@lru_cache(maxsize=2)
def load(pk: int) -> Fitted:
    """A version whose arrays are still kept."""
    model = RankingModel.objects.get(pk=pk)
    with np.load(io.BytesIO(model.arrays), allow_pickle=False) as arrays:
        view = SparseView().restore(
            arrays["terms"].tobytes().decode().split("\n"), arrays["weights"]
        )
        width = len(view.terms_)
        ranker = Ranker()
        ranker.sparse_ = _whitening(arrays, "sparse")
        ranker.dense_ = _whitening(arrays, "dense")
        parts = (arrays[f"background_{part}"] for part in ("data", "indices", "indptr"))
        dense = arrays["background_dense"]
        sparse = csr_matrix(tuple(parts), shape=(len(dense), width))
        ranker.background_ = Views(sparse, dense)
        ids = arrays["coread_ids"]
        parts = (arrays[f"coread_{part}"] for part in ("data", "indices", "indptr"))
        coread = csr_matrix(tuple(parts), shape=(len(ids), len(ids)))
    ranker.settle()
    return Fitted(pk, view, ranker, model.parameters["encoder"], ids, coread)


def _whitening(arrays: dict[str, NDArray[np.float32]], view: str) -> Whitening:
    whitening = Whitening(0, 0)
    whitening.components_ = arrays[f"{view}_components"].astype(np.float32)
    whitening.damping_ = arrays[f"{view}_damping"]
    return whitening


def _dense(ids: NDArray[np.int64], encoder: str | None, width: int) -> NDArray[np.float32]:
    """(n, d) vectors, zeros where there are none; (n, width) zeros without an encoder."""
    if encoder is None or not len(ids):
        return np.zeros((len(ids), width), dtype=np.float32)
    vectors, _ = embeddings.vectors_of(ids.tolist(), encoder)
    if not vectors.shape[1]:  # its rows are gone: another encoder has taken over
        return np.zeros((len(ids), width), dtype=np.float32)
    return vectors


def _coreading() -> tuple[NDArray[np.int64], csr_matrix]:
    """Ids of papers, ascending, and what was read together: the libraries are the examples and the
    liked papers of each interest of everybody who gets mail."""
    interests = Interest.objects.filter(subscriber__state=Subscriber.State.ACTIVE)
    newest = interests.order_by("-pk")[:MOST_LIBRARIES]
    libraries = {pk: list(examples) for pk, examples in newest.values_list("pk", "example_ids")}
    liked = Feedback.objects.filter(kind__in=LIKING, interest__in=interests)
    for interest, paper in liked.values_list("interest", "paper"):
        if interest in libraries:
            libraries[interest].append(paper)
    shared = [sorted(set(library)) for library in libraries.values() if len(set(library)) > 1]
    if not shared:
        return np.zeros(0, dtype=np.int64), csr_matrix((0, 0), dtype=np.float32)
    flat = np.fromiter(chain.from_iterable(shared), dtype=np.int64)
    reader = np.repeat(np.arange(len(shared)), [len(library) for library in shared])
    ids, column, readers = np.unique(flat, return_inverse=True, return_counts=True)
    if len(ids) > MOST_COREAD:
        most = np.sort(np.argsort(-readers, kind="stable")[:MOST_COREAD])
        place = np.full(len(ids), -1)
        place[most] = np.arange(len(most))
        kept = place[column] >= 0
        ids, column, reader = ids[most], place[column][kept], reader[kept]
    has = csr_matrix(
        (np.ones(len(column), dtype=np.float32), (reader, column)), shape=(len(shared), len(ids))
    )
    return ids, coreading(has)
