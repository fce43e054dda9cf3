"""Papers as people name them: identifiers, addresses, titles, BibTeX and RIS -> rows.

Only what recognises a paper is taken out of an entry; whatever else stands there is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from papers.latex import to_text
from papers.models import Paper, PaperAlias
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi, title_key

T = TypeVar("T")

LONGEST_TITLE = 1_000
LONGEST_VALUE = 10_000  # of a field of BibTeX

_BIBTEX = re.compile(r"^[ \t]*@(\w{1,40})[ \t]*[{(]", re.M)
_BIBTEX_NO_ENTRY = {"comment", "preamble", "string"}
_FIELD = re.compile(r"\b(eprint|doi|url|howpublished|note|journal|title)[ \t]*=[ \t]*", re.I)
_BARE_VALUE = re.compile(r"[^,\n}]*")
_RIS = re.compile(r"^TY {1,2}-", re.M)
_RIS_LINE = re.compile(r"^([A-Z][A-Z0-9]) {1,2}- ?(.*)$", re.M)
_RIS_LINKS = {"DO", "UR", "L1", "L2", "L3", "AN", "M3", "ID"}
_RIS_TITLES = {"TI", "T1"}
_BETWEEN = re.compile(r"[\s,;]+")
_WRAPPING = "()[]{}<>\"'“”„|"
_LATEX = re.compile(r"\\(?:url|href|doi)\b|[{}]|\\(?=[_%&#])")
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\[?\d{1,3}[.)\]])\s+")


@dataclass(frozen=True, slots=True)
class Reference:
    """One paper as it was named. It is the first one known of these, the ids before the title."""

    shown: str
    arxiv_ids: tuple[str, ...] = ()
    dois: tuple[str, ...] = ()
    uuids: tuple[UUID, ...] = ()
    title: str = ""


def read(text: str) -> list[Reference]:
    """Each paper named in `text`, in its order: BibTeX, RIS, or one and more a line."""
    if _BIBTEX.search(text):
        return list(_bibtex(text))
    if _RIS.search(text):
        return list(_ris(text))
    return [reference for line in text.splitlines() if line.strip() for reference in _line(line)]


def look_up(references: Iterable[Reference]) -> tuple[list[int], list[str]]:
    """The ids of the papers known here, each once, and what was named and is not known."""
    references = list(references)
    by_id: dict[object, int] = {}
    for field in ("arxiv_id", "doi", "uuid"):
        wanted = [value for reference in references for value in getattr(reference, f"{field}s")]
        if wanted:
            rows = Paper.objects.filter(**{f"{field}__in": wanted}).values_list(field, "pk")
            by_id.update(rows)
    if names := [name for reference in references for name in reference.uuids]:
        by_id.update(PaperAlias.objects.filter(uuid__in=names).values_list("uuid", "paper"))
    keys = {r: title_key(r.title) for r in references if r.title and not _known(r, by_id)}
    by_title: dict[str, int] = {}
    if keys:
        same = Paper.objects.filter(title_key__in=set(keys.values())).order_by("-pk")
        by_title = dict(same.values_list("title_key", "pk"))
    found: dict[int, None] = {}
    unknown: dict[str, None] = {}
    for reference in references:
        paper_id = _known(reference, by_id) or by_title.get(keys.get(reference, ""))
        if paper_id is None:
            unknown[reference.shown] = None
        else:
            found[paper_id] = None
    return list(found), list(unknown)


def written(paper: Paper) -> str:
    """A paper as one line that `read` understands and a person recognises."""
    if paper.arxiv_id:
        name = f"arXiv:{paper.arxiv_id}"
    elif paper.doi:
        name = f"doi:{paper.doi}"
    else:
        name = paper.get_absolute_url()
    return f"{name} {' '.join(paper.title.split())}"


def _known(reference: Reference, by_id: Mapping[object, int]) -> int | None:
    ids: tuple[object, ...] = (*reference.arxiv_ids, *reference.dois, *reference.uuids)
    return next((by_id[value] for value in ids if value in by_id), None)


def _line(line: str) -> Iterator[Reference]:
    """A line of identifiers names as many papers; beside words, the first identifier counts: the
    others belong to the title. A line without any is a title."""
    line = _LIST_MARK.sub("", line)
    parts = [part for part in _BETWEEN.split(line) if part.strip(".:")]
    named = [reference for part in parts if (reference := _identifier(part))]
    spelled_out = {"arxiv", "doi"}  # "arXiv: 2505.24864"
    words = [p for p in parts if not _identifier(p) and p.strip(".:").lower() not in spelled_out]
    if named:
        yield from named[:1] if words else named
    elif title := " ".join(line.split())[:LONGEST_TITLE]:
        yield Reference(title[:100], title=title)


def _identifier(text: str) -> Reference | None:
    """The paper that one word names. A bracket at its end may belong to a DOI, or to the text."""
    whole = text.rstrip(".,:")
    bare = text.strip(_WRAPPING + ".,:")
    spelled = tuple(dict.fromkeys((whole, bare)))
    arxiv_ids = _read_as(normalise_arxiv_id, spelled)
    dois = () if arxiv_ids else _read_as(normalise_doi, spelled)
    uuids = () if arxiv_ids or dois else _read_as(_uuid, spelled)
    if arxiv_ids or dois or uuids:
        return Reference(bare[:100], arxiv_ids, dois, uuids)
    return None


def _read_as(normalise: Callable[[str], T], spelled: Iterable[str]) -> tuple[T, ...]:
    found: dict[T, None] = {}
    for text in spelled:
        with suppress(ValueError):
            found[normalise(text)] = None
    return tuple(found)


def _uuid(address: str) -> UUID:
    """That of a paper's page here."""
    folder, _, name = urlsplit(address).path.rstrip("/").rpartition("/")
    if folder != "/paper":
        raise ValueError("not a paper's page")
    return UUID(name)


