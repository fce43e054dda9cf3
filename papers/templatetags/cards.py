"""How a paper's people and fields are written: as links, and not too many of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote

from django import template
from django.urls import get_script_prefix, reverse
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe

from papers.abstracts import key_sentence

register = template.Library()

MOST_AUTHORS = 4  # named on a card; of more, the first two and the last one
MOST_FIELDS = 3
SAFE = "/~:@!$&()*+,;="  # what a path may hold as it is


@lru_cache
def _start(page: str, prefix: str) -> str:
    return reverse(page, args=["x"])[:-1]


def link(page: str, name: str) -> str:
    """The link to an author's or a category's page, safe to stand in HTML.

    Put together by hand: a page has hundreds of them, `reverse` takes its time for each, and
    refuses a name with a line break in it.
    """
    address = _start(page, get_script_prefix()) + quote(name, safe=SAFE)
    return f'<a href="{conditional_escape(address)}">{conditional_escape(name)}</a>'


@register.filter
def authors(names: Sequence[str]) -> SafeString:
    """All of them."""
    return mark_safe(", ".join(link("author", name) for name in names if name))  # noqa: S308


@register.filter
def some_authors(names: Sequence[str]) -> SafeString:
    """The first two and the last: who did the work, and whose group it is."""
    if len(names) <= MOST_AUTHORS:
        return authors(names)
    first, last = authors(names[:2]), authors(names[-1:])
    return mark_safe(f"{first}, {len(names) - 3} others and {last}")  # noqa: S308


@register.filter
def fields(codes: Sequence[str]) -> SafeString:
    """A paper's first categories."""
    shown = [link("category", code) for code in codes[:MOST_FIELDS] if code]
    return mark_safe(" ".join(shown))  # noqa: S308


@register.filter
def field_link(code: str) -> SafeString:
    return mark_safe(link("category", code))  # noqa: S308


@register.filter
def key(abstract: str) -> str:
    return key_sentence(abstract)
