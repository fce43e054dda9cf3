"""manage.py run_day [--date D]: the whole day inline."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from newsletter import delivery, picks
from newsletter.models import Delivery
from papers import editions
from papers.models import Edition


class Command(BaseCommand):
    help = (
        "Perform a whole day: freeze its edition, plan it for every active subscriber whatever "
        "their hour, compose, send and settle. A second run sends nothing more. An edition that "
        "the curators hold is frozen too: this command is by hand."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--date", type=date.fromisoformat, help="the edition's day (default: today, UTC)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        day = options["date"] or now.date()
        try:
            edition = editions.freeze(editions.open_edition(day), now)
        except editions.CurationError as error:
            raise CommandError(str(error)) from None
        size = edition.candidates.count()
        self.stdout.write(f"{edition}: {edition.state}, {size} papers. {edition.reason}".strip())
        if not edition.may_be_mailed(timezone.now()):
            raise CommandError(
                f"{edition} was frozen at {edition.frozen_at:%Y-%m-%d %H:%M} UTC and is no longer "
                "the newest news: nothing was planned or sent."
            )
        planned = picks.plan_everybody(edition, now)
        self.stdout.write(f"{planned} subscribers planned or skipped")
        tally = delivery.send_planned(edition=edition)
        self.stdout.write(str(tally))
        counts = delivery.counts_by_state(edition)
        states = ", ".join(f"{count} {state}" for state, count in counts.items())
        self.stdout.write(f"Deliveries of {day}: {states or 'none'}")
        waiting = counts.get(Delivery.State.PLANNED)  # for a later try, or held back by a limit
        if edition.state == Edition.State.FROZEN and (tally.failed or tally.unknown or waiting):
            raise CommandError(
                "Not every delivery was sent; the admin's list of deliveries says why."
            )
