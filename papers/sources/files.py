"""Papers from files: listings saved as text, saved answers of Hugging Face's API, JSON Lines.

The kind is told by a file's content, not by its name. Whatever is wrong with a file or an entry
becomes a BadRecord; nothing is raised, and the other entries are read.
"""

from __future__ import annotations

import ast
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from papers.latex import to_text
from papers.sources import BadRecord, PaperRecord, huggingface
from papers.sources.fields import (
    MAX_LIST,
    MAX_NAME,
    as_abstract,
    as_day,
    as_moment,
    as_title,
    as_url,
    is_count,
)
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi

Records = Iterator[PaperRecord | BadRecord]

MAX_FILE = 64_000_000  # bytes of a file that is read whole; JSON Lines are read line by line
MAX_LINE = 4_000_000
OURS = ("curator", "paperround")  # as sources: what is said and counted here, by people
LONG_TITLE = 350  # in a listing, a longer line is an abstract; real titles end below 300

_DAY = re.compile(r"(?<!\d)(\d{4}-\d\d-\d\d)(?!\d)")

# Lines of a listing page that belong to the page; only a whole line counts.
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)[a-z]*\.?"
_NAVIGATION = re.compile(
    r"get trending papers.*|subscribe|new|daily\s?papers|papers|trending(?: papers)?|"
    r"by\s?AK.*|(?:and the )?research community|hugging face|log ?in|sign ?up|submitted by.*|"
    r"previous|next|load more|view all|back to top|(?:privacy|tos|terms(?: of service)?|about|"
    r"careers|jobs|pricing|docs|models|datasets|spaces|website|community|company)|[\d\W_]+|"
    rf"{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?|\d{{1,2}}\.?\s+{_MONTH}(?:,?\s+\d{{4}})?",
    re.IGNORECASE,
)
_GLUED = re.compile(r"Subscribe(?=[A-Z0-9“\"])")  # "SubscribeOn Invariance ..."
_SENTENCES = re.compile(r"[.!?]\s+\W?[A-Z0-9]")


def read(paths: Iterable[Path]) -> Records:
    """Every paper in the files; of a directory, all files in sorted order but the hidden ones."""
    for path in paths:
        try:
            files = list(_walk(path)) if path.is_dir() else [path]
        except (OSError, ValueError) as error:
            yield BadRecord(_shown(path), _reason(error))
            continue
        if not files:
            yield BadRecord(_shown(path), "the directory holds no files")
        for file in files:
            yield from _read_file(file)


