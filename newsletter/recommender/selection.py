"""Which papers make each reader's mail, and in which section: a block of readers at a time.

Precedence of a paper for a reader: shown before or muted > pin > must-read > threshold. Places of a
mail of `count` papers are given away in this order:

1. Pins, in the curators' order, but never the last place: it is the reader's own.
2. Must-reads, the best score first.
3. Papers for the reader, above the threshold, as many as `for_you_places` says, in fair shares: an
   interest gets its share before another one gets more than its own.
4. Trending papers in the reader's fields.
5. One paper to explore, drawn by the reader's seed among strong papers that fit no interest.
6. Papers for the reader again, in the places that trending and exploration left empty.

A weak day brings a short mail, or none: trending never fills the places of what is relevant. There
is a mail where there is a paper above the threshold or a must-read. Trending papers make one only
for those who asked for them: readers without interests, and readers with popularity >= POPULAR.
Exploration never does, and no pin by itself; but a pinned paper that is a must-read or above the
threshold counts as such, so that a pin takes nobody's mail away.

Every step is greedy, by maximal marginal relevance (Carbonell and Goldstein, 1998), and the same
for all readers at once: the loops run over places, not over people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]

THRESHOLD = 0.5  # relevance where chance ends, unless the caller's calibration says otherwise

TREND_WEIGHT = (0.05, 0.90)  # of trend in the score, at popularity 0 and 1; 0.22 at popularity 0.2
TRENDING_SHARE = (0.125, 0.75)  # of a reader's places: 1, 2 and 6 of 8 at popularity 0, 0.2 and 1
POPULAR = 0.5  # popularity from which trending papers alone make a mail
NEUTRAL_TREND = 0.5  # what a paper has of which nothing is known; more is attention

DUPLICATE = 0.9  # cosine from which two papers are one piece of news
DIVERSITY = 0.18  # share of unlikeness in the marginal score, against 0.82 of the score itself

EXPLORING_COUNT = 5  # places from which a mail has room for a paper out of the way
EXPLORED_SHARE = 0.25  # of the candidates, by trend, that are worth exploring

SHORTLIST = 32  # candidates kept of an interest: the most places, and 12 that may be folded away
CHUNK = 128  # rows of scores worked on at a time: 0.5 MB at 1,000 papers, which the cache holds


class Section(IntEnum):
    PINNED = 1
    FOR_YOU = 2
    TRENDING = 3
    LEAD = 4
    MUST_READ = 5
    EXPLORE = 6


ORDER_OF_THE_MAIL = (
    Section.LEAD,
    Section.PINNED,
    Section.MUST_READ,
    Section.FOR_YOU,
    Section.TRENDING,
    Section.EXPLORE,
)


@dataclass(frozen=True, slots=True)
class Readers:
    """One block of r readers with m interests, for a pool of n papers in f fields.

    owners: (m,) ascending, the reader each interest belongs to.
    counts: (r,) places in the mail, 3 to 20.
    popularity: (r,) from 0, personal, to 1, popular.
    seeds: (r,) uint64, one a reader and mail; they decide what is explored.
    excluded: (x, 2) pairs (reader, paper) that must not come: shown before, or muted.
    must: (y, 2) pairs (reader, paper) that come whatever their relevance.
    fields: (r, f) the fields each reader follows; none is all.
    """

    owners: Indices
    counts: Indices
    popularity: Floats
    seeds: NDArray[np.uint64]
    excluded: Indices
    must: Indices
    fields: Flags


@dataclass(frozen=True, slots=True)
class Papers:
    """The n candidates of a day, the best trend first; a tie is decided by that order.

    trend: (n,) in [0, 1]. pinned: (p,) in the curators' order.
    similarity: (n, n) cosines, symmetric. fields: (n, f) the fields of each paper.
    """

    trend: Floats
    pinned: Indices
    similarity: Floats
    fields: Flags


@dataclass(frozen=True, slots=True)
class Selections:
    """The k picks of a block, by reader and in the order of the mail; all arrays are (k,).

    interest is the row of the reader's most relevant interest where that reaches the threshold,
    else -1. relevance is that of the reader's best interest even below it, 0 without interests.
    score is the blend of relevance and trend.
    """

    reader: Indices
    paper: Indices
    section: NDArray[np.int16]
    interest: Indices
    score: Floats
    relevance: Floats
    trend: Floats


def select(
    relevance: Floats, readers: Readers, papers: Papers, threshold: float = THRESHOLD
) -> Selections:
    """Choose the mails of a block of readers; who gets none has no rows in the answer.

    What a reader gets depends on nobody else in the block. The working memory is small beside
    `relevance`: a byte for each reader and paper, and some 50 for each candidate in a shortlist.

    Args:
        relevance: (m, n) in [0, 1], one row an interest; NaN counts as 0.
        readers: r readers with m interests. papers: n candidates.
        threshold: relevance from which a paper is for the reader, more than 0.
    """
    r, n = len(readers.counts), len(papers.trend)
    mails = _Mails.empty(readers, n)
    if r == 0 or n == 0:
        return _flat(mails, np.zeros(r, dtype=bool), relevance, readers, papers, threshold)
    interested = np.bincount(readers.owners, minlength=r) > 0
    _pin(mails, papers)
    musts = _must_reads(mails, relevance, readers, papers)
    _fill(mails, musts, mails.counts, papers.similarity, Section.MUST_READ)
    mails.given = mails.length.copy()

    for_you, trending, explores = _places(mails, readers, interested)
    wanted = _relevant(mails, relevance, readers, papers, threshold)
    shares = _fair_shares(wanted, for_you)
    _fill(mails, wanted, mails.length + for_you, papers.similarity, Section.FOR_YOU, shares)
    # A pin without a place may still be for the reader, but it is not trending: that would let pins
    # alone make a mail.
    mails.free[:, papers.pinned] = False
    popular = _trending(mails, readers, papers, interested)
    _fill(mails, popular, mails.length + trending, papers.similarity, Section.TRENDING)
    _explore(mails, relevance, readers, papers, threshold, explores)
    # "The rest for you": what is left is worth more to the reader than an empty place.
    for_you = mails.tally(Section.FOR_YOU) + mails.counts - mails.length
    shares = _fair_shares(wanted, for_you)
    _fill(mails, wanted, mails.counts, papers.similarity, Section.FOR_YOU, shares)

    follows_trend = ~interested | (readers.popularity >= POPULAR)
    made = mails.tally(Section.FOR_YOU) + mails.tally(Section.MUST_READ) > 0
    made |= follows_trend & (mails.tally(Section.TRENDING) > 0)
    made |= _wanted_pins(mails, relevance, readers, threshold)
    _lead(mails, follows_trend)
    return _flat(mails, made, relevance, readers, papers, threshold)


def trend_weight(popularity: Floats) -> Floats:
    """The weight w of trend in a score, (1 - w) relevance + w trend: linear in popularity."""
    least, most = TREND_WEIGHT
    return (least + (most - least) * popularity).astype(np.float32)


# --- What has been chosen ------------------------------------------------------------------------


@dataclass(slots=True)
class _Mails:
    """The mails of r readers while they are filled; columns in the order of choosing.

    papers, sections, interests: (r, w), -1 where nothing is yet; interests are rows of relevance.
    counts, length: (r,) places, and how many are taken.
    given: (r,) how many of them pins and must-reads took; the reader's own picks come after.
    free: (r, n) papers that may still come.
    """

    papers: Indices
    sections: NDArray[np.int16]
    interests: Indices
    counts: Indices
    length: Indices
    free: Flags
    given: Indices = field(init=False)

    def __post_init__(self) -> None:
        self.given = self.counts

    @classmethod
    def empty(cls, readers: Readers, n: int) -> _Mails:
        r = len(readers.counts)
        shape = (r, int(readers.counts.max(initial=0)))
        free = np.ones((r, n), dtype=bool)
        free[readers.excluded[:, 0], readers.excluded[:, 1]] = False
        return cls(
            papers=np.full(shape, -1, dtype=np.intp),
            sections=np.full(shape, -1, dtype=np.int16),
            interests=np.full(shape, -1, dtype=np.intp),
            counts=readers.counts.astype(np.intp),
            length=np.zeros(r, dtype=np.intp),
            free=free,
        )

    def add(
        self, readers: Indices, papers: Indices, section: Section, interests: Indices | int = -1
    ) -> None:
        """One paper for each of these readers, who are distinct and have room."""
        column = self.length[readers]
        self.papers[readers, column] = papers
        self.sections[readers, column] = section
        self.interests[readers, column] = interests
        self.free[readers, papers] = False
        self.length[readers] += 1

    def tally(self, section: Section) -> Indices:
        """(r,) how many picks of each mail are in this section."""
        counts: Indices = (self.sections == section).sum(axis=1)
        return counts


@dataclass(frozen=True, slots=True)
class _Shortlist:
    """Candidates, K in a row; a reader has as many rows as interests, or one.

    owners: (rows,) the reader of each row, ascending. interests: (rows,) rows of relevance, or -1.
    papers: (rows, K) ascending in a row, so that of equals the first is the one with more trend.
    scores: (rows, K) -inf where there is no candidate.
    """

    owners: Indices
    interests: Indices
    papers: Indices
    scores: Floats

    def of(self, rows: Flags) -> _Shortlist:
        return _Shortlist(
            self.owners[rows], self.interests[rows], self.papers[rows], self.scores[rows]
        )


def _fill(
    mails: _Mails,
    shortlist: _Shortlist,
    limit: Indices,
    similarity: Floats,
    section: Section,
    shares: Indices | None = None,
) -> None:
    """Add the best candidates, one a reader and step, until mails have `limit` (r,) papers.

    A pick's marginal score is its score less its likeness to what is in the mail; only the first of
    the reader's own picks, which leads the mail, goes by its score alone. Rows that have less than
    their share, (rows,), are served before the others.
    """
    if shares is None:
        shares = np.zeros(len(shortlist.owners), dtype=np.intp)
    waiting = (mails.length < limit)[shortlist.owners]
    rows, shares = shortlist.of(waiting), shares[waiting]
    taken = _already_taken(mails, rows)
    nearest = np.zeros_like(rows.scores)
    for column in range(mails.length[rows.owners].max(initial=0)):
        _meet(rows, mails.papers[rows.owners, column], similarity, nearest)

    every = np.arange(len(rows.owners))
    while len(every):
        diverse = (mails.length > mails.given)[rows.owners]
        price = np.where(diverse, DIVERSITY / (1 - DIVERSITY), 0).astype(np.float32)
        marginal = rows.scores - price[:, None] * nearest
        first = marginal.argmax(axis=1)
        best, paper = marginal[every, first], rows.papers[every, first]
        winners = np.flatnonzero((best > -np.inf) & (mails.length < limit)[rows.owners])
        if not len(winners):
            break
        for key in (taken < shares, best, -paper):
            winners = winners[_is_best(key[winners], rows.owners[winners])]
        mails.add(rows.owners[winners], paper[winners], section, rows.interests[winners])
        taken[winners] += 1
        picks = np.full(len(mails.length), -1, dtype=np.intp)
        picks[rows.owners[winners]] = paper[winners]
        _meet(rows, picks[rows.owners], similarity, nearest)


def _already_taken(mails: _Mails, rows: _Shortlist) -> Indices:
    """(rows,) how many picks of the mails came for each row's interest."""
    taken = np.bincount(
        mails.interests[mails.interests >= 0], minlength=rows.interests.max(initial=0) + 1
    )
    return np.where(rows.interests >= 0, taken[rows.interests], 0)


