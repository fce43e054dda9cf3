"""The doctor: everything that can be looked at before a reader misses a mail."""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.utils import parseaddr
from ipaddress import ip_address
from smtplib import SMTPResponseException
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from django.utils import timezone
from kombu.exceptions import OperationalError
from redis import RedisError

from newsletter import health, links, provider, sender_domain
from newsletter.findings import Finding, Level, error, ok, several, warning
from newsletter.models import RankingModel
from papers import embeddings, encoders
from papers.models import Embedding, Paper

ANSWER_SECONDS = 10
TICK_LATE = timedelta(minutes=3)
PGVECTOR = (0, 8)  # hnsw.iterative_scan
LITTLE_SPACE, NO_SPACE = 1_000, 200  # MB


def examine(
    ask_worker: Callable[[str], object], now: datetime, *, send_test: str = ""
) -> Iterator[Finding]:
    """Everything the doctor looks at, each as soon as it is known.

    Args:
        ask_worker: sends a token to a worker, which is to give it to `answer`.
        send_test: an address to send a test mail to.
    """
    found = list(_guarded("database", database))
    yield from found
    reachable = not any(one.level == Level.ERROR for one in found)
    found = list(_guarded("redis", broker))
    yield from found
    if not any(one.level == Level.ERROR for one in found):
        answered = round_trip(ask_worker)
        yield answered
        yield beat(now, worker_answers=answered.level == Level.OK)
    if reachable:
        for name, check in (
            ("harvest", lambda: health.harvests(now)),
            ("edition", lambda: health.edition(now)),
            ("deliveries", lambda: health.deliveries(now)),
            ("sign-up", lambda: health.answers(now)),
            ("encoder", lambda: encoder(now)),
            ("ranking", lambda: ranking(now)),
            ("one-click", one_click),
        ):
            yield from _guarded(name, check)
    yield from disk()
    yield from system_checks()
    yield mail_server()
    yield from sending_domain()
    if send_test:
        yield test_mail(send_test)


def _guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """One broken check hides no other."""
    try:
        yield from check()
    except (DatabaseError, RedisError) as problem:
        yield error(
            name,
            f"It could not be looked at: {type(problem).__name__}.",
            "The server refused the question or went away meanwhile.",
            "See the server's own log.",
        )


def database() -> Iterator[Finding]:
    try:
        connection.ensure_connection()
    except DatabaseError as problem:
        yield error(
            "database",
            f"PostgreSQL cannot be reached: {type(problem).__name__}.",
            "Nothing works: the database is the truth.",
            "Start it, and check DATABASE_URL: host, port, name, user and password.",
        )
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), now(),"
            " (SELECT extversion FROM pg_extension WHERE extname = 'vector')"
        )
        version, its_time, pgvector = cursor.fetchone()
    apart = abs(timezone.now() - its_time)
    yield ok("database", f"PostgreSQL {version}.")
    if apart > timedelta(minutes=1):
        yield warning(
            "database",
            f"Its clock and this machine's are {int(apart.total_seconds())} s apart.",
            "Leases of deliveries run out too early or too late.",
            "Have both machines keep time by NTP.",
        )
    if pgvector is None:
        yield error(
            "pgvector",
            "The extension pgvector is not in this database.",
            "Papers close in meaning cannot be stored or found.",
            "A superuser runs CREATE EXTENSION vector; in the database, then run "
            "`manage.py migrate`.",
        )
    elif tuple(map(int, re.findall(r"\d+", pgvector)[:2])) < PGVECTOR:
        yield warning(
            "pgvector",
            f"pgvector {pgvector} is older than 0.8.",
            "Searches that filter may find too few papers.",
            "Update its package, then ALTER EXTENSION vector UPDATE;",
        )
    else:
        yield ok("pgvector", f"pgvector {pgvector}.")
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        yield error(
            "migrations",
            several(len(waiting), "migration waits", "migrations wait")
            + f", {waiting[0][0]} first.",
            "This code asks for tables and columns that are not there.",
            "Run `manage.py migrate`, then restart web and workers.",
        )
    else:
        yield ok("migrations", "All are applied.")