def _entry(links: Iterable[str], title: str, otherwise: str) -> Reference:
    parts = [part for link in links for part in _BETWEEN.split(link) if part]
    found = [_identifier(part) for part in parts]
    title = " ".join(title.split())[:LONGEST_TITLE]
    return Reference(
        shown=(title or otherwise)[:100],
        arxiv_ids=tuple(id_ for reference in found if reference for id_ in reference.arxiv_ids),
        dois=tuple(id_ for reference in found if reference for id_ in reference.dois),
        title=title,
    )


def _bibtex(text: str) -> Iterator[Reference]:
    starts = list(_BIBTEX.finditer(text))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    for start, end in zip(starts, ends, strict=True):
        if start[1].lower() in _BIBTEX_NO_ENTRY:
            continue
        body = text[start.end() : end]
        links, title, at = [], "", 0
        while field := _FIELD.search(body, at):
            value, at = _bibtex_value(body, field.end())
            if field[1].lower() == "title":
                title = title or to_text(value)
            else:
                links.append(_LATEX.sub(_plain, value))
        key = body.partition(",")[0].strip(" \t\r\n}")
        yield _entry(links, title, otherwise=key or start[0].strip())


def _plain(match: re.Match[str]) -> str:
    return "" if match[0] == "\\" else " "


def _bibtex_value(body: str, start: int) -> tuple[str, int]:
    """The value that begins at `start`, without its outer braces or quotation marks, and where it
    ends. One that does not end in LONGEST_VALUE characters ends there."""
    end = min(len(body), start + LONGEST_VALUE)
    if body[start : start + 1] not in ("{", '"'):
        value = _BARE_VALUE.match(body, start, end)
        return (value[0], value.end()) if value else ("", start)
    depth, quoted = 0, body[start] == '"'
    for at in range(start + 1 if quoted else start, end):
        char = body[at]
        depth += (char == "{") - (char == "}")
        if (char == '"' and not depth) if quoted else (char == "}" and not depth):
            return body[start + 1 : at], at
    return body[start + 1 : end], end


def _ris(text: str) -> Iterator[Reference]:
    starts = [match.start() for match in _RIS.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        links, title = [], ""
        for tag, value in _RIS_LINE.findall(text[start:end]):
            if tag in _RIS_LINKS:
                links.append(value)
            elif tag in _RIS_TITLES:
                title = title or value
        yield _entry(links, title, otherwise=text[start:end].strip().splitlines()[0])
