"""What a day costs, as ratios within one run, in a database of its own.

Ours is the whole way of a delivery from planned to sent with its ledger; the bare loop hands the
same messages, composed before, to the same server over one smtplib connection.
"""

from __future__ import annotations

import logging
import multiprocessing
import smtplib
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from io import StringIO

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test.utils import setup_databases, teardown_databases
from django.utils import timezone

from newsletter import delivery, mail, picks
from newsletter.addresses import mailbox_key
from newsletter.models import Delivery, Interest, Subscriber
from papers import editions
from tests.smtp import serve

READERS = 1000
RUNS = 3
WISHES = ("language models", "robot manipulation", "galaxies", "video diffusion", "proteins")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def add_readers() -> None:
    now = timezone.now()
    addresses = [f"reader{n}@example.org" for n in range(READERS)]
    readers = Subscriber.objects.bulk_create(
        Subscriber(
            address=address,
            mailbox_key=mailbox_key(address),
            state=Subscriber.State.ACTIVE,
            confirmed_at=now,
            next_send_at=now + timedelta(hours=1),
        )
        for address in addresses
    )
    Interest.objects.bulk_create(
        Interest(subscriber=reader, name=wish, words=wish)
        for n, reader in enumerate(readers)
        for wish in (WISHES[n % 5], WISHES[(n + 2) % 5])
    )


def main() -> None:
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()  # so that a server that dies is an error here, and not silence
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", ours.recv()
    connection.settings_dict["TEST"]["NAME"] = "bench_paperround"
    databases = setup_databases(verbosity=0, interactive=False)
    try:
        call_command("import_papers", "papers/sample/papers.jsonl", stdout=StringIO())
        add_readers()
        today = timezone.now()
        edition = editions.freeze(editions.open_edition(today.date()), today)
        planning, sending, composing, bare = [], [], [], []
        for _ in range(RUNS):
            Delivery.objects.all().delete()
            planning.append(seconds(lambda: picks.plan_everybody(edition, today)))
            rows = list(Delivery.objects.select_related("subscriber", "edition"))
            composing.append(seconds(lambda: [mail.compose(row).message() for row in rows]))  # noqa: B023
            sending.append(seconds(delivery.send_planned))
            sent = Delivery.objects.filter(state=Delivery.State.SENT).count()
            assert sent == READERS, f"only {sent} of {READERS} were sent"
            prepared = [
                (
                    row.subscriber.address,
                    mail.compose(row).message().as_bytes().replace(b"\n", b"\r\n"),
                )
                for row in rows
            ]

            def loop(prepared: list[tuple[str, bytes]] = prepared) -> None:
                with smtplib.SMTP(settings.EMAIL_HOST, settings.EMAIL_PORT) as server:
                    for address, message in prepared:
                        server.sendmail("daily@papers.example", [address], message)

            bare.append(seconds(loop))
        size = statistics.median(len(message) for _, message in prepared)
        plan, send, compose, limit = map(statistics.median, (planning, sending, composing, bare))
        print(f"{READERS} readers, {size:.0f} bytes a mail, medians of {RUNS} runs")  # noqa: T201
        print(f"  plan             {1000 * plan / READERS:7.2f} ms a reader")  # noqa: T201
        print(f"  compose          {1000 * compose / READERS:7.2f} ms a mail")  # noqa: T201
        print(f"  planned to sent  {1000 * send / READERS:7.2f} ms a mail")  # noqa: T201
        print(f"  bare smtplib     {1000 * limit / READERS:7.2f} ms a mail")  # noqa: T201
        print(f"  rate of ours / rate of the bare loop: {limit / send:.2f}")  # noqa: T201
    finally:
        connection.close()
        teardown_databases(databases, verbosity=0)
        ours.send("stop")
        process.join(timeout=10)
