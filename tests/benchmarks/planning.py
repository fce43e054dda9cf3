"""What planning costs: every subscriber's picks chosen and written, beside what cannot be saved.

The limits are measured in the same run: the bare float32 product of as many profiles with as many
candidates, with the ten best of each, and a bare COPY of the very same rows into the same table.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

import numpy as np
from django.db import connection
from django.test.utils import setup_databases, teardown_databases
from django.utils import timezone

READERS = (10_000, 50_000, 100_000)
INTERESTS, EXAMPLES, CANDIDATES = 2, 20, 1_000
PLANNERS = 2  # workers, one a core
RUNS = 3
ARCHIVE, TOPICS, DIMENSIONS, BLOCK = 20_000, 200, 384, 2_000
DATABASE = "bench_paperround_planning"


def main() -> None:
    connection.settings_dict["TEST"]["NAME"] = DATABASE
    databases = setup_databases(verbosity=0, interactive=False, serialized_aliases=[])
    try:
        report(measure())
    finally:
        connection.close()
        teardown_databases(databases, verbosity=0)


def report(runs: list[dict[str, float]]) -> None:
    product = statistics.median(bare_product(READERS[-1] * INTERESTS) for _ in range(RUNS))
    copy = statistics.median(bare_copy() for _ in range(RUNS))
    print(  # noqa: T201
        f"Planning: {INTERESTS} interests a reader of {EXAMPLES} example papers each, "
        f"{CANDIDATES:,} candidates, an archive of {ARCHIVE:,} papers; {PLANNERS} workers, "
        f"medians of {RUNS}"
    )
    print(f"  prepared once an edition {runs[-1]['prepared']:8.1f} s")  # noqa: T201
    for run in runs:
        print(  # noqa: T201
            f"  {run['readers']:9,.0f} readers {run['seconds']:14.1f} s  "
            f"{1000 * run['seconds'] / run['readers']:6.3f} ms a reader  "
            f"{run['picks']:9,.0f} picks  {run['memory']:6.0f} MB at most"
        )
    print(f"  bare product and top 10  {product:8.1f} s")  # noqa: T201
    print(f"  bare COPY                {copy:8.1f} s")  # noqa: T201
    limit = 5 * product + 2 * copy
    seconds = runs[-1]["seconds"]
    print(f"  ours / (5 products + 2 COPYs) = {seconds / limit:.2f}")  # noqa: T201
    rates = [run["seconds"] / run["readers"] for run in runs]
    print(f"  ms a reader, most / least: {max(rates) / min(rates):.2f}")  # noqa: T201


def measure() -> list[dict[str, float]]:
    """Plan for more and more readers, each time in new processes."""
    rng = np.random.default_rng(0)
    ids, topics = add_papers(rng)
    from newsletter import learning

    learning.fit()
    runs = []
    context = multiprocessing.get_context("spawn")
    for start, end in zip((0, *READERS[:-1]), READERS, strict=True):
        add_readers(rng, ids, topics, start, end)
        planners = [start_planner(context) for _ in range(PLANNERS)]
        prepared = max(pipe.recv() for pipe, _ in planners)
        seconds = statistics.median(plan_all([pipe for pipe, _ in planners]) for _ in range(RUNS))
        memory = sum(finish(pipe, process) for pipe, process in planners)
        runs.append(
            {
                "readers": end,
                "prepared": prepared,
                "seconds": seconds,
                "memory": memory,
                "picks": picks_written(end),
            }
        )
    return runs


def plan_all(pipes: list[Connection]) -> float:
    """Seconds until all planners together have served everybody."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE newsletter_delivery CASCADE")
        cursor.execute("UPDATE newsletter_subscriber SET next_send_at = now()")
        cursor.execute("VACUUM ANALYZE newsletter_subscriber, newsletter_interest")
    begin = time.perf_counter()
    for pipe in pipes:
        pipe.send("go")
    for pipe in pipes:
        pipe.recv()
    return time.perf_counter() - begin


def finish(pipe: Connection, process: SpawnProcess) -> float:
    """End a planner; the most memory it held, in MB."""
    pipe.send("")
    memory: float = pipe.recv()
    process.join()
    return memory


def start_planner(context: SpawnContext) -> tuple[Connection, SpawnProcess]:
    ours, theirs = context.Pipe()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as many planners as cores: each has one
    process = context.Process(target=plan, args=(theirs,))
    process.start()
    theirs.close()  # so that a planner that dies is an error here, and not silence
    return ours, process


def picks_written(readers: int) -> float:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), sum(cardinality(paper_ids)) FROM newsletter_delivery")
        rows, picked = cursor.fetchone()
    assert rows == readers, f"{rows} deliveries for {readers} readers"
    return float(picked)


