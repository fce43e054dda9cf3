"""Lists of papers as pages show them: a day, a week, a month, the last 30 days, a name, a category.

A page asks the same few questions however many papers it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

from django.core.cache import cache
from django.db import connection
from django.db.models import Max, Min, OuterRef, Q, QuerySet
from django.utils import timezone

from papers.categories import ARCHIVES, CATEGORY_NAMES
from papers.editions import shown
from papers.models import Edition, EditionPaper, Paper, Signal, Source
from papers.trending import GROWTH_SPAN

PER_PAGE = 50
MOST_PAGES = 10  # of a board: nobody looks further, and each page costs the ones before it
MOST_PAGES_OF_A_SUBJECT = 100  # of an author or a category
TOP_DAYS = 30
COUNTS_KEPT = 600  # seconds that the categories' sizes may be old
COUNTERS: list[str] = Signal.Counter.values
# The newest count by each source that has counted what is `asked` of a paper. Each is one step down
# the index, past all its older ones: it costs the same however often a paper was counted.
NEWEST = """
    WITH RECURSIVE told AS (
        (
            SELECT source, value FROM papers_signal signal
            WHERE signal.paper_id = asked.paper_id AND signal.counter = asked.counter
            ORDER BY source DESC, observed_at DESC LIMIT 1
        )
        UNION ALL
        SELECT other.source, other.value
        FROM told CROSS JOIN LATERAL (
            SELECT source, value FROM papers_signal signal
            WHERE signal.paper_id = asked.paper_id AND signal.counter = asked.counter
                AND signal.source < told.source
            ORDER BY source DESC, observed_at DESC LIMIT 1
        ) AS other
    )
    SELECT source, value FROM told
