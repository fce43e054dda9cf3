"""arXiv: what changed (OAI-PMH), single papers (its query API), the day's announcement (RSS, Atom).

Harvested is the format arXivRaw: it alone tells the versions with their dates, and so when a paper
was first listed. Its authors are one line, which `names_in` reads. The format arXiv has them apart,
but knows only the newest version's date. Elements are told by their name, whatever namespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from email.utils import parsedate_to_datetime
from itertools import islice
from xml.etree.ElementTree import Element
from zoneinfo import ZoneInfo

from papers.categories import CATEGORY_NAMES
from papers.sources import (
    BadAnswer,
    BadRecord,
    CursorExpired,
    Page,
    PaperRecord,
    Refused,
    Version,
    Withdrawn,
)
from papers.sources.client import Client
from papers.sources.fields import MAX_LIST, as_abstract, as_text, as_title, as_url
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi
from papers.sources.xml import child, children, name, parsed, text

OAI = "https://oaipmh.arxiv.org/oai"
QUERY = "https://export.arxiv.org/api/query"
FEED = "https://rss.arxiv.org/rss"

SLICE = 100  # identifiers of one request: an address has its bounds
MAX_TOKEN = 2_000
MAX_COMMENT = 5_000
MAX_AUTHORS = 500_000  # characters: 3,000 names with their affiliations have some 200,000
MAX_CATEGORIES = 5_000  # characters
MAX_JOURNAL_REF = 1_000
MAX_LICENCE = 255
MAX_CODE = 30
MAX_CODES = 100
FIRST_DAY = date(1980, 1, 1)  # some papers are older than arXiv itself

EASTERN = ZoneInfo("America/New_York")
CUT_OFF = time(14)

Records = list[PaperRecord | BadRecord | Withdrawn]

_ARCHIVES = {code.partition(".")[0] for code in CATEGORY_NAMES}
_OWN_GROUPS = {"cs", "econ", "eess", "math", "q-bio", "q-fin", "stat"}  # the rest is physics
_CATEGORY = re.compile(r"[a-z]+(?:-[a-z]+)?(?:\.[A-Za-z]+(?:-[A-Za-z]+)?)?", re.ASCII)
_VERSION = re.compile(r"v([1-9]\d{0,3})\Z", re.ASCII)


def set_of(category: str) -> str:
    """The OAI set of a category or a whole archive.

    >>> set_of("cs.LG"), set_of("hep-th"), set_of("physics.optics")
    ('cs:cs:LG', 'physics:hep-th', 'physics:physics:optics')
    """
    archive, _, subject = category.partition(".")
    if category not in CATEGORY_NAMES and category not in _ARCHIVES:
        raise ValueError(f"“{category[:80]}” is no category of arXiv such as cs.LG or hep-th")
    group = archive if archive in _OWN_GROUPS else "physics"
    return ":".join(filter(None, (group, archive, subject)))


def announced_on(submitted: datetime) -> date:
    """The day on whose list a paper stands that was first submitted at this moment.

    Submissions close Monday to Friday at 14:00 US Eastern; what came until then is announced at
    20:00 of the same day, Friday's on Sunday. By then it is the next day in UTC, summer and
    winter, and arXiv's own lists bear that day. Not known here are arXiv's holidays, which it
    publishes year by year, and how long moderators hold a paper: then this day is the earlier one,
    and the announcement itself (`announced`) has the true one. Until 2017 submissions closed at
    16:00; of papers that old, a day more or less makes no difference.
    """
    moment = submitted if submitted.tzinfo else submitted.replace(tzinfo=UTC)
    local = moment.astimezone(EASTERN)
    closing = local.date() + timedelta(days=local.time() >= CUT_OFF)
    if closing.weekday() > 4:
        closing += timedelta(days=7 - closing.weekday())
    return closing + timedelta(days=3 if closing.weekday() == 4 else 1)


# -- OAI-PMH ----------------------------------------------------------------------------------


def harvest(client: Client, base: str, set_: str, since: date, cursor: str = "") -> Iterator[Page]:
    """What of a set was new or changed since a day, page by page; of the set "", all of arXiv.

    With a `cursor` it goes on behind the page that brought it. There is no last day: a record that
    changes meanwhile would move out of a closed window, and be missed by both.

    Raises:
        CursorExpired: the cursor is of yesterday, or of nobody; harvest the window anew.
        SourceError: this page cannot be had; those before it stand.
    """
    place = f"arXiv, {set_ or 'everything'}"
    seen: set[str] = set()
    while True:
        if cursor:
            params = {"verb": "ListRecords", "resumptionToken": cursor}
        else:
            params = {"verb": "ListRecords", "metadataPrefix": "arXivRaw"}
            params |= {"set": set_} if set_ else {}
            params["from"] = since.isoformat()
        answer = client.get(base, params)
        records, next_cursor, total = read_oai(answer.content, place)
        seen.add(cursor)
        if next_cursor in seen and next_cursor:
            raise BadAnswer(f"{place}: the pages go round in a circle")
        yield Page(tuple(records), next_cursor, total, wait=answer.wait)
        if not next_cursor:
            return
        cursor = next_cursor


def read_oai(content: bytes, place: str) -> tuple[Records, str, int | None]:
    """The records of one answer, the cursor for the next, and the size of the whole list."""
    root = parsed(content, place)
    if name(root) != "OAI-PMH":
        raise BadAnswer(f"{place}: no answer of OAI-PMH but <{as_text(name(root), 40)}>")
    if _says_nothing_matches(root, place):
        return [], "", None
    listed = next((e for e in root if name(e) in ("ListRecords", "GetRecord")), None)
    if listed is None:
        raise BadAnswer(f"{place}: an answer without a list of records")
    records: Records = []
    for number, record in enumerate(children(listed, "record"), 1):
        records += _oai_record(record, f"{place}, record {number}")
    token = child(listed, "resumptionToken")
    cursor, size = text(token), token.get("completeListSize", "") if token is not None else ""
    if len(cursor) > MAX_TOKEN:
        raise BadAnswer(f"{place}: a resumption token of {len(cursor)} characters")
    if cursor and not records:
        raise BadAnswer(f"{place}: an empty page that is not the last")
    return records, cursor, int(size) if re.fullmatch(r"[0-9]{1,9}", size) else None


def _says_nothing_matches(root: Element, place: str) -> bool:
    """OAI-PMH calls an empty list an error; every other one is raised, with its words."""
    errors = {error.get("code", ""): as_text(text(error)) for error in children(root, "error")}
    if errors.keys() - {"noRecordsMatch"}:
        words = "; ".join(f"{as_text(code, 40)}: {said}" for code, said in errors.items())
        kind = CursorExpired if "badResumptionToken" in errors else Refused
        raise kind(f"{place}: arXiv refuses: {words}")
    return bool(errors)


def _oai_record(record: Element, place: str) -> Records:
    identifier = text(record, "header", "identifier")
    place += f" ({as_text(identifier, 60)})" if identifier else ""
    try:
        arxiv_id = normalise_arxiv_id(identifier)
        header = child(record, "header")
        if header is not None and header.get("status") == "deleted":
            deleted = _day(text(header, "datestamp"), "datestamp")
            return [Withdrawn("arxiv", arxiv_id, deleted, place)]
        metadata = child(record, "metadata")
        told = next(iter(metadata), None) if metadata is not None else None
        if told is None or name(told) not in ("arXivRaw", "arXiv"):
            raise ValueError("no metadata in the format arXivRaw or arXiv")
        if normalise_arxiv_id(text(told, "id")) != arxiv_id:
            raise ValueError("the header and the metadata are of two papers")
        return (
            _raw(told, arxiv_id, place)
            if name(told) == "arXivRaw"
            else [_structured(told, arxiv_id, place)]
        )
    except ValueError as error:
        return [BadRecord(place, str(error))]


def _raw(told: Element, arxiv_id: str, place: str) -> Records:
    dated: dict[int, tuple[datetime, Element]] = {}
    for version in children(told, "version"):
        number = _VERSION.match(version.get("version", ""))
        if not number or int(number[1]) in dated:
            raise ValueError(f"a wrong version “{as_text(version.get('version', ''), 40)}”")
        dated[int(number[1])] = _mailed(text(version, "date"), "date of a version"), version
    if 1 not in dated:
        raise ValueError("no first version")
    numbers = sorted(dated)
    submitted = dated[1][0]
    paper = _paper(
        told,
        arxiv_id,
        place,
        authors=names_in(text(told, "authors")),
        submitted=submitted,
        versions=tuple(Version(number, dated[number][0].date()) for number in numbers),
    )
    moment, newest = dated[numbers[-1]]
    if "I" in text(newest, "source_type"):  # its authors took it back, with a last empty version
        return [paper, Withdrawn("arxiv", arxiv_id, moment.date(), place)]
    return [paper]


def _structured(told: Element, arxiv_id: str, place: str) -> PaperRecord:
    parts = ("forenames", "keyname", "suffix")
    authors = (
        " ".join(filter(None, (text(author, part) for part in parts)))
        for author in children(told, "authors", "author")
    )
    # What it calls created is the newest version: no telling whether the paper is new.
    _day(text(told, "created"), "created")
    return _paper(told, arxiv_id, place, authors=_tidied(authors))


def _paper(
    told: Element,
    arxiv_id: str,
    place: str,
    *,
    authors: tuple[str, ...],
    submitted: datetime | None = None,
    versions: tuple[Version, ...] = (),
) -> PaperRecord:
    return PaperRecord(
        source="arxiv",
        title=as_title(text(told, "title")),
        abstract=as_abstract(text(told, "abstract")),
        arxiv_id=arxiv_id,
        doi=_doi(text(told, "doi")),
        authors=authors,
        categories=_categories(_bounded(text(told, "categories"), MAX_CATEGORIES).split()),
        published_on=submitted and submitted.date(),
        listed_on=submitted and announced_on(submitted),
        only_updates=submitted is None,
        versions=versions,
        licence=_licence(text(told, "license")),
        comment=as_text(text(told, "comments"), MAX_COMMENT),
        journal_ref=as_text(text(told, "journal-ref"), MAX_JOURNAL_REF),
        place=place,
    )


# -- Single papers ------------------------------------------------------------------------------


def by_identifiers(client: Client, base: str, ids: Iterable[str]) -> Iterator[Page]:
    """The papers of these identifiers, in slices; one that arXiv does not know is a BadRecord.

    Raises:
        SourceError: this slice cannot be had; those before it stand.
    """
    place = "arXiv, by identifier"
    wanted: list[str] = []
    bad: Records = []
    for identifier in ids:
        try:
            wanted.append(normalise_arxiv_id(identifier))
        except ValueError as error:
            bad.append(BadRecord(place, str(error)))
    wanted = list(dict.fromkeys(wanted))
    while wanted or bad:
        asked, wanted = wanted[:SLICE], wanted[SLICE:]
        page = _slice(client, base, asked, place) if asked else Page()
        yield Page((*bad, *page.records), wait=page.wait)
        bad = []


def _slice(client: Client, base: str, asked: list[str], place: str) -> Page:
    """One wrong identifier has arXiv refuse them all: the others are asked for without it."""
    refused: Records = []
    while asked:
        params = {"id_list": ",".join(asked), "max_results": str(SLICE)}
        answer = client.get(base, params, also=(400,))
        try:
            records = read_atom(answer.content, place)
            if answer.status != 200:
                raise BadAnswer(f"{place}: an error without words ({answer.status})")
        except Refused as error:
            words = str(error).split()
            named = [identifier for identifier in asked if identifier in words]
            if not named:
                raise
            refused += [BadRecord(f"{place} ({one})", str(error)) for one in named]
            asked = [identifier for identifier in asked if identifier not in named]
            continue
        found = {record.arxiv_id for record in records if isinstance(record, PaperRecord)}
        if others := found.difference(asked):
            raise BadAnswer(f"{place}: arXiv answers with {min(others)}, which was not asked for")
        told = " ".join(record.place for record in records if isinstance(record, BadRecord))
        refused += [
            BadRecord(f"{place} ({one})", "arXiv has no such paper")
            for one in asked
            if one not in found and not re.search(rf"{re.escape(one)}(?!\d)", told)
        ]
        return Page((*records, *refused), wait=answer.wait)
    return Page(tuple(refused))


def read_atom(content: bytes, place: str) -> Records:
    """The papers of one answer of the query API."""
    root = parsed(content, place)
    if name(root) != "feed":
        raise BadAnswer(f"{place}: no Atom feed but <{as_text(name(root), 40)}>")
    entries = list(children(root, "entry"))
    for entry in entries:
        if "/api/errors" in text(entry, "id"):
            raise Refused(f"{place}: arXiv refuses: {as_text(text(entry, 'summary'))}")
    total, size = (text(root, tag) for tag in ("totalResults", "itemsPerPage"))
    counted = all(re.fullmatch(r"[0-9]{1,9}", number) for number in (total, size))
    first = text(root, "startIndex") in ("", "0")
    if counted and first and len(entries) < min(int(total), int(size)):
        raise BadAnswer(f"{place}: {len(entries)} entries where {total} were announced")
    return [
        _atom_entry(entry, f"{place}, entry {number}") for number, entry in enumerate(entries, 1)
    ]


def _atom_entry(entry: Element, place: str) -> PaperRecord | BadRecord:
    identifier = text(entry, "id")
    place += f" ({as_text(identifier, 80)})" if identifier else ""
    try:
        published = _iso(text(entry, "published"), "published")
        versions = [Version(1, published.date())]
        number = _VERSION.search(identifier)
        if number and int(number[1]) > 1:
            updated = _iso(text(entry, "updated"), "updated")
            versions.append(Version(int(number[1]), updated.date()))
        primary = child(entry, "primary_category")
        terms = [primary] if primary is not None else []
        return PaperRecord(
            source="arxiv",
            title=as_title(text(entry, "title")),
            abstract=as_abstract(text(entry, "summary")),
            arxiv_id=normalise_arxiv_id(identifier),
            doi=_doi(text(entry, "doi")),
            authors=_tidied(text(author, "name") for author in children(entry, "author")),
            categories=_categories(
                term.get("term", "") for term in (*terms, *children(entry, "category"))
            ),
            published_on=published.date(),
            listed_on=announced_on(published),
            versions=tuple(versions),
            comment=as_text(text(entry, "comment"), MAX_COMMENT),
            journal_ref=as_text(text(entry, "journal_ref"), MAX_JOURNAL_REF),
            place=place,
        )
    except ValueError as error:
        return BadRecord(place, str(error))


# -- The day's announcement ---------------------------------------------------------------------


def announced(client: Client, base: str, categories: Iterable[str]) -> Iterator[Page]:
    """What arXiv announced last in these categories: one page, at weekends an empty one.

    New papers and those newly listed in a category (`new`, `cross`) have the announcement's day; of
    the latter it counts where the paper is not known. Another version of an old paper (`replace`,
    `replace-cross` and the like) only updates it.

    Raises:
        ValueError: one of the categories is none.
        SourceError: the announcement cannot be had.
    """
    wanted = list(dict.fromkeys(categories))
    for category in wanted:
        set_of(category)  # else it would be part of another address
    place = f"arXiv's announcement of {'+'.join(wanted)[:80]}"
    url = f"{base.rstrip('/')}/{'+'.join(wanted)}"
    answer = client.get(url, conditional=True, also=(400,))
    if answer.unchanged:
        yield Page(unchanged=True, wait=answer.wait)
        return
    records = read_feed(answer.content, place)
    if answer.status != 200:
        raise BadAnswer(f"{place}: an error without words ({answer.status})")
    yield Page(tuple(records), wait=answer.wait, validator=answer.validator)


def read_feed(content: bytes, place: str) -> Records:
    """The papers of an announcement, in RSS or Atom."""
    root = parsed(content, place)
    channel = child(root, "channel") if name(root) == "rss" else root
    if name(root) not in ("rss", "feed") or channel is None:
        raise BadAnswer(f"{place}: neither RSS nor Atom but <{as_text(name(root), 40)}>")
    if text(channel, "title").startswith("Feed error"):
        words = text(channel, "description") or text(channel, "subtitle")
        raise Refused(f"{place}: arXiv refuses: {as_text(words)}")
    items = [item for item in channel if name(item) in ("item", "entry")]
    return [_announced(item, f"{place}, item {number}") for number, item in enumerate(items, 1)]


def _announced(item: Element, place: str) -> PaperRecord | BadRecord:
    identifier = text(item, "guid") or text(item, "id") or text(item, "link")
    place += f" ({as_text(identifier, 80)})" if identifier else ""
    said = text(item, "description") or text(item, "summary")
    head = re.match(r"arXiv:\S{1,60}\s+Announce Type:\s*([a-z-]{1,30})\s+Abstract:\s*", said)
    kind = text(item, "announce_type") or (head[1] if head else "")
    try:
        if not kind:
            raise ValueError("no announce type")
        published = text(item, "published")
        day = (
            _iso(published, "published", in_utc=False)
            if published
            else _mailed(text(item, "pubDate"), "pubDate", in_utc=False)
        ).date()
        is_new = kind in ("new", "cross")
        return PaperRecord(
            source="arxiv",
            title=as_title(text(item, "title")),
            abstract=as_abstract(said[head.end() :] if head else said),
            arxiv_id=normalise_arxiv_id(identifier),
            doi=_doi(text(item, "DOI") or text(item, "doi")),
            authors=names_in(", ".join(text(creator) for creator in children(item, "creator"))),
            categories=_categories(
                category.get("term") or text(category) for category in children(item, "category")
            ),
            listed_on=day if is_new else None,
            cross_listed=kind == "cross",
            only_updates=not is_new,
            licence=_licence(text(item, "rights")),
            journal_ref=as_text(text(item, "journal_reference"), MAX_JOURNAL_REF),
            place=place,
        )
    except ValueError as error:
        return BadRecord(place, str(error))


# -- Fields -------------------------------------------------------------------------------------


def names_in(line: str) -> tuple[str, ...]:
    """The authors of a line such as "A. One (1), B. Two, Jr. and C. Three ((1) Here, (2) There)".

    What stands in parentheses are affiliations and the like; a collaboration is an author.

    Raises:
        ValueError: the line is too long.
    """
    bare, depth = [], 0
    for piece in re.split(r"([()])", " ".join(_bounded(line, MAX_AUTHORS).split())):
        depth = max(0, depth + (piece == "(") - (piece == ")"))
        if piece in ("(", ")"):
            bare.append(",")
        elif not depth:
            bare.append(piece)
    parts = re.split(r" ?[,:] ?(?:(?:and|&) )?| (?:and|&) ", "".join(bare))
    names: list[str] = []
    for part in parts:
        if names and re.fullmatch(r"(?:[JS]r\.?|II|III|IV)", part.strip()):
            names[-1] += " " + part.strip()
        elif not re.fullmatch(r"et\.? al\.?", part.strip(), re.I):
            names.append(part)
    return _tidied(names)


def _bounded(said: str, limit: int) -> str:
    if len(said) > limit:
        raise ValueError(f"{len(said)} characters where at most {limit} are read: “{said[:80]}”")
    return said


def _tidied(names: Iterable[str]) -> tuple[str, ...]:
    """Names spelled alike whatever the format: "A.B. One" and "A. B. One" are "A. B. One"."""
    readable = (as_text(each).replace(". -", ".-").replace(", ", " ") for each in names)
    spaced = (re.sub(r"(?<=\w\.)(?=[^\W\d_])", " ", each) for each in readable)
    return tuple(islice((each for each in spaced if re.search(r"[^\W\d_]", each)), MAX_LIST))


def _categories(codes: Iterable[str]) -> tuple[str, ...]:
    found = (code for code in codes if len(code) <= MAX_CODE and _CATEGORY.fullmatch(code))
    return tuple(dict.fromkeys(islice(found, MAX_CODES)))


def _doi(said: str) -> str:
    """The first of them; many a one is misspelled, which is no reason to lose the paper."""
    for part in re.split(r"[\s,;]+", said[:2_000]):
        try:
            return normalise_doi(part)
        except ValueError:
            continue
    return ""


def _licence(said: str) -> str:
    address = as_url(said)
    return address if len(address) <= MAX_LICENCE else ""


def _day(said: str, field: str) -> date:
    return _iso(said, field).date()


def _iso(said: str, field: str, *, in_utc: bool = True) -> datetime:
    try:
        moment = datetime.fromisoformat(said[:40])
    except ValueError:
        raise _wrong(said, field) from None
    return _sane(moment, said, field, in_utc)


def _mailed(said: str, field: str, *, in_utc: bool = True) -> datetime:
    try:
        moment = parsedate_to_datetime(said[:60])
    except (ValueError, TypeError, OverflowError):
        raise _wrong(said, field) from None
    return _sane(moment, said, field, in_utc)


def _sane(moment: datetime, said: str, field: str, in_utc: bool) -> datetime:
    """In UTC, or as its own clock shows it; not before there were papers, not after tomorrow."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not FIRST_DAY <= aware.date() <= datetime.now(UTC).date() + timedelta(days=2):
        raise _wrong(said, field)
    return aware.astimezone(UTC) if in_utc else aware


def _wrong(said: str, field: str) -> ValueError:
    return ValueError(f"a wrong date “{as_text(said, 60)}” ({field})")
