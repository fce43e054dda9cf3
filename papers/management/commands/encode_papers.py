"""manage.py encode_papers: the dense view of every paper that waits for it, now."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from papers.embeddings import Progress, encode_pending
from papers.encoders import EncoderError


class Command(BaseCommand):
    help = (
        "Encode the papers that have no vector of the encoder in ENCODER_DIR, the newest first. "
        "Celery does the same by itself, a minute at a time; here it goes on to the end, and can "
        "be interrupted and called again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--limit", type=int, help="at most so many papers")

    def handle(self, *args: Any, limit: int | None, **options: Any) -> None:
        try:
            progress = encode_pending(limit=limit, progress=self._tell)
        except EncoderError as error:
            raise CommandError(str(error)) from None
        if progress.busy:
            raise CommandError(f"Nothing done: {progress}.")
        self.stdout.write(str(progress))

    def _tell(self, progress: Progress) -> None:
        self.stdout.write(f"  {progress} …")
        self.stdout.flush()
