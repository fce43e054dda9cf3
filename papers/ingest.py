"""Records -> rows, idempotent: importing the same files again changes nothing.

One paper is recognised by its identifier, else by its normalised title when one side names no
authors or both name the same first one.

What each source says of a paper is kept beside it (SourceRecord), and the paper is merged of that:
of each field, what the first source of PRECEDENCE states. So arXiv's title, authors and categories
come before all others' but the curators', whatever the order in which they came; only of abstracts
the longer one is kept where neither has spoken. The earliest listing day counts, versions and
sources add up, and an identifier stays as it was first told, or as a curator has it. A record may
show that two papers are one, known here by an arXiv id and by a DOI until then: they are joined,
unless something speaks against it.

A source that speaks again corrects itself, field by field (SPEAKS). Files and listings are many
under one name, so that none of them is the correction of another: where two state different facts
of one kind, the first stays, and the longer abstract.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from papers import joining
from papers.locks import Lock
from papers.models import Harvest, Paper, Signal, Source, SourceRecord
from papers.sources import BadRecord, PaperRecord, Withdrawn, identifiers

T = TypeVar("T")
title_key = lru_cache(maxsize=4096)(identifiers.title_key)  # asked of a title several times

log = logging.getLogger(__name__)

BATCH = 500
ERRORS_KEPT = 1000
# A number that stays the same is noted again so often. With the six hours between two counts of a
# paper, that is within the day over which editions.newest_counts looks for growth.
REPEATED = timedelta(hours=12)
COMPARED = timedelta(days=1)  # how far back a snapshot is compared with others
LOCK = Lock.IMPORT
# What a source may state of a paper; listed_on, versions and withdrawn_on are merged by themselves.
STATED = (
    "title", "abstract", "arxiv_id", "doi", "authors", "categories", "published_on", "url",
    "pdf_url", "code_url", "project_url", "thumbnail_url", "keywords", "summary", "organisation",
    "submitter", "licence", "comment", "journal_ref",
)  # fmt: skip
MERGED = (
    *STATED, "title_key", "summary_source", "listing_day", "versions", "withdrawn_on", "sources",
)  # fmt: skip
# Whose word counts first; a source not named here comes before a listing, which has no fields.
PRECEDENCE: dict[str, int] = {
    Source.CURATOR: 0,
    Source.ARXIV: 1,
    Source.HUGGING_FACE: 2,
    Source.LISTING: 9,
}
# One voice each, whose newest word replaces its older one.
SPEAKS = {Source.CURATOR, Source.ARXIV, Source.HUGGING_FACE}
# What these say of the abstract is the paper's, be it the shorter one.
KNOWS_ABSTRACT = (Source.CURATOR, Source.ARXIV)
IDENTIFIERS = ("arxiv_id", "doi")
DATES = ("published_on",)
Record = PaperRecord | BadRecord | Withdrawn
Statement = dict[str, Any]  # what one source says of one paper, as JSON
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(slots=True)
class Summary:
    """What an import did: read = new + updated + skipped; failed records come on top."""

    read: int = 0
    new: int = 0
    updated: int = 0
    skipped: int = 0
    errors: list[str] = field(default_factory=list)
    failed: int = 0
    joined: int = 0

    def __str__(self) -> str:
        return (
            f"{self.read} read, {self.new} new, {self.updated} updated, "
            f"{self.skipped} skipped, {self.failed} failed"
            + (f", {self.joined} joined with another" if self.joined else "")
        )

    def tell(self, place: str, what: str) -> None:
        if len(self.errors) < ERRORS_KEPT:
            self.errors.append(storable(f"{place}: {what}"))


def ingest(
    records: Iterable[Record],
    *,
    source: str,
    now: datetime,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Write `records` and one Harvest row that says how it went.

    Args:
        records: what a source yielded; bad ones are counted and reported, never raised.
        source: names the harvest.
        now: the moment of import; a record without list day is listed on its date.
        progress: called after each batch.
    """
    harvest = Harvest.objects.create(source=storable(source)[:255], started_at=now)
    summary = Summary()
    try:
        for batch in _batches(records, BATCH):
            with transaction.atomic():
                write(batch, now, summary)
            progress(summary)
        harvest.state = Harvest.State.DONE
    except BaseException:
        harvest.state = Harvest.State.FAILED
        raise
    finally:
        for name in ("read", "new", "updated", "skipped", "failed", "joined", "errors"):
            setattr(harvest, name, getattr(summary, name))
        harvest.finished_at = timezone.now()
        harvest.save()
        log.info("harvest %s: %s", harvest.pk, summary)
    return summary


