"""What sending costs, as rates within one run, on one machine, in a database of its own.

All send the same personal mails of two parts to the same sink, Debian's smtp-sink, with the same
number of processes: Debian's smtp-source, which is the limit; a bare loop of messages composed
before over smtplib; post_office's sending loop; and ours, from planned to sent with its ledger.
Only what the sink accepted counts. Every process is ready before the clock runs; ours has composed
one mail by then.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import pickle
import resource
import shutil
import smtplib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test.utils import setup_databases, teardown_databases
from django.utils import timezone

PROCESSES = 2
RUNS = 3
MESSAGES = 4_000  # a run
SESSIONS = (4, 10)  # in one worker, beside the one of the comparison
SIZES = (1_000, 10_000, 100_000)
PAPERS = 5  # a mail of about 20 kB
BATCH = 1_000
DATABASE = "bench_paperround_sending"
POST_OFFICE = ("django-post_office==3.12.0", "nh3==0.3.7")  # and Django, which is here already
FOLDER = Path("var/bench/post_office")
WISHES = ("language models", "robot manipulation", "galaxies", "video diffusion", "proteins")
DEBIAN = Path("/usr/sbin")


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    connection.settings_dict["TEST"]["NAME"] = DATABASE
    databases = setup_databases(verbosity=0, interactive=False, serialized_aliases=[])
    try:
        with ExitStack() as stack:
            measure(stack)
    finally:
        connection.close()
        teardown_databases(databases, verbosity=0)


def measure(stack: ExitStack) -> None:
    port = stack.enter_context(sink())
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    call_command("import_papers", "papers/sample/papers.jsonl", stdout=StringIO())
    freeze_today()
    plan(MESSAGES)
    size = write_messages(folder)
    rivals: dict[str, Callable[[], float]] = {}
    if (DEBIAN / "smtp-source").exists():
        for sessions in (PROCESSES, 10 * PROCESSES):
            name = f"smtp-source, {sessions} sessions"
            rivals[name] = lambda sessions=sessions: smtp_source(port, sessions, size)  # type: ignore[misc]
    else:
        say("SKIPPED: smtp-source is not here; on Debian: apt-get install postfix")
    rivals["bare loop over smtplib"] = lambda: together(bare_loop, folder, port)
    if fetch_post_office():
        rivals["post_office, 1 thread"] = lambda: post_office(folder, port, 1)
        rivals["post_office, 5 threads (its default)"] = lambda: post_office(folder, port, 5)
    rivals["ours, 1 connection a worker"] = lambda: ours(port)
    for sessions in SESSIONS:
        name = f"ours, {sessions} connections a worker"
        rivals[name] = lambda sessions=sessions: ours(port, sessions)  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(RUNS):  # in turns, so that a slow minute of the machine is everybody's
        for name, rival in rivals.items():
            taken[name].append(rival())
    bare = statistics.median(taken["bare loop over smtplib"])
    say(
        f"Sending: {MESSAGES:,} mails of {size:,} bytes in two parts, {PROCESSES} processes, "
        f"medians of {RUNS} runs"
    )
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        say(
            f"  {name:38} {MESSAGES / median:7,.0f} a second  "
            f"{1000 * median / MESSAGES:6.2f} ms a mail  {bare / median:5.2f} of the bare loop"
        )
    say("Ours by the size of a day, 10 connections a worker")
    costs = []
    for number in SIZES:
        plan(number)
        memory: list[float] = []
        costs.append(ours(port, SESSIONS[-1], number=number, memory=memory) / number)
        say(
            f"  {number:7,} mails {1000 * costs[-1]:6.2f} ms a mail, "
            f"{max(memory):4.0f} MB a worker at most"
        )
    say(f"  ms a mail, most / least: {max(costs) / min(costs):.2f}")


# --- The readers and their mails ------------------------------------------------------------------


def freeze_today() -> None:
    from papers import editions

    now = timezone.now()
    editions.freeze(editions.open_edition(now.date()), now)


def plan(number: int) -> None:
    """Have exactly `number` readers, and a planned delivery for each."""
    from newsletter import picks
    from newsletter.addresses import mailbox_key
    from newsletter.models import Delivery, Interest, Subscriber
    from papers.models import Edition

    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE newsletter_subscriber CASCADE")
    for start in range(0, number, BATCH):
        names = [f"reader{n}@example.org" for n in range(start, min(start + BATCH, number))]
        readers = Subscriber.objects.bulk_create(
            Subscriber(
                address=address,
                mailbox_key=mailbox_key(address),
                state=Subscriber.State.ACTIVE,
                confirmed_at=now,
                papers_per_mail=PAPERS,
                next_send_at=now + timedelta(hours=1),
            )
            for address in names
        )
        Interest.objects.bulk_create(
            Interest(subscriber=reader, name=wish, words=wish)
            for n, reader in enumerate(readers)
            for wish in (WISHES[n % 5], WISHES[(n + 2) % 5])
        )
    picks.plan_everybody(Edition.objects.get(), now)
    planned = Delivery.objects.filter(state=Delivery.State.PLANNED).count()
    assert planned == number, f"{planned} of {number} were planned"


def plan_again() -> None:
    """The same deliveries, as if nothing had been sent of them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE newsletter_delivery SET state = 'planned', attempts = 0, sent_at = NULL, "
            "handed_over_at = NULL, lease_until = NULL, provider_id = '', error = ''"
        )
        cursor.execute("VACUUM ANALYZE newsletter_delivery")


