"""The harvest: what is new at the sources, pulled page by page, so that a break loses nothing.

A Harvest row is one pull of one part of a source (a category of arXiv) for a window of time. Each
page is written in one transaction with the row's counts and its cursor, so whoever goes on does so
behind the last page that is whole. While a pull is RUNNING its `retry_at` is a lease, renewed with
each page, and also the sign that it is still ours: a process that died is followed by another, and
one that was thought dead writes no more. A pull that failed is tried again at `retry_at`, later
each time. A window without `until` is of the chain: the next one begins where it began.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from papers import ingest, politeness
from papers.ingest import Summary
from papers.locks import Lock
from papers.models import Harvest, Paper, Source, SourceAnswer
from papers.sources import (
    BadRecord,
    CursorExpired,
    Page,
    Refused,
    SourceError,
    arxiv,
    huggingface,
)
from papers.sources.client import TIMEOUT, Client
from papers.sources.identifiers import normalise_arxiv_id

log = logging.getLogger(__name__)

VERSION = "0.1.0"  # pyproject's, which is not installed with the code

ARXIV, HUGGING_FACE = Source.ARXIV.value, Source.HUGGING_FACE.value
FEED = "announcement"  # a part of arXiv beside its categories
LEASE = timedelta(minutes=10)  # longer than one page can take: turn, answer and writing
DELAYS = [timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 180)]
REFUSED_DELAY = timedelta(hours=1)  # asking again the same way is of little use
FIRST_DAYS = 7  # of a source that was never asked
MOST_DAYS = 30  # of a list of days, after a long silence

# Of a worker: the rest of the minute is for whatever else waits for it.
TICK_SECONDS = 20.0
TICK_PATIENCE = 5.0
TICK_TIMEOUT = 60.0
COMMAND_PATIENCE = 240.0
# Of somebody who waits before a page.
PAGE_PATIENCE = 5.0
PAGE_TIMEOUT = 10.0

# arXiv announces at 20:00 US Eastern, Sunday to Thursday. Its records follow within the hour, at
# times later: who got nothing new asks again. Its feeds are made anew at midnight.
ANNOUNCED_AT = time_of_day(20)
RECORDS_AFTER = (timedelta(minutes=30), timedelta(hours=2), timedelta(hours=6))
FEED_AFTER = (timedelta(hours=5),)
# Hugging Face: today's list moves all day; counters of the days before do so more slowly.
LIST_AGAIN = timedelta(hours=1)
COUNT_AGAIN = timedelta(hours=6)
COUNTED_DAYS = 7

S = Harvest.State


class AlreadyRunning(Exception):
    """Another process is at this source; the message says since when and what to do."""


class _Lost(Exception):
    """Another process has taken this harvest up."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is to be pulled: a part of a source, from a day to a day, or to now."""

    source: str
    part: str
    since: date
    until: date | None = None


def user_agent() -> str:
    """Who asks, and whom to write to about it."""
    contact = settings.CONTACT_ADDRESS
    contacts = [settings.SITE_URL, *([f"mailto:{contact}"] if "@" in contact else [])]
    text = f"Paperround/{VERSION} (+{'; '.join(contacts)})"
    return "".join(char for char in text if char.isascii() and char.isprintable())


class _Kept:
    """What servers called the answers that were kept."""

    def get(self, url: str) -> tuple[str, str]:
        known = SourceAnswer.objects.filter(url=url).values_list("etag", "last_modified").first()
        return known or ("", "")


def _client(patience: float, timeout: float) -> Client:
    return Client(
        user_agent=user_agent(),
        turn=partial(politeness.turn, patience=patience),
        validators=_Kept(),
        timeout=timeout,
    )


# --- One harvest ----------------------------------------------------------------------------------


