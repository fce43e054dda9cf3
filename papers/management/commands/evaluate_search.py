"""manage.py evaluate_search FOLDER: search beside full text, vectors and TF-IDF alone."""

from __future__ import annotations

import json as json_format
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from papers.encoders import EncoderError
from papers.search_evaluation import SEARCH, Report, SearchEvaluationError, evaluate


class Command(BaseCommand):
    help = (
        "Measure how well search finds the papers of FOLDER by their keywords, which are not "
        "searched, beside full text alone, vectors alone, their plain fusion and TF-IDF, and how "
        "well it finds them mistyped. FOLDER holds what import_papers reads. Needs PostgreSQL, and "
        "works in temporary tables: the papers of this installation stay as they are."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, metavar="FOLDER")
        parser.add_argument(
            "--sample", type=int, default=300, metavar="N",
            help="Ask for N papers, chosen by chance, of those with two keywords and more (default "
            "300); 0: for all of them.",
        )  # fmt: skip
        parser.add_argument("--seed", type=int, default=1, help="Of that chance (default 1).")
        parser.add_argument(
            "--half",
            choices=("a", "b"),
            default="",
            help="Instead, a seeded half of them: a for choosing parameters, b for reporting.",
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="Write the figures here too.")

    def handle(self, *args: Any, folder: Path, json: Path | None, **options: Any) -> None:
        if not folder.exists():
            raise CommandError(f"There is no {folder}.")
        try:
            report = evaluate(
                folder,
                settings.VAR_DIR / "vectors",
                self._say,
                sample=options["sample"],
                seed=options["seed"],
                half=options["half"],
            )
        except (SearchEvaluationError, EncoderError, OSError) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(_text(report))
        if json:
            try:
                json.write_text(json_format.dumps(asdict(report), indent=2) + "\n", "utf-8")
            except OSError as error:
                raise CommandError(str(error)) from None

    def _say(self, text: str) -> None:
        self.stderr.write(f"  {text}")
        self.stderr.flush()


def _text(report: Report) -> str:
    lines = [
        f"{report.asked} papers of {report.papers} (seed {report.seed}), encoder {report.encoder}, "
        f"{report.milliseconds:.0f} ms a query (median)",
    ]
    for kind, ways in report.figures.items():
        lines += ["", f"{'By the ' + kind:28}{'found in 5':24}search less it, paired"]
        for way, figures in ways.items():
            beside = "" if way == SEARCH else f"{figures.over_found:+.3f}"
            lines.append(f"  {way:26}{format(figures.found, '.3f'):24}{beside}".rstrip())
        lines.append(f"{'':28}mean reciprocal rank")
        for way, figures in ways.items():
            beside = "" if way == SEARCH else f"{figures.over_reciprocal_rank:+.3f}"
            lines.append(f"  {way:26}{format(figures.reciprocal_rank, '.3f'):24}{beside}".rstrip())
    lines += ["", f"{'With one typo':28}found in 5 (without the typo)"]
    for kind, (wrong, right) in report.typos.items():
        lines.append(f"  {kind:26}{wrong:.3f} ({right:.3f})")
    return "\n".join(lines)
