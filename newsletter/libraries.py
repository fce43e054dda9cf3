"""Papers, libraries and profiles from files: what the recommender is measured with, outside the
database. No Django.

Any file may be compressed with gzip. Identifiers are numbers or strings, and compared as text: the
number 1, 1.0 and the string "1" are one paper. An error names the file and the line.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any

csv.field_size_limit(10_000_000)  # abstracts longer than the 131,072 characters of the default


class LibrariesError(ValueError):
    """A file cannot be used; the message says where it is wrong and what is needed."""


@dataclass(frozen=True, slots=True)
class Text:
    """What is known of a paper: a title and an abstract, or words without an order, or nothing."""

    title: str = ""
    abstract: str = ""
    words: str = ""

    @property
    def ordered(self) -> bool:
        """Whether there are sentences to encode."""
        return bool(self.title or self.abstract)

    def __str__(self) -> str:
        return self.words or f"{self.title}\n{self.abstract}"


@dataclass(frozen=True)
class Papers:
    """n papers in the order of their file. times: when each was first posted, where known."""

    path: Path
    ids: list[str] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    times: list[datetime | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def places(self) -> dict[str, int]:
        """Identifier -> its place in `ids`."""
        return {paper: place for place, paper in enumerate(self.ids)}

    @property
    def ordered(self) -> bool:
        """Whether the order of words means something in all texts: only then pairs are terms."""
        return not any(text.words for text in self.texts)


@dataclass(frozen=True)
class Libraries:
    """papers: reader -> places of its papers, in the order of the rows, each once.

    unknown: rows that name no paper of the archive; they are left out.
    """

    papers: dict[str, list[int]]
    unknown: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One reader of a file of profiles; `reader` is as it was written, to be written again."""

    reader: str | int | float
    liked: list[str]
    disliked: list[str]
    candidates: list[str]


def read_papers(path: Path) -> Papers:
    """Read JSON Lines, {"id", "title", "abstract"} or {"id", "text"}, or CSV with these columns.

    A title or an abstract may be missing or null. `first_posted_at` is read where it is there. A
    `text` counts where there is neither title nor abstract.

    Raises:
        LibrariesError: it is no such file, or names a paper twice.
        OSError: it cannot be opened.
    """
    rows = _json_lines(path) if _is_json_lines(path) else _csv_rows(path, ("id",))
    found = Papers(path)
    lines: dict[str, int] = {}
    for line, row in rows:
        place = f"{path}, line {line}"
        paper = identifier(row.get("id"), place)
        if paper in lines:
            raise LibrariesError(f"{place}: paper {paper} is in line {lines[paper]} already")
        lines[paper] = line
        found.ids.append(paper)
        found.texts.append(_text(row, place))
        found.times.append(_time(row.get("first_posted_at"), place))
    if not found.ids:
        raise LibrariesError(f"{path}: there is no paper in it")
    return found


def read_libraries(path: Path, papers: Papers) -> Libraries:
    """Read CSV with the columns reader and paper, a row for each paper of each library.

    Raises:
        LibrariesError: it is no such file.
        OSError: it cannot be opened.
    """
    found: dict[str, dict[int, None]] = {}
    unknown = 0
    for line, row in _csv_rows(path, ("reader", "paper")):
        reader = identifier(row["reader"], f"{path}, line {line}", "reader")
        place = papers.places.get(identifier(row["paper"], f"{path}, line {line}", "paper"))
        library = found.setdefault(reader, {})
        if place is None:
            unknown += 1
        else:
            library[place] = None
    if not found:
        raise LibrariesError(f"{path}: there is no library in it")
    return Libraries({reader: list(library) for reader, library in found.items()}, unknown)


def read_ids(path: Path) -> set[str]:
    """Read identifiers, one a line.

    Raises:
        LibrariesError: it is no text, or has none.
        OSError: it cannot be opened.
    """
    with _lines(path) as lines:
        found = {line.strip() for line in lines if line.strip()}
    if not found:
        raise LibrariesError(f"{path}: there is no identifier in it")
    return found