def begin(window: Window, now: datetime) -> Harvest:
    """The harvest of this window, ours from now on: a new one, or one that was not finished.

    Raises:
        AlreadyRunning: another process is at this source.
    """
    with transaction.atomic():
        _check_idle(window.source, now)
        left = Harvest.objects.filter(
            source=window.source, part=window.part, state__in=[S.RUNNING, S.FAILED]
        )
        if window.until is None:
            # Whatever was left of the chain comes first: the next window begins where it began.
            waiting = Q(until=None, retry_at__isnull=False)
        else:
            waiting = Q(since=window.since, until=window.until)
            if window.until >= now.date():  # what went to its own day now goes to this one
                waiting |= Q(since=window.since, until__gte=F("started_at__date"))
        row = left.filter(waiting).order_by("-started_at").first()
        if row is None:
            return Harvest.objects.create(
                source=window.source,
                part=window.part,
                since=window.since,
                until=window.until,
                started_at=now,
                retry_at=now + LEASE,
            )
        return _take_up(row, now, window.until)


def _take_up(row: Harvest, now: datetime, until: date | None) -> Harvest:
    attempt = row.attempt + 1 if row.state == S.FAILED else row.attempt
    # As it was read: a process that was thought dead may just have renewed its lease.
    same = Harvest.objects.filter(pk=row.pk, state=row.state, retry_at=row.retry_at)
    values = {
        "state": S.RUNNING, "retry_at": now + LEASE, "finished_at": None, "attempt": attempt,
        "until": until,
    }  # fmt: skip
    if not same.update(**values):
        raise AlreadyRunning(
            f"Another process has taken up harvest {row.pk} of {Source(row.source).label}."
        )
    _set(row, values)
    return row