def _meet(rows: _Shortlist, picks: Indices, similarity: Floats, nearest: Floats) -> None:
    """Let each row's candidates meet a pick of its reader's mail, or -1: duplicates are struck from
    the scores, and `nearest` rises to their likeness."""
    likeness = similarity[picks[:, None], rows.papers]
    likeness[picks < 0] = 0
    # Itself too, whatever its cosine: a paper without a text is like nothing.
    struck = (likeness >= DUPLICATE) | (rows.papers == picks[:, None])
    rows.scores[struck] = -np.inf
    np.maximum(nearest, likeness, out=nearest)


def _is_best(key: NDArray[np.generic], owners: Indices) -> Flags:
    """Which entries have the highest key of their owner; owners are ascending."""
    starts, segments = _segments(owners)
    return np.asarray(key == np.maximum.reduceat(key, starts)[segments])


def _segments(owners: Indices) -> tuple[Indices, Indices]:
    """Of ascending owners: where each new one starts, and the number of each entry's start."""
    new = np.diff(owners, prepend=-1) > 0
    return np.flatnonzero(new), np.cumsum(new) - 1


# --- Who is a candidate for which section --------------------------------------------------------


def _pin(mails: _Mails, papers: Papers) -> None:
    for pin in papers.pinned:
        room = mails.free[:, pin] & (mails.length < mails.counts - 1)
        readers = np.flatnonzero(room)
        mails.add(readers, np.full(len(readers), pin), Section.PINNED)