def read_profiles(path: Path) -> list[Profile]:
    """Read JSON Lines, {"reader", "liked", "disliked", "candidates"}; a list may be missing.

    Within a list a paper counts once.

    Raises:
        LibrariesError: it is no such file.
        OSError: it cannot be opened.
    """
    found = []
    for line, row in _json_lines(path):
        place = f"{path}, line {line}"
        identifier(row.get("reader"), place, "reader")
        lists = [_ids(row, name, place) for name in ("liked", "disliked", "candidates")]
        found.append(Profile(row["reader"], *lists))
    if not found:
        raise LibrariesError(f"{path}: there is no reader in it")
    return found


def identifier(value: object, place: str, name: str = "id") -> str:
    """The text form of an identifier; 1.0, as tables write a number, is 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise LibrariesError(f"{place}: {name} must be a number or a string")
    text = str(value).strip()
    if not text:
        raise LibrariesError(f"{place}: {name} is empty")
    return text


def _ids(row: dict[str, Any], name: str, place: str) -> list[str]:
    values = row.get(name)
    if values is None:
        return []
    if not isinstance(values, list):
        raise LibrariesError(f"{place}: {name} must be a list of identifiers")
    return list(dict.fromkeys(identifier(value, place, f"each of {name}") for value in values))


def _text(row: dict[str, Any], place: str) -> Text:
    parts = {}
    for name in ("title", "abstract", "text"):
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            raise LibrariesError(f"{place}: {name} must be a string or null")
        parts[name] = (value or "").strip()
    if parts["title"] or parts["abstract"]:
        return Text(parts["title"], parts["abstract"])
    return Text(words=parts["text"])


def _time(value: object, place: str) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(str(value).strip())
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise LibrariesError(f"{place}: first_posted_at “{str(value)[:40]}” is no time") from None


def _is_json_lines(path: Path) -> bool:
    with _lines(path) as lines:
        return next((line for line in lines if line.strip()), "").lstrip().startswith("{")


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, parse_constant=_no_number)
            except (ValueError, RecursionError) as error:
                raise LibrariesError(f"{path}, line {number}: no JSON: {error}") from None
            if not isinstance(row, dict):
                raise LibrariesError(f"{path}, line {number}: must be a JSON object")
            yield number, row


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _csv_rows(path: Path, required: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with _lines(path) as lines:
        reader = csv.DictReader(lines)
        try:
            columns = [name.strip() for name in reader.fieldnames or []]
            missing = [name for name in required if name not in columns]
            if missing:
                raise LibrariesError(
                    f"{path}, line 1: no column {', '.join(missing)}. Needed are "
                    f"{', '.join(required)}."
                )
            reader.fieldnames = columns
            for row in reader:
                if None in row or None in row.values():
                    raise LibrariesError(
                        f"{path}, line {reader.line_num}: must have {len(columns)} fields"
                    )
                yield reader.line_num, row
        except csv.Error as error:
            raise LibrariesError(f"{path}, line {reader.line_num}: {error}") from None


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A new file beside `path`, which takes its place at the end, or is gone after an error: nobody
    ever sees half a file."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    new = Path(name)
    try:
        os.close(handle)
        new.chmod(0o666 & ~_umask())
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _umask() -> int:
    """What a file made in the usual way would not be allowed; mkstemp's are private."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def _lines(path: Path) -> Iterator[IO[str]]:
    """The lines of a text file, decompressed where it begins like gzip."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    try:
        if compressed:
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as lines:
                yield lines
        else:
            with path.open(encoding="utf-8-sig", newline="") as lines:
                yield lines
    except UnicodeDecodeError as error:
        raise LibrariesError(f"{path}: not UTF-8 text ({error.reason})") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise LibrariesError(f"{path}: damaged: {error}") from None
