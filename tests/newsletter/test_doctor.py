"""The doctor finds what is wrong, says what to do, and is wrong about nothing that is in order."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from newsletter import doctor, health, tasks
from newsletter.findings import Finding, Level
from newsletter.management.commands.doctor import ask_worker
from newsletter.models import Delivery, RankingModel, Subscriber
from papers.models import Edition, Harvest
from papers.sources.recorded import Recorded
from tests.dns_server import DnsServer
from tests.factories import make_delivery, make_paper, make_subscriber
from tests.smtp import SmtpServer

DOMAIN = "papers.example"
RSA_2048 = (
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA" + "w" * 342 + "IDAQAB"
)  # the length is what is read of it


@pytest.fixture(autouse=True)
def _no_tick() -> None:
    with health.redis() as server:
        server.delete(health.key("tick"))


@pytest.fixture
def dns(settings: Settings) -> Iterator[DnsServer]:
    """A domain in order, and the settings that ask for it."""
    server = DnsServer()
    server.zone = {
        DOMAIN: {"TXT": ["v=spf1 ip4:192.0.2.10 -all"]},
        f"s1._domainkey.{DOMAIN}": {"TXT": [f"v=DKIM1; p={RSA_2048}"]},
        f"_dmarc.{DOMAIN}": {"TXT": ["v=DMARC1; p=reject; rua=mailto:reports@papers.example"]},
        "10.2.0.192.in-addr.arpa": {"PTR": [f"mail.{DOMAIN}."]},
        f"mail.{DOMAIN}": {"A": ["192.0.2.10"]},
    }
    settings.DOCTOR_DNS_SERVER = server.address
    settings.DOCTOR_DKIM_SELECTORS = ["s1"]
    settings.DOCTOR_SENDING_IPS = ["192.0.2.10"]
    server.start()
    yield server
    server.stop()


@pytest.fixture
def production(settings: Settings, dns: DnsServer) -> Settings:
    """Settings that leave nothing to say."""
    settings.SITE_URL = f"https://{DOMAIN}"
    settings.ALLOWED_HOSTS = [DOMAIN]
    settings.LIST_ID = f"daily.{DOMAIN}"
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_HSTS_SECONDS = 31_536_000
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    return settings


def found_by(check: Callable[[], Any]) -> list[tuple[str, str]]:
    return [(one.check, one.level.value) for one in check()]


def text_of(findings: Any) -> str:
    return " ".join(one.found for one in findings)


def nobody(token: str) -> None:
    """No worker: the task is sent, and nothing hears it."""


# --- The round trip -------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_worker_and_its_tick_are_found_by_what_they_do(
    worker: subprocess.Popen[bytes],
) -> None:
    assert doctor.round_trip(ask_worker, seconds=60).level == Level.OK
    tasks.watch.delay()
    # One worker with one process: its next answer comes after the tick.
    assert doctor.round_trip(ask_worker, seconds=60).level == Level.OK
    assert doctor.beat(timezone.now(), worker_answers=True).level == Level.OK


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_there_and_consumes_nothing_is_an_error(
    worker: subprocess.Popen[bytes],
) -> None:
    assert doctor.round_trip(ask_worker, seconds=60).level == Level.OK
    worker.send_signal(signal.SIGSTOP)
    try:
        assert doctor.round_trip(ask_worker, seconds=1).level == Level.ERROR
    finally:
        worker.send_signal(signal.SIGCONT)


def test_without_a_worker_it_is_said_clearly() -> None:
    found = doctor.round_trip(nobody, seconds=0.2)
    assert found.level == Level.ERROR
    assert found.found.startswith("No worker answered")


def test_an_answer_to_somebody_else_is_none(db: None) -> None:
    found = doctor.round_trip(lambda token: health.answer(f"not {token}"), seconds=0.2)
    assert found.level == Level.ERROR


def test_a_lost_redis_is_told_and_the_worker_not_asked(settings: Settings) -> None:
    settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    assert found_by(doctor.broker) == [("redis", "error")]


def test_redis_that_may_throw_tasks_away_is_a_warning() -> None:
    with health.redis() as server:
        was = server.config_get("maxmemory*")
        try:
            server.config_set("maxmemory", "1gb")
            server.config_set("maxmemory-policy", "allkeys-lru")
            found = found_by(doctor.broker)
        finally:
            for name, value in was.items():
                server.config_set(name, value)
    assert found == [("redis", "ok"), ("redis", "warning")]


def test_beat_is_judged_by_its_last_tick() -> None:
    now = timezone.now()
    assert doctor.beat(now, worker_answers=True).level == Level.ERROR
    assert doctor.beat(now, worker_answers=False).level == Level.WARNING
    health.tick(now - timedelta(minutes=2))
    assert doctor.beat(now, worker_answers=True).level == Level.OK
    assert doctor.beat(now + timedelta(minutes=2), worker_answers=True).level == Level.ERROR


# --- The database and the daily run ---------------------------------------------------------------


def test_a_database_in_order_has_nothing_to_mend(db: None) -> None:
    assert found_by(doctor.database) == [
        ("database", "ok"),
        ("pgvector", "ok"),
        ("migrations", "ok"),
    ]


def test_a_database_without_pgvector_is_an_error(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER EXTENSION vector SET SCHEMA public")  # fails where there is none
        cursor.execute("DROP EXTENSION vector CASCADE")
    assert ("pgvector", "error") in found_by(doctor.database)


def test_migrations_that_wait_are_an_error(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM django_migrations WHERE app = 'papers' "
            "AND name = (SELECT max(name) FROM django_migrations WHERE app = 'papers')"
        )
    assert ("migrations", "error") in found_by(doctor.database)


def test_a_day_that_went_well_is_in_order(db: None) -> None:
    now = timezone.now()
    paper = make_paper()
    edition = Edition.objects.create(
        day=health.last_freeze(now).date(), state="frozen", frozen_at=now
    )
    Harvest.objects.create(source="arxiv", state="done", finished_at=now)
    reader = make_subscriber(next_send_at=now + timedelta(days=1))
    make_delivery(reader, paper, edition=edition, state="sent", sent_at=now)
    RankingModel.objects.create(name="one")
    for check in (health.harvests, health.edition, health.deliveries, health.answers):
        assert [finding.level for finding in check(now)] == [Level.OK]
    assert found_by(lambda: doctor.ranking(now)) == [("ranking", "ok")]


@pytest.mark.parametrize(("sent", "level"), [(1, Level.WARNING), (0, Level.ERROR)])
def test_a_failed_delivery_is_a_warning_and_more_where_nothing_else_left(
    db: None, sent: int, level: Level
) -> None:
    now = timezone.now()
    failed = make_delivery(make_subscriber(), make_paper(), state=Delivery.State.FAILED, error="no")
    for _ in range(sent):
        reader = make_subscriber("bob@example.org")
        make_delivery(reader, edition=failed.edition, state=Delivery.State.SENT, sent_at=now)
    [found] = [one for one in health.deliveries(now) if one.check == "lost mail"]
    assert found.level == level
    assert f"of {failed.edition.day}, 1 failed." in found.found


def test_a_source_that_fell_asleep_is_a_warning(db: None) -> None:
    now = timezone.now()
    long_ago = now - timedelta(hours=27)
    Harvest.objects.create(source="arxiv", state="done", started_at=long_ago, finished_at=long_ago)
    assert found_by(lambda: health.harvests(now)) == [("harvest", "warning")]


def test_a_sign_up_that_waits_for_its_answer_is_an_error(db: None) -> None:
    now = timezone.now()
    make_subscriber(state=Subscriber.State.PENDING, answer_due_at=now - timedelta(minutes=31))
    assert found_by(lambda: health.answers(now)) == [("sign-up", "error")]


def test_an_old_ranking_model_is_a_warning(db: None) -> None:
    now = timezone.now()
    RankingModel.objects.create(name="old", fitted_at=now - timedelta(hours=49))
    assert found_by(lambda: doctor.ranking(now)) == [("ranking", "warning")]


@pytest.mark.parametrize(
    ("files", "level"),
    [((), "ok"), (("model.onnx",), "warning"), (("model.onnx", "tokenizer.json"), "warning")],
)
def test_no_encoder_is_a_choice_and_half_a_one_is_a_fault(
    db: None, settings: Settings, tmp_path: Path, files: tuple[str, ...], level: str
) -> None:
    settings.ENCODER_DIR = tmp_path
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    assert found_by(lambda: doctor.encoder(timezone.now())) == [("encoder", level)]


# --- Settings -------------------------------------------------------------------------------------


def test_right_settings_let_one_click_through(db: None, production: Settings) -> None:
    assert found_by(doctor.one_click) == [("one-click", "ok")]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SITE_URL", "http://papers.example", "not https"),
        ("SECURE_REDIRECT_EXEMPT", [], "POST by http is answered with 301"),
        ("ALLOWED_HOSTS", ["other.example"], "POST by https is answered with 400"),
        ("TEMPLATES", [], "POST by https is answered with 500"),
        ("LIST_ID", "localhost", "not a dotted name"),
    ],
)
def test_each_setting_that_breaks_one_click_is_found_by_trying(
    db: None, production: Settings, name: str, value: object, said: str
) -> None:
    setattr(production, name, value)
    findings = list(doctor.one_click())
    assert said in text_of(findings)
    assert all(one.level != Level.OK and one.do for one in findings)


def test_trying_one_click_unsubscribes_nobody(db: None, production: Settings) -> None:
    subscriber = make_subscriber()
    list(doctor.one_click())
    subscriber.refresh_from_db()
    assert subscriber.state == Subscriber.State.ACTIVE


def test_the_system_checks_are_among_what_is_looked_at(db: None, production: Settings) -> None:
    assert found_by(doctor.system_checks) == [("settings", "ok")]
    production.POSTAL_ADDRESS = ""
    [found] = doctor.system_checks()
    assert "newsletter.W001" in found.found


# --- DNS ------------------------------------------------------------------------------------------


def test_a_domain_in_order_has_nothing_to_mend(dns: DnsServer) -> None:
    assert {level for _, level in found_by(doctor.sending_domain)} == {"ok"}


def test_spf_is_asked_of_the_return_paths_domain(dns: DnsServer, settings: Settings) -> None:
    settings.BOUNCE_ADDRESS = "bounces@elsewhere.example"
    findings = list(doctor.sending_domain())
    assert "elsewhere.example has no SPF record." in text_of(findings)
    assert "The return path is at elsewhere.example" in text_of(findings)


def test_what_cannot_be_looked_up_is_said(dns: DnsServer, settings: Settings) -> None:
    settings.DOCTOR_SENDING_IPS = []
    settings.DOCTOR_DKIM_SELECTORS = []
    settings.EMAIL_BACKEND = "newsletter.smtp.SmtpBackend"
    found = found_by(doctor.sending_domain)
    assert ("ptr", "warning") in found
    assert ("dkim", "warning") in found
    settings.DOCTOR_SENDING_IPS = ["mail.example"]
    assert ("dns", "error") in found_by(doctor.sending_domain)


def test_a_development_machine_has_no_domain_to_ask_for(settings: Settings) -> None:
    settings.DEFAULT_FROM_EMAIL = "Paperround <daily@localhost>"
    assert found_by(doctor.sending_domain) == [("dns", "warning")]


# --- The mail server ------------------------------------------------------------------------------


def test_a_mail_server_is_opened_and_told_nothing(smtp: SmtpServer) -> None:
    assert found_by(lambda: [doctor.mail_server()]) == [("mail server", "ok")]
    assert not smtp.count()


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("newsletter.smtp.SmtpBackend", "Connection refused"),
        ("anymail.backends.mailgun.EmailBackend", "MAILGUN_API_KEY"),
        ("anymail.backends.mailgnu.EmailBackend", "mailgnu"),
    ],
)
def test_where_no_mail_could_leave_it_is_an_error(
    settings: Settings, backend: str, said: str
) -> None:
    settings.EMAIL_BACKEND = backend
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    found = doctor.mail_server()
    assert (found.level, said in found.found) == (Level.ERROR, True)


def test_a_providers_api_is_asked_whether_it_is_there(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "anymail.backends.mailgun.EmailBackend"
    settings.ANYMAIL = {"MAILGUN_API_KEY": "key"}
    with Recorded([]) as api:
        settings.ANYMAIL["MAILGUN_API_URL"] = api.url
        assert doctor.mail_server().level == Level.OK
    assert doctor.mail_server().level == Level.ERROR


# --- The test mail --------------------------------------------------------------------------------


def test_a_test_mail_goes_the_way_of_deliveries(smtp: SmtpServer) -> None:
    assert doctor.test_mail("operator@example.org").level == Level.OK
    [message] = smtp.to("operator@example.org")
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_a_mail_server_that_is_away_is_an_error(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "newsletter.smtp.SmtpBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    assert doctor.test_mail("operator@example.org").level == Level.ERROR


# --- The command ----------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker runs in these tests: none is waited for."""
    trip = doctor.round_trip
    monkeypatch.setattr(doctor, "round_trip", lambda ask: trip(nobody, seconds=0.1))


