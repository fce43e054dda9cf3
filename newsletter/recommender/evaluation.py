"""How well rankers order new papers for readers whose libraries are known. Arrays in, figures out.

Every new paper is a candidate for every reader, relevant where it is in the reader's library
(binary gain). Of each reader:

- nDCG@10: Σ 1 / log2(1 + place) over the relevant among the first ten, against the best that is
  possible with min(10, relevant) of them;
- recall@10, recall@50: the share of the relevant among the first 10 and 50;
- AUC: how often a relevant paper is before another one, a tie counting one half.

A figure is the mean over readers, each counting the same, with its 95 % bootstrap interval: readers
are resampled, the same ones for all rankers, so that ratios and differences are paired. Candidates
are shuffled once, the same for all, so that at equal scores chance decides, not the file's order.

What a ranker may know: the known papers, the libraries of all readers as far as they hold known
papers, and the texts of new papers when it scores them. No vocabulary and no weight is learned from
a new paper. (Submissions are the exception, see `judge_submissions`.)
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

from newsletter.recommender import peers
from newsletter.recommender.peers import Indices, Recipe, Scorer, Task
from newsletter.recommender.ranking import AUTHOR_BONUS, Affinity, Ranker, Views, coreading
from papers.intervals import RESAMPLES, Interval, interval

Figures = NDArray[np.float64]

METRICS = ("ndcg@10", "recall@10", "recall@50", "auc")
TOP = 10
OURS = "ours"
SEED = 0
BLOCK = 128  # readers scored at a time; of a slow recipe, SLOW_BLOCK
SLOW_BLOCK = 8
WORTH_PROCESSES = 64  # readers of a slow recipe; starting processes takes some seconds

# Tells how far a ranker has come: its name, readers done, of how many.
Progress = Callable[[str, int, int], None]


def silent(name: str, done: int, total: int) -> None:
    """A Progress that says nothing."""


# -- Figures ---------------------------------------------------------------------------------------


def figures(scores: NDArray[np.float32], relevant: NDArray[np.bool_]) -> Figures:
    """(b, 4) METRICS of b readers from (b, n) scores and which of n candidates are relevant.

    Every reader has a relevant candidate. Where all of them are relevant, the AUC is 0.5.
    """
    count = relevant.sum(axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :50]
    hit = np.take_along_axis(relevant, order, axis=1)
    gains = 1 / np.log2(np.arange(2, TOP + 2))
    top = hit[:, :TOP]
    ideal = np.cumsum(gains)[np.minimum(count, TOP) - 1]
    return np.column_stack(
        [
            (top * gains[: top.shape[1]]).sum(axis=1) / ideal,
            top.sum(axis=1) / count,
            hit.sum(axis=1) / count,
            auc(scores, relevant),
        ]
    )


def auc(scores: NDArray[np.float32], relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(b,) of (b, n): the Mann-Whitney U of the relevant, in [0, 1]; 0.5 where all or none are."""
    count = relevant.sum(axis=1)
    pairs = count * (relevant.shape[1] - count)
    wins = (rankdata(scores, axis=1) * relevant).sum(axis=1) - count * (count + 1) / 2
    return np.asarray(np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.5), dtype=np.float64)