def _wanted_pins(mails: _Mails, relevance: Floats, readers: Readers, threshold: float) -> Flags:
    """(r,) whether a mail has a pin that would have come, and made the mail, without the curators:
    a must-read, or a paper above the threshold."""
    n = mails.free.shape[1]
    reader, column = np.nonzero(mails.sections == Section.PINNED)
    paper = mails.papers[reader, column]
    _, best = _best_interest(relevance, readers.owners, reader, paper)
    must = np.isin(reader * n + paper, readers.must[:, 0] * n + readers.must[:, 1])
    wanted = np.zeros(len(mails.length), dtype=bool)
    wanted[reader[must | (best >= threshold)]] = True
    return wanted


def _must_reads(mails: _Mails, relevance: Floats, readers: Readers, papers: Papers) -> _Shortlist:
    """A row for each reader with must-reads that may still come."""
    n = len(papers.trend)
    owner, paper = np.divmod(np.unique(readers.must[:, 0] * n + readers.must[:, 1]), n)
    free = mails.free[owner, paper]
    owner, paper = owner[free], paper[free]
    starts, segments = _segments(owner)
    place = np.arange(len(owner)) - starts[segments]
    shape = (len(starts), int(place.max(initial=0)) + 1)
    shortlist = _Shortlist(
        owners=owner[starts],
        interests=np.full(len(starts), -1),
        papers=np.zeros(shape, dtype=np.intp),
        scores=np.full(shape, -np.inf, dtype=np.float32),
    )
    _, best = _best_interest(relevance, readers.owners, owner, paper)
    shortlist.papers[segments, place] = paper
    shortlist.scores[segments, place] = _blend(best, papers.trend[paper], readers, owner)
    return shortlist


