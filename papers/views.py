"""The public pages: a day, its week and month, what is on top, a paper, its authors, its fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_safe

from papers import about, boards
from papers.categories import CATEGORY_NAMES
from papers.models import Paper
from papers.paths import DayConverter

View = Callable[..., HttpResponse]


def public(view: View) -> View:
    """For reading only, and compressed: nothing on these pages is secret but the form's token,
    which Django writes differently each time, so the length of an answer betrays nothing of it."""
    return gzip_page(require_safe(view))


@public
def newest(request: HttpRequest) -> HttpResponse:
    """The newest edition that is settled; before there is one, a word of welcome."""
    return _day(request, boards.newest_day())


@public
def day(request: HttpRequest, day: date) -> HttpResponse:
    """The edition of a day; of one without, its neighbours."""
    _check_come(day)
    found = boards.day(day)
    if found.edition is None and not (found.earlier or found.later):
        raise Http404("There is no edition yet.")
    return _day(request, found)


@public
def pick_day(request: HttpRequest) -> HttpResponse:
    """Where the date picker leads, a form that needs no script: to the day's own address."""
    try:
        return redirect("day", DayConverter().to_python(request.GET.get("day", "")))
    except ValueError:
        return redirect("newest")


def _day(request: HttpRequest, found: boards.Day) -> HttpResponse:
    missing = found.day is not None and found.edition is None
    context = day_context(found)
    return render(request, "papers/day.html", context, status=404 if missing else 200)


def day_context(found: boards.Day) -> dict[str, Any]:
    """What the page of a day is given; the curators' preview is given the same."""
    now = timezone.now()
    return {
        "found": found,
        "edition": found.edition,
        "today": now.date(),
        "freeze_at": settings.EDITION_FREEZE_AT,
        "freezes_today": now.time() < settings.EDITION_FREEZE_AT,
        "top_days": boards.TOP_DAYS,
    }


@public
def week(request: HttpRequest, week: date) -> HttpResponse:
    _check_come(week)
    return _board(request, boards.week(week))


@public
def month(request: HttpRequest, month: date) -> HttpResponse:
    _check_come(month)
    return _board(request, boards.month(month))


@public
def top(request: HttpRequest) -> HttpResponse:
    return _board(request, boards.top())


def _board(request: HttpRequest, period: boards.Period) -> HttpResponse:
    """A page of a period's papers; of one without any, its neighbours."""
    found = boards.board(period, _page(request, boards.MOST_PAGES))
    if found.page > 1 and not found.cards:
        raise Http404("There is no such list.")
    missing = period.name != "top" and not found.cards
    if missing and not (period.earlier or period.later):
        raise Http404("There is no edition yet.")
    context = {"period": period, "top_days": boards.TOP_DAYS, **_shown(found)}
    return render(request, "papers/board.html", context, status=404 if missing else 200)


@public
def author(request: HttpRequest, name: str) -> HttpResponse:
    _check_storable(name)
    found = boards.papers_by(name, _page(request, boards.MOST_PAGES_OF_A_SUBJECT))
    if not found.cards:
        raise Http404("No paper here has this author.")
    return render(request, "papers/author.html", {"name": name, **_shown(found)})


@public
def categories(request: HttpRequest) -> HttpResponse:
    return render(request, "papers/categories.html", {"groups": boards.categories()})


@public
def category(request: HttpRequest, code: str) -> HttpResponse:
    _check_storable(code)
    found = boards.papers_in(code, _page(request, boards.MOST_PAGES_OF_A_SUBJECT))
    if not found.cards and (found.page > 1 or code not in CATEGORY_NAMES):
        raise Http404("No paper here is of this category.")
    context = {"code": code, "name": CATEGORY_NAMES.get(code, ""), **_shown(found)}
    return render(request, "papers/category.html", context)


@public
def paper(request: HttpRequest, uuid: UUID) -> HttpResponse:
    found = Paper.named(uuid)
    if found is None:
        raise Http404("There is no such paper.")
    if found.uuid != uuid:
        return redirect(found, permanent=True)
    return render(request, "papers/paper.html", {"paper": found, "about": about.about(found)})


def _shown(board: boards.Board) -> dict[str, Any]:
    return {"board": board, "page": board.page, "pages": pages(board.page, more=board.more)}


def _check_come(day: date) -> None:
    if day > timezone.now().date():
        raise Http404("This day has not come yet.")


def _check_storable(name: str) -> None:
    if "\0" in name:
        raise Http404("The database holds no such text.")


def _page(request: HttpRequest, most: int) -> int:
    page = page_asked(request)
    if not 1 <= page <= most:
        raise Http404("There is no such page.")
    return page


def page_asked(request: HttpRequest) -> int:
    """The number of the page that is asked for; 0 where that is none."""
    text = request.GET.get("page", "1")
    return int(text) if re.fullmatch("[0-9]{1,4}", text) else 0


def pages(page: int, *, more: bool, query: Mapping[str, str] | None = None) -> dict[str, str]:
    """The addresses of the page before and of the page after, where there are such.

    query: what else is asked.
    """
    asked = QueryDict(mutable=True)
    asked.update({name: value for name, value in (query or {}).items() if value})
    addresses = {}
    for name, number, there in (("before", page - 1, page > 1), ("after", page + 1, more)):
        if there:
            asked["page"] = str(number)
            addresses[name] = f"?{asked.urlencode()}"
    return addresses
