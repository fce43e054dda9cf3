"""What is kept for how long."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from config.celery import app
from newsletter import retention
from newsletter.addresses import mailbox_key
from newsletter.models import (
    ConsentRecord,
    Delivery,
    DeliveryEvent,
    Subscriber,
    Suppression,
    TokenBucket,
)
from newsletter.retention import SETTLED, Pruned
from papers.harvesting import next_window
from papers.models import Edition, Harvest, SourceAnswer
from tests.factories import make_frozen_edition, make_subscriber
from tests.newsletter.pages import signed_in
from tests.newsletter.test_sending import elsewhere

pytestmark = pytest.mark.django_db

State = Delivery.State


def delivered(days_ago: int, count: int = 1, **fields: object) -> list[Delivery]:
    """Deliveries planned so many days ago, sent unless the fields say otherwise."""
    then = timezone.now() - timedelta(days=days_ago)
    edition = Edition.objects.filter(day=then.date()).first() or make_frozen_edition(
        day=then.date()
    )
    first = Subscriber.objects.count()
    names = [f"reader{first + number}@example.org" for number in range(count)]
    readers = Subscriber.objects.bulk_create(
        Subscriber(address=name, mailbox_key=mailbox_key(name), state="unsubscribed")
        for name in names
    )
    values = {"state": State.SENT, "handed_over_at": then, "sent_at": then} | fields
    return Delivery.objects.bulk_create(
        Delivery(edition=edition, subscriber=reader, planned_at=then, **values)
        for reader in readers
    )


def event(number: int, days_ago: int, **fields: object) -> DeliveryEvent:
    then = timezone.now() - timedelta(days=days_ago)
    values = {"processed_at": then, "kind": "delivered", "source": "test"} | fields
    return DeliveryEvent.objects.create(
        content_digest=str(number), occurred_at=then, received_at=then, **values
    )


def prune(**options: float) -> Pruned:
    return retention.prune(timezone.now(), **{"pause": 0, **options})


def test_what_is_older_than_the_setting_goes_and_the_rest_stays(settings: Settings) -> None:
    settings.RETAIN_DELIVERIES_DAYS = 30
    delivered(31, 3)
    young = {*delivered(29, 2), *delivered(0)}
    assert retention.would_prune(timezone.now()).deliveries == 3
    assert prune().deliveries == 3
    assert set(Delivery.objects.all()) == young
    assert prune() == Pruned()


def test_zero_keeps_everything(settings: Settings) -> None:
    settings.RETAIN_DELIVERIES_DAYS = settings.RETAIN_EVENTS_DAYS = 0
    delivered(4000)
    event(1, 4000)
    assert prune() == Pruned()


@pytest.mark.parametrize("state", State.values)
def test_only_what_is_settled_goes(state: str) -> None:
    then = timezone.now()
    delivered(400, state=state, lease_until=then, skip_reason="nothing new")
    open_ones = {State.PLANNED, State.CLAIMED, State.HANDED_OVER, State.UNKNOWN}
    assert prune().deliveries == (state not in open_ones)
    assert (state in SETTLED) == (state not in open_ones)


def test_it_goes_in_batches_past_what_must_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 10)
    delivered(400, 12, state=State.UNKNOWN)
    delivered(399, 25)
    delivered(1, 15)
    with CaptureQueriesContext(connection) as asked:
        assert prune().deliveries == 25
    deletions = [one["sql"] for one in asked if 'DELETE FROM "newsletter_delivery"' in one["sql"]]
    assert len(deletions) == 3  # rows 13 to 20, 21 to 30, 31 to 37
    assert Delivery.objects.count() == 27


def test_what_does_not_fit_into_the_time_waits_for_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 10)
    delivered(400, 25)
    assert [prune(seconds=0).deliveries for _ in range(4)] == [10, 10, 5, 0]


@pytest.mark.django_db(transaction=True)
def test_a_row_that_somebody_holds_is_passed_and_not_waited_for() -> None:
    held, *_ = delivered(400, 5)
    found: list[int] = []
    with transaction.atomic():
        Delivery.objects.select_for_update().get(pk=held.pk)
        elsewhere(lambda: found.append(prune().deliveries))
    assert found == [4]
    assert prune().deliveries == 1


def test_an_event_goes_with_its_delivery_or_before(settings: Settings) -> None:
    settings.RETAIN_EVENTS_DAYS, settings.RETAIN_DELIVERIES_DAYS = 30, 90
    [old], [middle] = delivered(100), delivered(60)
    event(1, 10, delivery=old)
    event(2, 50, delivery=middle)
    event(3, 50, processed_at=None)  # what nobody has looked at yet
    event(4, 50)
    kept = event(5, 10, delivery=middle)
    assert retention.would_prune(timezone.now()) == Pruned(1, 2)
    assert prune() == Pruned(1, 2)
    assert set(DeliveryEvent.objects.values_list("content_digest", flat=True)) == {"3", "5"}
    assert kept.delivery == middle


def harvested(days_ago: int, **fields: object) -> Harvest:
    then = timezone.now() - timedelta(days=days_ago)
    values = {"source": "arxiv", "part": "cs.LG", "state": "done", "started_at": then} | fields
    return Harvest.objects.create(**values)


def test_harvests_go_but_for_where_the_next_one_begins(settings: Settings) -> None:
    settings.RETAIN_EVENTS_DAYS = 30
    now = timezone.now()
    chosen = harvested(300, since=now.date(), until=now.date() - timedelta(days=301))
    newest_of_another_part = harvested(400, part="announcement")
    harvested(350)
    begins = harvested(320)
    harvested(200, state="failed")
    waiting = harvested(200, state="failed", retry_at=now)
    harvested(200, source="/files/papers.jsonl")
    young = harvested(10, state="failed")
    for days in (29, 31):
        at = now - timedelta(days=days)
        SourceAnswer.objects.create(url=f"https://example.org/{days}", etag="1", at=at)
    assert retention.would_prune(now).harvests == 3
    assert prune().harvests == 3
    kept = {chosen, newest_of_another_part, begins, waiting, young}
    assert set(Harvest.objects.all()) == kept
    assert next_window("arxiv", "cs.LG", now).since >= begins.started_at.date() - timedelta(days=1)
    assert SourceAnswer.objects.get().url.endswith("29")


def test_consent_and_suppressions_stay_for_ever() -> None:
    past = timezone.now() - timedelta(days=4000)
    ConsentRecord.objects.create(address_hash="0" * 64, act="asked", way="form", at=past)
    Suppression.objects.create(address_hash="0" * 64, reason="invalid", created_at=past)
    prune()
    assert ConsentRecord.objects.exists()
    assert Suppression.objects.exists()


def test_buckets_that_nobody_asks_go() -> None:
    now = timezone.now()
    for name, days in (("old.example", 3), ("new.example", 1)):
        TokenBucket.objects.create(name=name, tokens=0, filled_at=now - timedelta(days=days))
    prune()
    assert TokenBucket.objects.get().name == "new.example"


def test_the_command_says_what_it_would_do_and_what_it_did() -> None:
    delivered(400, 3)
    said = StringIO()
    call_command("prune", dry_run=True, stdout=said)
    assert "Would be deleted: 3 deliveries, 0 events" in said.getvalue()
    assert Delivery.objects.count() == 3
    call_command("prune", stdout=said)
    assert "Deleted: 3 deliveries, 0 events" in said.getvalue()
    assert not Delivery.objects.exists()


def test_beat_prunes_once_a_day() -> None:
    app.loader.import_default_modules()
    entry = app.conf.beat_schedule["newsletter.tasks.prune"]
    assert entry["task"] in app.tasks
    assert (entry["schedule"].hour, entry["schedule"].minute) == ({2}, {20})


def test_sessions_that_have_ended_go_too() -> None:
    signed_in(Client(), make_subscriber())
    retention.prune(timezone.now(), pause=0)
    assert Session.objects.count() == 1
    with time_machine.travel(timezone.now() + timedelta(days=31)):
        retention.prune(timezone.now(), pause=0)
    assert not Session.objects.exists()
