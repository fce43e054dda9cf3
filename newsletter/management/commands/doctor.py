"""manage.py doctor [--json] [--send-test ADDRESS]: is all in order, and if not, what to do."""

from __future__ import annotations

import json
import textwrap
from argparse import ArgumentParser
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from newsletter import doctor, tasks
from newsletter.findings import Finding, Level, several


class Command(BaseCommand):
    help = (
        "Look at everything that must be in order for mail to arrive: database, Redis, a worker's "
        "answer to a real task, beat, the daily run, settings, and DNS of the sending domain. It "
        "changes nothing. The exit code is 1 where an error was found."
    )
    requires_system_checks = []  # they are among what is looked at

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a JSON object")
        parser.add_argument("--send-test", metavar="ADDRESS", default="", help="send a mail there")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in doctor.examine(ask_worker, timezone.now(), send_test=options["send_test"]):
            findings.append(finding)
            if not options["json"]:
                self._show(finding)
        counts = Counter(finding.level.value for finding in findings)
        if options["json"]:
            body = {
                "counts": {level.value: counts[level.value] for level in Level},
                "findings": [asdict(finding) for finding in findings],
            }
            self.stdout.write(json.dumps(body, ensure_ascii=False, indent=2))
        errors = several(counts["error"], "error", "errors")
        warnings = several(counts["warning"], "warning", "warnings")
        summary = f"{errors}, {warnings}, {counts['ok']} in order"
        if not options["json"]:
            self.stdout.write(summary)
        if counts["error"]:
            raise SystemExit(1)

    def _show(self, finding: Finding) -> None:
        style = {
            Level.OK: self.style.SUCCESS,
            Level.WARNING: self.style.WARNING,
            Level.ERROR: self.style.ERROR,
        }[finding.level]
        label = f"{finding.level.value:8}{finding.check:12}"
        lines = [
            *textwrap.wrap(finding.found, 78),
            *textwrap.wrap(finding.means, 78),
            *textwrap.wrap(finding.do, 76, initial_indent="→ ", subsequent_indent="  "),
        ]
        self.stdout.write(style(label) + lines[0])
        for line in lines[1:]:
            self.stdout.write(" " * len(label) + line)
        self.stdout.flush()


def ask_worker(token: str) -> None:
    # Where no worker runs, these do not pile up.
    tasks.answer.apply_async((token,), expires=60)
