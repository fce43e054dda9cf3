"""manage.py harvest arxiv|huggingface: what is new at a source, now."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import date, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from papers import harvesting
from papers.harvesting import ARXIV, FEED, HUGGING_FACE, Window
from papers.models import Harvest, Source
from papers.politeness import NotYet
from papers.sources import Page, arxiv


class Command(BaseCommand):
    help = (
        "Pull what is new at arXiv or Hugging Face Daily Papers. Celery does the same by itself "
        "for HARVEST_SOURCES. It can be interrupted: the same command goes on where it stopped, "
        "and pulling a day twice changes nothing but the counters."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", choices=[ARXIV, HUGGING_FACE])
        parser.add_argument(
            "--since",
            type=_day,
            metavar="DAY",
            help="default: of arXiv where the last harvest began, of Hugging Face a week ago or, "
            "after a longer silence, the last day that was pulled; with --until alone, its day",
        )
        parser.add_argument(
            "--until", type=_day, metavar="DAY", help="of Hugging Face; default: today"
        )
        parser.add_argument(
            "--category",
            action="append",
            dest="categories",
            help="of arXiv, may be repeated; default: ARXIV_CATEGORIES",
        )
        parser.add_argument(
            "--feed", action="store_true", help="arXiv's last announcement alone, for listing days"
        )

    def handle(self, *args: Any, source: str, **options: Any) -> None:
        windows = self._windows(source, **options)
        failed = []
        for window, again in windows:
            try:
                harvest = harvesting.begin(window, timezone.now())
                self._say(f"{_name(harvest)} from {harvest.since}{_on(harvest)}")
                harvesting.pull(
                    harvest,
                    patience=harvesting.COMMAND_PATIENCE,
                    again=again,
                    progress=self._progress,
                )
            except (harvesting.AlreadyRunning, NotYet) as error:
                raise CommandError(str(error)) from None
            except KeyboardInterrupt:
                raise CommandError(
                    "Interrupted. The same command goes on where it stopped.", returncode=130
                ) from None
            if harvest.state == Harvest.State.DONE:
                self._say(self.style.SUCCESS(f"{_name(harvest)}: {_counts(harvest)}"))
            else:
                failed.append(harvest)
                self.stderr.write(self.style.ERROR(f"{_name(harvest)}: {_trouble(harvest)}"))
        if failed:
            raise CommandError(
                f"{len(failed)} of {len(windows)} failed. What was read is kept, and the same "
                "command goes on where it stopped; see Harvests in the admin."
            )

    def _windows(self, source: str, **options: Any) -> list[tuple[Window, bool]]:
        """What to pull, and whether it is tried again by itself: not what somebody chose."""
        since, until, categories = options["since"], options["until"], options["categories"]
        now = timezone.now()
        today = now.date()
        if source == HUGGING_FACE:
            if categories or options["feed"]:
                raise CommandError("--category and --feed are of arXiv alone.")
            if since is None and until is None:
                return [(harvesting.next_window(source, "", now), True)]
            until = min(until or today, today)
            since = since or until
            if since > until:
                raise CommandError(f"{since} comes after {until}: there is no day to pull.")
            return [(Window(source, "", since, until), False)]
        if until is not None:
            raise CommandError(
                "arXiv is always asked up to now: what changes meanwhile would be missed. "
                "Leave --until out."
            )
        if options["feed"]:
            parts = [FEED]
        else:
            parts = categories or settings.ARXIV_CATEGORIES
        if not parts or not (settings.ARXIV_CATEGORIES or categories):
            raise CommandError("Name a --category such as cs.LG, or set ARXIV_CATEGORIES.")
        for part in parts:
            try:
                arxiv.set_of(part) if part != FEED else None
            except ValueError as error:
                raise CommandError(str(error)) from None
        if since is None:
            return [(harvesting.next_window(source, part, now), True) for part in parts]
        if since > today:
            raise CommandError(f"{since} has not come yet.")
        return [(Window(source, part, since, today), False) for part in parts]

    def _progress(self, harvest: Harvest, page: Page) -> None:
        if harvest.state != Harvest.State.DONE:
            of = f" of {page.total:,}" if page.total else ""
            # The cursor of a list of days begins with one.
            then = f", then {page.cursor[:10]}" if harvest.source == HUGGING_FACE else ""
            self._say(f"  {harvest.read:,}{of} read, {harvest.new:,} new{then} …")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"“{text}” is no day such as 2026-11-20") from None


def _name(harvest: Harvest) -> str:
    label = str(Source(harvest.source).label)
    return f"{label}, {harvest.part}" if harvest.part else label


def _on(harvest: Harvest) -> str:
    until = f" to {harvest.until}" if harvest.until else " on"
    return f"{until}, going on after {harvest.read:,} records" if harvest.cursor else until


def _counts(harvest: Harvest) -> str:
    return (
        f"{harvest.read} read, {harvest.new} new, {harvest.updated} updated, "
        f"{harvest.skipped} skipped, {harvest.failed} failed"
    )


def _trouble(harvest: Harvest) -> str:
    last = harvest.errors[-1] if harvest.errors else "not finished"
    if harvest.retry_at is None:
        return last
    minutes = max(round((harvest.retry_at - timezone.now()) / timedelta(minutes=1)), 1)
    return f"{last} (a worker tries again in {minutes} min)"