def resampled(values: Figures, resamples: int = RESAMPLES, seed: int = SEED) -> Figures:
    """(resamples, q) means of (m, q) values: each row over m readers drawn with replacement."""
    m = len(values)
    draw = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    block = max(1, min(resamples, 20_000_000 // max(m, 1)))
    for start in range(0, resamples, block):
        drawn = draw.integers(0, m, (min(block, resamples - start), m))
        counts = np.stack([np.bincount(row, minlength=m) for row in drawn])
        means[start : start + len(drawn)] = counts @ values / m
    return means


# -- Ours ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ours:
    """newsletter.recommender.ranking, with all it has or less."""

    name: str = OURS
    sparse: bool = True
    dense: bool = True
    coread: bool = True
    slow: bool = False

    def prepare(self, task: Task) -> Scorer:
        known, new = (self._seen(views) for views in (task.known, task.new))
        ranker = (Ranker() if self.sparse else Ranker(sparse_weight=0)).fit(known)
        together = None
        if self.coread:
            together = coreading(task.weights(np.arange(len(task.histories))))
        return _Weighted(task, ranker.affinity(known, new, together))

    def _seen(self, views: Views) -> Views:
        return views if self.dense else replace(views, dense=views.dense[:, :0])


@dataclass(frozen=True)
class _Weighted:
    task: Task
    affinity: Affinity

    def __call__(self, readers: Indices) -> NDArray[np.float32]:
        return self.affinity.scores(self.task.weights(readers))


def recipes(encoded: bool) -> list[Recipe]:
    """Ours, ours with less, and the peers; with dense views where an encoder has read the papers.

    "sparse" and "dense" are one view alone; "+ co-reading" is what ours has besides.
    """
    parts: list[Recipe] = [Ours("sparse", dense=False, coread=False)]
    if encoded:
        parts += [
            Ours("sparse + co-reading", dense=False),
            Ours("dense", sparse=False, coread=False),
            Ours("dense + co-reading", sparse=False),
            Ours("sparse + dense", coread=False),
        ]
    return [Ours(), *parts, *peers.recipes(encoded)]


# -- Comparison ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """One ranker's figures. fit_seconds: once, for all readers. ms_per_reader: on one core."""

    name: str
    figures: Figures  # (m, 4), a row a reader
    fit_seconds: float
    ms_per_reader: float


@dataclass(frozen=True, slots=True)
class Beside:
    """Ours against another ranker, on the same readers."""

    name: str
    ratio: dict[str, Interval]
    difference: dict[str, Interval]


@dataclass(frozen=True)
class Report:
    """What `compare` found: metric -> Interval for each ranker, and ours beside the others."""

    judged: list[Judged]
    metrics: dict[str, dict[str, Interval]]
    paired: list[Beside]


def judge(recipe: Recipe, task: Task, progress: Progress = silent) -> Judged:
    """Rank the new papers for all readers that are compared."""
    started = time.perf_counter()
    scorer = recipe.prepare(task)
    fit_seconds = time.perf_counter() - started
    n = len(task.new_texts)
    shuffled = np.random.default_rng(SEED).permutation(n)
    size = SLOW_BLOCK if recipe.slow else BLOCK
    blocks = [task.compared[i : i + size] for i in range(0, len(task.compared), size)]
    work = [(block, [task.relevant[reader] for reader in block]) for block in blocks]
    found = np.empty((len(task.compared), len(METRICS)))
    done, seconds = 0, 0.0
    for values, took in _results(scorer, shuffled, work, recipe.slow):
        found[done : done + len(values)] = values
        done += len(values)
        seconds += took
        progress(recipe.name, done, len(found))
    return Judged(recipe.name, found, fit_seconds, 1_000 * seconds / max(len(found), 1))


Work = tuple[Indices, list[Indices]]


def _results(
    scorer: Scorer, shuffled: Indices, work: list[Work], slow: bool
) -> Iterator[tuple[Figures, float]]:
    processes = min(_cores(), len(work))
    if not slow or processes < 2 or sum(len(block) for block, _ in work) < WORTH_PROCESSES:
        for block, relevant in work:
            yield _measured(scorer, shuffled, block, relevant)
        return
    # Spawned, not forked: what else this process holds (onnxruntime's threads) would not survive.
    with ProcessPoolExecutor(processes, get_context("spawn"), _receive, (scorer, shuffled)) as pool:
        yield from pool.map(_at_work, work)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_given: list[tuple[Scorer, Indices]] = []  # to a process of the pool, once


def _receive(scorer: Scorer, shuffled: Indices) -> None:
    _given.append((scorer, shuffled))


def _at_work(work: Work) -> tuple[Figures, float]:
    return _measured(*_given[0], *work)


def _measured(
    scorer: Scorer, shuffled: Indices, readers: Indices, relevant: list[Indices]
) -> tuple[Figures, float]:
    started = time.perf_counter()
    scores = scorer(readers)
    seconds = time.perf_counter() - started
    wanted = np.zeros(scores.shape, dtype=np.bool_)
    for row, places in zip(wanted, relevant, strict=True):
        row[places] = True
    return figures(scores[:, shuffled], wanted[:, shuffled]), seconds


def compare(chosen: Sequence[Recipe], task: Task, progress: Progress = silent) -> Report:
    """Judge rankers on the same readers; the same input has the same figures, but for the times."""
    return report([judge(recipe, task, progress) for recipe in chosen])


def report(judged: Sequence[Judged]) -> Report:
    """Intervals and paired comparisons of what was judged on the same readers."""
    values = np.hstack([ranker.figures for ranker in judged])
    shape = (len(judged), len(METRICS))
    means = resampled(values).reshape(-1, *shape)
    mean = values.mean(axis=0).reshape(shape)
    metrics = {
        ranker.name: {
            metric: interval(mean[i, j], means[:, i, j]) for j, metric in enumerate(METRICS)
        }
        for i, ranker in enumerate(judged)
    }
    names = [ranker.name for ranker in judged]
    paired = []
    if OURS in names:
        ours = names.index(OURS)
        paired = [
            Beside(
                name,
                ratio={
                    metric: interval(
                        float(_ratio(mean[ours, j], mean[i, j])),
                        _ratio(means[:, ours, j], means[:, i, j]),
                    )
                    for j, metric in enumerate(METRICS)
                },
                difference={
                    metric: interval(mean[ours, j] - mean[i, j], means[:, ours, j] - means[:, i, j])
                    for j, metric in enumerate(METRICS)
                },
            )
            for i, name in enumerate(names)
            if i != ours
        ]
    return Report(list(judged), metrics, paired)


def _ratio(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """one / other; against a ranker that finds nothing at all, as if it had found next to it."""
    return np.asarray(one / np.maximum(other, 1e-9))


# -- Submissions -----------------------------------------------------------------------------------

LEAST_DAYS = 5  # with submissions, of a submitter who is a reader


@dataclass(frozen=True)
class Submissions:
    """n papers of a daily list, each with its day (an ordinal), who submitted it ("" where nobody
    is named) and the keys of its authors."""

    views: Views
    days: NDArray[np.int64]
    submitters: Sequence[str]
    authors: Sequence[frozenset[str]]


@dataclass(frozen=True)
class SubmissionsReport:
    """auc: ranker -> mean over submitters. over_best: ours less each other one, paired."""

    submitters: int
    days: int  # ranked, over all submitters
    auc: dict[str, Interval]
    over: dict[str, Interval]
    ms_per_ranking: dict[str, float]


# Ranker of submissions -> what it has: the sparse view, the dense view, followed authors.
SUBMISSION_RANKERS = {
    OURS: (True, True, True),
    "sparse": (True, False, False),
    "dense": (False, True, False),
    "both": (True, True, False),
    "authors alone": (False, False, True),
}


def judge_submissions(given: Submissions) -> SubmissionsReport | None:
    """Who submitted something on at least LEAST_DAYS days is a reader whose library is what he or
    she submitted before; its authors are followed. Every later day with a submission is ranked, all
    papers of the day being candidates; AUC, mean over days, then over submitters.

    The vocabulary, its weights and the ranker are learned from all papers, later ones too: one fit
    a day would change little and take hours. Who submitted what is only known of earlier days.

    Returns:
        None where nobody submitted on enough days.
    """
    rankings = list(_rankings(given))
    if not rankings:
        return None
    n = len(given.days)
    rows = np.repeat(np.arange(len(rankings)), [len(ranking.earlier) for ranking in rankings])
    columns = np.concatenate([ranking.earlier for ranking in rankings])
    entries = (np.ones(len(rows), dtype=np.float32), (rows, columns))
    weights = csr_matrix(entries, shape=(len(rankings), n), dtype=np.float32)
    bonus = np.array(
        [
            [not ranking.followed.isdisjoint(authors) for authors in given.authors]
            for ranking in rankings
        ],
        dtype=np.float32,
    )
    encoded = bool(given.views.dense.any())
    found: dict[str, Figures] = {}
    took: dict[str, float] = {}
    for name, (sparse, dense, authors) in SUBMISSION_RANKERS.items():
        if name in ("dense", "both") and not encoded:
            continue
        scores = np.zeros((len(rankings), n), dtype=np.float32)
        seconds = 0.0
        if sparse or dense:
            affinity = _submission_affinity(given.views, sparse, dense)
            started = time.perf_counter()
            scores = affinity.scores(weights)
            seconds = time.perf_counter() - started
        if authors:
            scores = scores + AUTHOR_BONUS * bonus
        found[name] = _by_submitter(rankings, scores)
        took[name] = 1_000 * seconds / len(rankings)
    names = list(found)
    values = np.column_stack([found[name] for name in names])
    means, mean = resampled(values), values.mean(axis=0)
    return SubmissionsReport(
        submitters=len(values),
        days=len(rankings),
        auc={name: interval(mean[i], means[:, i]) for i, name in enumerate(names)},
        over={
            name: interval(mean[0] - mean[i], means[:, 0] - means[:, i])
            for i, name in enumerate(names)
            if i
        },
        ms_per_ranking=took,
    )


@dataclass(frozen=True, slots=True)
class _Ranking:
    """One submitter on one day."""

    submitter: str
    earlier: Indices
    candidates: Indices
    relevant: NDArray[np.bool_]
    followed: frozenset[str]


def _rankings(given: Submissions) -> Iterator[_Ranking]:
    submitted: dict[str, list[int]] = defaultdict(list)
    for paper, submitter in enumerate(given.submitters):
        if submitter:
            submitted[submitter].append(paper)
    for submitter, papers in submitted.items():
        own = np.array(papers, dtype=np.intp)
        days = np.unique(given.days[own])
        if len(days) < LEAST_DAYS:
            continue
        for day in days[1:]:
            earlier = own[given.days[own] < day]
            candidates = np.flatnonzero(given.days == day)
            relevant = np.isin(candidates, own)
            if not relevant.all():  # nothing to tell apart
                followed = frozenset().union(*(given.authors[paper] for paper in earlier))
                yield _Ranking(submitter, earlier, candidates, relevant, followed)


def _submission_affinity(views: Views, sparse: bool, dense: bool) -> Affinity:
    seen = views if dense else replace(views, dense=views.dense[:, :0])
    ranker = (Ranker() if sparse else Ranker(sparse_weight=0)).fit(seen)
    return ranker.affinity(seen, seen)


def _by_submitter(rankings: Sequence[_Ranking], scores: NDArray[np.float32]) -> Figures:
    """(submitters,) each one's mean AUC over days."""
    days: dict[str, list[float]] = defaultdict(list)
    for ranking, row in zip(rankings, scores, strict=True):
        value = auc(row[None, ranking.candidates], ranking.relevant[None])
        days[ranking.submitter].append(float(value[0]))
    return np.array([np.mean(values) for values in days.values()])
