"""Atom feeds (RFC 4287): the newest papers, those of a day, those of a category.

A feed holds what the editions' pages show, nothing of an open edition and nothing hidden. `atom`
writes any list of papers; the private feeds of newsletter/ use it, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from urllib.parse import quote
from xml.etree import ElementTree as ET

from django.conf import settings
from django.db.models import Max, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.encoding import iri_to_uri
from django.utils.html import format_html, format_html_join
from django.views.decorators.http import require_safe

from papers import conditional
from papers.about import source_name
from papers.categories import CATEGORY_NAMES
from papers.editions import shown
from papers.models import Edition, EditionPaper, Paper

CONTENT_TYPE = "application/atom+xml; charset=utf-8"
LONGEST, LONGEST_DAY = 100, 500  # entries; the best ones of a day stand first
MOST_AUTHORS = 30  # of an entry; some papers have thousands
NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # when a feed that has had no entry yet was updated

# XML 1.0 has no way to write these, not even escaped; U+007F to U+009F it only advises against.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """A paper in a feed: since when, and what is said of it here.

    note: the editors' word. reason: why it is in this feed, where that is not plain. identity: the
    entry's id, where it is not the paper's: a feed may hold a paper more than once.
    """

    paper: Paper
    since: datetime
    note: str = ""
    reason: str = ""
    identity: str = ""

    @property
    def updated(self) -> datetime:
        return max(self.since, self.paper.updated_at)


@dataclass(frozen=True, slots=True)
class Notice:
    """An entry about no paper."""

    identity: str
    title: str
    text: str
    since: datetime


def tag(name: str) -> str:
    """The id of a feed of this site (RFC 4151): it stays when addresses change."""
    return f"tag:{settings.SITE_HOST},2026:{quote(name)}"


def clean(text: str) -> str:
    """Without what XML cannot hold."""
    return _UNWRITABLE.sub("", text)


def atom(
    *,
    identity: str,
    title: str,
    feed: str,
    page: str,
    updated: datetime,
    entries: Iterable[Entry | Notice],
    subtitle: str = "",
) -> HttpResponse:
    """A feed as an answer.

    Args:
        identity: its id, see `tag`; the same for ever.
        feed, page: paths of the feed itself and of the page that shows the same.
    """
    root = ET.Element("feed", xmlns="http://www.w3.org/2005/Atom")
    _add(root, "id", identity)
    _add(root, "title", title)
    if subtitle:
        _add(root, "subtitle", subtitle)
    _add(root, "updated", instant(updated))
    # An entry may have no author; then this is its author (RFC 4287, 4.1.1).
    _add(ET.SubElement(root, "author"), "name", settings.SITE_NAME)
    _link(root, "self", settings.SITE_URL + feed, type="application/atom+xml")
    _link(root, "alternate", settings.SITE_URL + page, type="text/html")
    for entry in entries:
        element = ET.SubElement(root, "entry")
        if isinstance(entry, Notice):
            _write_notice(element, entry)
        else:
            _write(element, entry)
    body = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return HttpResponse(body, content_type=CONTENT_TYPE)


def _write_notice(element: ET.Element, notice: Notice) -> None:
    _add(element, "id", notice.identity)
    _add(element, "title", notice.title)
    _add(element, "updated", instant(notice.since))
    _link(element, "alternate", f"{settings.SITE_URL}/", type="text/html")
    _add(element, "summary", notice.text)


def _write(element: ET.Element, entry: Entry) -> None:
    paper = entry.paper
    _add(element, "id", entry.identity or paper.uuid.urn)
    _add(element, "title", " ".join(clean(paper.title).split()) or "(no title)")
    _add(element, "published", instant(entry.since))
    _add(element, "updated", instant(entry.updated))
    names = [name for name in (" ".join(clean(name).split()) for name in paper.authors) if name]
    if len(names) > MOST_AUTHORS:
        names[MOST_AUTHORS:] = [f"and {len(names) - MOST_AUTHORS} others"]
    for name in names:
        _add(ET.SubElement(element, "author"), "name", name)
    for code in filter(None, map(clean, paper.categories)):
        label = {"label": CATEGORY_NAMES[code]} if code in CATEGORY_NAMES else {}
        ET.SubElement(element, "category", {"term": code, **label})
    _link(element, "alternate", settings.SITE_URL + paper.get_absolute_url(), type="text/html")
    _link(element, "via", paper.abstract_page)
    _link(element, "license", paper.licence)  # RFC 4946
    if paper.licence:
        _add(element, "rights", f"Licence: {paper.licence}")
    _add(element, "summary", _summary(entry), type="html")


def _summary(entry: Entry) -> str:
    paper = entry.paper
    withdrawn = f"Withdrawn by its source on {paper.withdrawn_on}." if paper.withdrawn_on else ""
    lines = [withdrawn, entry.reason, f"Editors: {entry.note}" if entry.note else ""]
    lines += [paper.abstract or "The abstract is not known here."]
    places = [("Abstract", paper.abstract_page), ("PDF", paper.pdf_page), ("Code", paper.code_url)]
    links = [(iri_to_uri(url), name) for name, url in places if _of_the_web(url)]
    named = ", ".join(map(source_name, paper.sources))
    return "".join(
        [
            format_html_join("", "<p>{}</p>", ([line] for line in lines if line)),
            format_html("<p>{}</p>", format_html_join(" · ", '<a href="{}">{}</a>', links))
            if links
            else "",
            format_html("<p>Source: {}.</p>", named) if named else "",
        ]
    )


def _add(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = clean(text)


def _link(parent: ET.Element, rel: str, url: str, **attributes: str) -> None:
    if _of_the_web(url):
        ET.SubElement(parent, "link", {"rel": rel, "href": iri_to_uri(clean(url)), **attributes})


def _of_the_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- The public feeds -----------------------------------------------------------------------------


@require_safe
def newest(request: HttpRequest) -> HttpResponse:
    return _public(
        request,
        shown(),
        feed=reverse("feed"),
        name="papers",
        title=f"{settings.SITE_NAME}: daily papers",
        page=reverse("newest"),
    )


@require_safe
def day(request: HttpRequest, day: date) -> HttpResponse:
    edition = get_object_or_404(Edition.objects.settled(), day=day)
    return _public(
        request,
        shown().filter(edition=edition),
        feed=reverse("day_feed", args=[day]),
        name=f"papers/{day}",
        title=f"{settings.SITE_NAME}: papers of {day}",
        page=edition.get_absolute_url(),
        edition=edition,
    )


@require_safe
def category(request: HttpRequest, code: str) -> HttpResponse:
    if clean(code) != code:  # such as NUL, which the database would not take
        raise Http404("There is no such category.")
    # Sources other than arXiv have categories of their own.
    papers = Paper.objects.filter(categories__contains=[code])
    if code not in CATEGORY_NAMES and not papers.exists():
        raise Http404("There is no such category.")
    name = CATEGORY_NAMES.get(code, "")
    return _public(
        request,
        shown().filter(paper__categories__contains=[code]),
        feed=reverse("category_feed", args=[code]),
        name=f"categories/{code}",
        title=f"{settings.SITE_NAME}: {code}" + (f", {name}" if name else ""),
        page=reverse("category", args=[code]),
    )


def _public(
    request: HttpRequest,
    papers: QuerySet[EditionPaper],
    *,
    feed: str,
    name: str,
    title: str,
    page: str,
    edition: Edition | None = None,
) -> HttpResponse:
    """The first papers of a list; `edition`: the only one they are of."""
    if edition is None:
        # Of all editions, for a change may be that the last paper of one was hidden.
        newest = Edition.objects.settled().aggregate(at=Max("changed_at"))["at"]
        papers, max_age = papers[:LONGEST], conditional.SHORT
    else:
        newest = edition.changed_at
        papers, max_age = papers[:LONGEST_DAY], conditional.max_age_of(edition.day)
    rows: Sequence[tuple[int, datetime]] = list(papers.values_list("pk", "paper__updated_at"))
    updated = max([newest or NEVER, *(at for _, at in rows)])

    def render() -> HttpResponse:
        once: dict[
            int, EditionPaper
        ] = {}  # a paper may be listed again: an id stands once in a feed
        for row in papers:
            once.setdefault(row.paper_id, row)
        return atom(
            identity=tag(name),
            title=title,
            subtitle=edition.reason if edition else "",
            feed=feed,
            page=page,
            updated=updated,
            entries=[
                Entry(row.paper, row.edition.frozen_at or row.edition.changed_at, row.note_text)
                for row in once.values()
            ],
        )

    return conditional.answer(
        request,
        render,
        # Of each paper, not of the newest alone: what is written first may be committed last.
        state=[newest, rows],
        changed=updated,
        max_age=max_age,
    )