"""


@dataclass(frozen=True, slots=True)
class Count:
    """What a source counted of a paper, and by how much it grew within a day (0: not, or unknown).

    Sources count apart: a list shows the largest number of a counter, and whose it is.
    """

    counter: str
    value: int
    gained: int = 0
    source: str = ""

    @property
    def unit(self) -> str:
        return self.counter.removesuffix("s") if self.value == 1 else self.counter


@dataclass(frozen=True, slots=True)
class Card:
    """A paper as lists show it; `candidate` is what an edition says of it, if this is about one.

    votes: of the readers here, None where they were not asked for.
    """

    paper: Paper
    counts: Sequence[Count] = ()
    candidate: EditionPaper | None = None
    votes: int | None = None


@dataclass(frozen=True, slots=True)
class Day:
    """The list of one day. Without an edition there are only its neighbours."""

    day: date | None
    edition: Edition | None = None
    cards: Sequence[Card] = ()
    earlier: date | None = None
    later: date | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """A week, a month, or the last days: both ends included.

    name: of its address. newest_day: of its editions, else the last of its days that has come.
    earlier, later: the first days of the nearest such periods that have an edition.
    """

    name: str
    first: date
    last: date
    newest_day: date
    earlier: date | None = None
    later: date | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """One page of a list. `more`: there is a further one."""

    cards: Sequence[Card]
    page: int
    more: bool


# --- A day ----------------------------------------------------------------------------------------


def newest_day() -> Day:
    """The newest edition that is settled; none before the first one."""
    return _day(Edition.objects.settled().filter(day__lte=timezone.now().date()), None)


def day(day: date) -> Day:
    """The settled edition of a day; where there is none, the editions beside it."""
    return _day(Edition.objects.settled().filter(day=day), day)


def _day(editions: QuerySet[Edition], asked: date | None) -> Day:
    settled = Edition.objects.settled()
    earlier = settled.filter(day__lt=OuterRef("day")).order_by("-day").values("day")[:1]
    later = settled.filter(day__gt=OuterRef("day")).order_by("day").values("day")[:1]
    edition = editions.annotate(earlier=earlier, later=later).first()
    if edition is None:
        if asked is None:
            return Day(asked)
        earlier_day, _, later_day = _around(asked, asked)
        return Day(asked, None, (), earlier_day, later_day)
    candidates = list(shown().filter(edition=edition))
    counts, votes = counts_and_votes([row.paper_id for row in candidates])
    return Day(
        edition.day,
        edition,
        [
            Card(row.paper, counts.get(row.paper_id, ()), row, votes.get(row.paper_id, 0))
            for row in candidates
        ],
        edition.earlier,
        edition.later,
    )


def _around(first: date, last: date) -> tuple[date | None, date | None, date | None]:
    """The days of settled editions: next before `first`, newest up to `last`, next after that."""
    found = Edition.objects.settled().aggregate(
        earlier=Max("day", filter=Q(day__lt=first)),
        newest=Max("day", filter=Q(day__range=(first, last))),
        later=Min("day", filter=Q(day__gt=last)),
    )
    return found["earlier"], found["newest"], found["later"]


# --- Weeks, months, the last days -----------------------------------------------------------------


def week(monday: date) -> Period:
    return _period("week", monday, monday + timedelta(days=6))


def month(first: date) -> Period:
    return _period("month", first, _month_of(first + timedelta(days=31)) - timedelta(days=1))


def top() -> Period:
    today = timezone.now().date()
    return Period("top", today - timedelta(days=TOP_DAYS - 1), today, today)


def _period(name: str, first: date, last: date) -> Period:
    start = {"week": _week_of, "month": _month_of}[name]
    earlier, newest, later = _around(first, last)
    newest = newest or min(last, timezone.now().date())
    return Period(name, first, last, newest, earlier and start(earlier), later and start(later))


def _week_of(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _month_of(day: date) -> date:
    return day.replace(day=1)


def board(period: Period, page: int) -> Board:
    """A page of the papers of all editions of a period, each once, most upvotes first.

    Upvotes are the newest of what sources and readers say; papers of equally many stand by their
    best trend. What one of the editions hides, or its source took back, is left out.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH asked AS (
                SELECT paper_id, max(trend) AS trend, 'upvotes' AS counter
                FROM papers_editionpaper JOIN papers_edition edition ON edition.id = edition_id
                WHERE edition.state = 'frozen' AND edition.day BETWEEN %(first)s AND %(last)s
                GROUP BY paper_id HAVING NOT bool_or(curation = 'hidden')
            )
            SELECT paper_id
            FROM asked JOIN papers_paper paper ON paper.id = paper_id
            CROSS JOIN LATERAL (
                SELECT coalesce(max(value) FILTER (WHERE source <> %(here)s), 0)
                    + coalesce(max(value) FILTER (WHERE source = %(here)s), 0) AS upvotes
                FROM ({NEWEST}) AS newest
            ) AS counted
            WHERE paper.withdrawn_on IS NULL
            ORDER BY upvotes DESC, trend DESC, paper_id
            LIMIT %(limit)s OFFSET %(offset)s
            """,  # noqa: S608  (of constants)
            {
                "first": period.first,
                "last": period.last,
                "here": Source.PAPERROUND,
                "limit": PER_PAGE + 1,
                "offset": (page - 1) * PER_PAGE,
            },
        )
        ids = [row[0] for row in cursor.fetchall()]
    listed = EditionPaper.objects.filter(
        paper__in=ids[:PER_PAGE],
        edition__state=Edition.State.FROZEN,
        edition__day__range=(period.first, period.last),
    )
    newest = {
        row.paper_id: row
        for row in listed.select_related("paper", "edition").order_by("edition__day")
    }
    counts, votes = counts_and_votes(newest)
    cards = [
        Card(newest[pk].paper, counts.get(pk, ()), newest[pk], votes.get(pk, 0))
        for pk in ids[:PER_PAGE]
    ]
    return Board(cards, page, len(ids) > PER_PAGE and page < MOST_PAGES)


# --- Authors and categories -----------------------------------------------------------------------


def papers_by(author: str, page: int) -> Board:
    """The papers of an author, by the exact name, the newest first."""
    return _subject(Paper.objects.filter(authors__contains=[author]), page)


def papers_in(category: str, page: int) -> Board:
    return _subject(Paper.objects.filter(categories__contains=[category]), page)


def _subject(papers: QuerySet[Paper], page: int) -> Board:
    start = (page - 1) * PER_PAGE
    found = list(papers.order_by("-listing_day", "-id")[start : start + PER_PAGE + 1])
    more = len(found) > PER_PAGE and page < MOST_PAGES_OF_A_SUBJECT
    return Board(cards(found[:PER_PAGE]), page, more)


def cards(papers: Sequence[Paper]) -> list[Card]:
    """Papers with what their counters say now."""
    counts, votes = counts_and_votes([paper.pk for paper in papers])
    return [Card(paper, counts.get(paper.pk, ()), votes=votes.get(paper.pk, 0)) for paper in papers]


@dataclass(frozen=True, slots=True)
class Category:
    code: str
    name: str
    papers: int


def categories() -> dict[str, list[Category]]:
    """arXiv's categories by their archive ("cs"), then whatever else papers name, with how many
    papers each has: as counted some minutes ago."""
    sizes: dict[str, int] = cache.get_or_set("papers.category_sizes", _sizes, COUNTS_KEPT) or {}
    groups: dict[str, list[Category]] = {}
    others = sorted(sizes.keys() - CATEGORY_NAMES.keys())
    for code in [*CATEGORY_NAMES, *others]:
        known = code in CATEGORY_NAMES
        group = ARCHIVES.get(code.partition(".")[0], "Physics") if known else "Others"
        category = Category(code, CATEGORY_NAMES.get(code, ""), sizes.get(code, 0))
        groups.setdefault(group, []).append(category)
    return groups


def _sizes() -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT category, count(*) FROM papers_paper, unnest(categories) AS category GROUP BY 1"
        )
        return dict(cursor.fetchall())


# --- Counters -------------------------------------------------------------------------------------


def counts_and_votes(paper_ids: Iterable[int]) -> tuple[dict[int, list[Count]], dict[int, int]]:
    """What counters say now, by paper, in the order of Signal.Counter, each as the source that
    counted most says it; and the upvotes of the readers here, which are shown by their own button.

    One question, of the same cost however often each paper was counted.
    """
    found: dict[int, list[Count]] = {}
    votes: dict[int, int] = {}
    for paper, told in _newest_counts(paper_ids).items():
        largest: dict[str, Count] = {}
        for count in told:
            if count.source == Source.PAPERROUND:
                votes[paper] = count.value
            elif count.counter not in largest or count.value > largest[count.counter].value:
                largest[count.counter] = count
        found[paper] = [largest[counter] for counter in COUNTERS if counter in largest]
    return found, votes


def counts_by_source(paper_id: int) -> list[list[Count]]:
    """What each source elsewhere says of a paper now."""
    told = _newest_counts([paper_id]).get(paper_id, [])
    elsewhere = [count for count in told if count.source != Source.PAPERROUND]
    return [list(counts) for _, counts in groupby(elsewhere, key=lambda count: count.source)]


def _newest_counts(paper_ids: Iterable[int]) -> dict[int, list[Count]]:
    """By paper, in the order of the sources, those not known here last, then of the counters."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH asked AS (
                SELECT paper_id, counter
                FROM unnest(%(papers)s::bigint[]) AS paper_id
                CROSS JOIN unnest(%(counters)s::text[]) AS counter
            )
            SELECT paper_id, counter, newest.value, newest.value - before.value, newest.source
            FROM asked
            CROSS JOIN LATERAL ({NEWEST}) AS newest
            LEFT JOIN LATERAL (
                SELECT value FROM papers_signal signal
                WHERE signal.paper_id = asked.paper_id AND signal.counter = asked.counter
                    AND signal.source = newest.source AND signal.observed_at <= %(day_ago)s
                ORDER BY signal.observed_at DESC LIMIT 1
            ) AS before ON true
            """,  # noqa: S608  (of constants)
            {
                "papers": list(paper_ids),
                "counters": COUNTERS,
                "day_ago": timezone.now() - GROWTH_SPAN,
            },
        )
        rows = cursor.fetchall()
    found: dict[int, list[Count]] = {}
    order = {source: place for place, source in enumerate(Source.values)}
    for paper, counter, value, gained, source in sorted(
        rows, key=lambda row: (order.get(row[4], len(order)), row[4], COUNTERS.index(row[1]))
    ):
        found.setdefault(paper, []).append(Count(counter, value, max(gained or 0, 0), source))
    return found
