"""manage.py evaluate_trending --observations FILE: ours beside the usual formulas."""

from __future__ import annotations

import json as json_format
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from papers.trend_evaluation import (
    MIN_PAPERS,
    Observations,
    ObservationsError,
    Report,
    evaluate,
    read_observations,
)

DAYS: dict[str, Callable[[date], bool]] = {
    "all": lambda day: True,
    "even": lambda day: day.toordinal() % 2 == 0,
    "odd": lambda day: day.toordinal() % 2 == 1,
}


class Command(BaseCommand):
    help = (
        "Measure how well trend scores foretell the upvotes gained later, beside raw upvotes and "
        "the formulas of Hacker News and Reddit, on a CSV file of timed observations: arxiv_id, "
        "observed_at_utc, upvotes, daily_date, and num_comments and github_stars where there are "
        "any."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--observations", type=Path, required=True, metavar="FILE")
        parser.add_argument("--json", type=Path, metavar="FILE", help="Write the figures here too.")
        parser.add_argument(
            "--days",
            choices=DAYS,
            default="all",
            help="By ordinal; the weights were chosen on the even days of hf_counters.",
        )

    def handle(
        self, *args: Any, observations: Path, json: Path | None, days: str, **options: Any
    ) -> None:
        try:
            read = read_observations(observations)
            report = evaluate(read.papers, DAYS[days])
        except (ObservationsError, OSError) as error:
            raise CommandError(str(error)) from None
        for complaint in read.complaints:
            self.stderr.write(self.style.WARNING(f"skipped: {complaint}"))
        if read.bad > len(read.complaints):
            self.stderr.write(f"… and {read.bad - len(read.complaints)} more")
        self.stdout.write(_text(read, report))
        if json:
            try:
                json.write_text(_json(read, report, days), encoding="utf-8")
            except OSError as error:
                raise CommandError(str(error)) from None


def _text(read: Observations, report: Report) -> str:
    lines = [
        f"{read.rows} rows ({read.bad} bad, skipped) of {len(read.papers)} papers; compared: "
        f"{report.papers} papers on {report.days} days.",
        f"Left out: {report.undated} papers without a daily_date, and {report.skipped_papers} on "
        f"{report.skipped_days} days of fewer than {MIN_PAPERS} or of one target for all.",
        "",
        "Mean within-day Spearman with the upvotes gained later [95 % bootstrap over days]",
        f"{'':14}{'':26}less raw upvotes, paired",
    ]
    for name, figure in report.spearman.items():
        beside = f"{report.over_raw[name]:+.4f}" if name in report.over_raw else ""
        lines.append(f"{name:14}{figure!s:26}{beside}".rstrip())
    return "\n".join(lines)


def _json(read: Observations, report: Report, days: str) -> str:
    figures = {"rows": read.rows, "bad_rows": read.bad, "of_days": days, **asdict(report)}
    return json_format.dumps(figures, indent=2) + "\n"
