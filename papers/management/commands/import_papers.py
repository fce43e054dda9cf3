"""manage.py import_papers PATH…: listings, saved daily papers, JSON Lines."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from papers.ingest import Summary, ingest
from papers.sources import files


class Command(BaseCommand):
    help = (
        "Import papers from files or folders: plain listings of titles and abstracts, saved "
        "responses of Hugging Face's daily papers API, or JSON Lines (docs/records.md). The kind "
        "is told by the content. Importing twice changes nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")

    def handle(self, *args: Any, paths: list[Path], **options: Any) -> None:
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            raise CommandError(f"No such file or folder: {', '.join(missing)}")
        summary = ingest(
            files.read(paths),
            source=" ".join(str(path) for path in paths),
            now=timezone.now(),
            progress=self._progress,
        )
        for error in summary.errors:
            self.stderr.write(self.style.WARNING(error))
        if summary.failed > len(summary.errors):
            self.stderr.write(f"… and {summary.failed - len(summary.errors)} more")
        self.stdout.write(str(summary))
        if summary.failed and not summary.read:
            raise CommandError("Nothing could be read.")

    def _progress(self, summary: Summary) -> None:
        if self.stdout.isatty():
            self.stdout.write(f"  {summary.read} read …")
