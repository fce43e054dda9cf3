"""The read-only JSON API below /api/v1/; papers/openapi.py describes it and is what is obeyed here.

No cookie is read and nothing is written, so every other site's pages may ask (CORS: *). What an
answer may cost is bounded: by its page's size, and by the time its queries may take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import wraps
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from django.conf import settings
from django.core.exceptions import TooManyFieldsSent
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from papers import conditional, openapi
from papers.categories import CATEGORY_NAMES
from papers.editions import shown
from papers.feeds import instant
from papers.growth import shown_at
from papers.models import Edition, EditionPaper, Paper, Signal
from papers.openapi import Json
from papers.search import Filters, TookTooLong, in_time
from papers.search import search as search_papers
from papers.search import similar as similar_papers
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi

METHODS = ("GET", "HEAD")
NO_LIST = "There is no list of this day."


class Moved(Exception):
    """The paper that is asked for was joined with another one."""

    def __init__(self, asked: UUID, present: UUID) -> None:
        super().__init__(asked)
        self.asked, self.present = asked, present


class Problem(Exception):
    """What is wrong with a request, told as RFC 9457 has it."""

    def __init__(self, status: HTTPStatus, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.status, self.detail, self.members = status, detail, members

    def answer(self) -> HttpResponse:
        body = {"type": "about:blank", "title": self.status.phrase, "status": self.status}
        return _json(
            {**body, "detail": self.detail, **self.members},
            status=self.status,
            content_type="application/problem+json",
        )


@dataclass(frozen=True, slots=True)
class Question:
    """A request whose parameters have been checked."""

    request: HttpRequest
    asked: dict[str, Any]

    def text(self, name: str) -> str:
        return str(self.asked.get(name) or "")

    def day(self, name: str) -> date | None:
        value = self.asked.get(name)
        return value if isinstance(value, date) else None

    def number(self, name: str) -> int:
        return int(self.asked[name])

    def filters(self) -> Filters:
        return Filters(
            self.day("since"), self.day("until"), self.text("category"), self.text("author")
        )

    def links(self, **following: object) -> dict[str, str | None]:
        """This page and the next, asked for with `following` in addition; without, the last one."""
        path = settings.SITE_URL + self.request.path
        given = {name: str(value) for name, value in self.request.GET.items()}

        def address(query: dict[str, str]) -> str:
            return f"{path}?{urlencode(query)}" if query else path

        more = {name: str(value) for name, value in following.items()}
        return {"self": address(given), "next": address(given | more) if more else None}

    def itself(self) -> dict[str, str | None]:
        return {"self": self.links()["self"]}


def operation(
    max_age: int | Callable[..., int],
) -> Callable[[Callable[..., Json]], Callable[..., HttpResponse]]:
    """An operation of the description, that of its function's name, as a view of Django's."""

    def as_view(write: Callable[..., Json]) -> Callable[..., HttpResponse]:
        taken = openapi.parameters_of(write.__name__)

        # Nothing is written, whatever the method: the answer to a POST is 405, not a form's 403.
        @csrf_exempt
        @wraps(write)
        def view(request: HttpRequest, **of_path: object) -> HttpResponse:
            def told() -> HttpResponse:
                question = Question(request, _read(request, taken))
                return conditional.answer(
                    request,
                    lambda: _json(_in_time(write, question, of_path)),
                    max_age=max_age(**of_path) if callable(max_age) else max_age,
                )

            return _answer(request, told)

        return view

    return as_view


def _answer(request: HttpRequest, told: Callable[[], HttpResponse]) -> HttpResponse:
    try:
        if request.method not in METHODS:
            raise Problem(
                HTTPStatus.METHOD_NOT_ALLOWED, "This API is for reading: GET and HEAD only."
            )
        response = told()
    except Moved as moved:
        there = request.get_full_path().replace(str(moved.asked), str(moved.present), 1)
        response = HttpResponsePermanentRedirect(there)
    except Problem as problem:
        response = problem.answer()
        if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
            response["Allow"] = ", ".join(METHODS)
        if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
            response["Retry-After"] = "60"
    # Every page may read it, on whatever site: it holds nothing that a cookie would open.
    response["Access-Control-Allow-Origin"] = "*"
    response["Access-Control-Expose-Headers"] = "ETag, Retry-After"
    return response


def _in_time(write: Callable[..., Json], question: Question, of_path: dict[str, object]) -> Json:
    try:
        with in_time():
            return write(question, **of_path)
    except TookTooLong:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "This question took too long to answer. Ask for less: fewer words, fewer days.",
        ) from None


def _read(request: HttpRequest, taken: dict[str, Json]) -> dict[str, Any]:
    """The parameters as values, with their defaults.

    Raises:
        Problem: any is unknown, named twice, missing or not as the description has it.
    """
    try:
        everything = list(request.GET.lists())
    except TooManyFieldsSent:
        raise Problem(HTTPStatus.BAD_REQUEST, "Too many parameters.") from None
    values: dict[str, Any] = {}
    errors: list[dict[str, str]] = []
    for name, given in everything:
        try:
            if name not in taken:
                known = f"There are {', '.join(taken)}." if taken else "There are none here."
                raise ValueError(f"There is no such parameter. {known}")
            if len(given) > 1:
                raise ValueError("Name it once.")
            values[name] = _value(given[0], taken[name]["schema"])
        except ValueError as error:
            errors.append({"parameter": name, "detail": str(error)})
    for name, parameter in taken.items():
        if name in values or name in request.GET:
            continue
        if parameter["required"]:
            errors.append({"parameter": name, "detail": "It is needed."})
        elif "default" in parameter["schema"]:
            values[name] = parameter["schema"]["default"]
    if errors:
        told = "; ".join(f"{error['parameter']}: {error['detail']}" for error in errors)
        raise Problem(HTTPStatus.BAD_REQUEST, told, errors=errors)
    return values


def _value(text: str, schema: Json) -> object:
    if schema["type"] == "integer":
        least, most = schema["minimum"], schema["maximum"]
        if not re.fullmatch("0|[1-9][0-9]{0,8}", text) or not least <= int(text) <= most:
            raise ValueError(f"It must be a whole number from {least} to {most}.")
        return int(text)
    if schema.get("format") == "date":
        return _date(text)
    if len(text) < schema.get("minLength", 1):
        raise ValueError("It must not be empty.")
    most = schema.get("maxLength")
    if most is not None and len(text) > most:
        raise ValueError(f"It must have at most {most} characters.")
    if not re.fullmatch(schema["pattern"], text) or text.endswith("\n"):
        if schema["pattern"] == openapi.TEXT:
            raise ValueError("It must not hold control characters.")
        raise ValueError(f"It must look like {' or '.join(schema['examples'])}.")
    return text


def _date(text: str) -> date:
    try:
        if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("It must be a day such as 2026-11-20.") from None


def _day_in_path(text: str) -> date:
    try:
        return _date(text)
    except ValueError:
        raise Problem(HTTPStatus.NOT_FOUND, NO_LIST) from None


# --- The operations -------------------------------------------------------------------------------


@operation(max_age=conditional.LONG)
def index(question: Question) -> Json:
    names = {"days": "api_days", "papers": "api_papers", "categories": "api_categories"}
    links = {name: _address(view) for name, view in names.items()}
    return {
        "links": {
            **links,
            "description": _address("api_description"),
            "documentation": _address("api"),
        }
    }


@operation(max_age=conditional.SHORT)
def days(question: Question) -> Json:
    found = Edition.objects.settled()
    if cursor := question.text("cursor"):
        found = found.filter(day__lt=_cursor(cursor)[0])
    limit = question.number("limit")
    rows = list(found.order_by("-day")[: limit + 1])
    listed = shown().filter(edition__in=rows).order_by().values_list("edition")
    counts = dict(listed.annotate(papers=Count("pk")))
    following = {"cursor": _written_cursor(rows[limit - 1].day)} if len(rows) > limit else {}
    return {
        "days": [_day(edition, counts.get(edition.pk, 0)) for edition in rows[:limit]],
        "links": question.links(**following),
    }


@operation(max_age=lambda day: conditional.max_age_of(_day_in_path(day)))
def day(question: Question, day: str) -> Json:
    edition = Edition.objects.settled().filter(day=_day_in_path(day)).first()
    if edition is None:
        raise Problem(HTTPStatus.NOT_FOUND, NO_LIST)
    of_day = shown().filter(edition=edition)
    limit, page = question.number("limit"), question.number("page")
    before = (page - 1) * limit
    total = of_day.count()
    rows = list(of_day[before : before + limit])
    papers = _papers([row.paper for row in rows])
    return {
        "day": _day(edition, total),
        "places": [
            {
                "place": place,
                "pinned": row.curation == EditionPaper.Curation.PINNED,
                "note": row.note_text or None,
                "trend": row.trend,
                "trend_terms": row.trend_terms,
                "paper": paper,
            }
            for place, (row, paper) in enumerate(zip(rows, papers, strict=True), before + 1)
        ],
        "links": question.links(**_next_page(question, total > before + limit)),
    }


@operation(max_age=conditional.SHORT)
def papers(question: Question) -> Json:
    found = _filtered(question)
    if cursor := question.text("cursor"):
        on, pk = _cursor(cursor)
        found = found.filter(Q(listing_day__lt=on) | Q(id__lt=pk), listing_day__lte=on)
    limit = question.number("limit")
    rows = list(found.order_by("-listing_day", "-id")[: limit + 1])
    following = {}
    if len(rows) > limit:
        last = rows[limit - 1]
        following = {"cursor": _written_cursor(last.listing_day, last.pk)}
    return {"papers": _papers(rows[:limit]), "links": question.links(**following)}


@operation(max_age=conditional.SHORT)
def paper(question: Question, uuid: UUID) -> Json:
    found = _known(uuid)
    return {
        "paper": _papers([found])[0],
        "appearances": [
            {
                "day": row.edition.day,
                "pinned": row.curation == EditionPaper.Curation.PINNED,
                "note": row.note_text or None,
                "trend": row.trend,
                "links": {"day": _address("api_day", row.edition.day)},
            }
            for row in shown().filter(paper=found)
        ],
    }


@operation(max_age=conditional.LONG)
def similar(question: Question, uuid: UUID) -> Json:
    found = similar_papers(_known(uuid), question.number("limit"))
    return {"papers": _papers(found), "links": question.itself()}


@operation(max_age=conditional.SHORT)
def signals(question: Question, uuid: UUID) -> Json:
    counted = _known(uuid).signals.order_by("-observed_at", "-id")[: question.number("limit")]
    return {"signals": [_counter(signal) for signal in counted], "links": question.itself()}


@operation(max_age=conditional.SHORT)
def search(question: Question) -> Json:
    limit = question.number("limit")
    found = search_papers(
        question.text("q"),
        question.filters(),
        limit=limit,
        offset=(question.number("page") - 1) * limit,
    )
    return {
        "papers": _papers(found.papers),
        "direct": found.direct is not None,
        "corrected": found.corrected or None,
        "links": question.links(**_next_page(question, found.more)),
    }


@operation(max_age=conditional.LONG)
def categories(question: Question) -> Json:
    return {
        "categories": [
            {
                "code": code,
                "name": name,
                "links": {
                    "papers": f"{_address('api_papers')}?category={quote(code)}",
                    "feed": _address("category_feed", code),
                },
            }
            for code, name in CATEGORY_NAMES.items()
        ],
        "links": question.itself(),
    }


# --- Pages ----------------------------------------------------------------------------------------


@csrf_exempt
def description(request: HttpRequest) -> HttpResponse:
    told = openapi.description(settings.SITE_NAME, settings.SITE_URL)
    return _answer(
        request,
        lambda: conditional.answer(request, lambda: _json(told), max_age=conditional.LONG),
    )


@csrf_exempt
def unknown(request: HttpRequest) -> HttpResponse:
    """Below /api/v1/ even a wrong address is answered as the API answers."""

    def told() -> HttpResponse:
        raise Problem(
            HTTPStatus.NOT_FOUND, f"There is nothing here. All addresses are on {_address('api')}"
        )

    return _answer(request, told)


@require_safe
def documentation(request: HttpRequest) -> HttpResponse:
    """The description as a page for people."""
    told = {
        "description": openapi.DESCRIPTION,
        "questions": openapi.questions(),
        "answers": openapi.answers(),
        "problems": openapi.PROBLEMS,
    }
    return render(request, "papers/api.html", told)


# --- Rows as JSON ---------------------------------------------------------------------------------


def _papers(rows: Sequence[Paper]) -> list[Json]:
    newest: dict[int, list[Json]] = {}
    signals = Signal.objects.filter(paper__in=[row.pk for row in rows])
    each = ("paper_id", "counter", "source")
    for signal in signals.order_by(*each, "-observed_at").distinct(*each):
        newest.setdefault(signal.paper_id, []).append(_counter(signal))
    return [_paper(row, newest.get(row.pk, [])) for row in rows]


def _paper(paper: Paper, counters: list[Json]) -> Json:
    return {
        "uuid": paper.uuid,
        "arxiv_id": paper.arxiv_id,
        "doi": paper.doi,
        "title": paper.title,
        "abstract": paper.abstract or None,
        "authors": paper.authors,
        "categories": paper.categories,
        "keywords": paper.keywords,
        "published_on": paper.published_on,
        "listing_day": paper.listing_day,
        "withdrawn_on": paper.withdrawn_on,
        "versions": [{"number": each["number"], "on": each.get("on")} for each in paper.versions],
        "url": paper.abstract_page or None,
        "pdf_url": paper.pdf_page or None,
        "code_url": paper.code_url or None,
        "project_url": paper.project_url or None,
        "thumbnail_url": paper.thumbnail_url or None,
        "summary": paper.summary or None,
        "summary_source": paper.summary_source or None,
        "organisation": paper.organisation or None,
        "submitter": paper.submitter or None,
        "comment": paper.comment or None,
        "journal_ref": paper.journal_ref or None,
        "licence": paper.licence or None,
        "sources": paper.sources,
        "counters": counters,
        "updated_at": paper.updated_at,
        "links": {
            "self": _address("api_paper", paper.uuid),
            "page": _address("paper", paper.uuid),
            "similar": _address("api_similar", paper.uuid),
            "signals": _address("api_signals", paper.uuid),
        },
    }


def _counter(signal: Signal) -> Json:
    return {
        "counter": signal.counter,
        "source": signal.source,
        "value": signal.value,
        "observed_at": shown_at(signal.observed_at, timezone.now()),
    }


def _day(edition: Edition, papers: int) -> Json:
    return {
        "day": edition.day,
        "state": edition.state,
        "reason": edition.reason or None,
        "papers": papers,
        "frozen_at": edition.frozen_at,
        "changed_at": edition.changed_at,
        "links": {
            "self": _address("api_day", edition.day),
            "page": _address("day", edition.day),
            "feed": _address("day_feed", edition.day),
        },
    }


# --- Small parts ----------------------------------------------------------------------------------


def _known(uuid: UUID) -> Paper:
    found = Paper.named(uuid)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "There is no such paper.")
    if found.uuid != uuid:
        raise Moved(uuid, found.uuid)
    return found


def _filtered(question: Question) -> QuerySet[Paper]:
    found = Paper.objects.all()
    for name, normalise in (("arxiv_id", normalise_arxiv_id), ("doi", normalise_doi)):
        if text := question.text(name):
            try:
                found = found.filter(**{name: normalise(text)})
            except ValueError:  # it looked like one
                return found.none()
    wanted = question.filters()
    if wanted.since:
        found = found.filter(listing_day__gte=wanted.since)
    if wanted.until:
        found = found.filter(listing_day__lte=wanted.until)
    if wanted.category:
        found = found.filter(categories__contains=[wanted.category])
    if wanted.author:
        found = found.filter(authors__contains=[wanted.author])
    return found


def _next_page(question: Question, more: bool) -> dict[str, object]:
    page = question.number("page") + 1
    return {"page": page} if more and page <= openapi.MOST_PAGES else {}


def _written_cursor(day: date, pk: int = 0) -> str:
    return f"{day.toordinal()}.{pk}"


def _cursor(text: str) -> tuple[date, int]:
    """The last row before the page. Any number is a day: beyond all days, the first or last one."""
    day, pk = map(int, text.split("."))
    return date.fromordinal(min(max(day, date.min.toordinal()), date.max.toordinal())), pk


def _address(view: str, *of_path: object) -> str:
    return f"{settings.SITE_URL}{reverse(view, args=of_path)}"


def _json(body: Json, **options: Any) -> HttpResponse:
    options.setdefault("content_type", "application/json")
    return HttpResponse(json.dumps(body, ensure_ascii=False, default=_plain), **options)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, date):
        return str(value)  # as ISO 8601
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{value!r} has no place in an answer")