def _places(mails: _Mails, readers: Readers, interested: Flags) -> tuple[Indices, Indices, Flags]:
    """How the places after pins and must-reads are meant to be used: (r,) for the reader, (r,)
    trending, and (r,) whether one is for exploring."""
    left = mails.counts - mails.length
    least, most = TRENDING_SHARE
    share = least + (most - least) * readers.popularity.astype(np.float64)
    trending = np.where(interested, np.floor(left * share).astype(np.intp), left)
    # The reader's own best paper goes before what is out of the way.
    explores = interested & (mails.counts >= EXPLORING_COUNT) & (left - trending >= 2)
    return left - trending - explores, trending, explores


def _relevant(
    mails: _Mails, relevance: Floats, readers: Readers, papers: Papers, threshold: float
) -> _Shortlist:
    """A row for each interest: the best of the papers that fit it, and no other interest of its
    reader better. Each paper is in at most one row of a reader."""
    m, n = relevance.shape
    shape = (m, min(n, SHORTLIST))
    chosen = np.empty(shape, dtype=np.intp)
    scores = np.empty(shape, dtype=np.float32)
    for rows in _chunks(readers.owners):
        owners = readers.owners[rows]
        values = np.fmax(relevance[rows], np.float32(0))  # fmax takes the 0 of NaN and 0
        fits = (values >= threshold) & mails.free[owners] & _wins(values, owners)
        weight = trend_weight(readers.popularity[owners])[:, None]
        values *= 1 - weight
        values += weight * papers.trend
        chosen[rows], scores[rows] = _highest(values, fits, shape[1])
    return _Shortlist(readers.owners, np.arange(m), chosen, scores)