def plan(answer: Connection) -> None:
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    django.setup()
    connection.settings_dict["NAME"] = DATABASE
    from newsletter import candidates, picks
    from papers.models import Edition

    start = time.perf_counter()
    candidates.today(Edition.objects.get())
    answer.send(time.perf_counter() - start)
    while answer.recv():
        answer.send(picks.plan_due(timezone.now()))
    answer.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


# --- A made-up world ------------------------------------------------------------------------------


def add_papers(rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """An archive, and today's edition of CANDIDATES more papers: ids and topics of the archive."""
    from papers.models import Edition, EditionPaper, Embedding, Paper
    from papers.sources.identifiers import title_key

    centres = rng.normal(size=(TOPICS, DIMENSIONS))
    total = ARCHIVE + CANDIDATES
    topics = rng.integers(TOPICS, size=total)
    vectors = centres[topics] + 1.5 * rng.normal(size=(total, DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    today = timezone.now()
    papers = []
    for number, topic in enumerate(topics.tolist()):
        own = rng.zipf(1.3, size=40) % 400 + 1_000 * topic
        common = rng.zipf(1.2, size=60) % 5_000
        words = [f"w{word}" for word in rng.permutation(np.concatenate([own, 900_000 + common]))]
        abstract = ". ".join(" ".join(words[at : at + 14]).capitalize() for at in range(8, 96, 14))
        title = " ".join(words[:8])
        papers.append(
            Paper(
                title=title,
                title_key=title_key(title),
                abstract=f"{abstract}.",
                authors=[f"Author {number}"],
                categories=[f"c{topic % 40}"],
                listing_day=today.date(),
                sources=["file"],
            )
        )
    Paper.objects.bulk_create(papers, batch_size=2_000)
    Embedding.objects.bulk_create(
        (
            Embedding(paper=paper, encoder="0" * 64, vector=vector)
            for paper, vector in zip(papers, vectors, strict=True)
        ),
        batch_size=2_000,
    )
    edition = Edition.objects.create(
        day=today.date(), state=Edition.State.FROZEN, frozen_at=today, changed_at=today
    )
    EditionPaper.objects.bulk_create(
        EditionPaper(edition=edition, paper=paper, trend=trend)
        for paper, trend in zip(papers[ARCHIVE:], rng.random(CANDIDATES), strict=True)
    )
    return np.array([paper.pk for paper in papers[:ARCHIVE]]), topics[:ARCHIVE]


def add_readers(
    rng: np.random.Generator,
    ids: np.ndarray[Any, Any],
    topics: np.ndarray[Any, Any],
    start: int,
    end: int,
) -> None:
    from newsletter.models import Interest, Subscriber

    now = timezone.now()
    of_topic = [ids[topics == topic] for topic in range(TOPICS)]
    for first in range(start, end, 5_000):
        readers = Subscriber.objects.bulk_create(
            Subscriber(
                address=f"reader{number}@example.org",
                mailbox_key=str(number),
                state=Subscriber.State.ACTIVE,
                confirmed_at=now,
                next_send_at=now,
            )
            for number in range(first, min(first + 5_000, end))
        )
        Interest.objects.bulk_create(
            Interest(
                subscriber=reader,
                name=f"interest {number}",
                example_ids=rng.choice(of_topic[rng.integers(TOPICS)], EXAMPLES).tolist(),
            )
            for reader in readers
            for number in range(INTERESTS)
        )


# --- What cannot be saved -------------------------------------------------------------------------


def bare_product(profiles: int) -> float:
    """Seconds for all profiles × candidates, in blocks, and the ten best of each row."""
    rng = np.random.default_rng(1)
    candidates = rng.normal(size=(DIMENSIONS, CANDIDATES)).astype(np.float32)
    block = rng.normal(size=(BLOCK, DIMENSIONS)).astype(np.float32)
    start = time.perf_counter()
    for _ in range(0, profiles, BLOCK):
        scores = block @ candidates
        best = np.argpartition(scores, -10, axis=1)[:, -10:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        np.take_along_axis(best, order, axis=1)
    return time.perf_counter() - start


def bare_copy() -> float:
    """Seconds for a COPY of the deliveries that were just written, from memory."""
    with connection.cursor() as cursor:
        file = io.BytesIO()
        with cursor.copy("COPY newsletter_delivery TO STDOUT") as rows:
            for data in rows:
                file.write(data)
        cursor.execute("TRUNCATE newsletter_delivery CASCADE")
        start = time.perf_counter()
        with cursor.copy("COPY newsletter_delivery FROM STDIN") as rows:
            for data in pieces(file.getvalue()):
                rows.write(data)
        return time.perf_counter() - start


def pieces(data: bytes, size: int = 1 << 18) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))