def test_errors_make_the_exit_code(db: None, production: Settings, impatient: None) -> None:
    out = StringIO()
    with pytest.raises(SystemExit, match=r"^1$"):
        call_command("doctor", stdout=out)
    assert out.getvalue().splitlines()[-1].startswith("1 error, ")
    assert "error   worker      No worker answered" in out.getvalue()
    assert "ok      dmarc" in out.getvalue()


def test_json_holds_every_finding(
    db: None, production: Settings, impatient: None, smtp: SmtpServer
) -> None:
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command("doctor", "--json", "--send-test", "operator@example.org", stdout=out)
    body = json.loads(out.getvalue())
    assert body["counts"]["error"] == 1
    assert {one["check"] for one in body["findings"]} >= {
        "database", "pgvector", "migrations", "redis", "worker", "beat", "harvest", "edition",
        "deliveries", "sign-up", "encoder", "ranking", "one-click", "settings", "spf", "dkim",
        "dmarc", "ptr", "mail server", "test mail",
    }  # fmt: skip
    assert all(one["means"] and one["do"] for one in body["findings"] if one["level"] != "ok")


def test_a_database_that_is_away_hides_nothing_else(
    db: None, production: Settings, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Iterator[Finding]:
        yield Finding("database", Level.ERROR, "PostgreSQL cannot be reached.", "x", "x")

    monkeypatch.setattr(doctor, "database", away)
    checks = [one.check for one in doctor.examine(nobody, timezone.now())]
    assert "harvest" not in checks
    assert {"redis", "disk", "spf", "dmarc"} <= set(checks)
