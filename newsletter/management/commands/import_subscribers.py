"""manage.py import_subscribers FILE.csv: an existing list of people who consented."""

from __future__ import annotations

import csv
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from newsletter import addresses, subscriptions
from newsletter.models import LONGEST_INTEREST, MAX_INTERESTS, known_zone
from newsletter.subscriptions import Subject
from papers.categories import CATEGORY_NAMES

COLUMNS = ("address", "name", "interests", "time_zone", "hour")


class Command(BaseCommand):
    help = (
        "Add the subscribers of an existing, consented list. FILE is UTF-8 CSV whose first line "
        "names its columns: address (required), name, interests (separated by semicolons; an arXiv "
        "category such as cs.CL counts as one), time_zone, hour. Known addresses are left as they "
        "are. A refused line is reported and loses nothing else."
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
                        if self._bring_in(row, file.name):
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

    def _bring_in(self, row: dict[str, str], file_name: str) -> bool:
        if None in row:
            raise ValueError("has more fields than the first line names columns")
        if any("\0" in value for value in row.values()):
            raise ValueError("holds a NUL character, which no text has")
        address = addresses.accept(row["address"])
        zone = row.get("time_zone", "").strip() or settings.DEFAULT_TIME_ZONE
        known_zone(zone)
        hour = row.get("hour", "").strip() or str(settings.DEFAULT_SEND_HOUR)
        if not hour.isascii() or not hour.isdigit() or int(hour) > 23:
            raise ValueError(f"“{hour}” is not an hour; write a number from 0 to 23")
        return subscriptions.bring_in(
            address,
            _subjects(row.get("interests", "")),
            name=row.get("name", "").strip()[:100],
            time_zone=zone,
            send_hour=int(hour),
            way=f"import of {file_name}",
        )


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
