"""manage.py rank_papers --papers P.jsonl --readers R.jsonl --out S.jsonl: our ranking as a tool."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from newsletter import ranking_files
from newsletter.libraries import LibrariesError
from papers.encoders import EncoderBroken

SHOWN = 5  # unknown ids in a warning


class Command(BaseCommand):
    help = (
        "Score candidate papers for readers, outside the database, with the code that ranks an "
        'edition. P has a line {"id", "title", "abstract"} a paper ({"id", "text"} for unordered '
        'words), R {"reader", "liked": [ids], "disliked": [ids], "candidates": [ids]} a reader, '
        'and S gets {"reader", "scores": {id: number}}, more for what fits better, in the order of '
        "R. The scores of one reader compare with each other, not with another reader's."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--papers", type=Path, required=True, metavar="P.jsonl")
        parser.add_argument("--readers", type=Path, required=True, metavar="R.jsonl")
        parser.add_argument("--out", type=Path, required=True, metavar="S.jsonl")
        parser.add_argument(
            "--no-encoder", action="store_true", help="Leave out the dense view, even if it is."
        )

    def handle(
        self, *args: Any, papers: Path, readers: Path, out: Path, no_encoder: bool, **options: Any
    ) -> None:
        try:
            done = ranking_files.rank(
                papers,
                readers,
                out,
                encoder=None if no_encoder else settings.ENCODER_DIR,
                cache=settings.VAR_DIR / "vectors",
                say=self._say,
            )
        except (LibrariesError, EncoderBroken, OSError) as error:
            raise CommandError(str(error)) from None
        for name, ids in done.unknown.items():
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            self._warn(f"{name}: no such paper, skipped: {', '.join(ids[:SHOWN])}{more}")
        if done.without_profile:
            self._warn(
                f"no known paper liked or disliked by {done.without_profile} of {done.readers} "
                "readers: their candidates score 0"
            )
        self.stdout.write(f"{done.scores} scores for {done.readers} readers in {out}")

    def _say(self, sentence: str) -> None:
        self.stderr.write(sentence)
        self.stderr.flush()

    def _warn(self, sentence: str) -> None:
        self.stderr.write(self.style.WARNING(sentence))
