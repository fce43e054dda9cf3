"""Papers -> Embedding rows, and back to arrays.

Encoding goes at its own pace behind everything else, the newest papers first. A paper whose text
has changed is encoded again; its old vector serves until then. So it is with the model: when
another one stands in ENCODER_DIR, its vectors grow in the background while those of the old one
serve, and once every paper has one, the old rows and their index go. All workers of an installation
therefore need the same model: two that differ would undo each other's work for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from numpy.typing import NDArray

from papers import encoders
from papers.encoders import Encoder, EncoderError
from papers.locks import Lock, try_lock
from papers.models import Embedding, Paper

log = logging.getLogger(__name__)

LOCK = Lock.ENCODE
LISTED = 5_000  # papers looked up at a time: more than a minute's work, few enough to hold
RETIRED = 5_000  # rows deleted in one transaction
NEARLY = 0.99  # of what the fullest encoder covers, before the configured one serves
MOST_DIMENSIONS = 2_000  # that pgvector's HNSW index takes
INDEX_PREFIX = "embedding_hnsw_"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the encoding has come. busy: another process is at it, and nothing was done."""

    encoded: int
    left: int
    busy: bool = False

    def __str__(self) -> str:
        if self.busy:
            return "another process is encoding already"
        return f"{self.encoded} encoded, {self.left} to go"


# --- The configured encoder -----------------------------------------------------------------------

_opened: dict[str, tuple[object, Encoder]] = {}
_identities: dict[Path, tuple[object, str]] = {}
_opening = threading.Lock()


def encoder() -> Encoder:
    """The one in ENCODER_DIR, opened when first asked for and again when its files change.

    Not to be called before a fork: see papers/encoders.py.

    Raises:
        EncoderError: there is none, or it cannot be used.
    """
    folder = settings.ENCODER_DIR
    state = tuple(_state(path) for path in encoders.find(folder))
    with _opening:  # of two threads, one opens
        known = _opened.get("encoder")
        if known is None or known[0] != (folder, state):
            known = _opened["encoder"] = ((folder, state), Encoder(folder))
        return known[1]


def configured_identity() -> str | None:
    """The identity of the encoder in ENCODER_DIR, without opening it; None where there is none."""
    try:
        model, _ = encoders.find(settings.ENCODER_DIR)
    except EncoderError:
        return None
    return _identity(model)


def _identity(model: Path) -> str:
    state = _state(model)
    known = _identities.get(model)
    if known is None or known[0] != state:
        known = _identities[model] = (state, encoders.identity_of(model))
    return known[1]


def _state(path: Path) -> tuple[int, int, int]:
    """Differs when the file was replaced or written."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


# --- Encoding -------------------------------------------------------------------------------------


def pending(identity: str) -> QuerySet[Paper]:
    """Papers that have no vector of this encoder, or one of an earlier text; the newest first."""
    done = Embedding.objects.filter(
        encoder=identity, paper=OuterRef("pk"), text_digest=OuterRef("text_digest")
    )
    return Paper.objects.filter(~Exists(done)).order_by("-listing_day", "-id")


def encode_pending(
    *,
    seconds: float | None = None,
    limit: int | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Encode papers that wait for it, ENCODE_BATCH_SIZE a transaction.

    Args:
        seconds: no batch begins after that long; None: until none is left.
        limit: at most so many papers.
        progress: called after each batch.

    Raises:
        EncoderError: there is no encoder in ENCODER_DIR, or it cannot be used.
    """
    end = None if seconds is None else time.monotonic() + seconds
    with try_lock(LOCK) as alone:
        if not alone:
            return Progress(0, 0, busy=True)
        # Before the encoder is opened, which takes half a second: most minutes there is nothing.
        model, _ = encoders.find(settings.ENCODER_DIR)
        if not pending(_identity(model)).exists():
            retire_others(_identity(model))
            return Progress(0, 0)
        # To the end with this one, whatever is put into the folder meanwhile.
        current = encoder()
        ensure_index(current)
        waiting = pending(current.identity)
        encoded, left = 0, waiting.count()
        put_off: set[int] = set()
        for ids in _batches(waiting, limit, put_off):
            if end is not None and time.monotonic() >= end:
                break
            count = _encode(current, ids)
            if count < len(ids):
                put_off.update(ids)
            encoded, left = encoded + count, max(left - len(ids), 0)
            progress(Progress(encoded, left))
        left = waiting.count()  # more may have come in meanwhile
        log.info("encoder %s: %s encoded, %s to go", current.identity[:12], encoded, left)
        if left == 0 and configured_identity() == current.identity:
            retire_others(current.identity)
        return Progress(encoded, left)


def _batches(waiting: QuerySet[Paper], limit: int | None, put_off: set[int]) -> Iterator[list[int]]:
    """Ids in batches, until nothing waits but what has been put off meanwhile."""
    given = 0
    while limit is None or given < limit:
        room = LISTED if limit is None else min(LISTED, limit - given)
        listed = list(waiting.exclude(pk__in=put_off).values_list("pk", flat=True)[:room])
        if not listed:
            return
        given += len(listed)
        for start in range(0, len(listed), settings.ENCODE_BATCH_SIZE):
            yield listed[start : start + settings.ENCODE_BATCH_SIZE]


