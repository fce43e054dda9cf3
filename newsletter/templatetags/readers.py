"""What a page shows to who is signed in: the way to their papers, and a button to upvote.

Who is not costs no query for it, and gets no cookie and no token.
"""

from __future__ import annotations

from collections.abc import Iterable

from django import template
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.template import Context
from django.urls import reverse
from django.utils.html import format_html

from newsletter import sign_in, votes
from papers.boards import Card, counts_and_votes
from papers.models import Paper

register = template.Library()


def _request(context: Context) -> HttpRequest | None:
    """Also where a template was included with `only`, or is a mail's or the admin's."""
    found: HttpRequest | None = getattr(context, "request", None) or context.get("request")
    return found


@register.inclusion_tag("newsletter/reader_link.html", takes_context=True)
def reader_link(context: Context) -> dict[str, object]:
    """“Subscribe” and “Sign in”, or “Your papers”."""
    request = _request(context)
    match = request.resolver_match if request else None
    return {
        "reader": sign_in.reader_of(request) if request else None,
        "here": match.url_name if match else "",
    }


# Put together here, and short, for a page may have a hundred of them: all its buttons send the
# one form, and what is read out before a number that leads to signing in is in the style sheet.
# Who is not signed in is led there by a form as well: no robot follows its hundred addresses.
_FORM = """<form id="votes" method="post" hidden>\
<input type="hidden" name="csrfmiddlewaretoken" value="{token}">\
<input type="hidden" name="next" value="{here}"></form>"""
_ANONYMOUS_FORM = """<form id="votes" action="{page}" hidden>\
<input type="hidden" name="next" value="{here}"></form>"""
_BUTTON = """<button form="votes" formaction="{page}" id="vote-{uuid}" name="vote" \
value="{vote}" aria-pressed="{pressed}" aria-label="{count} {unit}: {title}">{count}</button>"""
# Shown to who comes back from signing in for it: the style sheet hides those that no address names.
_HINT = '<i id="up-{uuid}">Press ▲ to upvote.</i>'
_HOW = '{}<p class="how">▲ Upvotes of the readers here: press one to sign in and add yours.</p>'
_ANONYMOUS = '<button form="votes" name="vote" value="{uuid}">{count}</button>'


@register.simple_tag(takes_context=True)
def load_votes(context: Context, cards: Iterable[Card | Paper]) -> str:
    """Before a list of papers: read the votes of all of them at once, and say what ▲ is for."""
    request = _request(context)
    if request is None:
        return ""
    known = _known(request)
    unknown = []
    for one in cards:
        paper, count = (one, None) if isinstance(one, Paper) else (one.paper, one.votes)
        if count is not None:
            known[paper.pk] = count
        elif paper.pk not in known:
            unknown.append(paper.pk)
    _ask(known, unknown)
    form = _form(request)
    if form and sign_in.reader_of(request) is None:
        return format_html(_HOW, form)
    return form


@register.simple_tag(takes_context=True)
def vote_box(context: Context, paper: Paper) -> str:
    """How many readers upvoted a paper, and the button to do so."""
    request = _request(context)
    if request is None:
        return ""
    known = _known(request)
    if paper.pk not in known:
        _ask(known, [paper.pk])
    count = known[paper.pk]
    if sign_in.reader_of(request) is None:
        button = format_html(_ANONYMOUS, uuid=paper.uuid, count=count)
        return format_html("{}{}", _form(request), button)
    own = paper.pk in _voted(request)
    button = format_html(
        _BUTTON,
        page=reverse("vote", args=[paper.uuid]),
        uuid=paper.uuid,
        title=paper.title,
        count=count,
        unit="upvote" if count == 1 else "upvotes",
        vote="0" if own else "1",
        pressed="true" if own else "false",
    )
    hint = "" if own else format_html(_HINT, uuid=paper.uuid)
    return format_html("{}{}{}", _form(request), hint, button)


def _form(request: HttpRequest) -> str:
    """What the buttons of a page send, once."""
    if hasattr(request, "_has_votes_form"):
        return ""
    request._has_votes_form = True  # type: ignore[attr-defined]
    if sign_in.reader_of(request) is None:
        page = reverse("sign_in")
        return format_html(_ANONYMOUS_FORM, page=page, here=request.get_full_path())
    return format_html(_FORM, token=get_token(request), here=request.get_full_path())


def _known(request: HttpRequest) -> dict[int, int]:
    """What this page has read of papers' votes."""
    if not hasattr(request, "_votes"):
        request._votes = {}  # type: ignore[attr-defined]
    known: dict[int, int] = request._votes  # type: ignore[attr-defined]
    return known


def _ask(known: dict[int, int], paper_ids: list[int]) -> None:
    """As lists of papers count them: no two pages say different numbers."""
    if paper_ids:
        known |= dict.fromkeys(paper_ids, 0) | counts_and_votes(paper_ids)[1]


def _voted(request: HttpRequest) -> set[int]:
    """What the reader upvoted, once for a page."""
    if not hasattr(request, "_voted"):
        reader = sign_in.reader_of(request)
        request._voted = votes.voted_by(reader) if reader else set()  # type: ignore[attr-defined]
    voted: set[int] = request._voted  # type: ignore[attr-defined]
    return voted
