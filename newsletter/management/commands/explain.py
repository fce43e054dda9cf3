"""manage.py explain DELIVERY [--paper ID] [--json]: why it holds these papers, and not another."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from newsletter import explaining


class Command(BaseCommand):
    help = (
        "Print the ledger of a delivery: for each pick its place, section, interest, reason, key "
        "sentence and the terms of its score. With --paper: why that paper is in it, or why not, "
        "computed anew as of the moment of planning."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("delivery", help="its UUID or number")
        parser.add_argument("--paper", metavar="ID", help="number, UUID, arXiv id or DOI")
        parser.add_argument("--json", action="store_true", help="the same as JSON")

    def handle(
        self, *args: Any, delivery: str, paper: str | None, json: bool, **options: Any
    ) -> None:
        try:
            found = explaining.find_delivery(delivery)
            about: explaining.Explanation | explaining.Answer = (
                explaining.explain(found)
                if paper is None
                else explaining.why_not(found, explaining.find_paper(paper))
            )
        except explaining.NotFound as error:
            raise CommandError(str(error)) from None
        self.stdout.write(_json(about.as_json()) if json else "\n".join(about.lines()))


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2)