def write(records: Iterable[Record], now: datetime, summary: Summary) -> None:
    """Write `records` within the caller's transaction, and count them in `summary`."""
    good: list[PaperRecord | Withdrawn] = []
    for record in records:
        match _checked(record):
            case BadRecord() as bad:
                summary.failed += 1
                summary.tell(bad.place, bad.reason)
            case fit:
                good.append(fit)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    if pairs := _pairs(good):
        joining.lock_editions(pairs)
    if len(good) > BATCH:  # else each batch would lock its own, and not all in one order
        list(_meant_by(good).values_list("pk", flat=True))
    # Of a paper that was taken back, the record comes first and the news of it next.
    gone = {record.arxiv_id for record in good if isinstance(record, Withdrawn)}
    for batch in _batches(good, BATCH):
        _write(batch, gone, now, summary)


def _meant_by(records: Sequence[PaperRecord | Withdrawn]) -> QuerySet[Paper]:
    """The papers that these may mean. Who else writes one of them waits until the transaction ends;
    who locks several does so by their ids too."""
    living = [record for record in records if isinstance(record, PaperRecord)]
    meant = Paper.objects.filter(
        Q(arxiv_id__in=[record.arxiv_id for record in records if record.arxiv_id])
        | Q(doi__in=[record.doi for record in living if record.doi])
        | Q(title_key__in=[title_key(record.title) for record in living])
    )
    # No key: whatever only points at a paper, as votes, editions and embeddings do, goes on.
    return meant.order_by("id").select_for_update(no_key=True)


