"""manage.py demo: the product running, its main job done before your eyes.

The demo has a database, queue and inbox of its own beside the configured ones, made afresh at each
start, so that it touches nothing of yours.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db.models import Max
from django.utils import timezone
from psycopg import sql

from newsletter import inbox
from newsletter.models import Subscriber
from papers import editions
from papers.models import Paper
from papers.sources import PaperRecord, files
from papers.sources.huggingface import DAILY
from papers.sources.recorded import Recorded, Saved

INSIDE = "PAPERROUND_DEMO"  # set once the environment is the demo's
SAMPLE_PAPERS = settings.BASE_DIR / "papers" / "sample" / "papers.jsonl"
SAMPLE_SUBSCRIBERS = settings.BASE_DIR / "newsletter" / "sample" / "subscribers.csv"


class Command(BaseCommand):
    help = (
        "Harvest papers, freeze today's edition, mail a handful of sample subscribers, then serve "
        "the site, a worker and beat until Ctrl-C."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="end once the mails are delivered")
        parser.add_argument("--papers", type=Path, help="load these files instead of the sample")
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, **options: Any) -> None:
        papers = options["papers"] or SAMPLE_PAPERS
        if not papers.exists():
            raise CommandError(f"No such file or folder: {papers}")
        if INSIDE not in os.environ:
            self._enter(_free_port(options["port"]), own_papers=papers != SAMPLE_PAPERS)
        with ExitStack() as until_the_end:
            if papers == SAMPLE_PAPERS:
                port = urlsplit(settings.HUGGINGFACE_URL).port or 0
                until_the_end.enter_context(Recorded(_daily_papers(), port))
            self._run(papers, once=options["once"])

    def _enter(self, port: int, *, own_papers: bool) -> None:
        """Start again in the demo's own environment."""
        url = urlsplit(os.environ["DATABASE_URL"])
        name = f"{url.path.lstrip('/')}_demo"
        self._say("A database for the demo")
        try:
            with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
                drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
                connection.execute(drop.format(sql.Identifier(name)))
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise CommandError(f"The demo needs a database {name}: {error}") from None
        environment = os.environ | {
            INSIDE: "1",
            "DATABASE_URL": urlunsplit(url._replace(path=f"/{name}")),
            "DEBUG": "1",
            "REDIS_KEY_PREFIX": f"paperround-demo-{port}:",
            "DEV_INBOX": str(settings.VAR_DIR / "demo-inbox"),
            "EMAIL_BACKEND": "newsletter.inbox.MaildirBackend",
            "SITE_URL": f"http://127.0.0.1:{port}",
            "HARVEST_SOURCES": "" if own_papers else "huggingface",
            "HUGGINGFACE_URL": f"http://127.0.0.1:{_free_port(port + 50)}/api/daily_papers",
            "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING"),
            "CONTACT_ADDRESS": settings.CONTACT_ADDRESS or "editors@example.org",
            "POSTAL_ADDRESS": settings.POSTAL_ADDRESS or "Paperround demo, 1 Example Street",
        }
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606

    def _run(self, papers: Path, *, once: bool) -> None:
        started = time.monotonic()
        self._say("Tables")
        call_command("migrate", verbosity=0)
        if papers == SAMPLE_PAPERS:
            self._say("Today's list, from a server here that speaks Hugging Face's API")
            call_command("harvest", "huggingface")
        self._say(f"Papers from {papers.name}")
        call_command("import_papers", str(papers))
        self._say("Sample subscribers")
        call_command("import_subscribers", str(SAMPLE_SUBSCRIBERS))
        inbox.box().clear()
        self._list_newest()
        self._say("The day: freeze, plan, compose, send")
        call_command("run_day")
        self._show_letters()
        self._say(f"Done in {time.monotonic() - started:.0f} s")
        if not once:
            self._serve()

    def _list_newest(self) -> None:
        """Files of other days have no candidates today: their newest day is listed again."""
        edition = editions.open_edition(timezone.now().date())
        newest = Paper.objects.aggregate(day=Max("listing_day"))["day"]
        if newest is not None and not edition.candidates.exists():
            self.stdout.write(f"The newest papers are of {newest}: they are today's in this demo.")
            editions.list_again(edition, Paper.objects.filter(listing_day=newest))

    def _show_letters(self) -> None:
        letters = {letter.recipient: letter for letter in inbox.letters()}
        for letter in letters.values():
            self.stdout.write(f"  {letter.recipient:20} {letter.subject}")
        missing = [
            subscriber.uuid
            for subscriber in Subscriber.objects.active()
            if subscriber.address not in letters
        ]
        if missing:
            raise CommandError(f"{len(missing)} subscribers got no mail.")
        self.stdout.write(self.style.SUCCESS(f"{len(letters)} mails delivered"))

    def _serve(self) -> None:
        password = secrets.token_urlsafe(6)
        User.objects.create_superuser("admin", password=password)
        site = urlsplit(settings.SITE_URL)
        beat_file = settings.VAR_DIR / "demo-celerybeat"
        beat_file.unlink(missing_ok=True)
        as_root = "ignore:You're running the worker with superuser privileges"  # for once
        celery = [sys.executable, "-W", as_root, "-m", "celery", "-A", "config"]
        commands = [
            [sys.executable, "manage.py", "runserver", "--noreload", site.netloc],
            [*celery, "worker", "--concurrency=1", "--loglevel=WARNING"],
            [*celery, "beat", "--loglevel=WARNING", f"--schedule={beat_file}", "--pidfile="],
        ]
        quiet = {"stdout": subprocess.DEVNULL, "start_new_session": True}
        children = [
            subprocess.Popen(command, cwd=settings.BASE_DIR, **quiet)  # type: ignore[call-overload]  # noqa: S603
            for command in commands
        ]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            _wait_for(site.hostname or "", site.port or 80)
            self.stdout.write(
                self.style.SUCCESS(f"\nPaperround is running at {settings.SITE_URL}\n")
                + f"  the day's papers and sign-up   {settings.SITE_URL}/\n"
                + f"  the delivered mails            {settings.SITE_URL}/inbox/\n"
                + f"  the curators' admin            {settings.SITE_URL}/admin/"
                + f"  (user admin, password {password})\n"
                + "Sign up, and your confirmation arrives in the inbox. Ctrl-C ends it."
            )
            self.stdout.flush()
            while all(child.poll() is None for child in children):
                time.sleep(0.5)
            raise CommandError("A process of the demo ended by itself; its errors stand above.")
        except KeyboardInterrupt:
            self.stdout.write("\nGood-bye. The private servers go on; `make stop` ends them.")
        finally:
            for child in children:
                child.terminate()
            for child in children:
                try:
                    child.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    child.kill()

    def _say(self, step: str) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(f"▸ {step}"))
        self.stdout.flush()


def _daily_papers() -> list[Saved]:
    """The sample's counted papers as today's list; of every other day, an empty one."""
    today = timezone.now().date()
    counted = [
        {
            "paper": {
                "id": record.arxiv_id,
                "title": record.title,
                "summary": record.abstract,
                "authors": [{"name": name} for name in record.authors],
                "publishedAt": f"{record.published_on}T00:00:00.000Z",
                "submittedOnDailyAt": f"{today}T00:00:00.000Z",
                "upvotes": record.counters.get("upvotes", 0),
                "githubRepo": record.code_url,
            },
            "numComments": record.counters.get("comments", 0),
        }
        for record in files.read([SAMPLE_PAPERS])
        if isinstance(record, PaperRecord) and record.counters
    ]
    answer = json.dumps(counted).encode()
    return [Saved(DAILY, b"[]"), Saved(f"{DAILY}?date={today}", answer)]


def _free_port(wanted: int) -> int:
    """`wanted`, or where that is taken the next free one."""
    for port in range(wanted, wanted + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise CommandError(f"No free port between {wanted} and {wanted + 50}; name one with --port.")


def _wait_for(host: str, port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.1)
    raise CommandError("The web server did not start; its errors stand above.")
