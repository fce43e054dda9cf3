"""What a search costs among 100,000 papers, beside PostgreSQL's plain ranking of the same words.

The papers are made up: words by Zipf's law, some of them a topic's own; vectors around a centre a
topic. Queries are one to four words of a paper, mixed with phrases, exclusions, filters and typos;
the vector of a query is that of a paper near which it is to be found, so that HNSW has to look as
it does for real ones. The encoder itself, about 5 ms for words that were not asked before, is
not measured here.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
from django.db import connection
from django.test.utils import setup_databases, teardown_databases

PAPERS, TOPICS, DIMENSIONS, BLOCK = 100_000, 400, 384, 5_000
WORDS, OWN = 60_000, 150  # words in common, words that a topic has for itself
AUTHORS = 50_000
DAYS = 700
QUERIES = 200
DATABASE = "bench_paperround_searching"
ENCODER = "0" * 64
START = date(2024, 1, 1)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    connection.settings_dict["TEST"]["NAME"] = DATABASE
    databases = setup_databases(verbosity=0, interactive=False, serialized_aliases=[])
    try:
        measure()
    finally:
        connection.close()
        teardown_databases(databases, verbosity=0)


def measure() -> None:
    from papers import search

    rng = np.random.default_rng(0)
    say(f"Searching: {PAPERS:,} made-up papers, vectors of {DIMENSIONS}, {QUERIES} queries a kind")
    begin = time.perf_counter()
    with without_indexes("papers_searchtext"):
        texts, topics = add_papers(rng)
    say(f"  papers and their lexemes  {time.perf_counter() - begin:8.1f} s")
    begin = time.perf_counter()
    vectors = add_vectors(rng, topics)
    say(f"  vectors and HNSW          {time.perf_counter() - begin:8.1f} s")
    begin = time.perf_counter()
    search.count_words()
    say(f"  words counted             {time.perf_counter() - begin:8.1f} s")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    kinds = queries(rng, texts)
    meant: dict[str, int] = {}
    for asked in kinds.values():
        meant |= {text: number for text, number, _ in asked}
    encoder: Any = SimpleNamespace(identity=ENCODER, dimension=DIMENSIONS)

    def vector_of(encoder: Any, text: str) -> Any:
        """Near the paper that the words are of."""
        number = meant.get(text, len(text))
        noise = np.random.default_rng(number).normal(size=DIMENSIONS) * 0.05
        return (vectors[number] + noise).astype(np.float32)

    search._serving_encoder = lambda minute: encoder  # type: ignore[assignment]
    search._vector = vector_of
    whole: list[float] = []
    for kind, asked in kinds.items():
        ours = times(lambda text, filters: search.search(text, filters), asked)
        plain = times(plain_rank, asked)
        whole += ours
        line = f"  {kind:26}{told(ours)}"
        say(f"{line}   {statistics.median(ours) / statistics.median(plain):5.2f} of ts_rank alone")
    say(f"  {'all together':26}{told(whole)}")
    ids = rng.integers(1, PAPERS, size=QUERIES).tolist()
    from papers.models import Paper

    search._serving = lambda minute: ENCODER  # type: ignore[assignment]
    papers = list(Paper.objects.filter(pk__in=ids))
    similar = times(search.similar, [(paper,) for paper in papers])
    say(f"  {'similar papers':26}{told(similar)}")


def told(seconds: list[float]) -> str:
    milliseconds = sorted(1000 * value for value in seconds)
    p95 = milliseconds[int(0.95 * len(milliseconds))]
    return f"median {statistics.median(milliseconds):6.1f} ms   p95 {p95:6.1f} ms"


def times(work: Callable[..., object], asked: list[tuple[Any, ...]]) -> list[float]:
    taken = []
    for row in asked:
        arguments = (row[0], row[2]) if len(row) == 3 else row
        begin = time.perf_counter()
        work(*arguments)
        taken.append(time.perf_counter() - begin)
    return taken


def plain_rank(text: str, filters: object) -> None:
    """What PostgreSQL's ranking alone needs for the papers that have any of the words, as ours."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT paper_id FROM papers_searchtext, (SELECT replace(plainto_tsquery('english', "
            "papers_plain(%s))::text, '&', '|')::tsquery AS words) asked WHERE lexemes @@ words "
            "ORDER BY ts_rank(lexemes, words) DESC LIMIT 20",
            [text],
        )
        cursor.fetchall()


# --- A made-up archive ----------------------------------------------------------------------------


@contextmanager
def without_indexes(table: str) -> Iterator[None]:
    """Herein its GIN indexes are away, as one does it who loads a whole archive."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s "
            "AND indexdef LIKE '%%USING gin%%'",
            [table],
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {name}")
        yield
        cursor.execute("SET maintenance_work_mem = '600MB'")
        for _, definition in indexes:
            cursor.execute(definition)


def vocabulary(size: int) -> list[str]:
    """Words of two to four syllables, the same each time, and unlike any language's."""
    rng = np.random.default_rng(1)
    syllables = [a + b for a in "bdfgklmnprtvz" for b in "aeiou"]
    words: dict[str, None] = {}
    while len(words) < size:
        parts = rng.integers(len(syllables), size=int(rng.integers(2, 5)))
        words["".join(syllables[part] for part in parts)] = None
    return list(words)


