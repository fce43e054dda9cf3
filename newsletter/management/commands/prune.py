"""manage.py prune [--dry-run]: delete what is older than the settings keep."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from newsletter import retention


class Command(BaseCommand):
    help = (
        "Delete old settled deliveries and old events, in small batches, until none is left. A "
        "worker does the same once a day."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say how many there are")

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        if options["dry_run"]:
            self.stdout.write(f"Would be deleted: {retention.would_prune(now)}")
        else:
            self.stdout.write(f"Deleted: {retention.prune(now, seconds=float('inf'))}")
