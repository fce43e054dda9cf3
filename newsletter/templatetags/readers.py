"""What a page shows to who is signed in: the way to their papers, and a button to upvote.

Who is not costs no query for it, and gets no cookie and no token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import template
from django.http import HttpRequest

from newsletter import sign_in, votes
from newsletter.votes import Votes
from papers.models import EditionPaper, Paper

register = template.Library()


@register.inclusion_tag("newsletter/reader_link.html", takes_context=True)
def reader_link(context: dict[str, Any]) -> dict[str, object]:
    """“Sign in”, or “Your papers”."""
    request: HttpRequest | None = context.get("request")
    match = request.resolver_match if request else None
    return {
        "reader": sign_in.reader_of(request) if request else None,
        "here": match.url_name if match else "",
    }


@register.simple_tag(takes_context=True)
def load_votes(context: dict[str, Any], papers: Iterable[Paper | EditionPaper]) -> str:
    """Before a list of papers: read the votes of all of them at once. Shows nothing."""
    if request := context.get("request"):
        _load(
            request, (one.paper_id if isinstance(one, EditionPaper) else one.pk for one in papers)
        )
    return ""


@register.inclusion_tag("newsletter/vote_box.html", takes_context=True)
def vote_box(context: dict[str, Any], paper: Paper) -> dict[str, object]:
    """How many readers upvoted a paper, and the button to do so."""
    request: HttpRequest | None = context.get("request")
    if request is None:
        return {"paper": paper, "votes": Votes()}
    known = _known(request)
    if paper.pk not in known:
        known = _load(request, [paper.pk])
    return {
        "paper": paper,
        "votes": known[paper.pk],
        "reader": sign_in.reader_of(request),
        "here": request.get_full_path(),
        "csrf_token": context.get("csrf_token"),
    }


def _known(request: HttpRequest) -> dict[int, Votes]:
    if not hasattr(request, "_votes"):
        request._votes = {}  # type: ignore[attr-defined]
    known: dict[int, Votes] = request._votes  # type: ignore[attr-defined]
    return known


def _load(request: HttpRequest, paper_ids: Iterable[int]) -> dict[int, Votes]:
    known = _known(request)
    known |= votes.of_papers(paper_ids, sign_in.reader_of(request))
    return known