def broker() -> Iterator[Finding]:
    """Redis: whether it answers, and whether it may throw tasks away."""
    try:
        with health.redis() as server:
            info: dict[str, Any] = server.info()
    except RedisError as problem:
        yield error(
            "redis",
            f"Redis cannot be asked: {type(problem).__name__}.",
            "Workers hear nothing, so nothing is planned or sent. Nothing is lost: the next tick "
            "catches up.",
            "Start it, and check REDIS_URL and, with access lists, that INFO is allowed.",
        )
        return
    kind = "Valkey" if "valkey_version" in info else "Redis"
    yield ok("redis", f"{kind} {info.get('valkey_version') or info.get('redis_version')}.")
    policy, most, used = info.get("maxmemory_policy"), info.get("maxmemory"), info["used_memory"]
    if most and str(policy).startswith("allkeys"):
        yield warning(
            "redis",
            f"Its memory policy is {policy}.",
            "When it is full it throws away waiting tasks. The next tick asks again, a sign-up's "
            "answer waits for it.",
            "Set maxmemory-policy to noeviction.",
        )
    if most and used > 0.9 * most:
        yield warning(
            "redis",
            f"{used / most:.0%} of its memory is used.",
            "When it is full it takes no more tasks.",
            "Raise maxmemory, or find out who fills it.",
        )


def round_trip(ask_worker: Callable[[str], object], seconds: float = ANSWER_SECONDS) -> Finding:
    """A real task through broker and worker, and its answer."""
    token = secrets.token_urlsafe(12)
    started = time.monotonic()
    try:
        ask_worker(token)
        with health.redis() as server:
            while (left := seconds - (time.monotonic() - started)) > 0:
                # One second at a time: below the client's own patience.
                if server.blpop([health.key(f"answer:{token}")], timeout=min(left, 1)):
                    took = time.monotonic() - started
                    return ok("worker", f"A worker answered a task within {took:.1f} s.")
            waiting = server.llen(f"{settings.REDIS_KEY_PREFIX}celery")
    except (RedisError, OperationalError, OSError) as problem:
        return error(
            "worker",
            f"No task could be sent: {type(problem).__name__}.",
            "Redis went away between two questions.",
            "See the server's own log.",
        )
    return error(
        "worker",
        f"No worker answered within {seconds:.0f} s; "
        f"{several(waiting, 'task waits', 'tasks wait')} in the queue.",
        "None runs, or none can reach the database, or one has silently stopped consuming (it may "
        "after a lost connection to Redis), or all are busy for long.",
        "See that `celery -A config worker` runs and read its log; restart it. If all are busy, "
        "run one more.",
    )


def beat(now: datetime, *, worker_answers: bool) -> Finding:
    """Whether the minute's tick arrives."""
    at = health.last_tick()
    if at is not None and now - at <= TICK_LATE:
        return ok("beat", f"The last tick was {health.ago(at, now)}.")
    found = f"The last tick was {health.ago(at, now)}." if at else "No tick has been noted."
    if not worker_answers:
        return warning(
            "beat",
            found,
            "Ticks are noted by workers: without one it is not known whether beat runs.",
            "Mend the worker first, then ask again.",
        )
    return error(
        "beat",
        found,
        "Nothing is frozen, planned or sent by itself.",
        "Start `celery -A config beat`, exactly one; it needs a minute to show here.",
    )


# --- The views of a text --------------------------------------------------------------------------


def encoder(now: datetime) -> Iterator[Finding]:
    try:
        encoders.find(settings.ENCODER_DIR)
    except encoders.EncoderError as problem:
        # One of the two files alone is no choice but an accident.
        if not any((settings.ENCODER_DIR / name).exists() for name in encoders.FILES):
            yield ok(
                "encoder",
                "There is none: papers are ranked by their words alone.",
                "Run `manage.py fetch_encoder` to find papers close in meaning too.",
            )
            return
        yield warning(
            "encoder",
            f"It cannot be used: {problem}",
            "New papers are ranked by their words alone.",
            "Run `manage.py fetch_encoder`.",
        )
        return
    identity = embeddings.configured_identity() or ""
    pending = embeddings.pending(identity)
    waiting = pending.count()
    old = pending.filter(updated_at__lt=now - health.HARVEST_LATE).exists()
    recent = Embedding.objects.filter(created_at__gte=now - timedelta(hours=1)).exists()
    if old and not recent:
        yield warning(
            "encoder",
            f"{several(waiting, 'paper waits', 'papers wait')} for vectors; none was made within "
            "an hour.",
            "They are found and ranked by their words alone.",
            "See the workers' log, or run `manage.py encode_papers`.",
        )
    else:
        yield ok(
            "encoder", f"{identity[:12]}; {several(waiting, 'paper waits', 'papers wait')} for it."
        )