def _trending(mails: _Mails, readers: Readers, papers: Papers, interested: Flags) -> _Shortlist:
    """A row for each reader: the highest trends in the reader's fields, of any size for a reader
    without interests and above the neutral for the others."""
    r, n = mails.free.shape
    shape = (r, min(n, SHORTLIST))
    chosen = np.zeros(shape, dtype=np.intp)
    scores = np.full(shape, -np.inf, dtype=np.float32)
    everywhere = np.count_nonzero(readers.fields, axis=1) == 0
    fields = papers.fields.T.astype(np.float32)  # numbers, since only their product is fast
    # The papers come in the order of trend: the first that fit are the highest, and in most rows
    # they are among the first few.
    waiting = np.arange(r)
    for most in (4 * SHORTLIST, n):
        for start in range(0, len(waiting), CHUNK):
            rows = waiting[start : start + CHUNK]
            fits = readers.fields[rows].astype(np.float32) @ fields[:, :most] > 0
            fits |= everywhere[rows, None]
            fits &= (papers.trend[:most] > NEUTRAL_TREND) | ~interested[rows, None]
            fits &= mails.free[rows, :most]
            row, paper = np.nonzero(fits)
            found = np.bincount(row, minlength=len(rows))
            place = np.arange(len(row)) - (np.cumsum(found) - found)[row]
            kept = place < shape[1]
            row, paper, place = rows[row[kept]], paper[kept], place[kept]
            chosen[row, place] = paper
            scores[row, place] = papers.trend[paper]
        waiting = np.flatnonzero(scores[:, -1] == -np.inf)
    return _Shortlist(np.arange(r), np.full(r, -1), chosen, scores)


def _explore(
    mails: _Mails,
    relevance: Floats,
    readers: Readers,
    papers: Papers,
    threshold: float,
    explores: Flags,
) -> None:
    """Add one strong paper that fits no interest to the mails of those who explore."""
    worth = int(np.ceil(EXPLORED_SHARE * len(papers.trend)))
    strong = min(worth, np.count_nonzero(papers.trend > NEUTRAL_TREND))  # the first ones
    wanting = np.flatnonzero(explores & (mails.length < mails.counts))
    if not strong or not len(wanting):
        return
    suitable = mails.free[:, :strong].copy()
    for rows in _rounds(readers.owners):
        suitable[readers.owners[rows]] &= ~(relevance[rows, :strong] >= threshold)  # or NaN
    suitable = suitable[wanting]
    unlike = np.less(papers.similarity[:, :strong], DUPLICATE)
    for column in range(mails.length.max()):
        picks = mails.papers[wanting, column]
        suitable &= unlike[picks] | (picks < 0)[:, None]
    total = suitable.cumsum(axis=1, dtype=np.int32)
    lucky = np.flatnonzero(total[:, -1])
    wanting, total = wanting[lucky], total[lucky]
    drawn = readers.seeds[wanting] % total[:, -1].astype(np.uint64)
    mails.add(wanting, (total > drawn[:, None]).argmax(axis=1), Section.EXPLORE)


