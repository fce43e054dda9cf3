"""What a check of the installation found, in words for whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. Whatever is not ok says what it means and what to do."""

    check: str
    level: Level
    found: str
    means: str = ""
    do: str = ""


def several(number: int, one: str, many: str) -> str:
    """`number` with its noun."""
    return f"{number} {one if number == 1 else many}"


def ok(check: str, found: str, do: str = "") -> Finding:
    return Finding(check, Level.OK, found, do=do)


def warning(check: str, found: str, means: str, do: str) -> Finding:
    return Finding(check, Level.WARNING, found, means, do)


def error(check: str, found: str, means: str, do: str) -> Finding:
    return Finding(check, Level.ERROR, found, means, do)