def _check_idle(source: str, now: datetime) -> None:
    """Within a transaction: until its end, nobody else begins to pull this source."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))", [Lock.HARVEST, source])
        (alone,) = cursor.fetchone()
    if not alone:
        raise AlreadyRunning(f"Another process is just beginning to pull {Source(source).label}.")
    held = Harvest.objects.filter(source=source, state=S.RUNNING, retry_at__gt=now).first()
    if held is not None and held.retry_at is not None:
        raise AlreadyRunning(
            f"Another process is pulling {Source(source).label} (harvest {held.pk}, "
            f"{held.read} records so far). If it was killed, its harvest is free again at "
            f"{held.retry_at:%H:%M:%S} UTC."
        )


def pull(
    harvest: Harvest,
    *,
    seconds: float = math.inf,
    patience: float = TICK_PATIENCE,
    timeout: float = TIMEOUT,
    again: bool = True,
    progress: Callable[[Harvest, Page], None] = lambda harvest, page: None,
) -> Harvest:
    """Pull page after page, until the last one, an error, or the seconds are over.

    No page begins after these seconds; what is left waits in the row for whoever comes next.
    What went wrong is said by the row, and not raised.

    Args:
        patience: seconds to wait for the turn to ask.
        again: whether it is tried again by itself after an error.
        progress: called after each page that is kept.

    Raises:
        NotYet: the turn to ask did not come; the row waits for whoever comes next.
    """
    ends = time.monotonic() + seconds
    client = _client(patience, timeout)
    restarted = False
    try:
        while True:
            try:
                for page in _pages(client, harvest):
                    _keep(harvest, page)
                    progress(harvest, page)
                    if harvest.state == S.DONE:
                        log.info("harvest %s: %s, %s new", harvest.pk, harvest.read, harvest.new)
                        return harvest
                    if time.monotonic() >= ends:
                        return _put_down(harvest)
                raise SourceError("the last page did not come")
            except CursorExpired:
                if restarted or not harvest.cursor:
                    raise
                # What was read is here already, and reading it again changes nothing.
                log.info("harvest %s begins again: its cursor has expired", harvest.pk)
                restarted = True
                _update(harvest, cursor="", attempt=harvest.attempt + 1)
    except politeness.NotYet:
        _put_down(harvest)
        raise
    except _Lost:
        return _lost(harvest)
    except SourceError as error:
        return _fail(harvest, error, again=again)
    except Exception as error:
        # A fault of ours or of the database: one source must not stop the others.
        log.exception("harvest %s", harvest.pk)
        return _fail(harvest, error, again=again)
    except BaseException:  # Ctrl-C
        if again:
            _put_down(harvest)
        else:
            _fail(harvest, "Interrupted: by hand", again=False)
        raise


def _pages(client: Client, harvest: Harvest) -> Iterator[Page]:
    since = harvest.since or timezone.now().date()
    if harvest.source == HUGGING_FACE:
        return _days(client, harvest.cursor, since, harvest.until or since)
    if harvest.part == FEED:
        return arxiv.announced(client, settings.ARXIV_RSS_URL, settings.ARXIV_CATEGORIES)
    set_ = arxiv.set_of(harvest.part)
    return arxiv.harvest(client, settings.ARXIV_OAI_URL, set_, since, harvest.cursor)


def _days(client: Client, cursor: str, day: date, until: date) -> Iterator[Page]:
    """The lists of days, whose cursor is a day and the cursor within it.

    A day that is refused is told with the next page, and stops no other day.

    Raises:
        Refused: they all are.
    """
    at, _, within = cursor.partition(" ")
    day = date.fromisoformat(at) if at else day
    came = bool(cursor)
    refused: list[BadRecord] = []
    while day <= until:
        after = day + timedelta(days=1)
        following = after.isoformat() if after <= until else ""
        try:
            for page in huggingface.daily(client, settings.HUGGINGFACE_URL, day, within):
                here = f"{day} {page.cursor}" if page.cursor else following
                came, told, refused = True, tuple(refused), []
                yield replace(page, cursor=here, records=(*told, *page.records))
        except Refused as error:
            if not (came or following):
                raise
            refused.append(BadRecord(f"Hugging Face, {day}", f"{type(error).__name__}: {error}"))
        day, within = after, ""
    if refused:
        yield Page(tuple(refused))


def _keep(harvest: Harvest, page: Page) -> None:
    """One page, its counts and its cursor: all of it or nothing."""
    now = timezone.now()
    summary = Summary(
        harvest.read, harvest.new, harvest.updated, harvest.skipped, [*harvest.errors],
        harvest.failed, harvest.joined,
    )  # fmt: skip
    with transaction.atomic():
        if not _ours(harvest).select_for_update().exists():
            raise _Lost
        ingest.write(page.records, now, summary)
        kept: dict[str, Any] = {
            name: getattr(summary, name)
            for name in ("read", "new", "updated", "skipped", "failed", "joined", "errors")
        }
        kept |= {"cursor": page.cursor, "retry_at": now + LEASE}
        # Getting on is a success: what fails after it fails for the first time. The first page is
        # none, where it is asked for again because the second one is never to be had.
        if harvest.cursor or not page.cursor:
            kept["attempt"] = 1
        if not page.cursor:
            kept |= {"state": S.DONE, "finished_at": now, "retry_at": None}
        _write(harvest, kept)
        # A page that is not read in full is asked for again: it may be us who cannot read it yet.
        if page.validator is not None and summary.failed == harvest.failed:
            named = page.validator
            SourceAnswer.objects.update_or_create(
                url=named.url,
                defaults={"etag": named.etag, "last_modified": named.last_modified, "at": now},
            )
    _set(harvest, kept)
    if page.wait:
        politeness.rest(_host(harvest), page.wait)


def _host(harvest: Harvest) -> str:
    url: str = settings.ARXIV_RSS_URL if harvest.part == FEED else settings.ARXIV_OAI_URL
    if harvest.source == HUGGING_FACE:
        url = settings.HUGGINGFACE_URL
    return urlsplit(url).netloc


def _ours(harvest: Harvest) -> Any:
    return Harvest.objects.filter(pk=harvest.pk, state=S.RUNNING, retry_at=harvest.retry_at)


def _write(harvest: Harvest, values: dict[str, Any]) -> None:
    """Write where the harvest is still ours; elsewhere it is another's to write.

    Raises:
        _Lost: it is another's.
    """
    if not _ours(harvest).update(**values):
        raise _Lost


def _set(harvest: Harvest, values: dict[str, Any]) -> None:
    """What was written, once it stands."""
    for name, value in values.items():
        setattr(harvest, name, value)


def _update(harvest: Harvest, **values: Any) -> None:
    _write(harvest, values)
    _set(harvest, values)


def _lost(harvest: Harvest) -> Harvest:
    log.warning("harvest %s was taken up by another process", harvest.pk)
    harvest.refresh_from_db()
    return harvest


def _put_down(harvest: Harvest) -> Harvest:
    """Let whoever comes next go on."""
    try:
        _update(harvest, retry_at=timezone.now())
    except _Lost:
        return _lost(harvest)
    return harvest


def _fail(harvest: Harvest, error: Exception | str, *, again: bool) -> Harvest:
    now = timezone.now()
    words = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    delay = DELAYS[min(harvest.attempt, len(DELAYS)) - 1]
    if isinstance(error, Refused):
        delay = max(delay, REFUSED_DELAY)
    if isinstance(error, SourceError) and error.retry_after:
        delay = max(delay, timedelta(seconds=error.retry_after))
    log.warning("harvest %s, attempt %s: %s", harvest.pk, harvest.attempt, words)
    # A cursor that is no longer taken is not always called so.
    cursor = "" if isinstance(error, Refused) else harvest.cursor
    try:
        _update(
            harvest,
            state=S.FAILED,
            finished_at=now,
            retry_at=now + delay if again else None,
            errors=[*harvest.errors, ingest.storable(words)[:1000]][-ingest.ERRORS_KEPT :],
            cursor=cursor,
        )
    except _Lost:
        return _lost(harvest)
    return harvest


# --- What is due ----------------------------------------------------------------------------------


def harvest_due(now: datetime, *, seconds: float = TICK_SECONDS) -> list[Harvest]:
    """Pull what is due of each source, each for its share of the seconds."""
    pulled = []
    share = seconds / max(len(settings.HARVEST_SOURCES), 1)
    for source in settings.HARVEST_SOURCES:
        ends = time.monotonic() + share
        seen: set[int] = set()
        while (left := ends - time.monotonic()) > 0:
            harvest = _claim_due(source, now, seen)
            if harvest is None:
                break
            seen.add(harvest.pk)
            pulled.append(harvest)
            try:
                pull(harvest, seconds=left, timeout=TICK_TIMEOUT)
            except politeness.NotYet as error:
                log.info("harvest %s waits: %s", harvest.pk, error)
                break
    return pulled


def _claim_due(source: str, now: datetime, seen: set[int]) -> Harvest | None:
    """What of a source is to be tried again, gone on with, or begun."""
    parts = parts_of(source)
    with transaction.atomic():
        try:
            _check_idle(source, now)
        except AlreadyRunning:
            return None
        waiting = (
            Harvest.objects.filter(
                source=source,
                part__in=parts,
                state__in=[S.RUNNING, S.FAILED],
                retry_at__lte=now,
            )
            .exclude(pk__in=seen)
            .order_by("retry_at")
        )
        if (row := waiting.first()) is not None:
            try:
                return _take_up(row, now, row.until)
            except AlreadyRunning:
                return None
        for part in parts:
            if (window := due(source, part, now)) is not None:
                return Harvest.objects.create(
                    source=source,
                    part=part,
                    since=window.since,
                    until=window.until,
                    started_at=now,
                    retry_at=now + LEASE,
                )
    return None


def try_again(rows: QuerySet[Harvest], now: datetime) -> int:
    """Have failed harvests tried at the next tick; returns how many there are."""
    sources = settings.HARVEST_SOURCES
    return rows.filter(source__in=sources, state=S.FAILED).update(retry_at=now)


def give_up(rows: QuerySet[Harvest]) -> int:
    """Have failed harvests never tried again; returns how many there are.

    Of arXiv, the next window begins where they were begun: what they did not read is left out, for
    to begin where they did would be to meet the same answer. Of Hugging Face, each day is asked for
    again as long as it is counted.
    """
    waiting = rows.filter(state=S.FAILED, retry_at__isnull=False)
    return waiting.update(retry_at=None)


def parts_of(source: str) -> list[str]:
    return [*settings.ARXIV_CATEGORIES, FEED] if source == ARXIV else [""]


def due(source: str, part: str, now: datetime) -> Window | None:
    """The window of a part that is to be pulled now; None while nothing is, or one waits."""
    chain = _chain(source, part)
    last = chain.order_by("-started_at").first()
    if last is not None and last.state != S.DONE and last.retry_at is not None:
        return None
    if source == HUGGING_FACE:
        if last is not None and last.started_at > now - LIST_AGAIN:
            return None
        counted = chain.filter(since__lt=F("until"), started_at__gt=now - COUNT_AGAIN)
        if counted.exists():
            return Window(source, part, now.date(), now.date())
        return next_window(source, part, now)
    offsets = FEED_AFTER if part == FEED else RECORDS_AFTER
    announced = last_announcement(now - offsets[0])
    rounds = [announced + after for after in offsets if announced + after <= now]
    if last is not None and last.started_at >= rounds[-1]:
        return None
    came = chain.filter(started_at__gte=rounds[0], new__gt=0, state=S.DONE)
    return None if came.exists() else next_window(source, part, now)


def next_window(source: str, part: str, now: datetime) -> Window:
    """From where the last finished pull of a part began, to now; at first some days back.

    A pull that could not read most of what came counts as none: who can is to have those days.
    """
    today = now.date()
    finished = Q(state=S.DONE, failed__lte=F("read"))
    if source == ARXIV:
        finished |= Q(state=S.FAILED, retry_at=None)  # given up
    done = _chain(source, part).filter(finished).order_by("-started_at").first()
    if source == HUGGING_FACE:
        since = today - timedelta(days=COUNTED_DAYS)
        if done is not None and done.until:
            since = max(min(since, done.until), today - timedelta(days=MOST_DAYS))
        return Window(source, part, since, today)
    if part == FEED:
        return Window(source, part, today)
    if done is None:
        return Window(source, part, today - timedelta(days=FIRST_DAYS))
    # arXiv's datestamps are days; where its day has begun is not told, so the earlier one.
    return Window(source, part, done.started_at.astimezone(arxiv.EASTERN).date())


def _chain(source: str, part: str) -> Any:
    """The pulls that each begin where the last one ended: not those of a window somebody chose."""
    rows = Harvest.objects.filter(source=source, part=part)
    if source == HUGGING_FACE:
        return rows.filter(until__gte=F("started_at__date"))
    return rows.filter(until=None)


def last_announcement(now: datetime) -> datetime:
    """When arXiv last announced papers before `now`, its holidays left aside."""
    day = now.astimezone(arxiv.EASTERN).date()
    while True:
        moment = datetime.combine(day, ANNOUNCED_AT, tzinfo=arxiv.EASTERN).astimezone(UTC)
        if moment <= now and day.weekday() not in (4, 5):
            return moment
        day -= timedelta(days=1)


# --- Single papers --------------------------------------------------------------------------------


def fetch_paper(arxiv_id: str) -> Paper:
    """The paper of an arXiv id, asked of arXiv where it is not known here.

    For somebody who waits before a page: it takes a quarter of a minute at most. Not to be called
    within a transaction.

    Raises:
        SourceError: arXiv has no such paper, answers with another one, or cannot be asked just now
            (politeness.NotYet: it is busy, for it is asked one thing at a time).
    """
    wanted = normalise_arxiv_id(arxiv_id)
    known = Paper.objects.filter(arxiv_id=wanted).first()
    if known is not None:
        return known
    client = _client(PAGE_PATIENCE, PAGE_TIMEOUT)
    page = next(arxiv.by_identifiers(client, settings.ARXIV_API_URL, [wanted]))
    if page.wait:
        politeness.rest(urlsplit(settings.ARXIV_API_URL).netloc, page.wait)
    summary = Summary()
    with transaction.atomic():
        ingest.write(page.records, timezone.now(), summary)
    paper = Paper.objects.filter(arxiv_id=wanted).first()
    if paper is None:
        raise Refused("; ".join(summary.errors) or f"arXiv has no paper {wanted}")
    return paper
