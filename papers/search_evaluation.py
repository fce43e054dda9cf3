"""How well search finds: a paper by keywords that a machine gave it, and by a mistyped title.

The papers of a folder stand alone for it, in temporary tables that hide those of the installation
from this connection: so what is measured is papers/search.py itself, and nothing is left behind.
Keywords are no part of what is searched. Compared in one run:

- TF-IDF: scikit-learn's, of words and pairs of words, sublinear; all of title and abstract;
- words: full text alone;  meaning: vectors alone;
- plain fusion: of the two by reciprocal rank, unweighted;
- search: as readers have it.

A query is found when its paper is among the first 5.
"""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from django.db import connection, transaction
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from papers import embeddings, search
from papers.encoders import Encoder, EncoderMissing, encodable, passage
from papers.intervals import RESAMPLES, Interval, interval
from papers.models import Embedding, Paper
from papers.search import Candidate
from papers.sources import PaperRecord
from papers.sources.files import read
from papers.sources.identifiers import title_key

FIRST = 5
LEAST_KEYWORDS = 2
BATCH = 64  # texts encoded between two reports of progress
TABLES = ("papers_paper", "papers_searchtext", "papers_searchword", "papers_embedding")
KINDS = ("first keyword", "first two keywords")
SEARCH = "search"

Say = Callable[[str], None]


class SearchEvaluationError(Exception):
    """What was given cannot be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one way to search and one kind of query. over: search less this way, paired."""

    found: Interval
    reciprocal_rank: Interval
    over_found: Interval
    over_reciprocal_rank: Interval


@dataclass(frozen=True, slots=True)
class Report:
    """figures: kind of query -> way -> figures. typos: what was mistyped -> shares found, with
    and without the typo. milliseconds: median of a query."""

    papers: int
    asked: int
    seed: int
    encoder: str
    milliseconds: float
    figures: dict[str, dict[str, Figures]]
    typos: dict[str, tuple[float, float]]