def write_messages(folder: Path) -> int:
    """Compose the planned mails: their bytes for the bare loop, a file a process, and their parts
    for post_office. Returns the median size."""
    from newsletter import mail
    from newsletter.models import Delivery

    rows = list(Delivery.objects.select_related("subscriber", "edition").order_by("pk"))
    composer = mail.Composer(rows)
    messages = [composer.compose(row) for row in rows]
    parts = [
        (one.subject, one.from_email, one.to, one.body, one.alternatives[0][0], one.extra_headers)
        for one in messages
    ]
    (folder / "parts").write_bytes(pickle.dumps(parts))
    written = [(one.to[0], one.written()) for one in messages]
    for process in range(PROCESSES):
        (folder / str(process)).write_bytes(pickle.dumps(written[process::PROCESSES]))
    return int(statistics.median(len(message) for _, message in written))


# --- Processes ------------------------------------------------------------------------------------


@contextmanager
def sink() -> Iterator[int]:
    """A mail server that throws away what it accepts; yields its port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    if (DEBIAN / "smtp-sink").exists():
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [str(DEBIAN / "smtp-sink"), *user, f"127.0.0.1:{port}", "256"]
        program = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd="/")
        try:
            wait_for(port)
            yield port
        finally:
            program.terminate()
            program.wait(timeout=10)
        return
    say("SKIPPED: smtp-sink is not here (on Debian: apt-get install postfix); aiosmtpd takes its")
    say("place, a few hundred mails a second at most: what follows measures the sink")
    from tests.smtp import serve

    pipe, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()  # so that a server that dies is an error here, and not silence
    try:
        yield pipe.recv()
    finally:
        pipe.send("stop")
        process.join(timeout=10)


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("smtp-sink does not answer")


def together(work: Callable[..., None], *args: Any, processes: int = PROCESSES) -> float:
    """Seconds that processes need for `work`, each told its number, from the word go."""
    seconds, _ = answers(work, *args, processes=processes)
    return seconds


def answers(
    work: Callable[..., None], *args: Any, processes: int = PROCESSES
) -> tuple[float, list[Any]]:
    context = multiprocessing.get_context("spawn")
    started = []
    for number in range(processes):
        pipe, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, number, *args))
        process.start()
        theirs.close()
        started.append((pipe, process))
    for pipe, _ in started:
        pipe.recv()
    begin = time.perf_counter()
    for pipe, _ in started:
        pipe.send("go")
    told = [pipe.recv() for pipe, _ in started]
    seconds = time.perf_counter() - begin
    for _, process in started:
        process.join(timeout=30)
    return seconds, told


def set_up(port: int) -> None:
    import django

    django.setup()
    connection.settings_dict["NAME"] = DATABASE
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port


# --- Who sends ------------------------------------------------------------------------------------


def smtp_source(port: int, sessions: int, size: int) -> float:
    start = time.perf_counter()
    subprocess.run(
        [
            str(DEBIAN / "smtp-source"), "-d", "-s", str(sessions), "-l", str(size),
            "-m", str(MESSAGES), "-f", "daily@papers.example", "-t", "reader@example.org",
            f"127.0.0.1:{port}",
        ],
        check=True, timeout=120, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - start


def bare_loop(pipe: Connection, number: int, folder: Path, port: int) -> None:
    messages = pickle.loads((folder / str(number)).read_bytes())
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost") as server:
        pipe.send("ready")
        pipe.recv()
        for address, message in messages:
            server.sendmail("daily@papers.example", [address], message)
        pipe.send(len(messages))


def ours(
    port: int, connections: int = 1, number: int = MESSAGES, memory: list[float] | None = None
) -> float:
    from newsletter.models import Delivery

    plan_again()
    connection.close()
    seconds, told = answers(worker, port, connections)
    sent = Delivery.objects.filter(state=Delivery.State.SENT).count()
    assert sent == number == sum(tally for tally, _ in told), f"{sent} of {number} were sent"
    if memory is not None:
        memory += [most for _, most in told]
    return seconds


def worker(pipe: Connection, number: int, port: int, connections: int) -> None:
    settings.EMAIL_BACKEND = "newsletter.smtp.SmtpBackend"
    settings.SEND_CONNECTIONS = connections
    set_up(port)
    from newsletter import delivery, mail
    from newsletter.models import Delivery

    # What any worker has loaded after its first mail: templates, addresses of pages, the edition.
    some = Delivery.objects.select_related("subscriber", "edition").order_by("pk")[:1]
    for one in some:
        mail.compose(one).written()
    pipe.send("ready")
    pipe.recv()
    sent = delivery.send_planned().sent
    pipe.send((sent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def fetch_post_office() -> bool:
    """Install post_office beside the project, for this benchmark alone."""
    if all((FOLDER / name).is_dir() for name in ("post_office", "nh3")):
        return True
    shutil.rmtree(FOLDER, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--target", str(FOLDER), *POST_OFFICE]
    done = subprocess.run(command, check=False, timeout=120)
    if done.returncode:
        say(f"SKIPPED: post_office could not be installed ({' '.join(POST_OFFICE)})")
    return done.returncode == 0


def post_office(folder: Path, port: int, threads: int) -> float:
    connection.close()
    return together(post_office_loop, folder, port, threads, processes=1)  # it starts its own


def post_office_loop(pipe: Connection, number: int, folder: Path, port: int, threads: int) -> None:
    sys.path.insert(0, str(FOLDER.resolve()))
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "post_office"]
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    logging.disable(logging.INFO)
    settings.POST_OFFICE = {"BATCH_SIZE": MESSAGES, "THREADS_PER_PROCESS": threads}
    set_up(port)
    call_command("migrate", "post_office", verbosity=0)
    emails = importlib.import_module("post_office.models").Email
    sending = importlib.import_module("post_office.mail")
    emails.objects.all().delete()
    emails.objects.bulk_create(
        emails(
            subject=subject, from_email=sender, to=to, message=text, html_message=html,
            headers=headers, status=2, priority=2,
        )
        for subject, sender, to, text, html, headers in pickle.loads(
            (folder / "parts").read_bytes()
        )
    )  # fmt: skip
    pipe.send("ready")
    pipe.recv()
    sent, failed, again = sending.send_queued(processes=PROCESSES)
    assert (sent, failed, again) == (MESSAGES, 0, 0), (sent, failed, again)
    pipe.send(sent)
