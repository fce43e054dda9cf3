"""The dated daily list: open it, curate it, freeze it; its candidate pool as arrays."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from numpy.typing import NDArray

from papers.models import Edition, EditionPaper, Paper, Signal, Source
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi, title_key
from papers.trending import GROWTH_SPAN, LEAST_GROWTH_SPAN, trend_scores

log = logging.getLogger(__name__)

FIRST_DAY = date(1990, 1, 1)  # before the first e-print: an earlier day is a slip of the pen


class CurationError(ValueError):
    """What a curator asked for cannot be done; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The papers of frozen editions that may be mailed, n of them, best trend first.

    days: of the edition that carries each. trend: (n,) float32 in [0, 1], within its own edition.
    gained: (n,) upvotes in the day before the freeze (see newest_counts), -1 unknown.
    pinned: indices in the curators' order, of the newest edition alone: as many as there are in a
    day fit into the smallest mail.
    """

    paper_ids: NDArray[np.int64]
    days: list[date]
    texts: list[str]
    abstracts: list[str]
    authors: list[list[str]]
    categories: list[list[str]]
    trend: NDArray[np.float32]
    upvotes: NDArray[np.int64]
    gained: NDArray[np.int64]
    pinned: NDArray[np.intp]


def candidates_for(day: date) -> QuerySet[Paper]:
    """Papers listed up to `day`, at most EDITION_WINDOW_DAYS back, in no settled edition; none that
    its source took back."""
    since = day - timedelta(days=settings.EDITION_WINDOW_DAYS - 1)
    taken = EditionPaper.objects.filter(edition__in=Edition.objects.settled()).values("paper")
    listed = Paper.objects.filter(listing_day__range=(since, day), withdrawn_on=None)
    return listed.exclude(pk__in=taken)


def check_day(day: date, now: datetime) -> None:
    """Raise a CurationError where `day` can have no edition at `now`."""
    if day > now.date():
        raise CurationError(f"{day} has not come yet: an edition is at most today's (UTC).")
    if day < FIRST_DAY:
        raise CurationError(f"{day} is out of range: the first day is {FIRST_DAY}.")


def open_edition(day: date) -> Edition:
    """The edition of `day`, with every paper that has become a candidate since the last call.

    Raises:
        CurationError: the day has not come yet, or is out of range.
    """
    check_day(day, timezone.now())
    edition, _ = Edition.objects.get_or_create(day=day)
    with transaction.atomic():
        edition = _locked(edition)
        if edition.is_open:
            _collect(edition, timezone.now())
    return edition


def _locked(edition: Edition) -> Edition:
    """As it stands now, and until the end of the transaction: no freeze comes in between."""
    return Edition.objects.select_for_update().get(pk=edition.pk)


def _lock_open() -> None:
    list(Edition.objects.select_for_update().filter(state=Edition.State.OPEN).order_by("day"))


@contextmanager
def alone() -> Iterator[None]:
    """What is read of the open editions herein stays true: no freeze and no pin comes between."""
    with transaction.atomic():
        _lock_open()
        yield


def _collect(edition: Edition, now: datetime) -> None:
    EditionPaper.objects.bulk_create(
        [EditionPaper(edition=edition, paper=paper) for paper in candidates_for(edition.day)],
        ignore_conflicts=True,
    )
    # A paper that another day's edition has carried meanwhile, or that its source took back, is no
    # candidate any more.
    elsewhere = EditionPaper.objects.filter(edition__in=Edition.objects.settled())
    edition.candidates.filter(
        Q(paper__in=elsewhere.values("paper")) | Q(paper__withdrawn_on__isnull=False)
    ).delete()
    _score(edition, now)


def freeze(edition: Edition, now: datetime) -> Edition:
    """Fix the candidates and their trend scores; an edition that has none becomes empty.

    Freezing twice changes nothing. Returns the edition as it now stands.

    Raises:
        CurationError: its day has not come yet, or is out of range.
    """
    check_day(edition.day, now)
    with transaction.atomic():
        # All open ones: of two freezes at a time, the second sees which papers the first has taken.
        _lock_open()
        edition = _locked(edition)
        if not edition.is_open:
            return edition
        _collect(edition, now)
        edition.frozen_at = edition.changed_at = now
        if edition.candidates.exclude(curation=EditionPaper.Curation.HIDDEN).exists():
            edition.state = Edition.State.FROZEN
        else:
            edition.state = Edition.State.EMPTY
            edition.reason = (
                "The curators have hidden every paper of this day."
                if edition.candidates.exists()
                else "No new papers have arrived for this day."
            )
        edition.save()
    log.info("edition %s: %s", edition.day, edition.state)
    return edition


def curate(candidate: EditionPaper, curation: EditionPaper.Curation) -> None:
    """Pin a candidate, hide it, or neither.

    Raises:
        CurationError: it would be pinned in an edition that is frozen or has its pins already.
    """
    with transaction.atomic():
        candidate.edition = _locked(candidate.edition)
        candidate.curation = curation
        try:
            candidate.clean()
        except ValidationError as error:
            raise CurationError(error.messages[0]) from None
        candidate.save(update_fields=["curation"])
        touch(candidate.edition)


def touch(edition: Edition) -> None:
    """Say that a candidate of `edition` has changed: what was computed from it is stale."""
    Edition.objects.filter(pk=edition.pk).update(changed_at=timezone.now())


def list_again(edition: Edition, papers: Iterable[Paper]) -> None:
    """Put papers of earlier days on an open edition's list."""
    EditionPaper.objects.bulk_create(
        [EditionPaper(edition=edition, paper=paper) for paper in papers], ignore_conflicts=True
    )


