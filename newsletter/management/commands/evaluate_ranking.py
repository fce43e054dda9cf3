"""manage.py evaluate_ranking: our ranking beside those of other services, on real libraries."""

from __future__ import annotations

import json as json_format
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from newsletter import ranking_evaluation
from newsletter.libraries import LibrariesError
from newsletter.ranking_evaluation import Comparison, Halves
from newsletter.recommender.evaluation import METRICS, SubmissionsReport
from papers.encoders import EncoderBroken
from papers.intervals import Interval

LABELS = {"ndcg@10": "nDCG@10", "recall@10": "recall@10", "recall@50": "recall@50", "auc": "AUC"}


class Command(BaseCommand):
    help = (
        "Rank new papers for the readers of libraries, and compare ours with the recipes of other "
        "services in the same run: nDCG@10, recall@10, recall@50 and AUC, macro-averages with 95 % "
        "bootstrap intervals over readers, and milliseconds per reader. Needs no database. "
        "PAPERS is JSON Lines, {id, title, abstract} or {id, text} (unordered words), or CSV with "
        "the columns id, title, abstract and first_posted_at; LIBRARIES is CSV with the columns "
        "reader and paper, in the order in which zotero-arxiv-daily's recipe is to take them, the "
        "newest first, where the papers have no first_posted_at. Any of them may be gzipped."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--papers", type=Path, metavar="FILE")
        parser.add_argument("--libraries", type=Path, metavar="FILE")
        new = parser.add_mutually_exclusive_group()
        new.add_argument(
            "--new-papers", type=Path, metavar="FILE", help="The new papers' ids, one a line."
        )
        new.add_argument(
            "--split-time",
            action="store_true",
            help="New are the papers first posted at or after the time by which 80 %% were: that "
            "at place int(0.8 n) of the sorted times. With neither option, a fifth by chance.",
        )
        parser.add_argument(
            "--min-known",
            type=int,
            default=5,
            metavar="N",
            help="Compare on readers with at least N known papers (default 5) and 1 new one.",
        )
        parser.add_argument(
            "--readers", type=int, metavar="K", help="A seeded sample of K of these readers."
        )
        parser.add_argument(
            "--half",
            choices=Halves,
            help="A seeded half of these readers: a for choosing parameters, b for reporting.",
        )
        parser.add_argument(
            "--rankers", metavar="A,B", help="Only these, by the names that are printed."
        )
        parser.add_argument(
            "--submitters",
            type=Path,
            metavar="FOLDER",
            help="Instead of libraries: saved days of Hugging Face Daily Papers; who submitted on "
            "at least 5 days is a reader, and each later day is ranked from what came before.",
        )
        parser.add_argument(
            "--no-encoder", action="store_true", help="Leave out the dense view, even if it is."
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="Write the figures here too.")

    def handle(self, *args: Any, json: Path | None, **options: Any) -> None:
        libraries = (options["papers"], options["libraries"])
        if options["submitters"]:
            chosen = ("papers", "libraries", "new_papers", "split_time", "readers", "half")
            if unused := [f"--{name}".replace("_", "-") for name in chosen if options[name]]:
                raise CommandError(f"--submitters has no use for {', '.join(unused)}.")
        elif not all(libraries):
            raise CommandError("Name --papers and --libraries, or --submitters.")
        try:
            files = ranking_evaluation.Files(
                encoder=None if options["no_encoder"] else settings.ENCODER_DIR,
                cache=settings.VAR_DIR / "vectors",
                say=self._say,
            )
            if options["submitters"]:
                report = ranking_evaluation.submitters(options["submitters"], files)
                text, figures = _submitters_text(report), _submitters_json(report)
            else:
                names = options["rankers"]
                comparison = ranking_evaluation.libraries(
                    *libraries,
                    files,
                    new_papers=options["new_papers"],
                    split_time=options["split_time"],
                    min_known=options["min_known"],
                    sample=options["readers"],
                    half=options["half"],
                    rankers=names.split(",") if names else None,
                    progress=self._progress,
                )
                text, figures = _text(comparison), _json(comparison)
        except (LibrariesError, EncoderBroken, OSError) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(text)
        if json:
            try:
                json.write_text(json_format.dumps(figures, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise CommandError(str(error)) from None

    def _say(self, sentence: str) -> None:
        self.stderr.write(sentence)
        self.stderr.flush()

    def _progress(self, name: str, done: int, total: int) -> None:
        if self.stderr.isatty():
            self.stderr.write(f"\r{name}: {done} of {total}\x1b[K", ending="")
            if done == total:
                self.stderr.write("")
        elif done == total:
            self.stderr.write(f"{name}: {total} readers")
        self.stderr.flush()


def _text(found: Comparison) -> str:
    report, width = found.report, max(len(ranker.name) for ranker in found.report.judged) + 2
    lines = [
        *found.notes,
        "",
        "Means over readers [95 % bootstrap interval]",
        f"{'':{width}}"
        + "".join(f"{LABELS[metric]:26}" for metric in METRICS)
        + f"{'ms/reader':>9}{'fit s':>8}",
    ]
    for ranker in report.judged:
        metrics = report.metrics[ranker.name]
        lines.append(
            f"{ranker.name:{width}}"
            + "".join(f"{metrics[metric]!s:26}" for metric in METRICS)
            + f"{ranker.ms_per_reader:9.2f}{ranker.fit_seconds:8.1f}"
        )
    if report.paired:
        lines += [
            "",
            "Ours beside each of them, paired: ratio of the means, and difference",
            f"{'':{width}}{'nDCG@10':26}{'recall@50':26}{'AUC':26}{'nDCG@10':29}recall@50",
        ]
    for beside in report.paired:
        lines.append(
            f"{beside.name:{width}}"
            + "".join(f"{beside.ratio[metric]!s:26}" for metric in ("ndcg@10", "recall@50", "auc"))
            + f"{format(beside.difference['ndcg@10'], '+.4f'):29}"
            + f"{beside.difference['recall@50']:+.4f}"
        )
    return "\n".join(lines)


def _pair(figure: Interval) -> list[float]:
    return [figure.low, figure.high]


def _json(found: Comparison) -> dict[str, object]:
    rankers: list[dict[str, object]] = []
    for ranker in found.report.judged:
        metrics = found.report.metrics[ranker.name]
        rankers.append(
            {
                "name": ranker.name,
                **{metric: metrics[metric].mean for metric in METRICS},
                "ms_per_reader": ranker.ms_per_reader,
                "fit_seconds": ranker.fit_seconds,
                "intervals": {metric: _pair(metrics[metric]) for metric in METRICS},
            }
        )
    paired = [
        {
            "name": beside.name,
            "ratio": {metric: figure.mean for metric, figure in beside.ratio.items()},
            "ratio_intervals": {metric: _pair(figure) for metric, figure in beside.ratio.items()},
            "difference": {metric: figure.mean for metric, figure in beside.difference.items()},
            "difference_intervals": {
                metric: _pair(figure) for metric, figure in beside.difference.items()
            },
        }
        for beside in found.report.paired
    ]
    return {"rankers": rankers, "ours_beside": paired, **found.counts}


def _submitters_text(found: SubmissionsReport) -> str:
    lines = [
        f"{found.submitters} submitters, {found.days} days of theirs ranked. The vocabulary and "
        "the ranker are learned from all papers; who submitted what, from earlier days.",
        "",
        "AUC, mean over days, then over submitters [95 % bootstrap interval]",
        f"{'':16}{'':26}{'ours less it, paired':29}ms/ranking",
    ]
    for name, figure in found.auc.items():
        beside = f"{found.over[name]:+.4f}" if name in found.over else ""
        lines.append(f"{name:16}{figure!s:26}{beside:29}{found.ms_per_ranking[name]:.2f}")
    return "\n".join(lines)


def _submitters_json(found: SubmissionsReport) -> dict[str, object]:
    rankers = [
        {
            "name": name,
            "auc": figure.mean,
            "ms_per_reader": found.ms_per_ranking[name],
            "intervals": {"auc": _pair(figure)},
        }
        for name, figure in found.auc.items()
    ]
    paired = [
        {
            "name": name,
            "difference": {"auc": figure.mean},
            "difference_intervals": {"auc": _pair(figure)},
        }
        for name, figure in found.over.items()
    ]
    return {
        "rankers": rankers,
        "ours_beside": paired,
        "submitters": found.submitters,
        "days_ranked": found.days,
    }
