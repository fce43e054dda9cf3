"""How well trend scores foretell: timed observations -> rank correlations. No Django.

Of each paper, with its observations in the order of time:

- first sight: the earliest of all;
- the moment of judging: the first observation 12 to 40 hours after it;
- the end: the last observation, at least 24 hours after the moment. The target is the upvotes
  gained between the two, negative where votes were taken back.

A paper's day is the earliest daily_date of any of its rows, for many rows have none; a paper with
none at all is left out, and counted. Within each day, Spearman's rank correlation between a
formula and the target; then the mean over the days. Days with fewer than MIN_PAPERS such papers, or
of one target for all, say nothing and are skipped, and counted. A formula that gives all papers of
a day one value has the correlation 0 there.

Ours is papers.trending.trend_scores itself, fed with what an edition frozen at that moment would
know: the newest counts up to it, and those before as papers.editions.newest_counts takes them.
The category is unknown, so the cohort is the day; every paper of the day that was seen at its
moment is in it, also those that were never seen again and so are not compared.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from papers.intervals import RESAMPLES, Interval, interval
from papers.sources.identifiers import normalise_arxiv_id
from papers.trending import GROWTH_SPAN, LEAST_GROWTH_SPAN, Floats, trend_scores

COUNTERS = {"upvotes": "upvotes", "comments": "num_comments", "stars": "github_stars"}
REQUIRED = ("arxiv_id", "observed_at_utc", "upvotes", "daily_date")

JUDGED_AFTER = (timedelta(hours=12), timedelta(hours=40))  # of first sight
SEEN_AGAIN_AFTER = timedelta(hours=24)  # of the moment of judging
HOUR = timedelta(hours=1)
MIN_PAPERS = 6  # the rank correlation of fewer is mostly chance
SEED = 0
MOST_COMPLAINTS = 5


class ObservationsError(ValueError):
    """The file cannot be evaluated; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What was counted of a paper at one time; a counter that was not seen is not in `counts`."""

    observed_at: datetime
    counts: dict[str, int]
    day: date | None = None


@dataclass(slots=True)
class Observations:
    """papers: identifier -> its observations in the order of time, one for each time."""

    papers: dict[str, list[Observation]] = field(default_factory=dict)
    rows: int = 0
    bad: int = 0
    complaints: list[str] = field(default_factory=list)  # of the first bad rows, with their lines


@dataclass(frozen=True, slots=True)
class Judged:
    """n papers at their moments of judging. gained: (n,), NaN where a paper was not seen again.

    now, before: counter -> (n,), NaN where unknown, as trend_scores takes them.
    first: (n,) upvotes at first sight; age: (n,) hours since; seen: (n,) first sight in epoch s.
    """

    days: NDArray[np.int64]  # ordinals
    now: dict[str, Floats]
    before: dict[str, Floats]
    first: Floats
    age: Floats
    seen: Floats
    gained: Floats


@dataclass(frozen=True, slots=True)
class Report:
    """spearman: formula -> mean over days; over_raw: the same less that of raw upvotes, paired."""

    papers: int
    days: int
    undated: int
    skipped_days: int
    skipped_papers: int
    spearman: dict[str, Interval]
    over_raw: dict[str, Interval]


def read_observations(path: Path) -> Observations:
    """Read a CSV file with the columns REQUIRED, and num_comments and github_stars where it has
    them, in any order of columns and rows.

    Rows that cannot be read are skipped and counted. Of rows of one paper and time, the largest
    count of each counter holds.

    Raises:
        ObservationsError: it is no such file, or none of its rows can be read.
        OSError: it cannot be opened.
    """
    found = Observations()
    merged: dict[str, dict[datetime, Observation]] = {}
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
            columns = [name.strip() for name in reader.fieldnames or []]
            missing = [name for name in REQUIRED if name not in columns]
            if missing:
                raise ObservationsError(
                    f"{path}, line 1: no column {', '.join(missing)}. "
                    f"Needed are {', '.join(REQUIRED)}."
                )
            reader.fieldnames = columns
            for row in reader:
                found.rows += 1
                try:
                    paper, seen = _observation(row)
                except ValueError as error:
                    found.bad += 1
                    if len(found.complaints) < MOST_COMPLAINTS:
                        found.complaints.append(f"{path}, line {reader.line_num}: {error}")
                    continue
                times = merged.setdefault(paper, {})
                times[seen.observed_at] = _merged(times.get(seen.observed_at, seen), seen)
        except csv.Error as error:
            raise ObservationsError(f"{path}, line {reader.line_num}: {error}") from None
    if not merged:
        why = f" The first: {found.complaints[0]}" if found.complaints else ""
        raise ObservationsError(f"{path}: no row could be read.{why}")
    found.papers = {
        paper: [times[moment] for moment in sorted(times)] for paper, times in merged.items()
    }
    return found


def _observation(row: dict[str | None, Any]) -> tuple[str, Observation]:
    cells = {name: (row.get(name) or "").strip() for name in (*REQUIRED, *COUNTERS.values())}
    paper = cells["arxiv_id"]
    if not paper:
        raise ValueError("no arxiv_id")
    with suppress(ValueError):  # versions are one paper; another spelling stands for itself
        paper = normalise_arxiv_id(paper)
    try:
        moment = datetime.fromisoformat(cells["observed_at_utc"])
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"observed_at_utc “{cells['observed_at_utc'][:40]}” is no time") from None
    try:
        text = cells["daily_date"]
        day = datetime.fromisoformat(text).date() if text else None
    except ValueError:
        raise ValueError(f"daily_date “{cells['daily_date'][:40]}” is no date") from None
    counts = {}
    for counter, name in COUNTERS.items():
        value = _count(name, cells[name])
        if value is not None:
            counts[counter] = value
    if "upvotes" not in counts:
        raise ValueError("no upvotes")
    return paper, Observation(moment, counts, day)


def _count(name: str, text: str) -> int | None:
    """A count from 0; empty and NaN are unknown. Spreadsheets write 12 as 12.0."""
    try:
        value = float(text or "nan")
    except ValueError:
        value = -1.0
    if math.isnan(value):
        return None
    if not (value >= 0 and value < 2**53 and value.is_integer()):
        raise ValueError(f"{name} “{text[:40]}” is no count")
    return int(value)


def _merged(one: Observation, other: Observation) -> Observation:
    counts = {
        name: max(one.counts.get(name, 0), other.counts.get(name, 0))
        for name in one.counts.keys() | other.counts.keys()
    }
    days = [day for day in (one.day, other.day) if day]
    return Observation(one.observed_at, counts, min(days, default=None))


def known_at(history: Iterable[Observation], counter: str, moment: datetime) -> tuple[float, float]:
    """Of one source: the newest count up to `moment`, and the count that its growth is since.

    NaN where unknown. The rule of papers.editions.newest_counts, without a database; a test holds
    them together. `history` is in the order of time.
    """
    seen = [row for row in history if counter in row.counts and row.observed_at <= moment]
    if not seen:
        return math.nan, math.nan
    old = [row for row in seen if row.observed_at <= moment - GROWTH_SPAN]
    before = old[-1] if old else seen[0]
    newest = float(seen[-1].counts[counter])
    if before is seen[-1] or before.observed_at > moment - LEAST_GROWTH_SPAN:
        return newest, math.nan
    return newest, float(before.counts[counter])


def judged(papers: dict[str, list[Observation]]) -> tuple[Judged, int]:
    """The papers that have a moment of judging and a day, and how many have no day."""
    undated = 0
    rows: list[tuple[int, list[Observation], Observation]] = []
    for history in papers.values():
        earliest, latest = (history[0].observed_at + span for span in JUDGED_AFTER)
        moment = next((row for row in history if earliest <= row.observed_at <= latest), None)
        if moment is None:
            continue
        day = min((row.day for row in history if row.day), default=None)
        if day is None:
            undated += 1
            continue
        rows.append((day.toordinal(), history, moment))
    known = {
        counter: np.array(
            [known_at(history, counter, moment.observed_at) for _, history, moment in rows]
        ).reshape(-1, 2)
        for counter in COUNTERS
    }
    return Judged(
        days=np.array([day for day, _, _ in rows], dtype=np.int64),
        now={counter: pair[:, 0] for counter, pair in known.items()},
        before={counter: pair[:, 1] for counter, pair in known.items()},
        first=np.array([history[0].counts["upvotes"] for _, history, _ in rows], dtype=np.float64),
        age=np.array(
            [(moment.observed_at - history[0].observed_at) / HOUR for _, history, moment in rows]
        ),
        seen=np.array([history[0].observed_at.timestamp() for _, history, _ in rows]),
        gained=np.array([_gained(history, moment) for _, history, moment in rows]),
    ), undated


def _gained(history: Sequence[Observation], moment: Observation) -> float:
    end = history[-1]
    if end.observed_at < moment.observed_at + SEEN_AGAIN_AFTER:
        return math.nan
    return float(end.counts["upvotes"] - moment.counts["upvotes"])


def ours(at: Judged) -> Floats:
    return trend_scores(at.now, at.before, at.days.tolist()).score


def raw(at: Judged) -> Floats:
    return at.now["upvotes"]


def hacker_news(at: Judged) -> Floats:
    """(s - 1)^0.8 / (age + 2)^1.8, the age in hours since first sight."""
    return np.maximum(at.now["upvotes"] - 1, 0.0) ** 0.8 / (at.age + 2) ** 1.8


def reddit_hot(at: Judged) -> Floats:
    """log10 max(s, 1) + t / 45,000, t being first sight in seconds."""
    return np.log10(np.maximum(at.now["upvotes"], 1.0)) + at.seen / 45_000


def delta(at: Judged) -> Floats:
    """Upvotes gained since first sight."""
    return at.now["upvotes"] - at.first


def growth(at: Judged) -> Floats:
    """The same in proportion: the difference of log(1 + x)."""
    return np.log1p(at.now["upvotes"]) - np.log1p(at.first)


FORMULAS: dict[str, Callable[[Judged], Floats]] = {
    "ours": ours,
    "raw upvotes": raw,
    "Hacker News": hacker_news,
    "Reddit hot": reddit_hot,
    "plain delta": delta,
    "growth alone": growth,
}


def evaluate(
    papers: dict[str, list[Observation]], keep: Callable[[date], bool] = lambda day: True
) -> Report:
    """Compare the FORMULAS on the days that `keep` keeps. The same input has the same report.

    Raises:
        ObservationsError: no day is left to compare on.
    """
    at, undated = judged(papers)
    scores = {name: formula(at) for name, formula in FORMULAS.items()}
    found: dict[str, list[float]] = {name: [] for name in FORMULAS}
    compared = skipped_days = skipped_papers = 0
    for day in np.unique(at.days):
        if not keep(date.fromordinal(int(day))):
            continue
        rows = np.flatnonzero((at.days == day) & ~np.isnan(at.gained))
        gained = at.gained[rows]
        if len(rows) < MIN_PAPERS or np.ptp(gained) == 0:
            skipped_days += 1
            skipped_papers += len(rows)
            continue
        compared += len(rows)
        for name, values in scores.items():
            found[name].append(spearman(values[rows], gained))
    days = len(found["ours"])
    if not days:
        raise ObservationsError(
            f"No day has {MIN_PAPERS} papers, of different targets, with a daily_date, an "
            "observation 12 to 40 hours after the first, and one at least 24 hours after that."
        )
    # One draw of days for all: the differences are paired.
    draws = np.random.default_rng(SEED).integers(0, days, (RESAMPLES, days))
    figures = {name: np.array(values) for name, values in found.items()}
    return Report(
        papers=compared,
        days=days,
        undated=undated,
        skipped_days=skipped_days,
        skipped_papers=skipped_papers,
        spearman={name: _interval(values, draws) for name, values in figures.items()},
        over_raw={
            name: _interval(values - figures["raw upvotes"], draws)
            for name, values in figures.items()
            if name != "raw upvotes"
        },
    )


def spearman(one: Floats, other: Floats) -> float:
    """Spearman's rank correlation of two (n,), ties at their mid-ranks; 0 where one is constant."""
    ranks = np.column_stack([rankdata(np.round(one, 9)), rankdata(other)])
    ranks -= ranks.mean(axis=0)
    spread = np.sqrt((ranks**2).sum(axis=0).prod())
    return float(ranks.prod(axis=1).sum() / spread) if spread else 0.0


def _interval(values: Floats, draws: NDArray[np.int64]) -> Interval:
    """Days are resampled, not papers."""
    return interval(float(values.mean()), values[draws].mean(axis=1))
