"""manage.py process_bounces (- | --maildir DIR | --imap URL): what came back to BOUNCE_ADDRESS."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from newsletter import bounces, events, postbox


class Command(BaseCommand):
    help = (
        "Read bounces, complaints and automatic replies, a line each, and draw their consequences. "
        "A mail that proves no delivery of ours, by its return path or a returned Message-ID, "
        "changes nothing: anybody can forge one. Mails of a Maildir or IMAP folder are marked as "
        "read when they are stored."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument(
            "stdin", nargs="?", choices=["-"], metavar="-", help="one mail, from standard input"
        )
        source.add_argument(
            "--maildir", type=Path, metavar="DIR", help="a Maildir, or a folder of .eml files"
        )
        source.add_argument(
            "--imap", metavar="URL", help="imaps://user:password@host/folder (INBOX)"
        )
        parser.add_argument("--dry-run", action="store_true", help="only say what each mail is")
        parser.add_argument("--json", action="store_true", help="a JSON object a line")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            for letter in self._letters(**options):
                report = bounces.read(letter.content)
                self._say(letter.name, report, as_json=options["json"])
                if not options["dry_run"]:
                    events.store_report(report, letter.content)
                    letter.mark_read()
        except postbox.NoPostbox as error:
            raise CommandError(str(error)) from None
        finally:
            if not options["dry_run"]:
                events.process_pending()

    def _letters(
        self, maildir: Path | None, imap: str | None, **options: Any
    ) -> Iterator[postbox.Letter]:
        if maildir is not None:
            return postbox.from_maildir(maildir)
        if imap is not None:
            return postbox.from_imap(imap, timeout=settings.EMAIL_TIMEOUT)
        return postbox.from_standard_input()

    def _say(self, name: str, report: bounces.BounceReport, *, as_json: bool) -> None:
        told = {
            "file": bounces.clean(name),
            "kind": str(report.kind),
            "recipient": report.recipient,
            "class": str(report.cls),
        }
        line = json.dumps(told) if as_json else "\t".join(value or "-" for value in told.values())
        self.stdout.write(line)
