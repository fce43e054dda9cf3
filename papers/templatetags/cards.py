"""How a paper's people and fields are written: as links, and not too many of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from urllib.parse import quote

from django import template
from django.urls import get_script_prefix, reverse
from django.utils.safestring import SafeString, mark_safe

from papers.about import NOWHERE, Counted, source_name
from papers.abstracts import key_sentence
from papers.boards import Card, Category, Count
from papers.models import Source

register = template.Library()

MOST_AUTHORS = 3  # named on a card; of more, the first and the last one
MOST_FIELDS = 3
SITES = {
    "arxiv.org": "arXiv",
    "biorxiv.org": "bioRxiv",
    "doi.org": "its publisher’s site",
    "huggingface.co": "Hugging Face",
    "medrxiv.org": "medRxiv",
    "openreview.net": "OpenReview",
}
SAFE = "/~:@!$&()*+,;="  # what a path may hold as it is


@lru_cache
def _start(page: str, prefix: str) -> str:
    return reverse(page, args=["x"])[:-1]


def link(page: str, name: str, text: str = "") -> str:
    """The link to an author's or a category's page, safe to stand in HTML."""
    return _link(page, name, text or name, get_script_prefix())


@lru_cache(maxsize=8192)
def _link(page: str, name: str, text: str, prefix: str) -> str:
    """Put together by hand: a page has hundreds of them, `reverse` takes its time for each, and
    refuses a name with a line break in it."""
    address = _start(page, prefix) + quote(name, safe=SAFE)
    return f'<a href="{escape(address)}">{escape(text)}</a>'


def short(value: int) -> str:
    """ "965", "6.0k", "12k", "1.2M"."""
    if value < 1_000:
        return str(value)
    if value < 999_500:
        return f"{value / 1_000:.{int(value < 9_950)}f}k"
    return f"{value / 1_000_000:.1f}M"


def _where(source: str) -> str:
    """Where a source counts, as it stands behind a number."""
    if source in NOWHERE:
        return ""
    name = "Hugging Face" if source == Source.HUGGING_FACE else source_name(source)
    return f" on {escape(name)}"


@register.filter
def counted(counts: Sequence[Count]) -> SafeString:
    """ "41 upvotes on Hugging Face +12", each counter by itself; what it gained is of the last day.

    Upvotes say where they were given, for the readers here have their own beside them.
    """
    return mark_safe(  # noqa: S308
        "".join(
            f"<p>{short(count.value)} {count.unit}"
            + (_where(count.source) if count.counter == "upvotes" else "")
            + (f" <b>+{short(count.gained)}</b></p>" if count.gained else "</p>")
            for count in counts
        )
    )


@register.filter
def told(counted: Counted) -> SafeString:
    """ "41 upvotes +12, 3 comments on Hugging Face": all that one source counted, in full."""
    parts = []
    for count in counted.counts:
        part = f"{count.value} {count.unit}"
        if count.counter == "comments" and counted.url:
            part = f'<a href="{escape(counted.url)}">{part}</a>'
        parts.append(part + (f" <b>+{count.gained}</b>" if count.gained else ""))
    return mark_safe(f"<span>{', '.join(parts)}{_where(counted.counts[0].source)}</span>")  # noqa: S308


@register.filter
def all_new(cards: Sequence[Card]) -> bool:
    """Whether "New" would stand at each of several papers, and so say nothing."""
    return len(cards) > 1 and all(card.paper.is_new for card in cards)


@register.filter
def view_at(address: str) -> str:
    """What the link to a paper's own page elsewhere says."""
    host = re.match(r"https?://(?:www\.)?([^/?#]+)", address.lower())
    name = host and SITES.get(host[1])
    return f"View on {name}" if name else "Source"


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
def category_link(category: Category) -> SafeString:
    """Its code and its name, one link."""
    text = f"{category.code} {category.name}".strip()
    return mark_safe(link("category", category.code, text))  # noqa: S308


@register.filter
def key(abstract: str) -> str:
    return key_sentence(abstract)
