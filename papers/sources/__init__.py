"""Where papers come from: files, arXiv, Hugging Face. Network and parsing, no Django.

Every source yields `PaperRecord`s, whatever the shape of its answers; what it cannot read it
yields as a `BadRecord` with the place to look at, so that one bad entry loses nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class PaperRecord:
    """One paper as one source describes it; the text is readable Unicode already.

    `counters` holds what was counted at `observed_at` ("upvotes", "comments", "stars"). A record
    without `listed_on` is listed on the day of its import. `place` is "file:line" or
    "file, entry n", for messages to people.
    """

    source: str
    title: str
    abstract: str = ""
    arxiv_id: str = ""  # without version: 2505.24864, math/0211159
    doi: str = ""
    authors: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()  # the primary one first
    published_on: date | None = None
    listed_on: date | None = None
    url: str = ""
    pdf_url: str = ""
    code_url: str = ""
    project_url: str = ""
    thumbnail_url: str = ""
    keywords: tuple[str, ...] = ()
    summary: str = ""  # one the source wrote, never the abstract
    organisation: str = ""
    submitter: str = ""
    counters: dict[str, int] = field(default_factory=dict)
    observed_at: datetime | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """An entry (or a whole file) that could not be read, where it stands, and why."""

    place: str
    reason: str
