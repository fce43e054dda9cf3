"""How a paper's people and fields are written: as links, and not too many of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from urllib.parse import quote

from django import template
from django.urls import get_script_prefix, reverse
from django.utils.safestring import SafeString, mark_safe

from papers.abstracts import key_sentence
from papers.boards import Count

register = template.Library()

MOST_AUTHORS = 3  # named on a card; of more, the first and the last one
MOST_FIELDS = 3
SAFE = "/~:@!$&()*+,;="  # what a path may hold as it is


@lru_cache
def _start(page: str, prefix: str) -> str:
    return reverse(page, args=["x"])[:-1]


def link(page: str, name: str) -> str:
    """The link to an author's or a category's page, safe to stand in HTML."""
    return _link(page, name, get_script_prefix())


@lru_cache(maxsize=8192)
def _link(page: str, name: str, prefix: str) -> str:
    """Put together by hand: a page has hundreds of them, `reverse` takes its time for each, and
    refuses a name with a line break in it."""
    address = _start(page, prefix) + quote(name, safe=SAFE)
    return f'<a href="{escape(address)}">{escape(name)}</a>'


@register.filter
def counted(counts: Sequence[Count]) -> SafeString:
    """ "41 upvotes +12", each counter by itself; what it gained is of the last day."""
    return mark_safe(  # noqa: S308
        "".join(
            f"<span>{count.value} {count.unit}"
            + (f" <b>+{count.gained}</b></span>" if count.gained else "</span>")
            for count in counts
        )
    )


@register.filter
def authors(names: Sequence[str]) -> SafeString:
    """All of them."""
    return mark_safe(", ".join(link("author", name) for name in names if name))  # noqa: S308


@register.filter
def some_authors(names: Sequence[str]) -> SafeString:
    """The first and the last where there are many: who did the work, and whose group it is."""
    if len(names) <= MOST_AUTHORS:
        return authors(names)
    first, last = authors(names[:1]), authors(names[-1:])
    return mark_safe(f"{first}, {len(names) - 2} others and {last}")  # noqa: S308


@register.filter
def fields(codes: Sequence[str]) -> SafeString:
    """A paper's first categories."""
    shown = [link("category", code) for code in codes[:MOST_FIELDS] if code]
    return mark_safe("".join(shown))  # noqa: S308


@register.filter
def field_link(code: str) -> SafeString:
    return mark_safe(link("category", code))  # noqa: S308


@register.filter
def key(abstract: str) -> str:
    return key_sentence(abstract)
