"""manage.py import_subscribers FILE.csv: an existing list of people who consented."""

from __future__ import annotations

import csv
import re
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from newsletter import addresses, references, subscriptions
from newsletter.forms import LONGEST_LINE, MOST_LINES
from newsletter.models import LONGEST_INTEREST, MAX_EXAMPLES, MAX_INTERESTS, known_zone
from newsletter.schedule import QUARTERS, Days
from newsletter.subscriptions import Subject
from papers.categories import CATEGORY_NAMES

COLUMNS = ("address", "name", "interests", "authors", "examples", "time_zone", "hour", "days")


class Command(BaseCommand):
    help = (
        "Add the subscribers of an existing, consented list. FILE is UTF-8 CSV whose first line "
        "names its columns: address (required), name, interests (separated by semicolons; an arXiv "
        "category such as cs.CL counts as one), authors to follow and examples (arXiv ids, DOIs or "
        "titles of papers known here; both separated by semicolons, and part of the interest where "
        "there is one, else a subject of their own), time_zone, hour (7, or 7:30: a full quarter), "
        "days (daily, weekdays, or the one day of the week, as monday). Known addresses are left "
        "as they are. A refused line is reported and loses nothing else."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE.csv")

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        new = known = refused = 0
        try:
            with file.open(encoding="utf-8-sig", newline="") as lines:
                reader = csv.DictReader(lines, restval="")
                self._check_header(reader.fieldnames)
                for row in reader:
                    try:
                        if self._bring_in(row, file.name, reader.line_num):
                            new += 1
                        else:
                            known += 1
                    except (ValueError, ValidationError) as error:
                        words = error.messages if isinstance(error, ValidationError) else [error]
                        refused += 1
                        place = f"{file.name}:{reader.line_num}"
                        self.stderr.write(f"{place}: {'; '.join(str(word) for word in words)}")
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise CommandError(f"{file} is not UTF-8 CSV: {error}") from None
        self.stdout.write(f"{new} new, {known} known already, {refused} refused")

    def _check_header(self, names: Any) -> None:
        if not names or "address" not in names:
            raise CommandError(f"The first line must name the columns: {', '.join(COLUMNS)}")
        unknown = [str(name) for name in names if name not in COLUMNS]
        if unknown:
            raise CommandError(f"Unknown columns: {', '.join(unknown)}. Use {', '.join(COLUMNS)}.")
        if len(set(names)) < len(names):
            raise CommandError("The first line names a column twice.")

    def _bring_in(self, row: dict[str, str], file_name: str, line: int) -> bool:
        if None in row:
            raise ValueError("has more fields than the first line names columns")
        if any("\0" in value for value in row.values()):
            raise ValueError("holds a NUL character, which no text has")
        address = addresses.accept(row["address"])
        zone = row.get("time_zone", "").strip() or settings.DEFAULT_TIME_ZONE
        known_zone(zone)
        hour, minute = _clock(row.get("hour", "").strip() or str(settings.DEFAULT_SEND_HOUR))
        days = row.get("days", "").strip().lower() or Days.DAILY
        if days not in Days.values:
            raise ValueError(f"“{days}” is none of the days: write {', '.join(Days.values)}")
        examples, unknown = _examples(row.get("examples", ""))
        subjects = _with_papers(
            _subjects(row.get("interests", "")), _listed(row.get("authors", "")), examples
        )
        if unknown:
            self.stderr.write(f"{file_name}:{line}: no papers here: {'; '.join(unknown)}")
        return subscriptions.bring_in(
            address,
            subjects,
            name=row.get("name", "").strip()[:100],
            time_zone=zone,
            send_hour=hour,
            send_minute=minute,
            send_days=days,
            way=f"import of {file_name}",
        )


def _clock(stated: str) -> tuple[int, int]:
    """Hour and minute of "7" or "7:30"."""
    found = re.fullmatch(r"([0-9]{1,2})(?::([0-9]{2}))?", stated)
    hour, minute = (int(found[1]), int(found[2] or 0)) if found else (24, 0)
    if hour > 23 or minute not in QUARTERS:
        raise ValueError(
            f"“{stated}” is not an hour; write a number from 0 to 23, or with a quarter, as 7:30"
        )
    return hour, minute


def _listed(stated: str) -> list[str]:
    names = [" ".join(name.split()) for name in stated.split(";") if name.strip()]
    if len(names) > MOST_LINES or any(len(name) > LONGEST_LINE for name in names):
        raise ValueError(
            f"names more than {MOST_LINES} authors, or one of more than {LONGEST_LINE} characters"
        )
    return names


def _examples(stated: str) -> tuple[list[int], list[str]]:
    known, unknown = references.look_up(references.read(stated.replace(";", "\n")))
    if len(known) > MAX_EXAMPLES:
        raise ValueError(f"names {len(known)} example papers; there can be {MAX_EXAMPLES}")
    return known, unknown


def _with_papers(
    subjects: list[Subject], authors: list[str], example_ids: list[int]
) -> list[Subject]:
    """Authors and examples belong to the one interest there is, else they are one of their own."""
    if not authors and not example_ids:
        return subjects
    if len(subjects) >= MAX_INTERESTS:
        raise ValueError(f"states more than {MAX_INTERESTS} interests with its authors and papers")
    only = subjects[0] if len(subjects) == 1 else Subject()
    whole = replace(only, authors=tuple(authors), example_ids=tuple(example_ids))
    return [whole] if len(subjects) == 1 else [*subjects, whole]


def _subjects(stated: str) -> list[Subject]:
    """The interests of one field; as many and as long as the preferences page takes."""
    texts = [text.strip() for text in stated.split(";") if text.strip()]
    if len(texts) > MAX_INTERESTS:
        raise ValueError(f"states {len(texts)} interests; there can be {MAX_INTERESTS}")
    if any(len(text) > LONGEST_INTEREST for text in texts):
        raise ValueError(f"states an interest of more than {LONGEST_INTEREST} characters")
    return [
        Subject(categories=(text,)) if text in CATEGORY_NAMES else Subject(words=text)
        for text in texts
    ]