def add_papers(rng: np.random.Generator) -> tuple[list[list[str]], np.ndarray[Any, Any]]:
    """Writes the papers by COPY; returns the words of each one's title, and its topic."""
    common = np.array(vocabulary(WORDS + TOPICS * OWN))
    own = common[WORDS:].reshape(TOPICS, OWN)
    chances = 1 / np.arange(1, WORDS + 1)
    chances /= chances.sum()
    topics = rng.integers(TOPICS, size=PAPERS)
    titles: list[list[str]] = []
    columns = (
        "uuid, title, title_key, abstract, authors, categories, listing_day, url, pdf_url, "
        "code_url, project_url, thumbnail_url, keywords, summary, summary_source, organisation, "
        "submitter, sources, versions, licence, comment, journal_ref, created_at, updated_at"
    )
    empty = "\t".join([""] * 5)
    with connection.cursor() as cursor:
        for start in range(0, PAPERS, BLOCK):
            said = common[rng.choice(WORDS, size=(BLOCK, 130), p=chances)]
            special = own[topics[start : start + BLOCK, None], rng.zipf(1.5, (BLOCK, 30)) % OWN]
            names = rng.integers(AUTHORS, size=(BLOCK, 4))
            with cursor.copy(f"COPY papers_paper ({columns}) FROM STDIN") as copy:
                for row in range(BLOCK):
                    words = np.concatenate([said[row], special[row]])
                    rng.shuffle(words)
                    title, body = words[:9].tolist(), words[9:].tolist()
                    titles.append(title)
                    authors = ",".join(f'"Name{n % 500} {common[n]}"' for n in names[row])
                    day = START + timedelta(days=(start + row) * DAYS // PAPERS)
                    copy.write(
                        f"{os.urandom(16).hex()}\t{' '.join(title)}\t{' '.join(title)}\t"
                        f"{' '.join(body)}\t{{{authors}}}\t{{c{topics[start + row] % 40}}}\t{day}\t"
                        f"{empty}\t{{}}\t\t\t\t\t{{file}}\t[]\t\t\t\t{day}\t{day}\n"
                    )
    return titles, topics


def add_vectors(rng: np.random.Generator, topics: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    centres = rng.normal(size=(TOPICS, DIMENSIONS)).astype(np.float32)
    vectors = centres[topics] + rng.normal(size=(PAPERS, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    from papers.embeddings import ensure_index

    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM papers_paper ORDER BY id")
        ids = [pk for (pk,) in cursor.fetchall()]
        with cursor.copy(
            "COPY papers_embedding (paper_id, encoder, vector, text_digest, created_at) FROM STDIN"
        ) as copy:
            for pk, vector in zip(ids, vectors, strict=True):
                numbers = ",".join(f"{number:.4f}" for number in vector.tolist())
                copy.write(f"{pk}\t{ENCODER}\t[{numbers}]\t\t2026-01-01\n")
        cursor.execute("SET max_parallel_maintenance_workers = 2")
    ensure_index(SimpleNamespace(identity=ENCODER, dimension=DIMENSIONS))  # type: ignore[arg-type]
    return np.asarray(vectors)


def queries(
    rng: np.random.Generator, titles: list[list[str]]
) -> dict[str, list[tuple[str, int, Any]]]:
    """Kind -> (text, number of the paper whose words they are, filters)."""
    from papers.search import Filters

    def words(number: int, most: int) -> list[str]:
        chosen = rng.permutation(titles[number])[: rng.integers(1, most + 1)]
        return [str(word) for word in chosen]

    def mistyped(word: str) -> str:
        return word[:2] + "x" + word[3:] if len(word) > 4 else word

    filters = [
        Filters(since=START + timedelta(days=DAYS - 60)),
        Filters(category="c7"),
        Filters(since=START + timedelta(days=200), until=START + timedelta(days=400)),
        Filters(category="c3", since=START + timedelta(days=DAYS - 30)),
    ]
    numbers = rng.integers(PAPERS, size=QUERIES).tolist()
    kinds: dict[str, Callable[[int], tuple[str, Any]]] = {
        "one to four words": lambda n: (" ".join(words(n, 4)), Filters()),
        "a whole title": lambda n: (" ".join(titles[n]), Filters()),
        "with a phrase": lambda n: (f'"{" ".join(titles[n][:2])}" {titles[n][4]}', Filters()),
        "with an exclusion": lambda n: (f"{' '.join(words(n, 3))} -{titles[n - 1][0]}", Filters()),
        "with a typo": lambda n: (" ".join([mistyped(titles[n][0]), *words(n, 2)]), Filters()),
        "with filters": lambda n: (" ".join(words(n, 3)), filters[n % len(filters)]),
    }
    return {
        kind: [(text, n, filters) for n in numbers for text, filters in [make(n)]]
        for kind, make in kinds.items()
    }
