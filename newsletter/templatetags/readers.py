"""What a page shows to who is signed in: the way to their papers, and a button to upvote.

Who is not costs no query for it, and gets no cookie and no token.
"""

from __future__ import annotations

from collections.abc import Iterable

from django import template
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.template import Context

from newsletter import sign_in, votes
from papers.boards import Card
from papers.models import Paper

register = template.Library()


def _request(context: Context) -> HttpRequest | None:
    """Also where a template was included with `only`, or is a mail's or the admin's."""
    found: HttpRequest | None = getattr(context, "request", None) or context.get("request")
    return found


@register.inclusion_tag("newsletter/reader_link.html", takes_context=True)
def reader_link(context: Context) -> dict[str, object]:
    """“Sign in”, or “Your papers”."""
    request = _request(context)
    match = request.resolver_match if request else None
    return {
        "reader": sign_in.reader_of(request) if request else None,
        "here": match.url_name if match else "",
    }


@register.simple_tag(takes_context=True)
def load_votes(context: Context, cards: Iterable[Card | Paper]) -> str:
    """Before a list of papers: read the votes of all of them at once. Shows nothing."""
    if request := _request(context):
        known = _known(request)
        unknown = []
        for one in cards:
            paper, count = (one, None) if isinstance(one, Paper) else (one.paper, one.votes)
            if count is not None:
                known[paper.pk] = count
            elif paper.pk not in known:
                unknown.append(paper.pk)
        known |= votes.of_papers(unknown)
    return ""


@register.inclusion_tag("newsletter/vote_box.html", takes_context=True)
def vote_box(context: Context, paper: Paper) -> dict[str, object]:
    """How many readers upvoted a paper, and the button to do so."""
    request = _request(context)
    if request is None:
        return {}
    known = _known(request)
    if paper.pk not in known:
        known |= votes.of_papers([paper.pk])
    reader = sign_in.reader_of(request)
    return {
        "paper": paper,
        "count": known[paper.pk],
        "reader": reader,
        "own": reader is not None and paper.pk in _voted(request),
        "here": request.get_full_path(),
        "csrf_token": get_token(request) if reader else "",
    }


def _known(request: HttpRequest) -> dict[int, int]:
    """What this page has read of papers' votes."""
    if not hasattr(request, "_votes"):
        request._votes = {}  # type: ignore[attr-defined]
    known: dict[int, int] = request._votes  # type: ignore[attr-defined]
    return known


def _voted(request: HttpRequest) -> set[int]:
    """What the reader upvoted, once for a page."""
    if not hasattr(request, "_voted"):
        reader = sign_in.reader_of(request)
        request._voted = votes.voted_by(reader) if reader else set()  # type: ignore[attr-defined]
    voted: set[int] = request._voted  # type: ignore[attr-defined]
    return voted