def ranking(now: datetime) -> Iterator[Finding]:
    newest = RankingModel.objects.defer("arrays").first()
    refit = "See the workers' log for why it is not fitted again."
    if newest is None:
        if Paper.objects.filter(created_at__lt=now - health.STUCK).exists():
            found = "No ranking model has been fitted."
            yield warning("ranking", found, "The first plan of a day has to wait for it.", refit)
        else:
            yield ok("ranking", "No model yet; it comes with the first papers.")
    elif now - newest.fitted_at > timedelta(hours=2 * settings.RANKING_REFIT_HOURS):
        found = f"The model {newest.name} was fitted {health.ago(newest.fitted_at, now)}."
        yield warning("ranking", found, "Words of newer papers weigh too little.", refit)
    else:
        yield ok("ranking", f"{newest.name}, fitted {health.ago(newest.fitted_at, now)}.")


# --- The machine and its settings -----------------------------------------------------------------


def disk() -> Iterator[Finding]:
    """Space where the encoder and, in development, the servers live."""
    if not settings.VAR_DIR.is_dir():
        return
    free = shutil.disk_usage(settings.VAR_DIR).free // 1_000_000
    found = f"{free:,} MB are free at {settings.VAR_DIR}."
    means, do = "What is written there fails once it is full.", "Make room."
    if free < NO_SPACE:
        yield error("disk", found, means, do)
    elif free < LITTLE_SPACE:
        yield warning("disk", found, means, do)
    else:
        yield ok("disk", found)


@contextmanager
def _unlogged(name: str) -> Iterator[None]:
    """What is looked for is told as a finding, and not as a traceback before it."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def one_click() -> Iterator[Finding]:
    """Whether a provider's one-click POST would arrive: made in this process, through all
    middleware, by https and by the plain http that a proxy may speak to us."""
    breaks = "Gmail and Yahoo show no unsubscribe button, and readers press “spam” instead."
    fine = True
    if not settings.SITE_URL.startswith("https://"):
        fine = False
        yield (warning if settings.DEBUG else error)(
            "one-click",
            f"SITE_URL is {settings.SITE_URL}, not https.",
            breaks,
            "Serve the site by https and set SITE_URL accordingly.",
        )
    if not re.fullmatch(r"[A-Za-z0-9_.-]+\.[A-Za-z0-9_-]+", settings.LIST_ID):
        fine = False
        yield warning(
            "one-click",
            f"LIST_ID is “{settings.LIST_ID}”, not a dotted name.",
            "Mail programs cannot tell the list by it (RFC 2919).",
            "Set it to a name below your domain, such as daily. and the domain.",
        )
    address = urlsplit(links.url(uuid.uuid4(), links.Purpose.UNSUBSCRIBE))
    browser = Client(enforce_csrf_checks=True, raise_request_exception=False)
    advice = {
        301: "Keep ^unsubscribe/ in SECURE_REDIRECT_EXEMPT and its path's last slash.",
        400: f"Put {address.hostname} into ALLOWED_HOSTS.",
        403: "Let no CSRF or login middleware guard the unsubscribe page.",
        500: "After an update, run `manage.py migrate` and `manage.py collectstatic`.",
    }
    for scheme in ("https", "http"):
        # Nobody has this number: what is answered is that they are unsubscribed, and nothing moves.
        with _unlogged("django"):
            response = browser.post(
                address.path,
                {"List-Unsubscribe": "One-Click"},
                secure=scheme == "https",
                headers={"host": address.netloc},
            )
        if response.status_code == 200:
            continue
        fine = False
        raised = getattr(response, "exc_info", None)
        why = f" ({raised[1]})" if raised else ""
        yield error(
            "one-click",
            f"A one-click POST by {scheme} is answered with {response.status_code} and not 200"
            f"{why}.",
            breaks,
            advice.get(response.status_code, "See the log of the web process."),
        )
    if fine:
        yield ok("one-click", "A provider's POST is answered at once, without a redirect.")


def system_checks() -> Iterator[Finding]:
    """What `manage.py check --deploy` says; on a development machine, `manage.py check`."""
    messages = [
        message
        for message in checks.run_checks(include_deployment_checks=not settings.DEBUG)
        if message.level >= checks.WARNING and not message.is_silenced()
    ]
    for message in messages:
        yield (error if message.level >= checks.ERROR else warning)(
            "settings",
            f"{message.msg} ({message.id})",
            "Django's system checks name it.",
            message.hint or "See `manage.py check --deploy`.",
        )
    if not messages:
        yield ok("settings", "The system checks have nothing to say.")


def sending_domain() -> Iterator[Finding]:
    """SPF, DKIM, DMARC and PTR of the From address's domain."""
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
    if "." not in domain:
        yield warning(
            "dns",
            f"DEFAULT_FROM_EMAIL is at “{domain}”.",
            "There is no domain that SPF, DKIM and DMARC could speak for.",
            "Set it to an address of the domain you send from.",
        )
        return
    named = []
    for text in settings.DOCTOR_SENDING_IPS:
        try:
            named.append(ip_address(text))
        except ValueError:
            yield error(
                "dns",
                f"“{text}” in DOCTOR_SENDING_IPS is no address.",
                "It is left out.",
                "Write addresses such as 192.0.2.10, separated by commas.",
            )
    if not settings.DOCTOR_SENDING_IPS and "smtp" in settings.EMAIL_BACKEND.lower():
        yield warning(
            "ptr",
            "The address that mail leaves from is not known.",
            "Whether SPF names it, and whether its name is confirmed both ways, was not looked at.",
            "Name it in DOCTOR_SENDING_IPS. A relay's addresses are its provider's matter.",
        )
    yield from sender_domain.examine(
        lambda: sender_domain.Dns(settings.DOCTOR_DNS_SERVER),
        domain,
        envelope=settings.BOUNCE_ADDRESS.rpartition("@")[2] or domain,
        selectors=settings.DOCTOR_DKIM_SELECTORS,
        addresses=named,
    )


