"""Rendered templates with blanks for what differs by reader, so that rendering is done once.

A template is rendered with a blank in the place of each such value: a word that nothing else can
hold. What stands between the blanks is encoded for the mail there and then.
"""

from __future__ import annotations

import re
import secrets
import textwrap
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, Self

from newsletter.mime import Piece, joined, piece

KEY = secrets.token_hex(8)  # it leaves no process, so no title or abstract can imitate a blank
BLANK = re.compile(rf"{KEY}[a-z]+_x*_")
OPEN_BLANK = re.compile(rf"{KEY}[a-z]+__")
WIDTH = 76


def blank(name: str, length: int = 0) -> str:
    """The word that stands for the value `name` (lower-case letters).

    Args:
        length: the value's, where it is known: its line can be wrapped before it is there.
    """
    shortest = f"{KEY}{name}__"
    return f"{shortest[:-1]}{'x' * max(length - len(shortest), 1)}_" if length else shortest


class Value(NamedTuple):
    """The place of one value."""

    word: str


class Line(NamedTuple):
    """A line of text that can only be wrapped once its values are there."""

    text: str
    words: tuple[str, ...]


Part = Piece | Value | Line


class Stencil:
    """A rendered template: `fill` puts in its values."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts

    @classmethod
    def of_html(cls, html: str) -> Self:
        return cls(_split(html))

    @classmethod
    def of_text(cls, text: str) -> Self:
        parts: list[Part] = []
        ready: list[str] = []
        for line in _lines(text):
            if OPEN_BLANK.search(line):
                words = tuple(dict.fromkeys(BLANK.findall(line)))
                parts += [*_split("".join(ready)), Line(line, words)]
                ready = []
            else:
                ready.append(_wrapped(line))
        return cls([*parts, *_split("".join(ready))])

    def fill(self, values: Mapping[str, Piece]) -> list[Piece]:
        """The pieces of the whole; `values` by the words that stand for them."""
        return [
            part
            if isinstance(part, Piece)
            else values[part.word]
            if isinstance(part, Value)
            else _set(_put_in(part, values))
            for part in self._parts
        ]

    def given(self, values: Mapping[str, Piece]) -> Self:
        """The same where some values are known; what lies between the others is one piece."""
        parts: list[Part] = []
        for part in self._parts:
            if isinstance(part, Value):
                parts.append(values.get(part.word, part))
            elif isinstance(part, Line):
                text = _put_in(part, values)
                missing = tuple(word for word in part.words if word not in values)
                parts.append(Line(text, missing) if missing else _set(text))
            else:
                parts.append(part)
        merged: list[Part] = []
        for part in parts:
            if merged and isinstance(part, Piece) and isinstance(merged[-1], Piece):
                merged[-1] = joined((merged[-1], part))
            else:
                merged.append(part)
        return type(self)(merged)


def _put_in(line: Line, values: Mapping[str, Piece]) -> str:
    text = line.text
    for word in line.words:
        if word in values:
            text = text.replace(word, values[word].text)
    return text


@lru_cache(maxsize=4_096)
def _set(line: str) -> Piece:
    return piece(_wrapped(line))


def wrapped(text: str) -> str:
    """Lines of at most 76 characters, links whole; no more than one empty line in a row."""
    return "".join(map(_wrapped, _lines(text)))


def _lines(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.strip().splitlines():
        if line.strip():
            lines.append(line)
        elif lines[-1]:
            lines.append("")
    return lines


def _wrapped(line: str) -> str:
    if len(line) <= WIDTH and line.isprintable() and not line.endswith(" "):
        return f"{line}\n"  # textwrap is slow, and would find nothing to do
    indent = line[: len(line) - len(line.lstrip())]
    rows = textwrap.wrap(
        line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join([*rows, ""]) or "\n"


def _split(text: str) -> list[Part]:
    parts: list[Part] = []
    start = 0
    for found in BLANK.finditer(text):
        if found.start() > start:
            parts.append(piece(text[start : found.start()]))
        parts.append(Value(found[0]))
        start = found.end()
    return [*parts, piece(text[start:])] if start < len(text) else parts
