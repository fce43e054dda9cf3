"""The probes, the minute's watch and the public status tell what is the case."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from newsletter import alerts, delivery, health, probes, sending, status
from newsletter.addresses import address_hash
from newsletter.findings import Level
from newsletter.models import (
    Alert,
    ConsentRecord,
    Delivery,
    SendingPause,
    Subscriber,
    TokenBucket,
)
from papers.models import Edition, EditionPaper, Harvest
from tests.factories import TODAY, make_delivery, make_frozen_edition, make_paper, make_subscriber
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db

S = Delivery.State
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    cache.clear()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=16)) as server:
        yield server.getsockname()[1]


# --- Probes ---------------------------------------------------------------------------------------


def test_healthz_asks_nothing(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries, settings: Settings
) -> None:
    settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    with django_assert_num_queries(0):
        response = client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_readyz_names_each_check(client: Client) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "checks": {"database": "ok", "redis": "ok"}}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_is_answered_by_any_scheme_to_any_host(
    client: Client, settings: Settings, path: str
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    for host in ("10.0.0.7:8000", "testserver", "not_a_host!"):
        response = client.get(path, headers={"host": host})
        assert response.status_code == 200
        assert response["Cache-Control"] == "no-store"
    assert client.head(path).status_code == 200
    assert client.post(path).status_code == 405


def test_other_paths_still_mind_the_host(client: Client) -> None:
    assert client.get("/status/", headers={"host": "10.0.0.7"}).status_code == 400


def test_a_lost_redis_is_not_ready(client: Client, settings: Settings) -> None:
    settings.CELERY_BROKER_URL = "redis://:a-secret@127.0.0.1:1/0"
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"] == {"database": "ok", "redis": "unreachable"}
    assert b"secret" not in response.content


def test_a_lost_database_is_not_ready(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "PORT", "1")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"] == {"database": "unreachable", "redis": "ok"}


def test_servers_that_accept_and_then_say_nothing_are_not_waited_for(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, silent_port: int
) -> None:
    settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{silent_port}/0"
    monkeypatch.setitem(connection.settings_dict, "PORT", str(silent_port))
    monkeypatch.setattr(probes, "PROBE_SECONDS", 1)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert "ok" not in response.json()["checks"].values()


def test_questions_that_wait_for_an_answer_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "PROBE_SECONDS", -0.5)  # no patience at all
    go_on = threading.Event()

    def silent() -> str:
        go_on.wait()
        return "ok"

    said = [probes.within({"it": silent})["it"] for _ in range(probes.PROBES_AT_ONCE)]
    assert set(said) == {"no answer in time"}
    assert probes.within({"it": silent}) == {"it": "no answer to earlier questions"}
    go_on.set()
    for _ in said:  # each gives its place back
        assert probes._probing.acquire(timeout=30)
    probes._probing.release(len(said))


@pytest.mark.django_db(transaction=True)
def test_a_database_without_the_newest_migration_is_not_ready(client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM django_migrations WHERE app = 'papers' RETURNING app, name, applied"
        )
        rows = cursor.fetchall()
    try:
        response = client.get("/readyz")
    finally:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, %s)", rows
            )
    assert response.status_code == 503
    assert response.json()["checks"]["database"] == "not migrated"


# --- The watch ------------------------------------------------------------------------------------


def said(now: datetime) -> str:
    return " ".join(finding.found for finding in health.watch(now))


def freeze_at(day: date, hour: int = 4) -> Edition:
    moment = datetime.combine(day, time(hour), tzinfo=UTC)
    return Edition.objects.create(day=day, state=Edition.State.FROZEN, frozen_at=moment)


def old_paper() -> None:
    with time_machine.travel(NOON - timedelta(days=3), tick=False):
        make_paper()


def test_a_day_in_order_is_met_with_silence() -> None:
    old_paper()
    edition = freeze_at(TODAY)
    make_subscriber(next_send_at=NOON + timedelta(hours=19))
    Harvest.objects.create(source="arxiv", state="done", finished_at=NOON)
    make_delivery(
        make_subscriber("bob@example.org", next_send_at=NOON + timedelta(days=1)),
        edition=edition, state=S.SENT, sent_at=NOON,
    )  # fmt: skip
    assert health.watch(NOON) == []


def test_a_new_installation_has_missed_nothing() -> None:
    assert health.watch(NOON) == []


@pytest.mark.parametrize(
    ("hour", "minute", "missed"), [(3, 59, ""), (5, 59, ""), (6, 0, "2026-11-20")]
)
def test_an_edition_is_missed_two_hours_after_its_freeze(
    hour: int, minute: int, missed: str
) -> None:
    old_paper()
    freeze_at(TODAY - timedelta(days=1))
    found = said(datetime(2026, 11, 20, hour, minute, tzinfo=UTC))
    assert missed in found
    assert bool(found) is bool(missed)


def test_the_doctor_warns_of_it_before() -> None:
    old_paper()
    freeze_at(TODAY - timedelta(days=1))
    [found] = health.edition(datetime(2026, 11, 20, 4, 30, tzinfo=UTC))
    assert found.level == Level.WARNING
    [found] = health.edition(datetime(2026, 11, 20, 6, 0, tzinfo=UTC))
    assert found.level == Level.ERROR


def test_an_empty_edition_is_not_missed() -> None:
    old_paper()
    Edition.objects.create(
        day=TODAY, state=Edition.State.EMPTY, reason="A holiday.", frozen_at=NOON
    )
    assert health.watch(NOON) == []


def test_an_edition_that_the_curators_hold_is_told_as_that() -> None:
    old_paper()
    Edition.objects.create(day=TODAY, held=True)
    [found] = health.watch(NOON)
    assert "held by the curators" in found.found


def test_only_the_last_harvest_of_a_source_counts() -> None:
    early, late = NOON - timedelta(hours=9), NOON - timedelta(hours=1)
    Harvest.objects.create(source="arxiv", state="failed", started_at=early)
    Harvest.objects.create(source="arxiv", state="done", started_at=late, finished_at=late)
    assert health.watch(NOON) == []
    Harvest.objects.create(source="huggingface", state="failed", started_at=late)
    assert "Hugging Face Daily Papers, 1 hour ago, failed." in said(NOON)


def test_a_harvest_that_never_ended_failed() -> None:
    Harvest.objects.create(source="arxiv", state="running", started_at=NOON - timedelta(hours=7))
    assert "did not end" in said(NOON)


def test_a_failed_harvest_is_told_by_the_class_of_its_error_and_no_path() -> None:
    Harvest.objects.create(
        source="/srv/secret/list.html", state="failed", started_at=NOON,
        errors=["HTTPError: https://user:password@host/ said 503"],
    )  # fmt: skip
    found = " ".join(finding.found for finding in health.harvests(NOON))
    assert "Files, just now, failed (HTTPError)" in found
    assert "secret" not in found
    assert "password" not in found


def test_what_somebody_read_from_files_or_long_ago_failed_alerts_nobody() -> None:
    Harvest.objects.create(source="/srv/list.html", state="failed", started_at=NOON)
    long_ago = NOON - timedelta(hours=27)
    Harvest.objects.create(source="huggingface", state="failed", started_at=long_ago)
    assert health.watch(NOON) == []


BEFORE_NOON = 40  # minutes


def planned_before_noon(*addresses: str) -> None:
    """Deliveries of an edition that was frozen then."""
    then = NOON - timedelta(minutes=BEFORE_NOON)
    with time_machine.travel(then, tick=False):
        paper = make_paper()
        edition = make_frozen_edition(paper)
        for address in addresses:
            reader = make_subscriber(address, next_send_at=NOON + timedelta(hours=19))
            make_delivery(reader, paper, edition=edition, planned_at=then)


def send_until_noon() -> None:
    for minutes in range(BEFORE_NOON, 0, -4):
        with time_machine.travel(NOON - timedelta(minutes=minutes), tick=False):
            delivery.send_planned()


def late_delivery(**fields: Any) -> Delivery:
    subscriber = make_subscriber(next_send_at=NOON + timedelta(hours=19))
    values: dict[str, Any] = {"planned_at": NOON - timedelta(minutes=31)}
    return make_delivery(subscriber, edition=freeze_at(TODAY), **(values | fields))


def test_a_delivery_that_could_leave_and_does_not_is_stuck() -> None:
    late_delivery()
    assert "1 delivery has waited over 30 minutes to leave. None is leaving." in said(NOON)


def test_a_mail_server_that_is_away_is_named(settings: Settings) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        closed = server.getsockname()[1]
    settings.EMAIL_BACKEND = "newsletter.smtp.SmtpBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", closed
    planned_before_noon("alice@example.org")
    send_until_noon()
    [found] = health.stuck(NOON)
    assert found.level == Level.ERROR
    assert "no connection to the mail server" in found.found
    assert "since 2026-11-20 11:20 UTC" in found.found


def test_one_that_waits_for_its_next_try_is_not_stuck() -> None:
    late_delivery(not_before=NOON + timedelta(minutes=5))
    assert health.watch(NOON) == []


def test_one_that_others_overtake_is_late_and_no_error() -> None:
    late_delivery()
    make_delivery(
        make_subscriber("bob@example.org", next_send_at=NOON + timedelta(days=1)),
        edition=Edition.objects.get(), state=S.SENT, sent_at=NOON, handed_over_at=NOON,
    )  # fmt: skip
    [found] = health.watch(NOON)
    assert found.level == Level.WARNING


def test_a_server_that_refuses_everybody_for_now_is_told_with_what_it_says(
    smtp: SmtpServer,
) -> None:
    readers = ["alice@one.example", "bob@two.example", "charlie@three.example"]
    smtp.replies = {one: f"451 4.3.0 <{one}> lookup failed" for one in readers}
    planned_before_noon(*readers)
    send_until_noon()
    now = NOON - timedelta(minutes=1)
    [found] = health.stuck(now)
    assert found.level == Level.ERROR
    assert "3 deliveries are refused for now" in found.found
    assert "451 4.3.0" in found.found
    assert "@" not in found.found
    assert status.LATE in status._public_troubles(now, unknown=False)
    SendingPause.objects.create(why="That is told already.")
    assert list(health.stuck(now)) == []


def test_full_mailboxes_alone_alarm_nobody(smtp: SmtpServer) -> None:
    readers = [f"reader{number}@{number}.example" for number in range(8)]
    planned_before_noon(*readers)
    for one in (readers[0], readers[5]):
        smtp.replies[one] = "452 4.2.2 Mailbox full"
    send_until_noon()
    assert Counter(Delivery.objects.values_list("state", flat=True)) == {"sent": 6, "planned": 2}
    Delivery.objects.update(not_before=NOON + timedelta(hours=2))
    assert list(health.stuck(NOON + timedelta(minutes=10))) == []  # nothing has left for long
    # One more, planned since.
    Delivery.objects.filter(subscriber__address=readers[0]).update(planned_at=NOON)
    assert list(health.stuck(NOON + timedelta(minutes=31))) == []


def test_a_server_that_refuses_all_that_is_left_is_told(smtp: SmtpServer) -> None:
    readers = [f"reader{number}@{number}.example" for number in range(12)]
    planned_before_noon(*readers)
    smtp.replies = dict.fromkeys(readers[6:], "451 4.3.0 no space")
    send_until_noon()
    later = NOON + timedelta(minutes=10)
    Delivery.objects.update(not_before=later + timedelta(minutes=20))
    [found] = health.stuck(later)
    assert found.level == Level.ERROR
    assert "6 deliveries are refused for now" in found.found


def test_what_was_handed_over_and_refused_has_not_left(smtp: SmtpServer) -> None:
    planned_before_noon("alice@one.example", "bob@two.example")
    smtp.replies["bob@two.example"] = "451 4.3.0 no space"
    untried = Delivery.objects.filter(subscriber__address="alice@one.example")
    untried.update(not_before=NOON)
    with time_machine.travel(NOON - timedelta(minutes=20), tick=False):
        delivery.send_planned()
    untried.update(not_before=None)
    [found] = health.stuck(NOON)
    assert found.level == Level.ERROR
    assert "451 4.3.0 no space" in found.found


@pytest.mark.parametrize("by", ["pause", "rate"])
def test_what_a_domain_holds_back_is_late_and_no_error(settings: Settings, by: str) -> None:
    planned_before_noon("alice@one.example", "bob@two.example")
    if by == "pause":
        SendingPause.objects.create(domain="two.example", why="It blocks us.")
        why = "It blocks us."
    else:
        settings.SEND_DOMAIN_RATES = "two.example=1"
        TokenBucket.objects.create(name="two.example", tokens=0, filled_at=timezone.now())
        why = "The rate of 1 mails an hour to two.example is used up."
    held, stuck = health.stuck(NOON)
    assert (held.level, stuck.level) == (Level.WARNING, Level.ERROR)
    assert held.found.startswith("1 delivery has waited")
    assert held.found.endswith(why)
    assert "1 delivery has waited" in stuck.found
    Delivery.objects.filter(subscriber__address="alice@one.example").delete()
    assert [one.level for one in health.stuck(NOON)] == [Level.WARNING]


def test_of_many_domains_that_hold_mail_back_the_one_with_the_most_is_named() -> None:
    planned_before_noon("a@one.example", "b@two.example", "c@two.example", "d@three.example")
    for domain in ("one.example", "two.example", "three.example"):
        SendingPause.objects.create(domain=domain, why=f"{domain} blocks us.")
    [found] = health.stuck(NOON)
    assert found.level == Level.WARNING
    assert found.found.startswith("4 deliveries have waited")
    assert found.found.endswith("two.example blocks us. So it is with 2 domains more.")


def test_what_is_held_back_by_a_pause_says_why() -> None:
    late_delivery()
    SendingPause.objects.create(why="The key was refused.")
    [found] = health.watch(NOON)
    assert found.level == Level.WARNING
    assert "The key was refused." in found.found


def test_each_pause_is_found_with_who_and_why() -> None:
    olga = User.objects.create_user("olga")
    SendingPause.objects.create(why="The key was refused.", since=NOON)
    SendingPause.objects.create(domain="gmail.example", why="They asked.", by=olga, since=NOON)
    SendingPause.objects.create(domain="old.example", why="Over.", ended_at=NOON)
    found = [one.found for one in health.deliveries(NOON) if one.level == Level.WARNING]
    assert sorted(found) == [
        "All sending is paused since 2026-11-20 12:00 UTC by the service itself: "
        "The key was refused.",
        "Mail to gmail.example is paused since 2026-11-20 12:00 UTC by olga: They asked.",
    ]


@pytest.mark.parametrize("state", [S.CLAIMED, S.HANDED_OVER])
def test_a_delivery_that_nobody_takes_back_is_stuck(state: str) -> None:
    gone = NOON - timedelta(minutes=31)
    late_delivery(state=state, lease_until=gone, handed_over_at=gone)
    assert "1 delivery is held by a worker whose lease ran out" in said(NOON)


def test_an_unknown_outcome_is_told() -> None:
    late_delivery(state=S.UNKNOWN)
    assert "1 delivery is of unknown outcome" in said(NOON)


def test_the_operators_are_told_once_of_each_kind_of_trouble() -> None:
    old_paper()
    Harvest.objects.create(source="arxiv", state="failed", started_at=NOON)
    Harvest.objects.create(source="huggingface", state="failed", started_at=NOON)
    health.alert_operators(NOON)
    health.alert_operators(NOON + timedelta(minutes=1))
    alerts = {one.subject: one for one in Alert.objects.all()}
    assert set(alerts) == {"A harvest failed", "The day's edition is missing"}
    assert "arXiv" in alerts["A harvest failed"].text
    assert "Hugging Face" in alerts["A harvest failed"].text


def test_what_is_lost_is_told_when_it_becomes_more_and_not_each_hour(
    smtp: SmtpServer, settings: Settings
) -> None:
    settings.OPERATOR_ADDRESSES = ["olga@papers.example"]
    edition = freeze_at(TODAY)
    tomorrow = NOON + timedelta(days=1)

    def mails_after(hour: float, number: int, **fields: Any) -> int:
        """How many alerts were mailed by that hour, with so many more deliveries."""
        for _ in range(number):
            address = f"reader{Delivery.objects.count()}@example.org"
            make_delivery(
                make_subscriber(address, next_send_at=tomorrow), edition=edition, **fields
            )
        with time_machine.travel(NOON + timedelta(hours=hour), tick=False):
            health.alert_operators(timezone.now())
            alerts.send_waiting(timezone.now())
        return len(smtp.messages)

    assert mails_after(0, 96, state=S.SENT, sent_at=NOON) == 0
    assert mails_after(0, 4, state=S.FAILED) == 0  # a day has some dead addresses
    assert mails_after(1, 6, state=S.EXPIRED) == 1
    [told] = smtp.messages
    assert "Of 106 deliveries of 2026-11-20, 4 failed and 6 expired." in told.get_content()
    assert mails_after(3, 0) == 1
    assert mails_after(4, 1, state=S.EXPIRED) == 2
    assert mails_after(4.5, 1, state=S.EXPIRED) == 2  # within the hour of that mail
    assert mails_after(5.5, 0) == 3
    Delivery.objects.filter(state=S.FAILED).update(state=S.SENT, sent_at=NOON)  # it did arrive
    assert mails_after(7, 0) == 3


def lost_of(day: date, number: int) -> Edition:
    edition = freeze_at(day)
    for _ in range(number):
        address = f"reader{Delivery.objects.count()}@example.org"
        reader = make_subscriber(address, next_send_at=NOON + timedelta(days=9))
        make_delivery(reader, edition=edition, state=S.EXPIRED)
    return edition


def test_lost_mail_of_an_edition_that_is_no_longer_looked_at_is_not_told_again(
    smtp: SmtpServer, settings: Settings
) -> None:
    settings.OPERATOR_ADDRESSES = ["olga@papers.example"]
    lost_of(TODAY - timedelta(days=1), 6)
    lost_of(TODAY, 5)
    for hours in range(0, 72, 2):
        with time_machine.travel(NOON + timedelta(hours=hours), tick=False):
            health.alert_operators(timezone.now())
            alerts.send_waiting(timezone.now())
    [told] = [one for one in smtp.messages if "expired" in one["subject"]]
    assert "5 expired" in told.get_content()
    assert "6 expired" in told.get_content()


@pytest.mark.django_db(transaction=True)
def test_without_operators_lost_mail_is_raised_once(settings: Settings) -> None:
    settings.OPERATOR_ADDRESSES = []
    lost_of(TODAY, 5)
    for minutes in range(5):
        with time_machine.travel(NOON + timedelta(minutes=minutes), tick=False):
            health.alert_operators(timezone.now())
    assert Alert.objects.get().times == 1


def test_sign_ups_without_their_answer_are_told_and_those_that_a_pause_holds_are_not() -> None:
    due = NOON - timedelta(minutes=31)
    make_subscriber("new@one.example", state=Subscriber.State.PENDING, answer_due_at=due)
    olga = User.objects.create_user("olga")
    pause = SendingPause.objects.create(domain="one.example", why="It blocks us.", by=olga)
    health.alert_operators(NOON)
    assert not Alert.objects.exists()
    [found] = health.answers(NOON)
    assert (found.level, found.check) == (Level.WARNING, "sign-up")
    pause.delete()
    health.alert_operators(NOON)
    known = Alert.objects.get()
    assert known.subject == "Sign-ups wait for their answer"
    assert "1 sign-up has waited over 30 minutes" in known.text


def test_a_sign_up_whose_answer_was_tried_meanwhile_waits_since_it_was_asked_for() -> None:
    tried = NOON + timedelta(minutes=9)  # and is in hand until then
    waits = make_subscriber(state=Subscriber.State.PENDING, answer_due_at=tried)
    asked = ConsentRecord.objects.create(
        address_hash=address_hash(waits.address), act="asked", way="the form", at=NOON
    )
    ConsentRecord.objects.update(at=NOON - timedelta(minutes=29))
    assert [found.level for found in health.answers(NOON)] == [Level.OK]
    ConsentRecord.objects.filter(pk=asked.pk).update(at=NOON - timedelta(minutes=31))
    assert [found.level for found in health.answers(NOON)] == [Level.ERROR]


def test_what_only_needs_patience_raises_no_alert() -> None:
    late_delivery()
    olga = User.objects.create_user("olga")
    SendingPause.objects.create(why="Over the weekend.", by=olga)
    health.alert_operators(NOON)
    assert not Alert.objects.exists()


def test_readers_whose_hour_passed_are_told_once_there_is_an_edition() -> None:
    make_subscriber(next_send_at=NOON - timedelta(hours=1))
    assert health.watch(NOON) == []
    freeze_at(TODAY)
    assert "The hour of 1 reader came" in said(NOON)


# --- The status page ------------------------------------------------------------------------------


def page(client: Client) -> str:
    response = client.get("/status/")
    assert response.status_code == 200
    return response.content.decode()


def test_the_first_status_of_all_is_a_page_too(client: Client) -> None:
    text = page(client)
    assert "There has been no edition yet." in text
    assert "Everything works." in text


def test_the_status_says_that_a_source_was_asked_and_a_file_read(client: Client) -> None:
    now = timezone.now()
    for source in ("arxiv", "papers.jsonl"):
        Harvest.objects.create(source=source, state="done", started_at=now, finished_at=now)
    text = " ".join(page(client).split())
    assert re.search(r"<b>arXiv</b></p> <p [^>]*>asked 0", text)
    assert re.search(r"<b>Files</b></p> <p [^>]*>read 0", text)


def test_the_status_counts_readers_and_names_none(client: Client) -> None:
    paper = make_paper()
    hidden = make_paper("Another")
    edition = make_frozen_edition(paper, hidden)
    EditionPaper.objects.filter(paper=hidden).update(curation="hidden")
    now = timezone.now()
    rows: list[dict[str, Any]] = [
        {"state": S.SENT, "sent_at": now},
        {"state": S.DELIVERED, "sent_at": now},
        {"state": S.PLANNED},
        {"state": S.SKIPPED, "skip_reason": "Nothing was close."},
        {"state": S.FAILED, "error": "reader-4@example.org refused"},
        {"state": S.UNKNOWN, "handed_over_at": now},
    ]
    for number, fields in enumerate(rows):
        subscriber = make_subscriber(f"reader-{number}@example.org", next_send_at=now)
        make_delivery(subscriber, paper, edition=edition, **fields)
    [row] = status.status(now).editions
    assert (row.papers, row.sent, row.waiting, row.skipped, row.failed) == (1, 2, 1, 1, 1)
    assert (row.unknown, row.due) == (1, 6)
    text = page(client)
    assert "2 mails sent · 1 waiting" in text
    assert "1 not delivered · of 1 it is not known whether it arrived" in text
    assert "Everything works." not in text
    assert "reader-" not in text


def test_a_day_without_papers_says_why_there_is_no_mail(client: Client) -> None:
    Edition.objects.create(
        day=TODAY, state=Edition.State.EMPTY, reason="A holiday at arXiv.", frozen_at=NOON
    )
    with time_machine.travel(NOON, tick=False):
        text = page(client)
    assert "There is no mail today. A holiday at arXiv." in text


def test_a_source_that_failed_is_named_on_the_page(client: Client) -> None:
    Harvest.objects.create(source="arxiv", state="failed", errors=["ReadTimeout: x"])
    text = page(client)
    assert "failed (ReadTimeout)" in text
    assert "The last harvest failed: arXiv." in text


def test_a_pause_is_told_without_the_operators_words(client: Client) -> None:
    SendingPause.objects.create(why="The key of the provider was refused.")
    text = page(client)
    assert "Sending is paused." in text
    assert "key" not in text


def test_a_pause_and_its_end_are_told_at_once(client: Client) -> None:
    assert "Everything works." in page(client)
    sending.pause("The key of the provider was refused.")
    assert "Everything works." not in page(client)
    assert "Sending is paused." in page(client)
    sending.resume()
    assert "Everything works." in page(client)


def test_visitors_do_not_make_the_database_count(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    page(client)
    with django_assert_num_queries(1):  # whether sending is paused
        page(client)


def test_the_number_of_editions_multiplies_no_query(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for back in range(20):
        freeze_at(TODAY - timedelta(days=back))
    with time_machine.travel(NOON, tick=False), django_assert_max_num_queries(20):
        assert page(client).count('href="/papers/2') == status.SHOWN