def mail_server() -> Finding:
    """Whether what takes the mails is there: it is opened and closed, and nothing is sent."""
    try:
        server = provider.connection()
        try:
            server.open()
            return ok("mail server", _answer(server))
        finally:
            provider.close(server)
    except (OSError, ImportError, ImproperlyConfigured) as problem:
        said = str(problem)
        if isinstance(problem, SMTPResponseException) and isinstance(problem.smtp_error, bytes):
            said = f"{problem.smtp_code} {problem.smtp_error.decode(errors='replace')}"
        return error(
            "mail server",
            f"It cannot be opened: {said}",
            "No mail leaves; deliveries wait for it until their edition is over.",
            "Check EMAIL_URL, or EMAIL_BACKEND and its keys, and whether the server can be "
            "reached from here.",
        )


def _answer(server: Any) -> str:
    if isinstance(server, EmailBackend):
        who = f", to {server.username}" if server.username else ""
        return f"{server.host}:{server.port} answers{who}."
    if url := getattr(server, "api_url", ""):
        # Any answer will do: whether a key is right, most providers say to a mail alone.
        server.session.head(url, timeout=ANSWER_SECONDS)
        return f"{urlsplit(url).netloc} answers. Whether it takes your key, --send-test tells."
    return f"{settings.EMAIL_BACKEND} asks none."


def test_mail(address: str) -> Finding:
    """Send one, by the way that deliveries take."""
    name = settings.SITE_NAME
    message = EmailMessage(
        subject=f"Test mail of {name}",
        body=(
            f"`manage.py doctor --send-test` of {name} sent this.\n\n"
            "Open its source: Authentication-Results should say spf=pass, dkim=pass and\n"
            "dmarc=pass, and the h= of its DKIM-Signature should name List-Unsubscribe and\n"
            "List-Unsubscribe-Post.\n"
        ),
        from_email=settings.DEFAULT_FROM_EMAIL,
        to=[address],
        headers={
            "Auto-Submitted": "auto-generated",
            "List-Unsubscribe": f"<{links.url(uuid.uuid4(), links.Purpose.UNSUBSCRIBE)}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
    )
    server = provider.connection()
    try:
        server.open()
        provider.hand_over(message, server)
    except provider.Refused as refused:
        return error(
            "test mail",
            f"It was refused: {refused}",
            "Mails to readers may be refused likewise.",
            "The server's words above say why.",
        )
    except (provider.OutcomeUnknown, OSError) as problem:
        return error(
            "test mail",
            f"It is not known to have left: {problem}",
            "The mail server does not answer as it should.",
            "Check EMAIL_URL, or EMAIL_BACKEND and its keys, and whether the server can be "
            "reached from here.",
        )
    finally:
        provider.close(server)
    return ok("test mail", "The mail server has taken it.", "Look for it, in the spam folder too.")
