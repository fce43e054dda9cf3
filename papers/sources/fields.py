"""The readings and bounds that every source's fields share, whoever wrote them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

from papers.latex import to_text

MAX_TITLE = 1_000
MAX_ABSTRACT = 50_000
MAX_NAME = 300
MAX_LIST = 10_000
MAX_URL = 2_000
MAX_COUNTER = 2**31 - 1

_URL = re.compile(r"https?://[^\s/<>\"\\]+[^\s<>\"\\\x00-\x1f\x7f-\x9f\ud800-\udfff]*", re.I)


def as_text(value: object, limit: int = MAX_NAME) -> str:
    return to_text(value[: 4 * limit])[:limit] if isinstance(value, str) else ""


def as_url(value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= MAX_URL and _URL.fullmatch(text) else ""


def is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNTER


def as_moment(value: object) -> datetime | None:
    """An ISO moment or day; days of which no neighbour exists are refused."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None or not 1800 <= moment.year <= 2200:
            return None
        return moment.astimezone(UTC) if moment.tzinfo else moment
    except ValueError:
        return None


def as_day(value: object) -> date | None:
    moment = as_moment(value)
    return moment and moment.date()


def as_title(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("no title")
    title = to_text(value) if len(value) <= 4 * MAX_TITLE else value
    if not title:
        raise ValueError("no title")
    if len(title) > MAX_TITLE:
        raise ValueError(f"a title of more than {MAX_TITLE} characters: “{title[:80]}”")
    return title


def as_abstract(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("the abstract is not a text")
    abstract = to_text(value) if len(value) <= 4 * MAX_ABSTRACT else value
    if len(abstract) > MAX_ABSTRACT:
        raise ValueError(f"an abstract of more than {MAX_ABSTRACT} characters")
    return abstract
