"""The dated daily list: open it, curate it, freeze it; its candidate pool as arrays."""

from __future__ import annotations

import logging
import time as clock
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone
from numpy.typing import NDArray

from papers import harvesting
from papers.models import CurationRecord, Edition, EditionPaper, Paper, Signal, Source
from papers.sources import SourceError
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi, title_key
from papers.trending import GROWTH_SPAN, LEAST_GROWTH_SPAN, lifted, trend_scores

log = logging.getLogger(__name__)

MOST_ADDED = 100  # identifiers at a time
ASKING_SECONDS = 10.0  # of a page: one more answer of arXiv may take as long again
MOST_NAMED = 120  # characters of a title in a record

# How the records of a candidate begin, by what was changed.
BEGINNINGS = {
    "curation": ("Pinned", "Hid", "Took back the pin of", "Showed again"),
    "position": ("Placed", "Took its place from"),
    "note": ("Noted at", "Took the note away from"),
}

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
    listed = Paper.objects.filter(listing_day__range=(since, day), withdrawn_on=None)
    return listed.exclude(_carried("pk"))


def _carried(paper: str) -> Exists:
    """Whether a settled edition has the paper named by a field.

    Asked of each paper by the index: as `IN (SELECT …)`, PostgreSQL goes through all editions that
    ever were, for each paper anew once it takes them not to fit in memory.
    """
    settled = Edition.objects.settled()
    return Exists(EditionPaper.objects.filter(paper=OuterRef(paper), edition__in=settled))


def next_day(now: datetime) -> date:
    """Of the edition that is frozen next: today's, and once this is settled tomorrow's."""
    today = now.date()
    settled = Edition.objects.settled().filter(day=today).exists()
    return today + timedelta(days=1) if settled else today


def check_day(day: date, now: datetime) -> None:
    """Raise a CurationError where `day` can have no edition at `now`."""
    if day > now.date() and day > (newest := next_day(now)):
        raise CurationError(f"{day} has not come yet: the next edition is that of {newest} (UTC).")
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


def record(edition: Edition, what: str, by: str = "") -> None:
    """Say in the edition's log what was done, and by whom; "" is the service itself."""
    CurationRecord.objects.create(edition=edition, by=by, what=what)


def _papers(count: int) -> str:
    return f"{count} paper{'' if count == 1 else 's'}"


def _named(candidate: EditionPaper) -> str:
    return _quoted(candidate.paper.title)


def _quoted(title: str) -> str:
    return f"“{title if len(title) <= MOST_NAMED else title[:MOST_NAMED] + '…'}”"


def _collect(edition: Edition, now: datetime) -> None:
    before = edition.candidates.count()
    EditionPaper.objects.bulk_create(
        [EditionPaper(edition=edition, paper=paper) for paper in candidates_for(edition.day)],
        ignore_conflicts=True,
    )
    if more := edition.candidates.count() - before:
        record(edition, f"Listed {_papers(more)} that had come in.")
    # A paper that another day's edition has carried meanwhile, or that its source took back, is no
    # candidate any more.
    gone = edition.candidates.filter(_carried("paper") | Q(paper__withdrawn_on__isnull=False))
    if fewer := list(gone.values_list("pk", flat=True)):
        EditionPaper.objects.filter(pk__in=fewer).delete()
        taken_off = _papers(len(fewer))
        record(edition, f"Took {taken_off} off: carried by another edition, or withdrawn.")
    _score(edition, now)


def freeze(edition: Edition, now: datetime, *, by: str = "") -> Edition:
    """Fix the candidates and their trend scores; an edition that has none becomes empty.

    Freezing twice changes nothing. Returns the edition as it now stands.

    Raises:
        CurationError: its day has not come yet, or is out of range.
    """
    check_day(edition.day, now)
    if edition.day > now.date():
        raise CurationError(f"{edition.day} has not come yet. {outlook(edition, now)}")
    with transaction.atomic():
        # All open ones: of two freezes at a time, the second sees which papers the first has taken.
        _lock_open()
        edition = _locked(edition)
        if not edition.is_open:
            return edition
        _settle(edition, now, by)
    log.info("edition %s: %s", edition.day, edition.state)
    return edition


