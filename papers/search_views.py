"""The page /search: one box, filters, and what was found."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from papers import boards
from papers.categories import CATEGORY_NAMES
from papers.search import Filters, Results, TookTooLong, readable
from papers.search import search as find
from papers.views import page_asked, pages, public

PER_PAGE = 20
MOST_PAGES = 50
FIELDS = ("q", "since", "until", "category", "author")


class DayInput(forms.DateInput):
    input_type = "date"


class SearchForm(forms.Form):
    """Nothing but a date can be wrong here: whatever else is typed just finds nothing."""

    use_required_attribute = False

    q = forms.CharField(
        label="Search papers",
        required=False,
        widget=forms.TextInput(
            attrs={"type": "search", "autocomplete": "off", "aria-describedby": "hint"}
        ),
    )
    since = forms.DateField(label="Listed from", required=False, widget=DayInput(format="%Y-%m-%d"))
    until = forms.DateField(
        label="Listed up to", required=False, widget=DayInput(format="%Y-%m-%d")
    )
    category = forms.CharField(
        label="Category",
        required=False,
        widget=forms.TextInput(attrs={"list": "categories", "autocomplete": "off"}),
    )
    author = forms.CharField(
        label="Author",
        required=False,
        help_text="The whole name, as in “Ada Alvarez”.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    @property
    def filters(self) -> Filters:
        given = self.cleaned_data
        return Filters(
            since=given.get("since"),
            until=given.get("until"),
            category=given.get("category", ""),
            author=given.get("author", ""),
        )


@public
def search(request: HttpRequest) -> HttpResponse:
    given = {name: readable(request.GET.get(name, "")) for name in FIELDS}
    form = SearchForm(given)
    found = Results([])
    page = min(max(page_asked(request), 1), MOST_PAGES)
    too_long = False
    asked = any(given.values())
    if form.is_valid() and asked:
        query = form.cleaned_data["q"]
        try:
            found = find(query, form.filters, limit=PER_PAGE, offset=(page - 1) * PER_PAGE)
        except TookTooLong:
            too_long = True
        if found.direct:
            return redirect(found.direct)
    context: dict[str, Any] = {
        "form": form,
        "asked": asked and form.is_valid(),
        "filtered": any(given[name] for name in FIELDS[1:]),
        "too_long": too_long,
        "found": found,
        "cards": boards.cards(found.papers),
        "page": page,
        "pages": pages(page, more=found.more and page < MOST_PAGES, query=given),
        "categories": CATEGORY_NAMES,
    }
    response = render(request, "papers/search.html", context, status=503 if too_long else 200)
    if too_long:
        response["Retry-After"] = "60"
    response["X-Robots-Tag"] = "noindex"
    return response
