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
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from papers.latex import to_text
from papers.sources import BadRecord, PaperRecord
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi

Records = Iterator[PaperRecord | BadRecord]

MAX_FILE = 64_000_000  # bytes of a file that is read whole; JSON Lines are read line by line
MAX_LINE = 4_000_000
MAX_TITLE = 1_000
LONG_TITLE = 350  # in a listing, a longer line is an abstract; real titles end below 300
MAX_ABSTRACT = 50_000
MAX_NAME = 300
MAX_LIST = 10_000
MAX_URL = 2_000
MAX_COUNTER = 2**31 - 1

_URL = re.compile(r"https?://[^\s/<>\"\\]+[^\s<>\"\\\x00-\x1f\x7f-\x9f\ud800-\udfff]*", re.I)
_GITHUB = re.compile(r"https?://(?:www\.)?github\.com/", re.I)
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
            yield from daily_papers(answer, place, _date(day[1]) if day else None)


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
            source="listing", title=_title(title), abstract=_abstract(abstract), place=place
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


def daily_papers(answer: object, place: str, day: date | None) -> Records:
    """The entries of one answer of `GET /api/daily_papers`; `day` is its list's, if known."""
    if isinstance(answer, dict) and isinstance(answer.get("data"), list):
        answer = answer["data"]
    if not isinstance(answer, list):
        if isinstance(answer, dict):
            answer = answer.get("error") or f"an object with {', '.join(answer) or 'no fields'}"
        yield BadRecord(place, f"not a list of papers but: {to_text(str(answer)[:1000])[:300]}")
        return
    for number, entry in enumerate(answer, 1):
        yield _daily_paper(entry, f"{place}, entry {number}", day)


def _daily_paper(entry: object, place: str, day: date | None) -> PaperRecord | BadRecord:
    if isinstance(entry, str) and len(entry) <= MAX_LINE:  # some archives keep Python's repr
        try:
            with warnings.catch_warnings(action="ignore"):
                entry = ast.literal_eval(entry)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return BadRecord(place, "a text that is no entry of the daily papers")
    if not isinstance(entry, dict) or not isinstance(entry.get("paper"), dict):
        return BadRecord(place, "no object with a “paper”")
    fields = {**entry, **{k: v for k, v in entry["paper"].items() if v is not None}}
    # The outer publishedAt is neither the list's day nor arXiv's date.
    fields["publishedAt"] = entry["paper"].get("publishedAt")

    def name_of(*keys: str) -> str:
        for person in (fields.get(key) for key in keys):
            for field in ("fullname", "name", "user"):
                if isinstance(person, dict) and (name := _text(person.get(field))):
                    return name
        return ""

    def names(value: object) -> tuple[str, ...]:
        values = value[:MAX_LIST] if isinstance(value, list) else []
        texts = (_text(one.get("name") if isinstance(one, dict) else one) for one in values)
        return tuple(text for text in texts if text)

    listed_on = _date(fields.get("submittedOnDailyAt")) or day
    # nobody noted when the answer was saved: at the latest when its day was over
    day_after = listed_on and listed_on + timedelta(days=1)
    code, project = _url(fields.get("githubRepo")), _url(fields.get("projectPage"))
    if not code and _GITHUB.match(project):
        code = project
    try:
        return PaperRecord(
            source="huggingface",
            title=_title(fields.get("title")),
            abstract=_abstract(fields.get("summary") or ""),
            arxiv_id=normalise_arxiv_id(str(fields.get("id"))),
            authors=names(fields.get("authors")),
            published_on=_date(fields.get("publishedAt")),
            listed_on=listed_on,
            code_url=code,
            project_url="" if project == code else project,
            thumbnail_url=_url(fields.get("thumbnail")),
            keywords=names(fields.get("ai_keywords")),
            summary=_text(fields.get("ai_summary"), MAX_ABSTRACT),
            organisation=name_of("organization", "submitterOrganization"),
            submitter=name_of("submittedOnDailyBy", "submittedBy"),
            counters={
                name: fields[key]
                for name, key in (
                    ("upvotes", "upvotes"), ("comments", "numComments"), ("stars", "githubStars")
                )
                if _is_count(fields.get(key))
            },
            observed_at=datetime.combine(day_after, time(), tzinfo=UTC) if day_after else None,
            place=place,
        )  # fmt: skip
    except ValueError as error:
        return BadRecord(place, str(error))


def _text(value: object, limit: int = MAX_NAME) -> str:
    return to_text(value[: 4 * limit])[:limit] if isinstance(value, str) else ""


def _url(value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= MAX_URL and _URL.fullmatch(text) else ""


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNTER


def _moment(value: object) -> datetime | None:
    """An ISO moment or day; days of which no neighbour exists are refused."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None or not 1800 <= moment.year <= 2200:
            return None
        return moment.astimezone(UTC) if moment.tzinfo else moment
    except ValueError:
        return None


def _date(value: object) -> date | None:
    moment = _moment(value)
    return moment and moment.date()


def _title(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("no title")
    title = to_text(value) if len(value) <= 4 * MAX_TITLE else value
    if not title:
        raise ValueError("no title")
    if len(title) > MAX_TITLE:
        raise ValueError(f"a title of more than {MAX_TITLE} characters: “{title[:80]}”")
    return title


def _abstract(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("the abstract is not a text")
    abstract = to_text(value) if len(value) <= 4 * MAX_ABSTRACT else value
    if len(abstract) > MAX_ABSTRACT:
        raise ValueError(f"an abstract of more than {MAX_ABSTRACT} characters")
    return abstract


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
        values["title"] = _title(record.get("title"))
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


_NAME = _expected(f"a text of at most {MAX_NAME} characters", to_text, _is_text)
_NAMES = _expected(
    f"a list of texts of at most {MAX_NAME} characters",
    lambda value: tuple(text for text in map(to_text, value) if text),
    lambda value: isinstance(value, list) and len(value) <= MAX_LIST and all(map(_is_text, value)),
)
_WEB = _expected("an http(s) address", _url, lambda value: value == "" or _url(value))
_ISO_DAY = _expected("an ISO date such as 2025-06-02", _date, _date)
_FIELDS: dict[str, Callable[[Any], Any]] = {
    "source": _expected(
        "a short lower-case name",
        str,
        lambda value: isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_-]{0,29}", value),
    ),
    "abstract": _abstract,
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
    "summary": _abstract,
    "organisation": _NAME,
    "submitter": _NAME,
    "counters": _expected(
        "an object of counts, whole numbers of 0 or more",
        lambda value: {to_text(name): count for name, count in value.items()},
        lambda value: (
            isinstance(value, dict)
            and len(value) <= 50
            and all(_is_text(name, 50) and _is_count(count) for name, count in value.items())
        ),
    ),
    "observed_at": _expected(
        "an ISO moment with its zone such as 2025-06-02T06:00:00Z",
        _moment,
        lambda value: (moment := _moment(value)) and moment.tzinfo,
    ),
}