def _settle(edition: Edition, now: datetime, by: str) -> None:
    _collect(edition, now)
    edition.frozen_at = edition.changed_at = now
    shown = edition.candidates.exclude(curation=EditionPaper.Curation.HIDDEN).count()
    if shown:
        edition.state = Edition.State.FROZEN
        record(edition, f"Frozen with {_papers(shown)}.", by)
    else:
        edition.state = Edition.State.EMPTY
        edition.reason = (
            "The curators have hidden every paper of this day."
            if edition.candidates.exists()
            else "No new papers have arrived for this day."
        )
        record(edition, f"Frozen, empty. {edition.reason}", by)
    edition.save()


@dataclass(frozen=True, slots=True)
class Preview:
    """An edition as it would be frozen now, and the papers that would come to its list by that."""

    edition: Edition
    joining: list[Paper]


@contextmanager
def as_frozen(edition: Edition, now: datetime) -> Iterator[Preview]:
    """What a freeze would make of it: by freezing it, and taking all of that back at the end.

    Raises:
        CurationError: its day has not come yet, or is out of range, or it is frozen.
    """
    check_day(edition.day, now)
    with transaction.atomic():
        _lock_open()
        edition = _locked(edition)
        if not edition.is_open:
            raise CurationError("This edition is frozen: its page is there for everybody.")
        listed = set(edition.candidates.order_by().values_list("paper", flat=True))
        _settle(edition, now, "")
        joining = [paper for paper in edition.papers.all() if paper.pk not in listed]
        try:
            yield Preview(edition, joining)
        finally:
            transaction.set_rollback(True)


def hold(edition: Edition, *, by: str) -> None:
    """Keep it from being frozen automatically.

    Raises:
        CurationError: it is frozen already.
    """
    with transaction.atomic():
        edition = _locked(edition)
        if not edition.is_open:
            raise CurationError("This edition is frozen already: it can no longer be held.")
        if not edition.held:
            edition.held, edition.held_by, edition.held_at = True, by, timezone.now()
            edition.save(update_fields=["held", "held_by", "held_at"])
            record(edition, "Held: it is not frozen automatically.", by)


def release(edition: Edition, *, by: str) -> None:
    """Let it be frozen automatically again."""
    with transaction.atomic():
        edition = _locked(edition)
        if edition.held:
            edition.held, edition.held_by, edition.held_at = False, "", None
            edition.save(update_fields=["held", "held_by", "held_at"])
            record(edition, "Released: it may be frozen automatically.", by)


def freezes_at(edition: Edition, now: datetime) -> datetime | None:
    """When it is frozen automatically, unless it is held; None: never, its day is over.

    A moment that has passed means with the next tick, a minute from now.
    """
    due = datetime.combine(edition.day, settings.EDITION_FREEZE_AT, tzinfo=UTC)
    over = now - due >= timedelta(days=1)  # from then on the next day's edition is the one that is
    return due if edition.is_open and not over else None


def outlook(edition: Edition, now: datetime) -> str:
    """What will become of it, in words for its curators."""
    if edition.reason:
        return f"Empty: {edition.reason}"
    if edition.frozen_at:
        return f"Frozen at {edition.frozen_at:%Y-%m-%d %H:%M} UTC: papers can still be hidden."
    due = freezes_at(edition, now)
    over = (
        "Its day is over: it is not frozen automatically any more, and papers that a later "
        "edition carries leave this list. Freeze it by hand."
    )
    if not edition.held:
        if due is None:
            return f"Open. {over}"
        when = f"in {_span(due - now)}" if due > now else "within a minute"
        return f"Open: freezes itself at {due:%Y-%m-%d %H:%M} UTC, {when}."
    by = f" by {edition.held_by}" if edition.held_by else ""
    since = f" since {edition.held_at:%Y-%m-%d %H:%M} UTC" if edition.held_at else ""
    held = f"Held{by}{since}: freeze it by hand, or release it."
    if due is None:
        return f"{held} {over}"
    next_one = due + timedelta(days=1)
    if due > now:
        return f"{held} Its hour is {due:%Y-%m-%d %H:%M} UTC, in {_span(due - now)}."
    return (
        f"{held} Its hour, {due:%H:%M} UTC, has passed: no mail of this day leaves before the "
        f"freeze. The next edition takes over at {next_one:%H:%M} UTC, in {_span(next_one - now)}."
    )


