"""Where papers come from: files, arXiv, Hugging Face. Network and parsing, no Django.

Every source yields `PaperRecord`s, whatever the shape of its answers; what it cannot read it
yields as a `BadRecord` with the place to look at, so that one bad entry loses nothing else.

The networked ones (`arxiv.harvest`, `arxiv.by_identifiers`, `arxiv.announced`,
`huggingface.daily`) are iterators of `Page`s: one request each, made when the page is asked for,
so that the caller keeps each page before it asks for the next. A bad page is a `SourceError` and
yields nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime


class SourceError(Exception):
    """A source did not give what was asked.

    SourceError
    ├── Unreachable   no connection, or silence
    ├── Busy          429 or 503: it asks for patience, `retry_after` says for how long
    ├── ServerFailed  another 5xx
    ├── Refused       another 4xx, or an error in words: asking again the same way is of no use
    │   └── CursorExpired   the cursor is no longer taken: the list is to be asked for anew
    └── BadAnswer     HTML instead of XML, cut off, too large, a bomb

    `retry_after` is in seconds; None where the server names no time.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(SourceError):
    pass


class Busy(SourceError):
    pass


class ServerFailed(SourceError):
    pass


class Refused(SourceError):
    pass


class CursorExpired(Refused):
    pass


class BadAnswer(SourceError):
    pass


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a paper: v1, v2, … and the day it came."""

    number: int
    on: date | None = None


@dataclass(frozen=True, slots=True)
class PaperRecord:
    """One paper as one source describes it; the text is readable Unicode already.

    `counters` holds what was counted at `observed_at` ("upvotes", "comments", "stars"). A record
    without `listed_on` is listed on the day of its import, but for one that `only_updates`: that
    one is of use for a paper that is known, and makes none. `place` is "file:line" or
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
    cross_listed: bool = False  # listed_on is of another category: of use for a new paper alone
    only_updates: bool = False
    url: str = ""
    pdf_url: str = ""
    code_url: str = ""
    project_url: str = ""
    thumbnail_url: str = ""
    keywords: tuple[str, ...] = ()
    summary: str = ""  # one the source wrote, never the abstract
    organisation: str = ""
    submitter: str = ""
    versions: tuple[Version, ...] = ()  # the first one first
    licence: str = ""  # its address, such as http://creativecommons.org/licenses/by/4.0/
    comment: str = ""  # the authors', such as "12 pages, accepted at ..."
    journal_ref: str = ""
    counters: dict[str, int] = field(default_factory=dict)
    observed_at: datetime | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """An entry (or a whole file) that could not be read, where it stands, and why."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A paper that its source no longer has, or that its authors took back.

    In the latter case it follows the paper's own record.
    """

    source: str
    arxiv_id: str
    on: date | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class Validator:
    """What a server calls its answer; it is told so when it is asked for the same again."""

    url: str
    etag: str = ""
    last_modified: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a source, read.

    `cursor` is what the next page is asked for with, "" after the last one. `unchanged`: the
    server says that nothing has changed since it was last asked. `total`: how many records the
    whole list has, where the source says so. `wait`: for how many seconds the server wants no
    further request. `validator` is to be kept once the records are, and not before: else what a
    crash lost would never be sent again.
    """

    records: tuple[PaperRecord | BadRecord | Withdrawn, ...] = ()
    cursor: str = ""
    total: int | None = None
    unchanged: bool = False
    wait: float = 0.0
    validator: Validator | None = None