def _walk(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _shown(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace").replace("\0", "\ufffd")


def _reason(error: OSError | ValueError) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _read_file(path: Path) -> Records:
    place = _shown(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would block
            yield BadRecord(place, "not a regular file")
            return
        with path.open("rb") as stream:
            if _is_json_lines(stream):
                yield from _json_lines(stream, place)
                return
            content = stream.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        yield BadRecord(place, _reason(error))
        return
    if len(content) > MAX_FILE:
        yield BadRecord(place, f"larger than {MAX_FILE // 1_000_000} MB and not JSON Lines")
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield BadRecord(place, f"not UTF-8 text (byte {error.start + 1}); save it as UTF-8")
        return
    yield from _read_text(text, place, path.stem)


def _read_text(text: str, place: str, stem: str) -> Records:
    start = text.lstrip()[:200]
    if not start:
        yield BadRecord(place, "the file is empty")
    elif "\0" in text:
        yield BadRecord(place, "a binary file, not text")
    elif re.match(r"<[!?a-z]", start, re.I):
        yield BadRecord(place, "an HTML or XML page; save the listing as text or JSON instead")
    else:
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            if re.match(r'\{\s*["}]|\[\s*[\[{"\]]', start):  # but "[Re] A title" is a listing
                yield BadRecord(place, f"invalid JSON: {error}")
            else:
                yield from _listing(text, place)
            return
        if isinstance(answer, dict) and "title" in answer:
            yield own_record(answer, place)  # one record of our own, over several lines
        else:
            day = _DAY.search(stem)
            yield from _daily_papers(answer, place, as_day(day[1]) if day else None)


# -- Listings ---------------------------------------------------------------------------------


def _listing(text: str, place: str) -> Records:
    """Titles and abstracts in turn, a line or (between blank lines) a paragraph each.

    A title that is followed by another title, or by nothing, is a BadRecord: it is likelier a
    leftover of the page than a paper. A second paragraph belongs to the abstract before it.
    """
    units = list(_units(text))
    found: list[PaperRecord | BadRecord] = []
    title: tuple[int, str] = (0, "")
    abstract: list[str] = []

    def close() -> None:
        line, heading = title
        if abstract:
            found.append(_listed(heading, " ".join(abstract), f"{place}:{line}"))
        elif heading:
            found.append(BadRecord(f"{place}:{line}", f"no abstract after “{heading[:80]}”"))

    for number, (line, unit) in enumerate(units, 1):
        before_prose = number < len(units) and _is_prose(units[number][1])
        wanted = title[1] and not abstract
        # some titles have two sentences, but then their abstract follows
        longest = 250 if _is_ended(unit) else LONG_TITLE
        two_sentences = not wanted and before_prose and len(unit) <= longest
        prose = _is_prose(unit) and not two_sentences
        if prose and not title[1]:
            found.append(BadRecord(f"{place}:{line}", f"no title before “{unit[:80]}”"))
        elif prose:
            abstract.append(unit)
        elif not wanted or before_prose:
            close()
            title, abstract = (line, unit), []
        else:
            abstract = [unit]
    close()
    papers = [record for record in found if isinstance(record, PaperRecord)]
    marked = sum(unit.startswith(("|", "#", "```", "- ", "* ")) for _, unit in units)
    if marked * 5 > len(units) or not any(len(paper.abstract.split()) >= 5 for paper in papers):
        yield BadRecord(place, "neither JSON nor a listing of titles and abstracts")
    else:
        yield from found


def _listed(title: str, abstract: str, place: str) -> PaperRecord | BadRecord:
    try:
        return PaperRecord(
            source="listing", title=as_title(title), abstract=as_abstract(abstract), place=place
        )
    except ValueError as error:
        return BadRecord(place, str(error))


def _is_prose(text: str) -> bool:
    """Whether this reads like an abstract; a short one may not, a title never does."""
    sentences = _is_ended(text) or _SENTENCES.search(text) is not None
    return len(text) > LONG_TITLE or (len(text) > 120 and sentences)


def _is_ended(text: str) -> bool:
    return text.rstrip("\"'”’)*").endswith((".", "!", "?", "…"))


def _units(text: str) -> Iterator[tuple[int, str]]:
    """The titles and abstracts of a listing with the number of their first line."""
    blocks: list[list[tuple[int, str]]] = [[]]
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = raw.strip()
        if not line and blocks[-1]:
            blocks.append([])
        elif line:
            blocks[-1].append((number, line))
    blocks = [kept for block in blocks if (kept := _without_navigation(block))]
    if blocks:
        number, line = blocks[0][0]
        blocks[0][0] = number, _GLUED.sub("", line, count=1)
    wrapped = [len(block) > 1 and max(len(line) for _, line in block) <= 200 for block in blocks]
    # Title and abstract in one block, or in a block each? Then about half are single lines.
    together = len(blocks) > 1 and sum(wrapped) > 0.6 * len(blocks)
    for block, is_wrapped in zip(blocks, wrapped, strict=True):
        if not is_wrapped or len(blocks) == 1:
            yield from block
        else:
            if together:
                yield block[0]
            rest = block[1:] if together else block
            yield rest[0][0], " ".join(line for _, line in rest)


def _without_navigation(block: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Page furniture stands at the edges of a block; inside one it is a wrapped word."""
    drop = [bool(_NAVIGATION.fullmatch(line)) for _, line in block]
    if any(len(line) > 200 for _, line in block):  # nothing is wrapped
        return [entry for entry, dropped in zip(block, drop, strict=True) if not dropped]
    start, end = 0, len(block)
    while start < end and drop[start]:
        start += 1
    while end > start and drop[end - 1]:
        end -= 1
    return block[start:end]


# -- Hugging Face's daily papers --------------------------------------------------------------


def _daily_papers(answer: object, place: str, day: date | None) -> Records:
    try:
        entries = huggingface.entries(answer)
    except ValueError as error:
        yield BadRecord(place, str(error))
    else:
        yield from huggingface.saved([_evaluated(entry) for entry in entries], place, day)


def _evaluated(entry: object) -> object:
    """Some archives keep Python's repr of an entry."""
    if isinstance(entry, str) and len(entry) <= MAX_LINE:
        with (
            suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError),
            warnings.catch_warnings(action="ignore"),
        ):
            entry = ast.literal_eval(entry)
    return entry


# -- JSON Lines of our own --------------------------------------------------------------------


def _is_json_lines(stream: BinaryIO) -> bool:
    """Whether the first line with content is, or was meant to be, one of our records."""
    first = b""
    while not first.strip(b" \t\r\n\xef\xbb\xbf") and (first := stream.readline(MAX_LINE)):
        pass
    rest = stream.read(1)
    stream.seek(0)
    start = first.lstrip(b" \t\xef\xbb\xbf")
    if not re.match(rb'\{\s*["}]', start):
        return False
    try:
        record = json.loads(start)
    except (ValueError, RecursionError):
        # a bad first line, or the first line of one long object (then it is short: "{")
        return bool(rest) and b'"title"' in start
    return isinstance(record, dict) and not {"data", "error", "paper"} & record.keys()


def _json_lines(stream: BinaryIO, place: str) -> Records:
    number = 0
    while raw := stream.readline(MAX_LINE):
        number += 1
        here = f"{place}:{number}"
        if len(raw) == MAX_LINE and not raw.endswith(b"\n"):
            while (more := stream.readline(MAX_LINE)) and not more.endswith(b"\n"):
                pass
            yield BadRecord(here, f"a line longer than {MAX_LINE // 1_000_000} MB")
            continue
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            record = json.loads(line) if line else None
        except UnicodeDecodeError:
            yield BadRecord(here, "not UTF-8 text")
        except (ValueError, RecursionError) as error:
            yield BadRecord(here, f"invalid JSON: {error}")
        else:
            if line:
                yield own_record(record, here)


def own_record(record: object, place: str) -> PaperRecord | BadRecord:
    """One record in our own format: PaperRecord's fields by name, only the title required.

    A field that is null counts as absent, an unknown field is ignored.
    """
    if not isinstance(record, dict):
        return BadRecord(place, "not a JSON object")
    values: dict[str, Any] = {"source": "file", "place": place}
    try:
        values["title"] = as_title(record.get("title"))
        for field, parse in _FIELDS.items():
            if record.get(field) is not None:
                try:
                    values[field] = parse(record[field])
                except ValueError as error:
                    raise ValueError(f"{field}: {error}") from None
    except ValueError as error:
        return BadRecord(place, str(error))
    return PaperRecord(**values)


def _expected(
    what: str, parse: Callable[[Any], Any], accepts: Callable[[Any], object]
) -> Callable[[Any], Any]:
    """A parser that refuses a value by saying what was expected."""

    def checked(value: object) -> Any:
        if not accepts(value):
            raise ValueError(f"expected {what}, found {json.dumps(value)[:80]}")
        return parse(value)

    return checked


def _is_text(value: object, limit: int = MAX_NAME) -> bool:
    return isinstance(value, str) and len(value) <= limit


def _source(value: object) -> str:
    if value in OURS:
        raise ValueError(f"“{value}” is a name of this service's own; choose another")
    return str(_SOURCE(value))


_SOURCE = _expected(
    "a lower-case name of at most 16 characters",
    str,
    lambda value: isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_-]{0,15}", value),
)
_NAME = _expected(f"a text of at most {MAX_NAME} characters", to_text, _is_text)
_NAMES = _expected(
    f"a list of texts of at most {MAX_NAME} characters",
    lambda value: tuple(text for text in map(to_text, value) if text),
    lambda value: isinstance(value, list) and len(value) <= MAX_LIST and all(map(_is_text, value)),
)
_WEB = _expected("an http(s) address", as_url, lambda value: value == "" or as_url(value))
_ISO_DAY = _expected("an ISO date such as 2025-06-02", as_day, as_day)
_FIELDS: dict[str, Callable[[Any], Any]] = {
    "source": _source,
    "abstract": as_abstract,
    "arxiv_id": _expected(
        "an arXiv id", lambda value: value and normalise_arxiv_id(value), _is_text
    ),
    "doi": _expected("a DOI", lambda value: value and normalise_doi(value), _is_text),
    "authors": _NAMES,
    "categories": _NAMES,
    "keywords": _NAMES,
    "published_on": _ISO_DAY,
    "listed_on": _ISO_DAY,
    "url": _WEB,
    "pdf_url": _WEB,
    "code_url": _WEB,
    "project_url": _WEB,
    "thumbnail_url": _WEB,
    "summary": as_abstract,
    "organisation": _NAME,
    "submitter": _NAME,
    "counters": _expected(
        "an object of counts, whole numbers of 0 or more",
        lambda value: {to_text(name): count for name, count in value.items()},
        lambda value: (
            isinstance(value, dict)
            and len(value) <= 50
            and all(_is_text(name, 50) and is_count(count) for name, count in value.items())
        ),
    ),
    "observed_at": _expected(
        "an ISO moment with its zone such as 2025-06-02T06:00:00Z",
        as_moment,
        lambda value: (moment := as_moment(value)) and moment.tzinfo,
    ),
}