def freeze_due(now: datetime) -> Edition | None:
    """Freeze the edition of the last freeze hour that has passed, unless the curators hold it.

    Before today's hour that is yesterday's, in case nobody was there to freeze it, and only where
    it has been opened or there are papers for it: what is new here has missed no edition.
    """
    day = now.date()
    if now.time() < settings.EDITION_FREEZE_AT:
        day -= timedelta(days=1)
        if not Edition.objects.filter(day=day).exists() and not candidates_for(day).exists():
            return None
    edition, _ = Edition.objects.get_or_create(day=day)
    if edition.held or not edition.is_open:
        return None
    return freeze(edition, now)


def _score(edition: Edition, now: datetime) -> None:
    """Write each candidate's trend and its terms, as counted up to `now`.

    An edition of the past looks no further than the end of its day.
    """
    end_of_day = datetime.combine(edition.day, time.min, tzinfo=UTC) + timedelta(days=1)
    moment = min(now, end_of_day)
    rows = list(edition.candidates.select_related("paper"))
    ids = [row.paper_id for row in rows]
    counts, before = {}, {}
    for name in Signal.Counter.values:
        counts[name], gained = newest_counts(ids, name, moment)
        before[name] = counts[name] - gained
    cohorts = [((row.paper.categories or [""])[0], row.paper.listing_day) for row in rows]
    trend = trend_scores(counts, before, cohorts)
    for index, row in enumerate(rows):
        row.trend = float(trend.score[index])
        row.trend_terms = {
            name: {
                "count": int(counts[name][index]),
                "gained": _gained(counts[name][index], before[name][index]),
                "level": _rounded(trend.levels[name][index]),
                "growth": _rounded(trend.growths[name][index]),
                "percentile": _rounded(trend.percentiles[name][index]),
            }
            for name in Signal.Counter.values
            if not np.isnan(counts[name][index])
        }
    EditionPaper.objects.bulk_update(rows, ["trend", "trend_terms"], batch_size=500)


def _gained(now: float, before: float) -> int | None:
    return None if np.isnan(before) else int(now - before)


def _rounded(percentile: float) -> float | None:
    return None if np.isnan(percentile) else round(float(percentile), 3)


