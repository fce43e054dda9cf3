"""Records -> rows, idempotent: importing the same files again changes nothing.

One paper is recognised by its identifier, else by its normalised title when one side names no
authors or both name the same first one. What several records say is merged by rules that do not
depend on their order: an empty field is filled, the longer abstract is kept, the earliest listing
day counts, sources add up. Where two state different facts of one kind, the first stays.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime
from itertools import islice
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from papers.models import Harvest, Paper, Signal
from papers.sources import BadRecord, PaperRecord
from papers.sources.identifiers import title_key

log = logging.getLogger(__name__)

BATCH = 500
ERRORS_KEPT = 1000
LOCK = 7_405_001  # one import at a time writes; a pg_advisory_xact_lock of our own
# Fields a record fills when the paper has nothing there yet.
FILLED = (
    "arxiv_id", "doi", "published_on", "url", "pdf_url", "code_url", "project_url",
    "thumbnail_url", "organisation", "submitter", "authors", "categories", "keywords",
)  # fmt: skip
IDENTIFIERS = ("arxiv_id", "doi")
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

    def __str__(self) -> str:
        return (
            f"{self.read} read, {self.new} new, {self.updated} updated, "
            f"{self.skipped} skipped, {self.failed} failed"
        )


def ingest(
    records: Iterable[PaperRecord | BadRecord],
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
    harvest = Harvest.objects.create(source=_storable(source)[:255], started_at=now)
    summary = Summary()
    try:
        for batch in _batches(records, BATCH):
            good: list[PaperRecord] = []
            for record in batch:
                match _checked(record):
                    case PaperRecord() as fit:
                        good.append(fit)
                    case BadRecord() as bad:
                        summary.failed += 1
                        if len(summary.errors) < ERRORS_KEPT:
                            summary.errors.append(_storable(f"{bad.place}: {bad.reason}"))
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
                _write(good, now, summary)
            progress(summary)
        harvest.state = Harvest.State.DONE
    except BaseException:
        harvest.state = Harvest.State.FAILED
        raise
    finally:
        for name in ("read", "new", "updated", "skipped", "failed", "errors"):
            setattr(harvest, name, getattr(summary, name))
        harvest.finished_at = timezone.now()
        harvest.save()
        log.info("harvest %s: %s", harvest.pk, summary)
    return summary


def _batches(
    records: Iterable[PaperRecord | BadRecord], size: int
) -> Iterator[tuple[PaperRecord | BadRecord, ...]]:
    iterator = iter(records)
    while batch := tuple(islice(iterator, size)):
        yield batch


def _checked(record: PaperRecord | BadRecord) -> PaperRecord | BadRecord:
    """What the columns could not hold is told here: it costs one record and not a batch."""
    if isinstance(record, BadRecord):
        return record
    record = replace(
        record, **{item.name: _storable(getattr(record, item.name)) for item in fields(record)}
    )
    if not record.title.strip():
        return BadRecord(record.place, "it has no title")
    if not 0 < len(record.source) <= 16:
        return BadRecord(record.place, "the source's name is not 1 to 16 characters long")
    if any(not 0 <= value < 2**31 for value in record.counters.values()):
        return BadRecord(record.place, "a counter is negative or beyond 2,147,483,647")
    unknown = set(record.counters) - set(Signal.Counter.values)
    if unknown:
        return BadRecord(record.place, f"unknown counter: {', '.join(sorted(unknown))}")
    if record.observed_at is not None and record.observed_at.tzinfo is None:
        return BadRecord(record.place, "the time of its counters has no time zone")
    return record


def _storable(value: Any) -> Any:
    """Text (or a tuple of texts) as PostgreSQL can hold it: no NUL, no half of a surrogate pair."""
    if isinstance(value, tuple):
        return tuple(_storable(item) for item in value)
    if not isinstance(value, str) or not _UNSTORABLE.search(value):
        return value
    halves = value.replace("\0", "").encode("utf-16", "surrogatepass")
    return halves.decode("utf-16", "replace")


def _write(records: list[PaperRecord], now: datetime, summary: Summary) -> None:
    known = _Known(records)
    touched: list[tuple[Paper, PaperRecord]] = []
    new: dict[int, Paper] = {}
    changed: dict[int, Paper] = {}
    for record in records:
        paper = known.find(record)
        if paper is None:
            paper = Paper(title=record.title, title_key=title_key(record.title))
            paper.listing_day = record.listed_on or now.date()
            _merge(paper, record, known)
            new[id(paper)] = paper
        elif _merge(paper, record, known) and id(paper) not in new:
            changed[id(paper)] = paper
        known.add(paper)
        touched.append((paper, record))
    Paper.objects.bulk_create(new.values())
    for paper in changed.values():
        paper.updated_at = now
    Paper.objects.bulk_update(
        changed.values(),
        [*FILLED, "abstract", "listing_day", "summary", "summary_source", "sources", "updated_at"],
        batch_size=100,
    )
    counted = _write_signals(touched, now)
    updated = {id(paper) for paper, _ in touched if paper.pk in counted} | set(changed)
    summary.read += len(records)
    summary.new += len(new)
    summary.updated += len(updated - set(new))
    summary.skipped += len(records) - len(new) - len(updated - set(new))


class _Known:
    """The papers that a batch may mean, by identifier and by title."""

    def __init__(self, records: list[PaperRecord]) -> None:
        self.by_identifier: dict[str, Paper] = {}
        self.by_title: dict[str, list[Paper]] = {}
        for paper in Paper.objects.filter(
            Q(arxiv_id__in=[record.arxiv_id for record in records if record.arxiv_id])
            | Q(doi__in=[record.doi for record in records if record.doi])
            | Q(title_key__in=[title_key(record.title) for record in records])
        ).order_by("id"):
            self.add(paper)

    def add(self, paper: Paper) -> None:
        for identifier in filter(None, (paper.arxiv_id, paper.doi)):
            self.by_identifier[identifier] = paper
        same_title = self.by_title.setdefault(paper.title_key, [])
        if paper not in same_title:
            same_title.append(paper)

    def find(self, record: PaperRecord) -> Paper | None:
        for identifier in filter(None, (record.arxiv_id, record.doi)):
            if identifier in self.by_identifier:
                return self.by_identifier[identifier]
        for paper in self.by_title.get(title_key(record.title), []):
            other_arxiv = record.arxiv_id and paper.arxiv_id and record.arxiv_id != paper.arxiv_id
            other_doi = record.doi and paper.doi and record.doi != paper.doi
            if not (other_arxiv or other_doi) and _same_authors(paper.authors, record.authors):
                return paper
        return None


def _same_authors(known: list[str], stated: tuple[str, ...]) -> bool:
    return not known or not stated or title_key(known[0]) == title_key(stated[0])


def _merge(paper: Paper, record: PaperRecord, known: _Known) -> bool:
    """Fill what the paper lacks; True when anything changed."""
    before = [getattr(paper, name) for name in (*FILLED, "abstract", "summary", "listing_day")]
    sources = list(paper.sources)
    for name in FILLED:
        stated = getattr(record, name)
        if name in IDENTIFIERS and known.by_identifier.get(stated, paper) is not paper:
            continue  # it names two papers that are known apart: each keeps its identifier
        if stated and not getattr(paper, name):
            setattr(paper, name, list(stated) if isinstance(stated, tuple) else _fit(name, stated))
    if len(record.abstract) > len(paper.abstract):
        paper.abstract = record.abstract
    if record.summary and not paper.summary:
        paper.summary, paper.summary_source = record.summary, record.source
    if record.listed_on and record.listed_on < paper.listing_day:
        paper.listing_day = record.listed_on
    if record.source not in paper.sources:
        paper.sources = [*paper.sources, record.source]
    after = [getattr(paper, name) for name in (*FILLED, "abstract", "summary", "listing_day")]
    return before != after or sources != paper.sources


def _fit(name: str, stated: str | date) -> str | date | None:
    """A link that is too long or not of the web, or too long an identifier, is left out; a name is
    cut."""
    if not isinstance(stated, str):
        return stated
    if name.endswith("url") and not stated.lower().startswith(("https://", "http://")):
        return ""
    limit = getattr(Paper._meta.get_field(name), "max_length", None)
    if limit is None or len(stated) <= limit:
        return stated
    if name in IDENTIFIERS:
        return None
    return "" if name.endswith("url") else stated[:limit]


def _write_signals(touched: list[tuple[Paper, PaperRecord]], now: datetime) -> set[int]:
    """Add the snapshots not known yet; returns the ids of the papers that got one.

    A record that says when it was counted is one snapshot for ever. One that does not counts as
    counted now, and only where the number has grown: two files that disagree would otherwise
    outdo each other at every import.
    """
    seen: set[tuple[int, str, str, datetime]] = set()
    latest: dict[tuple[int, str, str], tuple[datetime, int]] = {}
    papers = {paper.pk for paper, record in touched if record.counters}
    for signal in Signal.objects.filter(paper__in=papers).order_by("observed_at"):
        key = (signal.paper_id, signal.source, signal.counter)
        seen.add((*key, signal.observed_at))
        latest[key] = (signal.observed_at, signal.value)
    new: dict[tuple[int, str, str, datetime], Signal] = {}
    for paper, record in touched:
        for counter, value in record.counters.items():
            key = (paper.pk, record.source, counter)
            observed_at = record.observed_at or now
            if record.observed_at is None:
                if key in latest and latest[key][1] >= value:
                    continue
            elif (*key, observed_at) in seen:
                continue
            seen.add((*key, observed_at))
            if key not in latest or latest[key][0] <= observed_at:
                latest[key] = (observed_at, value)
            new[*key, observed_at] = Signal(
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