def _encode(encoder: Encoder, ids: list[int]) -> int:
    """Write the vectors of these papers; returns of how many."""
    # The digest is read with the text it is of: a change from here on leaves the paper pending.
    papers = list(Paper.objects.filter(pk__in=ids).only("title", "abstract", "text_digest"))
    vectors = encoder.encode([encoders.passage(paper.title, paper.abstract) for paper in papers])
    said = encoders.encodable(vectors)
    now = timezone.now()
    rows = [
        Embedding(
            paper=paper,
            encoder=encoder.identity,
            vector=vectors[place] if said[place] else None,
            text_digest=paper.text_digest,
            created_at=now,
        )
        for place, paper in enumerate(papers)
    ]
    try:
        with transaction.atomic():
            Embedding.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["encoder", "paper"],
                update_fields=["vector", "text_digest", "created_at"],
            )
    except IntegrityError:  # one of them was deleted meanwhile; the others wait for the next tick
        log.info("a batch of %s papers is put off: one was deleted", len(rows))
        return 0
    return len(rows)


# --- Indexes and retirement -----------------------------------------------------------------------


def index_name(identity: str) -> str:
    return f"{INDEX_PREFIX}{identity[:16]}"


def ensure_index(encoder: Encoder) -> None:
    """Give the encoder's vectors an HNSW index for cosine distance, where they have none.

    A query uses it when it filters on `encoder` and casts `vector` to vector(dimension). Of more
    dimensions than the index takes, the search is exact.
    """
    if encoder.dimension > MOST_DIMENSIONS:
        return
    with transaction.atomic(), connection.cursor() as cursor:
        # IF NOT EXISTS alone lets two at a time collide.
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        cursor.execute(
            f"CREATE INDEX IF NOT EXISTS {index_name(encoder.identity)} ON papers_embedding "
            f"USING hnsw ((vector::vector({int(encoder.dimension)})) vector_cosine_ops) "
            "WHERE encoder = %s",
            [encoder.identity],
        )


def retire_others(identity: str) -> None:
    """Remove the vectors and the indexes of every encoder but this one.

    The indexes first: a deleted row stays in an HNSW index until a slow vacuum.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() "
            "AND tablename = 'papers_embedding' AND starts_with(indexname, %s) AND indexname <> %s",
            [INDEX_PREFIX, index_name(identity)],
        )
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP INDEX IF EXISTS {connection.ops.quote_name(name)}")
    # Not "other than", which no index answers: this is asked each minute.
    others = Embedding.objects.filter(Q(encoder__lt=identity) | Q(encoder__gt=identity))
    removed = 0
    while ids := list(others.values_list("pk", flat=True)[:RETIRED]):
        removed += others.filter(pk__in=ids).delete()[0]
    if removed:
        log.info("encoder %s covers every paper: %s older vectors removed", identity[:12], removed)


# --- Reading --------------------------------------------------------------------------------------


def serving_encoder() -> str | None:
    """The identity of the encoder whose vectors serve now; None where there are no vectors.

    The configured one, once it covers nearly all that another does; else the one with the most.
    """
    rows = Embedding.objects.values_list("encoder").annotate(number=Count("pk"))
    counts: dict[str, int] = dict(rows.order_by("encoder"))
    if not counts:
        return None
    fullest = max(counts, key=lambda identity: counts[identity])
    configured = configured_identity()
    if configured is not None and counts.get(configured, 0) >= NEARLY * counts[fullest]:
        return configured
    return fullest


def vectors_of(
    paper_ids: Sequence[int] | NDArray[np.int64], identity: str | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The papers' vectors by one encoder, the serving one unless named.

    Returns:
        (n, d) float32, C-contiguous: rows of length 1, zeros for a paper that has no vector.
        (n,) bool: which papers have one. With no vector at all, d is 0.
    """
    wanted = np.asarray(paper_ids, dtype=np.int64)
    identity = identity or serving_encoder()
    present = np.zeros(len(wanted), dtype=np.bool_)
    if identity is None or not len(wanted):
        return np.zeros((len(wanted), 0), dtype=np.float32), present
    ids, found = _read(np.unique(wanted), identity)
    vectors = np.zeros((len(wanted), found.shape[1]), dtype=np.float32)
    if len(ids):
        place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        present = ids[place] == wanted
        vectors[present] = found[place[present]]
    return vectors, present


def _read(ids: NDArray[np.int64], identity: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(m,) ids in ascending order and their (m, d) vectors.

    In one binary COPY, whose records are of one length: the bytes are the array. 20,000 vectors of
    384 take 0.15 s so, and 3 s as the text that the model's field reads.
    """
    query = (
        "COPY (SELECT paper_id, vector FROM papers_embedding WHERE encoder = %s "
        "AND vector IS NOT NULL AND paper_id = ANY(%s) ORDER BY paper_id) TO STDOUT (FORMAT BINARY)"
    )
    values = [identity, ids.tolist()]
    # psycopg's own cursor: the wrapper that Django puts around it with DEBUG on takes no values.
    with connection.cursor() as cursor, cursor.cursor.copy(query, values) as copy:
        content = b"".join(copy)
    header, trailer = 19, 2
    body = memoryview(content)[header:-trailer]
    if not len(body):
        return np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float32)
    # Of a record: number of fields, length and id, length and the vector, which is its dimension,
    # an unused number and the components.
    dimension = int.from_bytes(body[18:20], "big")
    record = np.dtype(
        [
            ("fields", ">i2"), ("id_length", ">i4"), ("id", ">i8"), ("vector_length", ">i4"),
            ("dimension", ">i2"), ("unused", ">i2"), ("vector", ">f4", (dimension,)),
        ]
    )  # fmt: skip
    rows = np.frombuffer(body, dtype=record)
    return rows["id"].astype(np.int64), np.ascontiguousarray(rows["vector"], dtype=np.float32)