def _batches(records: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    iterator = iter(records)
    while batch := tuple(islice(iterator, size)):
        yield batch


def _pairs(records: Iterable[PaperRecord | Withdrawn]) -> set[int]:
    """The ids of papers that may turn out to be one: a record names one of them by its arXiv id,
    the other by its DOI."""
    named = {
        (record.arxiv_id, record.doi)
        for record in records
        if isinstance(record, PaperRecord) and record.arxiv_id and record.doi
    }
    if not named:
        return set()
    known = [
        dict(Paper.objects.filter(**{f"{name}__in": values}).values_list(name, "pk"))
        for name, values in zip(IDENTIFIERS, zip(*named, strict=True), strict=True)
    ]
    found = ({known[0].get(arxiv_id), known[1].get(doi)} for arxiv_id, doi in named)
    return {pk for pair in found if len(pair) == 2 and None not in pair for pk in pair if pk}


def _checked(record: Record) -> Record:
    """What the columns could not hold is told here: it costs one record and not a batch."""
    if isinstance(record, BadRecord):
        return record
    record = replace(
        record, **{item.name: storable(getattr(record, item.name)) for item in fields(record)}
    )
    if not 0 < len(record.source) <= 16:
        return BadRecord(record.place, "the source's name is not 1 to 16 characters long")
    if isinstance(record, Withdrawn):
        return record
    if not record.title.strip():
        return BadRecord(record.place, "it has no title")
    if any(not 0 <= value < 2**31 for value in record.counters.values()):
        return BadRecord(record.place, "a counter is negative or beyond 2,147,483,647")
    unknown = set(record.counters) - set(Signal.Counter.values)
    if unknown:
        return BadRecord(record.place, f"unknown counter: {', '.join(sorted(unknown))}")
    if record.observed_at is not None and record.observed_at.tzinfo is None:
        return BadRecord(record.place, "the time of its counters has no time zone")
    return record


def storable(value: Any) -> Any:
    """Text (or a tuple of texts) as PostgreSQL can hold it: no NUL, no half of a surrogate pair."""
    if isinstance(value, tuple):
        return tuple(storable(item) for item in value)
    if not isinstance(value, str) or not _UNSTORABLE.search(value):
        return value
    halves = value.replace("\0", "").encode("utf-16", "surrogatepass")
    return halves.decode("utf-16", "replace")


def _write(
    records: Sequence[PaperRecord | Withdrawn], gone: set[str], now: datetime, summary: Summary
) -> None:
    known = _Known(records)
    touched: list[tuple[Paper, PaperRecord]] = []
    before: dict[int, tuple[Paper, list[Any]]] = {}
    new: dict[int, Paper] = {}
    for record in records:
        if isinstance(record, PaperRecord) and (two := known.two(record, now, summary)):
            kept, other = known.join(*two)
            summary.joined += 1
            before.pop(id(other), None)
            new.pop(id(other), None)
            if kept.pk:
                before[id(kept)] = kept, []  # so it has changed
            touched = [(kept if paper is other else paper, told) for paper, told in touched]
        paper = known.find(record)
        if paper is None:
            if isinstance(record, Withdrawn) or record.only_updates:
                continue
            paper = Paper(title=record.title, listing_day=record.listed_on or now.date())
            new[id(paper)] = paper
        elif id(paper) not in new and id(paper) not in before:
            before[id(paper)] = paper, _merged(paper)
        if isinstance(record, Withdrawn):
            known.hear(paper, record.source, _taken_back(record), now)
            continue
        keeps = {"withdrawn_on"} if record.arxiv_id in gone else set()
        known.hear(paper, record.source, _stated(record), record.observed_at or now, keeps)
        touched.append((paper, record))
    Paper.objects.bulk_create(new.values())
    changed = {key: paper for key, (paper, was) in before.items() if was != _merged(paper)}
    for paper in changed.values():
        paper.updated_at = timezone.now()  # as it is written: `now` may be an hour ago
    Paper.objects.bulk_update(changed.values(), [*MERGED, "updated_at"], batch_size=100)
    known.write_said()
    counted = _write_signals(touched, now)
    updated = {id(paper) for paper, _ in touched if paper.pk in counted} | set(changed)
    summary.read += len(records)
    summary.new += len(new)
    summary.updated += len(updated - set(new))
    summary.skipped += len(records) - len(new) - len(updated - set(new))


def _merged(paper: Paper) -> list[Any]:
    return [getattr(paper, name) for name in MERGED]


def keep_word(paper: Paper, names: Collection[str], now: datetime) -> None:
    """Keep what a curator changed of a paper, so that no source says otherwise later."""
    stated: Statement = {}
    for name in (*STATED, "withdrawn_on"):
        if name in names:
            value = getattr(paper, name)
            stated[name] = value.isoformat() if isinstance(value, date) else value
    if "listing_day" in names:
        stated["listed_on"] = paper.listing_day.isoformat()
    if not stated:
        return
    row, _ = SourceRecord.objects.get_or_create(
        paper=paper, source=Source.CURATOR, defaults={"record": {}, "seen_at": now}
    )
    row.record, row.seen_at = {**row.record, **stated}, now
    row.save()


class _Known:
    """The papers that a batch may mean, by identifier and by title, and what was said of them."""

    def __init__(self, records: Sequence[PaperRecord | Withdrawn]) -> None:
        self.gone: list[Paper] = []  # kept, that no other object gets the id of one of them
        self.by_identifier: dict[str, Paper] = {}
        self.by_title: dict[str, list[Paper]] = {}
        self.said: dict[int, dict[str, SourceRecord]] = {}  # by id(paper), then by source
        self.heard: dict[tuple[int, str], SourceRecord] = {}  # those to be written
        papers = {paper.pk: paper for paper in _meant_by(records)}
        for paper in papers.values():
            self.add(paper)
            self.said[id(paper)] = {}
        for row in SourceRecord.objects.filter(paper__in=papers):
            self.said[id(papers[row.paper_id])][row.source] = row

    def add(self, paper: Paper) -> None:
        for identifier in filter(None, (paper.arxiv_id, paper.doi)):
            self.by_identifier[identifier] = paper
        same_title = self.by_title.setdefault(paper.title_key, [])
        if paper not in same_title:
            same_title.append(paper)

    def find(self, record: PaperRecord | Withdrawn) -> Paper | None:
        if record.arxiv_id in self.by_identifier:
            return self.by_identifier[record.arxiv_id]
        if isinstance(record, Withdrawn):
            return None
        if (paper := self.by_identifier.get(record.doi)) and not (
            # Of two e-prints with one DOI, one has a slip in it.
            record.arxiv_id and paper.arxiv_id
        ):
            return paper
        for paper in self.by_title.get(title_key(record.title), []):
            other = any(self._named_otherwise(paper, record, name) for name in IDENTIFIERS)
            if not other and _same_authors(paper.authors, record.authors):
                return paper
        return None

    def _named_otherwise(self, paper: Paper, record: PaperRecord, name: str) -> bool:
        """Whether they have different identifiers, as two papers of one title do."""
        known, stated = getattr(paper, name), getattr(record, name)
        if not known or not stated or known == stated:
            return False
        # What a curator put right of this very paper, a source goes on to say.
        told = [row.record.get(name) for row in self.said[id(paper)].values()]
        return not (name in self._curated(paper) and stated in told)

    def two(
        self, record: PaperRecord, now: datetime, summary: Summary
    ) -> tuple[Paper, Paper] | None:
        """The two papers that are one by this record. What speaks against it is told."""
        one, other = map(self.by_identifier.get, (record.arxiv_id, record.doi))
        if not record.arxiv_id or other is None or one is other:
            return None
        authors = record.authors or (one.authors if one else ())
        if other.arxiv_id:
            why = f"arXiv:{other.arxiv_id} has it already"
        elif one is None:
            return None
        elif denied := [paper for paper in (one, other) if self._denied(paper, record)]:
            why = f"a curator said otherwise of “{denied[0].title:.100}”"
        elif one.doi and not self._corrects_doi(one, record, now):
            why = f"arXiv:{record.arxiv_id} is known by doi:{one.doi}"
        elif title_key(record.title) != other.title_key and _strangers(authors, other.authors):
            why = f"it is known as “{other.title:.100}”, by others"
        else:
            return one, other
        not_joined = f"arXiv:{record.arxiv_id} is not joined by doi:{record.doi}"
        summary.tell(record.place, f"{not_joined}: {why}")
        return None

    def _denied(self, paper: Paper, record: PaperRecord) -> bool:
        """Whether a curator gave it another identifier than the record does, or took it off."""
        said = self._curated(paper)
        return any(name in said and said[name] != getattr(record, name) for name in IDENTIFIERS)

    def _curated(self, paper: Paper) -> Statement:
        """What curators said of it."""
        row = self.said.get(id(paper), {}).get(Source.CURATOR)
        return row.record if row else {}

    def _corrects_doi(self, paper: Paper, record: PaperRecord, now: datetime) -> bool:
        """Whether its source alone gave the paper its DOI, and now says that it is another."""
        told = [row for row in self.said[id(paper)].values() if row.record.get("doi") == paper.doi]
        alone = [row.source for row in told] == [record.source]
        return alone and record.source in SPEAKS and told[0].seen_at < (record.observed_at or now)

    def join(self, one: Paper, other: Paper) -> tuple[Paper, Paper]:
        """Make one paper of two; returns the older one, which stays, and the other. `hear` is to
        be called next: it merges the words."""
        kept, gone = sorted((one, other), key=lambda paper: (not paper.pk, paper.pk or 0))
        for paper in (kept, gone):
            said = self.said.setdefault(id(paper), {})
            if not said and paper.pk:
                self._remember(paper, said)
        said = self.said[id(kept)]
        for source, row in self.said.pop(id(gone)).items():
            self.heard.pop((id(gone), source), None)
            row = _added_up(said[source], row) if source in said else row
            said[source] = self.heard[id(kept), source] = SourceRecord(
                paper=kept, source=source, record=row.record, seen_at=row.seen_at
            )
        if gone.pk:
            joining.absorb(kept, gone)
        for name in (*STATED, "summary_source"):
            if not getattr(kept, name):
                setattr(kept, name, getattr(gone, name))
        submitted = [paper for paper in (kept, gone) if Source.PAPERROUND in paper.sources]
        kept.listing_day = min(paper.listing_day for paper in submitted or (kept, gone))
        kept.sources = list(dict.fromkeys([*kept.sources, *gone.sources]))
        for identifier, paper in self.by_identifier.items():
            if paper is gone:
                self.by_identifier[identifier] = kept
        for same_title in self.by_title.values():
            same_title[:] = [paper for paper in same_title if paper is not gone]
        self.gone.append(gone)
        return kept, gone

    def hear(
        self,
        paper: Paper,
        source: str,
        stated: Statement,
        at: datetime,
        keeps: Collection[str] = (),
    ) -> None:
        """Note what a source says of a paper, and merge the paper anew."""
        said = self.said.setdefault(id(paper), {})
        if not said and paper.pk:
            self._remember(paper, said)
        if source not in said:
            said[source] = SourceRecord(paper=paper, source=source, record={}, seen_at=at)
        row = said[source]
        old, row.record = row.record, _corrected(row, stated, at, keeps)
        # A word that is repeated counts too: else an older one that came late would replace it.
        repeated = source in SPEAKS and at > row.seen_at and "withdrawn_on" not in stated
        if row.record != old or repeated:
            row.seen_at = max(row.seen_at, at)
            self.heard[id(paper), source] = row
        self._merge(paper, source, old, stated)
        self.add(paper)

    def _remember(self, paper: Paper, said: dict[str, SourceRecord]) -> None:
        """A row from before there were records, or made by hand, is what its source said."""
        source = paper.sources[0] if paper.sources else Source.FILE.value
        record = {name: value for name in STATED if (value := getattr(paper, name))}
        record |= {name: record[name].isoformat() for name in DATES if name in record}
        if Source.PAPERROUND in paper.sources:
            record.pop("submitter", None)  # a reader's name, who may be erased: no source said it
        row = SourceRecord(paper=paper, source=source, record=record, seen_at=paper.created_at)
        said[source] = self.heard[id(paper), source] = row

    def _merge(self, paper: Paper, source: str, old: Statement, stated: Statement) -> None:
        """Write into the paper what its sources say; `source` says `stated` and said `old`."""
        rows = sorted(
            self.said[id(paper)].values(),
            key=lambda row: (PRECEDENCE.get(row.source, 5), row.source),
        )
        for name in STATED:
            if name in IDENTIFIERS:
                if source == Source.CURATOR or name not in self._curated(paper):
                    self._identify(paper, name, old.get(name), stated)
                continue
            row = next((row for row in rows if _speaks_of(row, name)), None)
            if row is not None:
                value = row.record[name]
                dated = name in DATES and value
                setattr(paper, name, date.fromisoformat(value) if dated else value)
                if name == "summary":
                    paper.summary_source = row.source
        if not any(_speaks_of(row, "abstract") for row in rows if row.source in KNOWS_ABSTRACT):
            paper.abstract = max((row.record.get("abstract", "") for row in rows), key=len)
        paper.title_key = title_key(paper.title)
        self._list(paper, old, rows)
        versions = _folded(*(row.record.get("versions", []) for row in reversed(rows)))
        paper.versions = versions or paper.versions
        gone = [row.record["withdrawn_on"] for row in rows if _speaks_of(row, "withdrawn_on")]
        paper.withdrawn_on = date.fromisoformat(gone[0]) if gone and gone[0] else None
        if source not in paper.sources:
            paper.sources = [*paper.sources, source]

    def _identify(self, paper: Paper, name: str, old: str | None, stated: Statement) -> None:
        """It stays as it was first told, unless who told it says otherwise."""
        value, present = stated.get(name), getattr(paper, name)
        if not value or (present and present != old):
            return
        if self.by_identifier.get(value, paper) is not paper:
            return  # it names two papers that are known apart: each keeps its identifier
        setattr(paper, name, value)

    def _list(self, paper: Paper, old: Statement, rows: Iterable[SourceRecord]) -> None:
        if Source.PAPERROUND in paper.sources:
            return  # a reader's submission: editions.list_next put it on a later day
        days = [date.fromisoformat(day) for row in rows if (day := row.record.get("listed_on"))]
        if day := self._curated(paper).get("listed_on"):
            paper.listing_day = date.fromisoformat(day)
        # Who listed it on this day may say that it was another.
        elif days and old.get("listed_on") == paper.listing_day.isoformat():
            paper.listing_day = min(days)
        else:
            paper.listing_day = min([paper.listing_day, *days])

    def write_said(self) -> None:
        SourceRecord.objects.bulk_create(
            self.heard.values(),
            update_conflicts=True,
            unique_fields=["paper", "source"],
            update_fields=["record", "seen_at"],
        )


def _speaks_of(row: SourceRecord, name: str) -> bool:
    """Whether it states that field; a curator alone can say that there is nothing to state."""
    return bool(row.record.get(name)) or (row.source == Source.CURATOR and name in row.record)


def _same_authors(known: Sequence[str], stated: Sequence[str]) -> bool:
    return not known or not stated or _author_key(known[0]) == _author_key(stated[0])


def _strangers(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether both name authors, and none of them in common."""
    keys = [set(map(_author_key, names)) for names in (one, other)]
    return all(keys) and keys[0].isdisjoint(keys[1])


def _author_key(name: str) -> tuple[str, str]:
    """Surname and initial: sources write given names out or not, and before or after the other."""
    surname, comma, given = name.partition(",")
    words = title_key(surname).split()
    if comma:
        return words[-1] if words else "", title_key(given)[:1]
    return words[-1] if words else "", words[0][0] if len(words) > 1 else ""


def _stated(record: PaperRecord) -> Statement:
    """The fields that a record states and a column can hold."""
    stated: Statement = {}
    for name in STATED:
        if value := getattr(record, name):
            if isinstance(value, tuple):
                stated[name] = list(value)
            elif value := _fit(name, value):
                stated[name] = value
    if record.listed_on and not record.cross_listed:
        stated["listed_on"] = record.listed_on.isoformat()
    if record.versions:
        stated["versions"] = [
            {"number": one.number, "on": one.on.isoformat() if one.on else None}
            for one in record.versions
        ]
    return stated


def _taken_back(record: Withdrawn) -> Statement:
    return {"withdrawn_on": record.on.isoformat() if record.on else ""}


def _corrected(
    row: SourceRecord, stated: Statement, at: datetime, keeps: Collection[str]
) -> Statement:
    """What a source now says, having said `row.record` before."""
    old = row.record
    if "withdrawn_on" in stated:  # and nothing else
        day = stated["withdrawn_on"] or old.get("withdrawn_on") or at.date().isoformat()
        return {**old, "withdrawn_on": day}
    if row.source in SPEAKS and at > row.seen_at:
        new = {**old, **stated}
        if "withdrawn_on" not in keeps:
            new.pop("withdrawn_on", None)  # it lives
    else:
        new = {**stated, **old}
        if row.source not in SPEAKS and stated.get("abstract"):
            new["abstract"] = max(old.get("abstract", ""), stated["abstract"], key=len)
    days = [day for day in (old.get("listed_on"), stated.get("listed_on")) if day]
    if days:
        # A paper that was held is told to be listed later than it first seemed, and never earlier;
        # of several files the earliest is right.
        new["listed_on"] = max(days) if row.source in SPEAKS else min(days)
    if versions := _folded(old.get("versions", []), stated.get("versions", [])):
        new["versions"] = versions
    return new


def _added_up(one: SourceRecord, other: SourceRecord) -> SourceRecord:
    """What one source said of a paper that was two for a while."""
    first, second = sorted((one, other), key=lambda row: row.seen_at)
    stated = {name: value for name, value in second.record.items() if name != "withdrawn_on"}
    record = _corrected(first, stated, second.seen_at, {"withdrawn_on"})
    if "withdrawn_on" in second.record:
        record["withdrawn_on"] = second.record["withdrawn_on"]
    return SourceRecord(record=record, seen_at=second.seen_at)


def _folded(*lists: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each version once, the first one first; a later list knows better."""
    by_number: dict[int, dict[str, Any]] = {}
    for version in itertools.chain(*lists):
        known = by_number.get(version["number"], {})
        by_number[version["number"]] = {**version, "on": version["on"] or known.get("on")}
    return [by_number[number] for number in sorted(by_number)]


def _fit(name: str, stated: str | date) -> str | None:
    """As JSON. A link that is too long or not of the web, or too long an identifier, is left out; a
    name is cut."""
    if not isinstance(stated, str):
        return stated.isoformat()
    if name.endswith("url") and not stated.lower().startswith(("https://", "http://")):
        return ""
    limit = getattr(Paper._meta.get_field(name), "max_length", None)
    if limit is None or len(stated) <= limit:
        return stated
    if name in IDENTIFIERS:
        return None
    return "" if name.endswith("url") else stated[:limit]


def _write_signals(touched: list[tuple[Paper, PaperRecord]], now: datetime) -> set[int]:
    """Add the snapshots that say something new; returns the ids of the papers that got one.

    A record that says when it was counted is one snapshot for ever, but for a number that is the
    same as shortly before: it is noted once more, for that it has not grown is known only then, and
    then seldom. A record that does not say so counts as counted now, and only where the number has
    grown: two files that disagree would otherwise outdo each other at every import.
    """
    known = _known_counts(touched)
    new: dict[tuple[int, str, str, datetime], Signal] = {}
    for paper, record in touched:
        for counter, value in record.counters.items():
            counts = known.setdefault((paper.pk, record.source, counter), {})
            observed_at = record.observed_at or now
            if record.observed_at is None:
                if counts and counts[max(counts)] >= value:
                    continue
            elif observed_at in counts or _tells_nothing(counts, observed_at, value):
                continue
            counts[observed_at] = value
            new[paper.pk, record.source, counter, observed_at] = Signal(
                paper=paper,
                source=record.source,
                counter=counter,
                value=value,
                observed_at=observed_at,
            )
    Signal.objects.bulk_create(
        new.values(),
        batch_size=2000,
        update_conflicts=True,  # an earlier batch of this import counted less at this same moment
        unique_fields=["paper", "counter", "source", "observed_at"],
        update_fields=["value"],
    )
    return {signal.paper_id for signal in new.values()}


def _known_counts(
    touched: list[tuple[Paper, PaperRecord]],
) -> dict[tuple[int, str, str], dict[datetime, int]]:
    """By paper, source and counter: what was counted when, as far as it is compared with."""
    moments = [one.observed_at for _, one in touched if one.counters and one.observed_at]
    dated = {paper.pk for paper, one in touched if one.counters and one.observed_at}
    undated = {paper.pk for paper, one in touched if one.counters and not one.observed_at}
    rows: list[Signal] = []
    if moments:
        around = (min(moments) - COMPARED, max(moments))
        rows += Signal.objects.filter(paper__in=dated, observed_at__range=around)
    if undated:
        newest = Signal.objects.filter(paper__in=undated)
        newest = newest.order_by("paper_id", "source", "counter", "-observed_at")
        rows += newest.distinct("paper_id", "source", "counter")
    known: dict[tuple[int, str, str], dict[datetime, int]] = {}
    for row in rows:
        counts = known.setdefault((row.paper_id, row.source, row.counter), {})
        counts[row.observed_at] = row.value
    return known


def _tells_nothing(counts: dict[datetime, int], at: datetime, value: int) -> bool:
    """Whether the number is that of shortly before, and more than one was known by then."""
    before = sorted(moment for moment in counts if at - COMPARED <= moment < at)
    return len(before) > 1 and counts[before[-1]] == value and at - before[-1] < REPEATED