def evaluate(
    folder: Path, cache: Path, say: Say, *, sample: int = 300, seed: int = 1, half: str = ""
) -> Report:
    """
    Args:
        folder: saved answers of Hugging Face's daily papers, or any files that import_papers reads.
        cache: the folder that keeps vectors.
        say: told of progress.
        sample: so many papers are asked for, 0: all that have two keywords and more.
        half: "a" or "b": a seeded half of all, for choosing parameters and for reporting.

    Raises:
        SearchEvaluationError: there are no papers with keywords.
        EncoderError: the encoder in ENCODER_DIR cannot be used.
    """
    records = _records(folder)
    asked = [r for r in records if len(r.keywords) >= LEAST_KEYWORDS]
    if not asked:
        raise SearchEvaluationError(f"No paper in {folder} has {LEAST_KEYWORDS} keywords.")
    random.Random(seed).shuffle(asked)  # noqa: S311
    if half:
        asked = asked[: len(asked) // 2] if half == "a" else asked[len(asked) // 2 :]
    elif sample:
        asked = asked[:sample]
    try:
        encoder: Encoder | None = embeddings.encoder()
    except EncoderMissing:
        encoder = None
    with _alone():
        ids = _load(records)
        if encoder:
            _load_vectors(encoder, records, ids, cache, say)
        search.count_words()
        search.forget_encoder()
        try:
            return _measured(records, asked, ids, seed, encoder, say)
        finally:
            search.forget_encoder()


def _records(folder: Path) -> list[PaperRecord]:
    """Each paper once, as its first record describes it, with the first keywords that are stated.

    In the order of the files.
    """
    known: dict[str, PaperRecord] = {}
    for record in read([folder]):
        if isinstance(record, PaperRecord):
            key = record.arxiv_id or title_key(record.title)
            if key not in known or (record.keywords and not known[key].keywords):
                known[key] = record
    return list(known.values())


@contextmanager
def _alone() -> Iterator[None]:
    """Herein the tables of papers are empty ones of this transaction, which leaves nothing."""
    with transaction.atomic(), connection.cursor() as cursor:
        try:
            for table in TABLES:
                cursor.execute(f"CREATE TEMPORARY TABLE {table} (LIKE {table} INCLUDING ALL)")
            cursor.execute(
                "CREATE TRIGGER papers_index_new AFTER INSERT ON pg_temp.papers_paper "
                "FOR EACH ROW EXECUTE FUNCTION papers_index()"
            )
            yield
        finally:
            transaction.set_rollback(True)


def _load(records: Sequence[PaperRecord]) -> list[int]:
    papers = Paper.objects.bulk_create(
        [
            Paper(
                arxiv_id=record.arxiv_id or None,
                title=record.title,
                title_key=title_key(record.title),
                abstract=record.abstract,
                authors=list(record.authors),
                listing_day=record.listed_on or date(2000, 1, 1),
            )
            for record in records
        ]
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE papers_paper, papers_searchtext")
    return [paper.pk for paper in papers]


def _measured(
    records: Sequence[PaperRecord],
    asked: Sequence[PaperRecord],
    ids: Sequence[int],
    seed: int,
    encoder: Encoder | None,
    say: Say,
) -> Report:
    place = {id(record): at for at, record in enumerate(records)}
    targets = [place[id(record)] for record in asked]
    queries = {
        kind: [" ".join(record.keywords[:number]) for record in asked]
        for number, kind in enumerate(KINDS, start=1)
    }
    tfidf = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    matrix = tfidf.fit_transform([f"{record.title}\n{record.abstract}" for record in records])
    seconds: list[float] = []
    figures = {}
    for kind, texts in queries.items():
        say(f"asking by the {kind} …")
        scores = (tfidf.transform(texts) @ matrix.T).toarray()
        ranks = {
            "TF-IDF": [_rank_of(row, target) for row, target in zip(scores, targets, strict=True)]
        }
        for text, target in zip(texts, targets, strict=True):
            begin = time.perf_counter()
            asked_for = search.understand(text)
            found = search.candidates(asked_for)
            whole = search.order(found, asked_for)
            seconds.append(time.perf_counter() - begin)
            for way, order in (
                _orders(found, meaning=encoder is not None) | {SEARCH: whole}
            ).items():
                rank = order.index(ids[target]) if ids[target] in order else None
                ranks.setdefault(way, []).append(rank)
        figures[kind] = _figures(ranks, np.random.default_rng(seed))
    return Report(
        papers=len(records),
        asked=len(asked),
        seed=seed,
        encoder=encoder.identity[:12] if encoder else "none",
        milliseconds=1000 * float(np.median(seconds)),
        figures=figures,
        typos=_typos(asked, [ids[at] for at in targets], random.Random(seed), say),  # noqa: S311
    )


def _rank_of(scores: NDArray[np.float64], target: int) -> int | None:
    """Among equals, the earlier row stands first; without any word in common it is not found."""
    if scores[target] <= 0:
        return None
    before = (scores > scores[target]).sum() + (scores[:target] == scores[target]).sum()
    return int(before)


def _orders(found: Sequence[Candidate], *, meaning: bool) -> dict[str, list[int]]:
    words = [
        c.paper_id for c in sorted(found, key=lambda c: (-c.words, -c.paper_id)) if c.words > 0
    ]
    orders = {"words": words}
    if meaning:
        known = [(c.meaning, c.paper_id) for c in found if c.meaning is not None]
        orders["meaning"] = [paper_id for _, paper_id in sorted(known, reverse=True)]
        orders["plain fusion"] = _fused(orders["words"], orders["meaning"])
    return orders


def _fused(*orders: Sequence[int]) -> list[int]:
    """Reciprocal-rank fusion as it is usual, with 60."""
    scores: dict[int, float] = {}
    for order in orders:
        for rank, paper_id in enumerate(order, start=1):
            scores[paper_id] = scores.get(paper_id, 0.0) + 1 / (60 + rank)
    return sorted(scores, key=lambda paper_id: (-scores[paper_id], -paper_id))


def _figures(ranks: dict[str, list[int | None]], rng: np.random.Generator) -> dict[str, Figures]:
    number = len(ranks[SEARCH])
    resampled = rng.integers(number, size=(RESAMPLES, number))
    found = {
        way: np.array([rank is not None and rank < FIRST for rank in row], dtype=np.float64)
        for way, row in ranks.items()
    }
    reciprocal = {
        way: np.array([0.0 if rank is None else 1 / (1 + rank) for rank in row])
        for way, row in ranks.items()
    }

    def over_queries(values: NDArray[np.float64]) -> Interval:
        return interval(float(values.mean()), values[resampled].mean(axis=1))

    return {
        way: Figures(
            over_queries(found[way]),
            over_queries(reciprocal[way]),
            over_queries(found[SEARCH] - found[way]),
            over_queries(reciprocal[SEARCH] - reciprocal[way]),
        )
        for way in ranks
    }


# --- Slips of the pen -----------------------------------------------------------------------------


def _typos(
    asked: Sequence[PaperRecord], ids: Sequence[int], chance: random.Random, say: Say
) -> dict[str, tuple[float, float]]:
    shares = {}
    texts = {
        "title": [record.title for record in asked],
        KINDS[1]: [" ".join(record.keywords[:2]) for record in asked],
    }
    for kind, rows in texts.items():
        say(f"asking by the {kind}, mistyped …")
        both = [[_finds(row, pk) for row, pk in zip(rows, ids, strict=True)]]
        both += [[_finds(mistyped(row, chance), pk) for row, pk in zip(rows, ids, strict=True)]]
        right, wrong = (float(np.mean(found)) for found in both)
        shares[kind] = (wrong, right)
    return shares


def _finds(query: str, paper_id: int) -> bool:
    return paper_id in [paper.pk for paper in search.search(query, limit=FIRST).papers]


def mistyped(text: str, chance: random.Random) -> str:
    """The text with one slip in one of its words of four letters and more, where it has one.

    A letter is left out, put in, exchanged for another, or swapped with its neighbour.
    """
    words = text.split()
    long = [at for at, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long:
        return text
    at = chance.choice(long)
    word, letter = words[at], chance.choice(string.ascii_lowercase)
    i = chance.randrange(len(word) - 1)
    words[at] = chance.choice(
        [
            word[:i] + word[i + 1 :],
            word[:i] + letter + word[i:],
            word[:i] + letter + word[i + 1 :],
            word[:i] + word[i + 1] + word[i] + word[i + 2 :],
        ]
    )
    return " ".join(words)


# --- Vectors --------------------------------------------------------------------------------------


def _load_vectors(
    encoder: Encoder, records: Sequence[PaperRecord], ids: Sequence[int], cache: Path, say: Say
) -> None:
    vectors = _encoded(encoder, [passage(r.title, r.abstract) for r in records], cache, say)
    said = encodable(vectors)
    Embedding.objects.bulk_create(
        Embedding(
            paper_id=pk,
            encoder=encoder.identity,
            vector=vector if says else None,
            text_digest="",
        )
        for pk, vector, says in zip(ids, vectors, said, strict=True)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE papers_embedding")


def _encoded(encoder: Encoder, texts: Sequence[str], folder: Path, say: Say) -> NDArray[np.float32]:
    """(n, d): the texts' vectors, kept in one file an encoder, which may be deleted at any time."""
    path = folder / f"{encoder.identity}-search.npz"
    kept: dict[str, NDArray[np.float32]] = {}
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            kept = dict(zip(stored["texts"].tolist(), stored["vectors"], strict=True))
    missing = [text for text in dict.fromkeys(texts) if text not in kept]
    for done, vector in enumerate(_each(encoder, missing), start=1):
        kept[missing[done - 1]] = vector
        if done % BATCH == 0 or done == len(missing):
            say(f"encoded {done} of {len(missing)} texts")
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = list(dict.fromkeys(texts))
        np.savez(path, texts=np.array(wanted), vectors=np.stack([kept[text] for text in wanted]))
    return np.stack([kept[text] for text in texts])


def _each(encoder: Encoder, texts: Iterable[str]) -> Iterator[NDArray[np.float32]]:
    with ThreadPoolExecutor(2) as threads:  # a session works without the interpreter's lock
        yield from threads.map(lambda text: encoder.encode([text])[0], texts)
