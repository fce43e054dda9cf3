"""The day's list and a paper's own page."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from papers.models import Edition, EditionPaper, Paper


@require_safe
def newest(request: HttpRequest) -> HttpResponse:
    """The newest edition that is settled; before there is one, a word of welcome."""
    edition = Edition.objects.settled().filter(day__lte=datetime.now(UTC).date()).first()
    return _day(request, edition)


@require_safe
def day(request: HttpRequest, day: date) -> HttpResponse:
    edition = Edition.objects.settled().filter(day=day).first()
    if edition is None:
        raise Http404("There is no edition of this day.")
    return _day(request, edition)


def _day(request: HttpRequest, edition: Edition | None) -> HttpResponse:
    return render(request, "papers/day.html", day_context(edition))


def day_context(edition: Edition | None) -> dict[str, Any]:
    """What the page of a day shows; the curators' preview shows the same."""
    candidates: list[EditionPaper] = []
    earlier = later = None
    if edition is not None:
        shown = edition.candidates.exclude(curation=EditionPaper.Curation.HIDDEN)
        candidates = list(shown.select_related("paper"))
        candidates.sort(key=lambda row: row.curation != EditionPaper.Curation.PINNED)
        settled = Edition.objects.settled()
        earlier = settled.filter(day__lt=edition.day).order_by("-day").first()
        later = settled.filter(day__gt=edition.day).order_by("day").first()
    return {"edition": edition, "candidates": candidates, "earlier": earlier, "later": later}


@require_safe
def paper(request: HttpRequest, uuid: UUID) -> HttpResponse:
    found = get_object_or_404(Paper, uuid=uuid)
    newest: dict[str, dict[str, int]] = {}
    for signal in found.signals.order_by("observed_at"):
        newest.setdefault(signal.counter, {})[signal.source] = signal.value
    return render(
        request,
        "papers/paper.html",
        {
            "paper": found,
            "counters": {name: max(values.values()) for name, values in newest.items()},
            "editions": Edition.objects.filter(
                state=Edition.State.FROZEN,
                candidates__in=found.candidacies.exclude(curation=EditionPaper.Curation.HIDDEN),
            ),
        },
    )