def newest_counts(
    paper_ids: Sequence[int], counter: str, moment: datetime
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two (n,): newest counts up to `moment`, and the growth that led there; NaN where unknown.

    The growth is since the newest count that is a day old. A paper first seen within the day has
    none: its growth is since its earliest count, if that is half a day old (over less, growth
    says more of the hour than of the paper). A count that was never repeated has no growth.
    Sources count apart: both are taken of each source by itself, and then the largest.
    """
    counts = np.full(len(paper_ids), np.nan)
    gained = np.full(len(paper_ids), np.nan)
    place = {pk: index for index, pk in enumerate(paper_ids)}
    signals = Signal.objects.filter(paper__in=paper_ids, counter=counter)
    a_day_ago = moment - GROWTH_SPAN
    within = signals.filter(observed_at__range=(a_day_ago, moment - LEAST_GROWTH_SPAN))
    before = {
        **_by_source(within.order_by("paper_id", "source", "observed_at")),
        **_newest_by_source(signals, a_day_ago),
    }
    for key, newest in _newest_by_source(signals, moment).items():
        index = place[key[0]]
        counts[index] = np.fmax(counts[index], newest.value)
        if key in before and before[key].observed_at < newest.observed_at:
            gained[index] = np.fmax(gained[index], newest.value - before[key].value)
    return counts, gained


def _newest_by_source(signals: QuerySet[Signal], moment: datetime) -> dict[tuple[int, str], Signal]:
    newest = signals.filter(observed_at__lte=moment)
    return _by_source(newest.order_by("paper_id", "source", "-observed_at"))


def _by_source(ordered: QuerySet[Signal]) -> dict[tuple[int, str], Signal]:
    """The first signal of each paper and source."""
    return {(row.paper_id, row.source): row for row in ordered.distinct("paper_id", "source")}


def pool(newest: Edition, *older: Edition, most: int | None = None) -> Pool:
    """The editions' papers for the recommender, each once, with what its newest edition says of it;
    one that any of them hides is not among them.

    Args:
        most: papers, where the older editions are cut: those of the highest trends stay.
    """
    rows = list(
        EditionPaper.objects.filter(edition__in=[newest, *older])
        .exclude(paper__in=_hidden([newest, *older]))
        .select_related("edition", "paper")
        .order_by("-trend", "-edition__day", "id")
    )
    if older:
        rows = _joined(rows, newest, most)
    votes = [row.trend_terms.get("upvotes", {}) for row in rows]
    pinned = [
        i
        for i, row in enumerate(rows)
        if row.curation == EditionPaper.Curation.PINNED and row.edition_id == newest.pk
    ]
    pinned.sort(key=lambda i: (rows[i].position is None, rows[i].position or 0, i))
    return Pool(
        paper_ids=np.array([row.paper_id for row in rows], dtype=np.int64),
        days=[row.edition.day for row in rows],
        texts=[row.paper.text for row in rows],
        abstracts=[row.paper.abstract for row in rows],
        authors=[row.paper.authors for row in rows],
        categories=[row.paper.categories for row in rows],
        trend=np.array([row.trend for row in rows], dtype=np.float32),
        upvotes=np.array([vote.get("count", -1) for vote in votes], dtype=np.int64),
        gained=np.array(
            [-1 if vote.get("gained") is None else vote["gained"] for vote in votes],
            dtype=np.int64,
        ),
        pinned=np.array(pinned, dtype=np.intp),
    )


def _hidden(editions: Sequence[Edition]) -> QuerySet[EditionPaper, int]:
    hidden = EditionPaper.objects.filter(
        edition__in=editions, curation=EditionPaper.Curation.HIDDEN
    )
    return hidden.order_by().values_list("paper", flat=True)


def _joined(rows: Sequence[EditionPaper], newest: Edition, most: int | None) -> list[EditionPaper]:
    """Each paper once, by its newest edition, in the order of the rows."""
    by_day = sorted(rows, key=lambda row: row.edition.day)
    carried = {row.paper_id: row.pk for row in by_day}  # the newest is written last
    rows = [row for row in rows if carried[row.paper_id] == row.pk]
    if most is None or len(rows) <= most:
        return rows
    room = most - sum(row.edition_id == newest.pk for row in rows)
    kept = []
    for row in rows:
        older = row.edition_id != newest.pk
        if not older or room > 0:
            kept.append(row)
        room -= older
    return kept


def add_paper(
    edition: Edition, *, identifier: str = "", title: str = "", link: str = ""
) -> EditionPaper:
    """Put a paper on the open list: a known one by its identifier, or a new one by title and link.

    Raises:
        CurationError: the edition is frozen or its day has not come yet, the identifier is
            unknown, a title has no link, or the paper has been in an edition already.
    """
    check_day(edition.day, timezone.now())
    with transaction.atomic():
        edition = _locked(edition)
        if not edition.is_open:
            raise CurationError("This edition is frozen. Add the paper to the next one.")
        paper = _known(identifier) if identifier else _new(edition, title, link)
        if paper.withdrawn_on is not None:
            raise CurationError(f"“{paper}” was withdrawn by its source on {paper.withdrawn_on}.")
        carried = Edition.objects.settled().filter(papers=paper).first()
        if carried is not None:
            raise CurationError(
                f"“{paper}” was on the list of {carried.day} already, and no paper comes twice."
            )
        candidate, _ = EditionPaper.objects.get_or_create(edition=edition, paper=paper)
        _score(edition, timezone.now())
    candidate.refresh_from_db()
    return candidate


def _identifier(text: str) -> dict[str, str]:
    """The arXiv id or DOI that `text` is, by the name of its field; empty where it is neither."""
    for name, normalise in (("arxiv_id", normalise_arxiv_id), ("doi", normalise_doi)):
        with suppress(ValueError):
            return {name: normalise(text)}
    return {}


def _known(identifier: str) -> Paper:
    wanted = _identifier(identifier)
    if not wanted:
        raise CurationError(f"“{identifier}” is neither an arXiv id nor a DOI.")
    try:
        return Paper.objects.get(**wanted)
    except Paper.DoesNotExist:
        raise CurationError(
            f"No paper {identifier} is known here. Add it by its title and link instead."
        ) from None


def _new(edition: Edition, title: str, link: str) -> Paper:
    title = " ".join(title.split())
    if not title or not link:
        raise CurationError("Give an identifier, or both a title and a link.")
    key = title_key(title)
    identifier = _identifier(link)
    known = Paper.objects.filter(**identifier).first() if identifier else None
    # Of the same title is the same paper, unless it has another identifier.
    without = dict.fromkeys(identifier)
    known = known or Paper.objects.filter(title_key=key, **without).first()
    if known is not None:
        return known
    return Paper.objects.create(
        title=title,
        title_key=key,
        url=link,
        listing_day=edition.day,
        sources=[Source.CURATOR.value],
        **identifier,
    )
