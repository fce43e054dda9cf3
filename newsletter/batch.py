"""Subscribers as arrays: what each interest says of each paper, what is picked, and why.

An interest is weights over papers, and words that are taken for a paper. Nothing learned is stored
with a reader: a judgement counts in the next plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from django.db.models import Q
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from newsletter.candidates import Today, take_in
from newsletter.models import Delivery, Feedback, Interest, Subscriber
from newsletter.recommender import ranking, selection
from newsletter.recommender.profiles import spelled
from newsletter.recommender.ranking import Floats, Indices, Views
from newsletter.recommender.selection import Section, Selections
from papers.categories import CATEGORY_NAMES
from papers.models import Edition, EditionPaper, PaperAlias

Reason = Delivery.Reason
Kind = Feedback.Kind
State = Delivery.State

WEIGHTS = {Kind.SAVE: 1.0, Kind.MORE: 1.0, Kind.CLICK: 0.3, Kind.LESS: -1.0}
HALF_LIFE = timedelta(days=180)  # of a judgement: newer counts more
LOOK_BACK = timedelta(days=7)  # of who skips days: how far editions are joined
SENTENCE_CHUNK = 256  # picks whose sentences are compared at a time, which the cache holds
CLOSENESS = {Kind.SAVE: Reason.SAVED, Kind.MORE: Reason.LIKED, Kind.CLICK: Reason.LIKED}

# States of a delivery whose picks the reader has seen, or may see yet.
SHOWN = (
    State.PLANNED, State.CLAIMED, State.HANDED_OVER, State.SENT, State.DELIVERED, State.UNKNOWN,
    State.COMPLAINED,
)  # fmt: skip

Pairs = dict[tuple[int, int], str]  # (reader or interest, paper) -> what brought them together


class Reader(NamedTuple):
    """What planning needs of a subscriber; a model instance takes five times as long to read."""

    pk: int
    time_zone: str
    send_hour: int
    send_minute: int
    send_days: str
    papers_per_mail: int
    popularity: int
    muted_terms: list[str]
    muted_categories: list[str]
    muted_authors: list[str]
    must_phrases: list[str]
    must_authors: list[str]

    @property
    def slots(self) -> tuple[str, int, int, str]:
        """When mail is wanted, as the functions of `schedule` take it."""
        return self[1:5]


class Stated(NamedTuple):
    """What an interest states, likewise."""

    pk: int
    subscriber_id: int
    name: str
    words: str
    categories: list[str]
    authors: list[str]
    example_ids: list[int]


@dataclass(frozen=True, slots=True)
class Entries:
    """The e papers in m libraries, library by library.

    start: (m + 1,) where each library begins. row: (e,) in today's library. weight: (e,), less than
    0 for what the reader wants less of. reason: (e,) how the reader named it.
    """

    start: Indices
    row: Indices
    weight: Floats
    reason: NDArray[np.int16]


class Batch:
    """r readers with m interests, in the order of the readers, before the n papers of a day, or of
    the days since the slot before. `edition` is the newest of these, and the mail's."""

    def __init__(
        self,
        today: Today,
        edition: Edition,
        subscribers: Sequence[Subscriber | Reader],
        now: datetime,
    ) -> None:
        self.today = today
        self.edition = edition
        self.now = now
        self.subscribers = subscribers
        self.place = {subscriber.pk: place for place, subscriber in enumerate(subscribers)}
        interests = Interest.objects.filter(subscriber__in=list(self.place)).order_by("pk")
        self.interests = sorted(
            map(Stated._make, interests.values_list(*Stated._fields)),
            key=lambda interest: self.place[interest.subscriber_id],
        )
        self.feedback = list(
            Feedback.objects.filter(subscriber__in=list(self.place)).values_list(
                "subscriber_id", "interest_id", "paper_id", "kind", "at"
            )
        )
        self.entries = self._entries()
        self._score()

    # --- What each interest says ------------------------------------------------------------------

    def _entries(self) -> Entries:
        judged: dict[int, list[tuple[int, float, int]]] = {}
        of_reader: dict[int, list[int]] = {}
        for row, interest in enumerate(self.interests):
            of_reader.setdefault(interest.subscriber_id, []).append(row)
        rows = {interest.pk: row for row, interest in enumerate(self.interests)}
        for subscriber, interest_id, paper, kind, at in self.feedback:
            age = max(self.now - at, timedelta(0))
            weight = WEIGHTS[Kind(kind)] * 0.5 ** (age / HALF_LIFE)
            reason = int(CLOSENESS.get(Kind(kind), Reason.LIKED))
            # What is judged outside every interest is disliked, and counts against it in all.
            where = [rows[interest_id]] if interest_id in rows else of_reader.get(subscriber, [])
            for row in where:
                judged.setdefault(row, []).append((paper, weight, reason))
        lengths, papers, weights, reasons = [0], [], [], []
        for row, interest in enumerate(self.interests):
            papers += interest.example_ids
            weights += [1.0] * len(interest.example_ids)
            reasons += [int(Reason.EXAMPLE)] * len(interest.example_ids)
            for paper, weight, reason in judged.get(row, ()):
                papers.append(paper)
                weights.append(weight)
                reasons.append(reason)
            lengths.append(len(papers))
        ids = np.array(papers, dtype=np.int64)
        take_in(self.today, ids)
        row_of = self.today.library.rows(ids)
        there = row_of >= 0  # a paper that has vanished is ignored
        return Entries(
            start=np.concatenate([[0], np.cumsum(there)])[np.array(lengths)],
            row=row_of[there],
            weight=np.array(weights, dtype=np.float32)[there],
            reason=np.array(reasons, dtype=np.int16)[there],
        )

    def _score(self) -> None:
        """Learn relevance (m, n) in [0, 1), and what it is made of, in deviations from chance."""
        n, m = len(self.today.views), len(self.interests)
        library = self.today.library.affinity
        weights = csr_matrix(
            (self.entries.weight, self.entries.row, self.entries.start),
            shape=(m, len(library.values)),
            copy=True,  # scipy sorts the columns of a row in place
        )
        sums = library.sums(weights)
        self.worded, self.word_views = self._words()
        ranker = self.today.fitted.ranker
        words = ranker.affinity(self.word_views, self.today.views, texts=True).values
        words *= ranking.WORDS_WEIGHT
        sums[self.worded] += words
        size = ranking.sizes(weights)
        size[self.worded] = np.hypot(size[self.worded], ranking.WORDS_WEIGHT)
        middle, self.deviation = ranking.chance(sums[:, n:], size)
        self.words = words[:, :n] - np.median(words[:, n:], axis=1, keepdims=True)
        scores = sums[:, :n]
        scores -= middle[:, None]
        scores /= self.deviation[:, None]
        self.fields = self._fields()
        self.category_bonus = self._category_bonus()
        if self.category_bonus.any():
            papers = self.today.papers.fields.T.astype(np.float32)  # only their product is fast
            shared = self.fields.astype(np.float32) @ papers > 0
            scores += self.category_bonus[:, None] * shared
        self.authors = self._authors()
        for row, paper in self.authors:
            scores[row, paper] += ranking.AUTHOR_BONUS
        self.scores = scores
        self.relevance = ranking.relevance(scores)

    def _words(self) -> tuple[Indices, Views]:
        """Which interests have words of their own, and those as if they were a paper."""
        rows, texts = [], []
        for row, interest in enumerate(self.interests):
            if text := self._text(row, interest):
                rows.append(row)
                texts.append(text)
        sparse = self.today.fitted.view.transform(texts)
        dense = np.zeros((len(texts), self.today.views.dense.shape[1]), dtype=np.float32)
        return np.array(rows, dtype=np.intp), Views(sparse, dense)

    def _text(self, row: int, interest: Stated) -> str:
        """Its own words; where nothing else is stated, the names of its categories, since most
        sources name no categories."""
        if interest.words.strip() or self.entries.start[row] < self.entries.start[row + 1]:
            return interest.words.strip()
        return "\n".join(CATEGORY_NAMES.get(code, "") for code in interest.categories)

    def _fields(self) -> NDArray[np.bool_]:
        """(m, f) the stated categories that the day's papers have."""
        fields = np.zeros((len(self.interests), len(self.today.fields)), dtype=bool)
        for row, interest in enumerate(self.interests):
            for code in interest.categories:
                if code in self.today.fields:
                    fields[row, self.today.fields[code]] = True
        return fields

    def _category_bonus(self) -> Floats:
        """(m,) what a shared category adds: more, where an interest says nothing else."""
        bonus = np.zeros(len(self.interests), dtype=np.float32)
        known = set(self.worded[np.diff(self.word_views.sparse.indptr) > 0].tolist())
        for row in np.flatnonzero(self.fields.any(axis=1)).tolist():
            learned = self.entries.start[row] < self.entries.start[row + 1]
            alone = not learned and not (row in known and self.interests[row].words.strip())
            bonus[row] = ranking.CATEGORY_ALONE if alone else ranking.CATEGORY_BONUS
        return bonus

    def _authors(self) -> Pairs:
        """Followed authors, by (interest, paper)."""
        found: Pairs = {}
        for row, interest in enumerate(self.interests):
            for name in interest.authors:
                for paper in self.today.matching("author", name).tolist():
                    found.setdefault((row, paper), name)
        return found

    @cached_property
    def word_row(self) -> Indices:
        """(m + 1,) the row of an interest among those with words, -1 without; the last is for the
        interest -1."""
        rows = np.full(len(self.interests) + 1, -1, dtype=np.intp)
        rows[self.worded] = np.arange(len(self.worded))
        return rows

    @cached_property
    def telling(self) -> Indices:
        """The interests that say something. One of stop words, of emoji or in a language that no
        paper is written in does not, and its reader is not kept waiting for a match."""
        says = np.diff(self.entries.start) > 0
        says[self.worded[np.diff(self.word_views.sparse.indptr) > 0]] = True
        says |= self.fields.any(axis=1)
        says |= np.array([bool(interest.authors) for interest in self.interests], dtype=bool)
        return np.flatnonzero(says)

    # --- What each reader rules -------------------------------------------------------------------

    @cached_property
    def readers(self) -> selection.Readers:
        owners = np.array(
            [self.place[interest.subscriber_id] for interest in self.interests], dtype=np.intp
        )
        fields = np.zeros((len(self.subscribers), len(self.today.fields)), dtype=bool)
        np.logical_or.at(fields, owners, self.fields)
        keys = np.array([subscriber.pk for subscriber in self.subscribers], dtype=np.uint64)
        return selection.Readers(
            owners=owners[self.telling],
            counts=np.array([s.papers_per_mail for s in self.subscribers], dtype=np.intp),
            popularity=np.array([s.popularity / 100 for s in self.subscribers], dtype=np.float32),
            # Knuth's multiplicative hash: neighbours in the table draw different papers.
            seeds=(keys + np.uint64(self.edition.pk)) * np.uint64(2_654_435_761) >> np.uint64(7),
            excluded=_pairs([*self.known, *self.muted]),
            must=_pairs(self.musts),
            fields=fields,
        )

    @cached_property
    def musts(self) -> Pairs:
        """What each reader's must-reads name, by (reader, paper)."""
        return self._matches(
            (subscriber, (("term", subscriber.must_phrases), ("author", subscriber.must_authors)))
            for subscriber in self.subscribers
        )

    @cached_property
    def muted(self) -> Pairs:
        """What each reader's mutes name, by (reader, paper)."""
        return self._matches(
            (
                subscriber,
                (
                    ("term", subscriber.muted_terms),
                    ("category", subscriber.muted_categories),
                    ("author", subscriber.muted_authors),
                ),
            )
            for subscriber in self.subscribers
        )

    @cached_property
    def known(self) -> Pairs:
        """Papers that a reader was shown before, has judged, or gave as an example."""
        papers = {pk: place for place, pk in enumerate(self.today.pool.paper_ids.tolist())}
        found: Pairs = {}
        elsewhere = EditionPaper.objects.filter(paper__in=list(papers)).exclude(
            edition=self.edition
        )
        if others := dict(elsewhere.values_list("edition", "edition__day").distinct()):
            # A mail that joins editions may have shown what an older one than its own carried. The
            # few editions that can have are named, for else all mails of these readers are read.
            reach = range(LOOK_BACK.days + 1)
            days = {day + timedelta(days=later) for day in others.values() for later in reach}
            near = Edition.objects.filter(day__in=days).exclude(pk=self.edition.pk)
            shown = Delivery.objects.filter(
                Q(edition__in=list(others)) | Q(editions_from__lte=max(others.values())),
                edition__in=list(near),
                subscriber__in=list(self.place),
                state__in=SHOWN,
            )
            old_ids = PaperAlias.objects.filter(paper__in=list(papers))
            names = papers | {old.pk: papers[old.paper_id] for old in old_ids}
            for subscriber, ids in shown.values_list("subscriber", "paper_ids"):
                for pk in names.keys() & set(ids):
                    found[self.place[subscriber], names[pk]] = "shown before"
        for subscriber, _, pk, kind, _ in self.feedback:
            if pk in papers:
                found[self.place[subscriber], papers[pk]] = f"judged before: {kind}"
        examples = self.today.library.ids[self.entries.row]
        for entry in np.flatnonzero(np.isin(examples, self.today.pool.paper_ids)).tolist():
            row = int(np.searchsorted(self.entries.start, entry, side="right")) - 1
            reader = self.place[self.interests[row].subscriber_id]
            found.setdefault((reader, papers[int(examples[entry])]), "an example of the reader's")
        return found

    def _matches(
        self, rules: Iterable[tuple[Subscriber | Reader, Iterable[tuple[str, list[str]]]]]
    ) -> Pairs:
        found: Pairs = {}
        for subscriber, kinds in rules:
            for kind, texts in kinds:
                for text in texts:
                    for paper in self.today.matching(kind, text).tolist():
                        found.setdefault((self.place[subscriber.pk], paper), text)
        return found

    def has_choice(self, reader: int) -> bool:
        """Whether any paper of the day may come."""
        return bool(self._excluded[reader] < len(self.today.views))

    @cached_property
    def _excluded(self) -> Indices:
        """(r,) how many papers must not come."""
        return np.bincount(self.readers.excluded[:, 0], minlength=len(self.subscribers))

    # --- What is picked, and why ------------------------------------------------------------------

    def choose(self) -> Selections:
        telling = self.telling
        relevance = (
            self.relevance if len(telling) == len(self.interests) else self.relevance[telling]
        )
        chosen = selection.select(
            relevance, self.readers, self.today.papers, threshold=ranking.THRESHOLD
        )
        return replace(chosen, interest=np.append(telling, -1)[chosen.interest])

    def ledger(self, chosen: Selections) -> dict[str, list[Any]]:
        """Everything that deliveries keep of k picks, by the name of its field."""
        parts = self.parts(chosen.interest, chosen.paper)
        closest = self._closest(chosen.interest, chosen.paper)
        anchors = self._anchors(chosen.interest, closest, parts)
        reasons = list(self._reasons(chosen, parts, closest))
        ids = np.array([*(interest.pk for interest in self.interests), 0], dtype=np.int64)
        terms = np.column_stack([parts, chosen.relevance, chosen.trend, chosen.score])
        return {
            "paper_ids": self.today.pool.paper_ids[chosen.paper].tolist(),
            "sections": chosen.section.tolist(),
            "terms": np.round(terms.astype(float), 3).tolist(),
            "reasons": [int(reason) for reason, _ in reasons],
            "reason_details": [detail for _, detail in reasons],
            "interest_ids": ids[chosen.interest].tolist(),  # -1 is the last one: none
            "sentences": self._key_sentences(chosen.paper, anchors).tolist(),
        }

    def parts(self, rows: Indices, papers: Indices) -> Floats:
        """(k, 4) what words, categories, authors and examples put into the score of a paper for an
        interest, in deviations from chance; zeros for the interest -1."""
        parts = np.zeros((len(rows), 4), dtype=np.float32)
        some = np.flatnonzero(rows >= 0)
        rows, papers = rows[some], papers[some]
        having = np.flatnonzero(self.word_row[rows] >= 0)
        said = self.words[self.word_row[rows[having]], papers[having]]
        parts[some[having], 0] = said / self.deviation[rows[having]]
        shared = self.fields[rows] & self.today.papers.fields[papers]
        parts[some, 1] = self.category_bonus[rows] * shared.any(axis=1)
        if self.authors:
            pairs = zip(rows.tolist(), papers.tolist(), strict=True)
            parts[some, 2] = [ranking.AUTHOR_BONUS * (pair in self.authors) for pair in pairs]
        parts[some, 3] = self.scores[rows, papers] - parts[some, :3].sum(axis=1)
        return parts

    def _closest(self, rows: Indices, papers: Indices) -> Indices:
        """(k,) the entry of the library that gave most to a paper's score, -1 where none did."""
        closest = np.full(len(rows), -1, dtype=np.intp)
        start = self.entries.start
        count = np.where(rows >= 0, start[rows + 1] - start[rows], 0) if len(rows) else rows
        some = np.flatnonzero(count)
        if not len(some):
            return closest
        rows, papers, count = rows[some], papers[some], count[some]
        begin = np.cumsum(count) - count
        pick = np.repeat(np.arange(len(some)), count)
        entry = np.arange(len(pick)) + (start[rows] - begin)[pick]
        close = self.today.library.affinity.values[self.entries.row[entry], papers[pick]]
        given = self.entries.weight[entry] * close
        most = np.maximum.reduceat(given, begin)
        best = np.flatnonzero((given == most[pick]) & (given > 0))[::-1]
        closest[some[pick[best]]] = entry[best]  # of equals the first, which is written last
        return closest

    def _anchors(self, rows: Indices, closest: Indices, parts: Floats) -> Floats:
        """(k, l) what a pick's sentences are compared with: the closest paper, or the words where
        they said more; zeros where there is neither."""
        latent = self.today.library.latent
        anchors = np.zeros((len(rows), latent.shape[1]), dtype=np.float32)
        near = np.flatnonzero(closest >= 0)
        anchors[near] = latent[self.entries.row[closest[near]]]
        said_more = (closest < 0) | (parts[:, 0] > parts[:, 3])
        said = np.flatnonzero((self.word_row[rows] >= 0) & said_more)
        anchors[said] = self.today.latent(self.word_views.sparse)[self.word_row[rows[said]]]
        return anchors

    def _key_sentences(self, papers: Indices, anchors: Floats) -> NDArray[np.int16]:
        """(k,) the sentence of each abstract that is closest to its anchor, -1 for none."""
        vectors = self.today.sentences
        key = np.full(len(papers), -1, dtype=np.int16)
        if not vectors.shape[1]:
            return key
        for start in range(0, len(papers), SENTENCE_CHUNK):
            part = slice(start, start + SENTENCE_CHUNK)
            close = np.matmul(vectors[papers[part]], anchors[part, :, None])[:, :, 0]
            best = close.argmax(axis=1)
            found = close[np.arange(len(best)), best] > 0
            key[part] = np.where(found, best, -1)
        return key

    def _reasons(
        self, chosen: Selections, parts: Floats, closest: Indices
    ) -> Iterator[tuple[Reason, str]]:
        """Of each pick, what its score was really made of."""
        words = self._shared_words(chosen, parts)
        columns = (chosen.reader, chosen.paper, chosen.section, chosen.interest, closest)
        picks = zip(*(column.tolist() for column in columns), parts.tolist(), strict=True)
        for pick, (
            reader,
            paper,
            section,
            row,
            entry,
            (word, category, author, example),
        ) in enumerate(picks):
            if section == Section.PINNED:
                yield Reason.PINNED, ""
            elif section == Section.MUST_READ:
                yield Reason.MUST_READ, self.musts[reader, paper]
            elif section == Section.EXPLORE:
                yield Reason.EXPLORATION, ""
            elif row < 0 or section == Section.TRENDING:
                yield self._attention(paper)
            elif author > 0 and author >= max(word, example):
                yield Reason.AUTHOR, self.authors[row, paper]
            elif category > 0 and not self.interests[row].words.strip() and example <= category:
                yield Reason.CATEGORY, self._shared_categories(row, paper)
            elif words.get(pick) and word >= max(category, example):
                yield Reason.WORDS, words[pick]
            elif entry >= 0 and example >= category:
                pk = self.today.library.ids[self.entries.row[entry]]
                yield Reason(self.entries.reason[entry]), str(pk)
            elif category > 0:
                yield Reason.CATEGORY, self._shared_categories(row, paper)
            elif author > 0:
                yield Reason.AUTHOR, self.authors[row, paper]
            else:
                yield Reason.WORDS, words.get(pick) or self.interests[row].name

    def _shared_categories(self, row: int, paper: int) -> str:
        codes = set(self.interests[row].categories)
        return ", ".join(sorted(codes.intersection(self.today.pool.categories[paper])))

    def _shared_words(self, chosen: Selections, parts: Floats) -> dict[int, str]:
        """The words in common, of the picks in whose score words count most."""
        rows = self.word_row[chosen.interest]
        picks = np.flatnonzero((rows >= 0) & (parts[:, 0] >= parts[:, 3]))
        shared = self.today.fitted.view.shared_terms(
            self.word_views.sparse[rows[picks]], self.today.views.sparse[chosen.paper[picks]]
        )
        interests = chosen.interest[picks].tolist()
        spellings = {row: spelled(self._text(row, self.interests[row])) for row in set(interests)}
        return {
            pick: ", ".join(spellings[row].get(term, term) for term in terms)
            for pick, row, terms in zip(picks.tolist(), interests, shared, strict=True)
            if terms
        }

    def _attention(self, paper: int) -> tuple[Reason, str]:
        votes = int(self.today.pool.upvotes[paper])
        day = self.today.pool.days[paper]
        of_today = day == self.edition.day
        if votes <= 0:
            return Reason.NEW, "" if of_today else f"{day.day} {day:%B}"
        gained = int(self.today.pool.gained[paper]) if of_today else 0
        return Reason.UPVOTES, f"{votes} {gained}" if gained > 0 else str(votes)


def _pairs(pairs: Iterable[tuple[int, int]]) -> Indices:
    """(x, 2) of pairs."""
    return np.array(sorted(set(pairs)), dtype=np.intp).reshape(-1, 2)