def _span(time_left: timedelta) -> str:
    hours, minutes = divmod(int(time_left.total_seconds() + 59) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Of one thing among several that a curator asked for."""

    what: str
    why: str


def curate(candidate: EditionPaper, curation: EditionPaper.Curation, *, by: str = "") -> None:
    """Pin a candidate, hide it, or neither.

    Raises:
        CurationError: it would be pinned in an edition that is frozen or has its pins already.
    """
    for refusal in curate_all([candidate], curation, by=by):
        raise CurationError(refusal.why)


def curate_all(
    candidates: Iterable[EditionPaper], curation: EditionPaper.Curation, *, by: str = ""
) -> list[Refusal]:
    """Pin, hide or release several, those that can be; returns the others.

    A candidate that is no more as it is given here was changed by somebody else: it stays so.
    """
    refused = []
    with transaction.atomic():
        # As they are now, and their editions until the end of the transaction.
        asked = {row.pk: row for row in candidates}
        days = {row.edition_id for row in asked.values()}
        of_rows = Edition.objects.select_for_update().filter(pk__in=days).order_by("day")
        found = {edition.pk: edition for edition in of_rows}
        pinned = EditionPaper.Curation.PINNED
        pins = Counter(
            EditionPaper.objects.filter(edition__in=found, curation=pinned)
            .order_by()
            .values_list("edition", flat=True)
        )
        was = dict(EditionPaper.objects.filter(pk__in=asked).values_list("pk", "curation"))
        changed = []
        for row in asked.values():
            row.edition = edition = found[row.edition_id]
            if was.get(row.pk, curation) == curation:
                row.curation = was.get(row.pk, row.curation)  # another may have done it just now
                continue
            if was[row.pk] != row.curation:
                by_whom = changed_by(row, "curation")
                refused.append(
                    Refusal(
                        row.paper.title,
                        f"Changed meanwhile{f' by {by_whom}' if by_whom else ''}: it is "
                        f"{in_words(was[row.pk])} now. Do it once more to overrule that.",
                    )
                )
                row.curation = was[row.pk]
                continue
            if curation == pinned:
                if why := edition.why_no_pins(pins[edition.pk]):
                    refused.append(Refusal(row.paper.title, why))
                    continue
                pins[edition.pk] += 1
            row.curation = curation
            changed.append(row)
        EditionPaper.objects.filter(pk__in=[row.pk for row in changed]).update(curation=curation)
        CurationRecord.objects.bulk_create(
            CurationRecord(edition=row.edition, by=by, what=_curated(was[row.pk], curation, row))
            for row in changed
        )
        Edition.objects.filter(pk__in={row.edition_id for row in changed}).update(
            changed_at=timezone.now()
        )
    return refused


def in_words(curation: str) -> str:
    return curation or "neither pinned nor hidden"


def _curated(was: str, now: str, candidate: EditionPaper) -> str:
    if now == EditionPaper.Curation.NONE:
        begun = "Took back the pin of" if was == EditionPaper.Curation.PINNED else "Showed again"
    else:
        begun = "Pinned" if now == EditionPaper.Curation.PINNED else "Hid"
    return f"{begun} {_named(candidate)}."


def revise(candidate: EditionPaper, changed: Collection[str], *, by: str = "") -> None:
    """Save what a form, which has checked it, has changed of a candidate: within `alone`."""
    touch(candidate.edition)  # first: the freeze, too, locks the edition before its papers
    was = EditionPaper.objects.get(pk=candidate.pk)
    candidate.save(update_fields=changed)
    if "curation" in changed and candidate.curation != was.curation:
        record(candidate.edition, _curated(was.curation, candidate.curation, candidate), by)
    if "position" in changed and candidate.position != was.position:
        gone = candidate.position is None
        done = "Took its place from {}." if gone else f"Placed {{}} at {candidate.position}."
        record(candidate.edition, done.format(_named(candidate)), by)
    if "note" in changed and candidate.note != was.note:
        said = f"{_named(candidate)}: {candidate.note}" if candidate.note else _named(candidate)
        begun = "Noted at" if candidate.note else "Took the note away from"
        record(candidate.edition, f"{begun} {said}", by)


def changed_by(candidate: EditionPaper, field: str) -> str:
    """Who changed its curation, position or note last, by the log; "" where the log has nothing."""
    begun = [f"{beginning} {_named(candidate)}" for beginning in BEGINNINGS[field]]
    either = Q(*(("what__startswith", words) for words in begun), _connector=Q.OR)
    last = candidate.edition.curation_records.filter(either).first()
    return last.by if last else ""


def correct(paper: Paper, changed: Sequence[str], *, by: str) -> None:
    """Save what a curator's form has changed of a paper, and say so where the paper is shown."""
    if not changed:
        return
    now = timezone.now()
    with transaction.atomic():
        carrying = Edition.objects.filter(candidates__paper=paper)
        for edition in carrying.order_by("day"):
            touch(edition)  # first, as in revise
        was = Paper.objects.get(pk=paper.pk)
        saved = {*changed, "updated_at"}
        if "title" in changed:
            saved.add("title_key")
        if "summary" in changed:
            paper.summary_source = Source.CURATOR
            saved.add("summary_source")
        paper.save(update_fields=saved)
        names = ", ".join(name.replace("_", " ") for name in changed)
        hidden = EditionPaper.Curation.HIDDEN
        CurationRecord.objects.bulk_create(
            CurationRecord(
                edition=row.edition, at=now, by=by, what=f"Corrected {_quoted(was.title)}: {names}."
            )
            for row in paper.candidacies.exclude(curation=hidden).select_related("edition")
        )


def touch(edition: Edition) -> None:
    """Say that a candidate of `edition` has changed: what was computed from it is stale."""
    Edition.objects.filter(pk=edition.pk).update(changed_at=timezone.now())


def list_again(edition: Edition, papers: Iterable[Paper], *, by: str = "") -> None:
    """Put papers of earlier days on an open edition's list."""
    before = edition.candidates.count()
    EditionPaper.objects.bulk_create(
        [EditionPaper(edition=edition, paper=paper) for paper in papers], ignore_conflicts=True
    )
    if more := edition.candidates.count() - before:
        record(edition, f"Listed {_papers(more)} again.", by)


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
    votes = readers_votes(ids, moment)
    score = lifted(trend.score, votes)
    for index, row in enumerate(rows):
        row.trend = float(score[index])
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
        if votes[index]:
            lift = _rounded(score[index] - trend.score[index])
            row.trend_terms["votes"] = {"count": int(votes[index]), "lift": lift}
    EditionPaper.objects.bulk_update(rows, ["trend", "trend_terms"], batch_size=500)


def _gained(now: float, before: float) -> int | None:
    return None if np.isnan(before) else int(now - before)


def _rounded(percentile: float) -> float | None:
    return None if np.isnan(percentile) else round(float(percentile), 3)


def shown() -> QuerySet[EditionPaper]:
    """What everybody may see of the editions: settled ones, nothing hidden; the newest day first,
    and each day in the order of its page.
    """
    return (
        EditionPaper.objects.filter(edition__in=Edition.objects.settled())
        .exclude(curation=EditionPaper.Curation.HIDDEN)
        .select_related("edition", "paper")
        # Pinned ones first: of the two curations that are left, the other is "".
        .order_by("-edition__day", "-curation", F("position").asc(nulls_last=True), "-trend", "id")
    )


def newest_counts(
    paper_ids: Sequence[int], counter: str, moment: datetime
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two (n,): newest counts up to `moment`, and the growth that led there; NaN where unknown.

    The growth is since the newest count that is a day old. A paper first seen within the day has
    none: its growth is since its earliest count, if that is half a day old (over less, growth
    says more of the hour than of the paper). A count that was never repeated has no growth.
    Sources count apart: both are taken of each source by itself, and then the largest. The votes
    of the readers here are not among them: see readers_votes.
    """
    counts = np.full(len(paper_ids), np.nan)
    gained = np.full(len(paper_ids), np.nan)
    place = {pk: index for index, pk in enumerate(paper_ids)}
    signals = Signal.objects.filter(paper__in=paper_ids, counter=counter)
    signals = signals.exclude(source=Source.PAPERROUND)
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


def readers_votes(paper_ids: Sequence[int], moment: datetime) -> NDArray[np.float64]:
    """(n,): the upvotes that readers here had given up to `moment`."""
    told = Signal.objects.filter(
        paper__in=paper_ids, source=Source.PAPERROUND, counter=Signal.Counter.UPVOTES
    )
    values = {pk: signal.value for (pk, _), signal in _newest_by_source(told, moment).items()}
    return np.array([values.get(pk, 0) for pk in paper_ids], dtype=np.float64)


def _newest_by_source(signals: QuerySet[Signal], moment: datetime) -> dict[tuple[int, str], Signal]:
    newest = signals.filter(observed_at__lte=moment)
    return _by_source(newest.order_by("paper_id", "source", "-observed_at"))


def _by_source(ordered: QuerySet[Signal]) -> dict[tuple[int, str], Signal]:
    """The first signal of each paper and source."""
    return {(row.paper_id, row.source): row for row in ordered.distinct("paper_id", "source")}


def pool(newest: Edition, *older: Edition, most: int | None = None) -> Pool:
    """The editions' papers for the recommender, each once, with what its newest edition says of it;
    one that any of them hides, or its source took back, is not among them.

    Args:
        most: papers, where the older editions are cut: those of the highest trends stay.
    """
    rows = list(
        EditionPaper.objects.filter(edition__in=[newest, *older], paper__withdrawn_on=None)
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
    edition: Edition, *, identifier: str = "", title: str = "", link: str = "", by: str = ""
) -> EditionPaper:
    """Put a paper on the open list: a known one by its identifier, or a new one by title and link.

    Raises:
        CurationError: the edition is frozen or its day has not come yet, the identifier is
            unknown, a title has no link, or the paper has been in an edition already.
    """
    with _adding(edition) as edition:
        paper = _known(identifier) if identifier else _new(edition, title, link)
        candidate = _put(edition, paper, by)
    candidate.refresh_from_db()
    return candidate


def add_papers(
    edition: Edition, identifiers: Iterable[str], *, by: str = ""
) -> tuple[list[EditionPaper], list[Refusal]]:
    """Put known papers on the open list by their identifiers, those that can be.

    Raises:
        CurationError: the edition is frozen or its day has not come yet.
    """
    added, refused = [], []
    with _adding(edition) as edition:
        for identifier in dict.fromkeys(identifiers):
            try:
                added.append(_put(edition, _known(identifier), by))
            except CurationError as error:
                refused.append(Refusal(identifier, str(error)))
    return added, refused


def ask_arxiv(identifiers: Iterable[str]) -> dict[str, str]:
    """Fetch the arXiv ids among them that are not known here; returns why some could not be had.

    For somebody who waits before a page: the last one is asked within ASKING_SECONDS. Not to be
    called within a transaction.
    """
    failed = {}
    begun = clock.monotonic()
    for identifier in dict.fromkeys(identifiers):
        wanted = _identifier(identifier).get("arxiv_id")
        if wanted is None or Paper.objects.filter(arxiv_id=wanted).exists():
            continue
        if clock.monotonic() - begun > ASKING_SECONDS:
            failed[identifier] = f"arXiv was not asked for {identifier} yet. Send it once more."
            continue
        try:
            harvesting.fetch_paper(wanted)
        except SourceError as error:
            failed[identifier] = (
                f"arXiv did not give {identifier}: {error}. "
                "Or add the paper by its title and link instead."
            )
    return failed


@contextmanager
def _adding(edition: Edition) -> Iterator[Edition]:
    """The edition, open until the end, and scored anew then."""
    check_day(edition.day, timezone.now())
    with transaction.atomic():
        edition = _locked(edition)
        if not edition.is_open:
            raise CurationError("This edition is frozen. Add the paper to the next one.")
        yield edition
        _score(edition, timezone.now())


def _put(edition: Edition, paper: Paper, by: str) -> EditionPaper:
    _check_may_be_listed(paper)
    candidate, new = EditionPaper.objects.get_or_create(edition=edition, paper=paper)
    if new:
        record(edition, f"Added {_named(candidate)}.", by)
    elif candidate.curation == EditionPaper.Curation.HIDDEN:
        raise CurationError(f"“{paper}” is hidden on this list; show it again first.")
    return candidate


def list_next(paper: Paper, now: datetime, *, submitter: str = "", by: str = "") -> date:
    """Put a known paper on the list that is frozen next; returns its day.

    Raises:
        CurationError: the paper has been in an edition already, or its source withdrew it.
    """
    with alone():
        # As a harvest that is just writing it leaves it.
        paper = Paper.objects.select_for_update(no_key=True).get(pk=paper.pk)
        edition = open_edition(next_day(now))
        _put(edition, paper, by)
        _score(edition, now)
        paper.submitter = paper.submitter or submitter
        if Source.PAPERROUND not in paper.sources:
            paper.sources = [*paper.sources, Source.PAPERROUND.value]
        paper.save(update_fields=["submitter", "sources", "updated_at"])
    return edition.day


def _check_may_be_listed(paper: Paper) -> None:
    if paper.withdrawn_on is not None:
        raise CurationError(f"“{paper}” was withdrawn by its source on {paper.withdrawn_on}.")
    carried = Edition.objects.settled().filter(papers=paper).first()
    if carried is not None:
        raise CurationError(
            f"“{paper}” was on the list of {carried.day} already, and no paper comes twice."
        )


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