def _fair_shares(shortlist: _Shortlist, places: Indices) -> Indices:
    """(rows,) places that are an interest's before another gets more than its own: an equal part of
    its reader's (r,) places among the interests with papers, and one at least."""
    has_papers = (shortlist.scores > -np.inf).any(axis=1)
    sharing = np.bincount(shortlist.owners[has_papers], minlength=len(places))
    return np.maximum(places // np.maximum(sharing, 1), 1)[shortlist.owners]


def _wins(values: Floats, owners: Indices) -> Flags:
    """(rows, n) whether this is its reader's best interest for the paper, of equals the first."""
    starts, segments = _segments(owners)
    _, *later = _rounds(owners)
    best = values[starts]
    for rows in later:
        best[segments[rows]] = np.maximum(best[segments[rows]], values[rows])
    wins: Flags = np.equal(values, best[segments])
    won = wins[starts]
    for rows in later:
        wins[rows] &= ~won[segments[rows]]
        won[segments[rows]] |= wins[rows]
    return wins


def _rounds(owners: Indices) -> list[Indices]:
    """The rows of every reader's first interest, of every second one, and so on: what numpy does
    ten times as fast as a reduceat over rows."""
    starts, segments = _segments(owners)
    place = np.arange(len(owners)) - starts[segments]
    return [np.flatnonzero(place == p) for p in range(int(place.max(initial=-1)) + 1)]


def _chunks(owners: Indices) -> Iterator[slice]:
    """Some CHUNK rows at a time, the rows of a reader together."""
    start = 0
    while start < len(owners):
        last = owners[min(start + CHUNK, len(owners)) - 1]
        end = int(np.searchsorted(owners, last, side="right"))
        yield slice(start, end)
        start = end


def _highest(values: Floats, fits: Flags, size: int) -> tuple[Indices, Floats]:
    """The `size` highest that fit in each row of (rows, n) values in [0, 1], of equals the first.

    Value and index are packed into one whole number, since the bits of positive floats are in the
    order of the floats. It decides ties, and it is fast: argpartition of floats takes ten times as
    long on the many equal values below a threshold.

    Returns:
        (rows, size) indices, ascending in a row, and (rows, size) values, -inf for what fits not.
    """
    n = values.shape[1]
    # What fits not becomes negative, by arithmetic: writing through a mask takes as long as this
    # whole function.
    keys = (values - 2 * (~fits).astype(np.float32)).view(np.int32).astype(np.int64) << 32
    keys |= np.arange(n - 1, -1, -1)
    keys.partition(n - size, axis=1)
    highest = keys[:, n - size :]
    indices = n - 1 - (highest & 0xFFFF_FFFF)
    order = indices.argsort(axis=1)
    highest = np.take_along_axis(highest, order, axis=1)
    scores = (highest >> 32).astype(np.int32).view(np.float32)
    scores[scores < 0] = -np.inf
    return np.take_along_axis(indices, order, axis=1), scores


# --- Scores and the answer -----------------------------------------------------------------------


def _best_interest(
    relevance: Floats, owners: Indices, readers: Indices, papers: Indices
) -> tuple[Indices, Floats]:
    """(k,) row and relevance of the best interest for each of k readers and papers, of equals the
    first; -1 and 0 for a reader without interests."""
    start = np.searchsorted(owners, readers, side="left")
    end = np.searchsorted(owners, readers, side="right")
    row = np.full(len(readers), -1, dtype=np.intp)
    best = np.full(len(readers), -1, dtype=np.float32)
    for place in range((end - start).max(initial=0)):
        there = np.flatnonzero(start + place < end)
        rows = start[there] + place
        values = np.fmax(relevance[rows, papers[there]], np.float32(0))
        better = values > best[there]
        row[there[better]] = rows[better]
        best[there[better]] = values[better]
    return row, np.maximum(best, 0)


def _blend(relevance: Floats, trend: Floats, readers: Readers, reader: Indices) -> Floats:
    weight = trend_weight(readers.popularity[reader])
    return (1 - weight) * relevance + weight * trend


def _lead(mails: _Mails, follows_trend: Flags) -> None:
    """Name the reader's own best paper, which was chosen first, the lead: one for the reader, else
    a trending one for those who get a mail for trending papers."""
    for_you = mails.sections == Section.FOR_YOU
    trending = (mails.sections == Section.TRENDING) & follows_trend[:, None]
    leads = np.where(for_you.any(axis=1)[:, None], for_you, trending)
    readers = np.flatnonzero(leads.any(axis=1))
    mails.sections[readers, leads[readers].argmax(axis=1)] = Section.LEAD


def _flat(
    mails: _Mails,
    made: Flags,
    relevance: Floats,
    readers: Readers,
    papers: Papers,
    threshold: float,
) -> Selections:
    """The picks of the mails that are made, in the order of the mail."""
    reader, column = np.nonzero((mails.sections >= 0) & made[:, None])
    section = mails.sections[reader, column]
    interest = mails.interests[reader, column]
    # Papers of one interest stand together, the interest that was served first before the others.
    served = np.full(len(relevance) + 1, mails.papers.shape[1], dtype=np.intp)
    np.minimum.at(served, interest, column)
    group = np.where(section == Section.FOR_YOU, served[interest], 0)
    order = np.lexsort((column, group, np.argsort(ORDER_OF_THE_MAIL)[section - 1], reader))
    reader, column, section = reader[order], column[order], section[order]
    paper = mails.papers[reader, column]
    interest, best = _best_interest(relevance, readers.owners, reader, paper)
    trend = papers.trend[paper]
    return Selections(
        reader=reader,
        paper=paper,
        section=section,
        interest=np.where(best >= threshold, interest, -1),
        score=_blend(best, trend, readers, reader),
        relevance=best,
        trend=trend,
    )
