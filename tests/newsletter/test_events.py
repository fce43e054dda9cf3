"""What providers and mail servers tell: kept once, and its consequence drawn."""

from __future__ import annotations

import json
import uuid
from base64 import b64encode
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import include, path
from django.utils import timezone
from pytest_django import Settings

from newsletter import addresses, bounces, delivery, events, sending, subscriptions
from newsletter.addresses import address_hash, delivery_of_return_path, return_path
from newsletter.events import Kind, process_pending, store
from newsletter.models import Alert, Delivery, DeliveryEvent, SendingPause, Subscriber, Suppression
from tests.factories import make_delivery, make_frozen_edition, make_paper, make_subscriber
from tests.newsletter.pages import in_thread, until_blocked
from tests.newsletter.test_bounces import dsn, feedback, plain
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db

State = Delivery.State

urlpatterns = [path("webhooks/", include("anymail.urls"))]


def sent(address: str = "alice@example.org", *, days_ago: int = 0, **fields: Any) -> Delivery:
    found = Subscriber.objects.filter(address=address).first()
    at = timezone.now() - timedelta(days=days_ago, hours=1)
    fields = dict[str, Any]({"state": State.SENT, "sent_at": at, "handed_over_at": at} | fields)
    edition = make_frozen_edition(day=timezone.now().date() - timedelta(days=days_ago))
    return make_delivery(found or make_subscriber(address), edition=edition, **fields)


def tell(
    one: Delivery, kind: str, cause: str = "", *, source: str = "Mailgun", **fields: Any
) -> None:
    """An event of this delivery, stored and processed."""
    fields.setdefault("event_id", str(uuid.uuid4()))
    store(kind, source=source, cause=cause, delivery_uuid=one.uuid, **fields)
    process_pending()
    one.refresh_from_db()


def suppressed(address: str = "alice@example.org") -> bool:
    return Suppression.objects.filter(address_hash=address_hash(address)).exists()


# States and consequences


@pytest.mark.parametrize(
    ("kind", "cause", "state", "suppresses"),
    [
        ("delivered", "", State.DELIVERED, False),
        ("bounced", "invalid", State.BOUNCED, True),
        ("bounced", "mailbox", State.BOUNCED, False),
        ("bounced", "content", State.BOUNCED, False),
        ("bounced", "soft", State.BOUNCED, False),
        ("bounced", "policy", State.FAILED, False),
        ("rejected", "complaint", State.BOUNCED, True),
        ("rejected", "unsubscribed", State.BOUNCED, False),
        ("failed", "sender", State.PLANNED, False),
        ("complained", "complaint", State.COMPLAINED, True),
        ("deferred", "", State.SENT, False),
        ("unsubscribed", "", State.SENT, False),
        ("unknown", "", State.SENT, False),
    ],
)
def test_each_event_moves_its_delivery_and_suppresses_whom_it_must(
    kind: str, cause: str, state: State, suppresses: bool
) -> None:
    one = sent()
    tell(one, kind, cause)
    assert (one.state, suppressed()) == (state, suppresses)


def test_an_event_told_twice_is_one() -> None:
    one = sent()
    for _ in range(2):
        tell(one, "bounced", "soft", event_id="same")
        tell(one, "deferred", event_id="", content="the same")
    assert DeliveryEvent.objects.count() == 2


def test_an_event_before_our_own_commit_waits_for_it() -> None:
    one = sent(state=State.HANDED_OVER, sent_at=None, lease_until=timezone.now())
    tell(one, "delivered")
    event = DeliveryEvent.objects.get()
    assert (one.state, event.processed_at) == (State.HANDED_OVER, None)
    Delivery.objects.update(state=State.SENT, sent_at=timezone.now())
    process_pending(timezone.now() + timedelta(minutes=2))
    one.refresh_from_db()
    assert one.state == State.DELIVERED


def test_an_event_waits_a_day_for_a_delivery_that_is_not_there() -> None:
    store("bounced", source="Mailgun", cause="soft", delivery_uuid=uuid.uuid4(), event_id="1")
    now = timezone.now()
    assert process_pending(now).waiting == 1
    assert process_pending(now + timedelta(hours=20)).waiting == 1
    assert process_pending(now + timedelta(days=2)).processed == 1
    assert DeliveryEvent.objects.get().outcome == "no delivery of ours"


def test_what_came_earlier_and_is_told_later_changes_nothing() -> None:
    one = sent()
    now = timezone.now()
    tell(one, "bounced", "soft", occurred_at=now)
    tell(one, "delivered", occurred_at=now - timedelta(minutes=1))
    assert one.state == State.BOUNCED
    tell(one, "delivered", occurred_at=now + timedelta(minutes=1))
    assert one.state == State.DELIVERED


@pytest.mark.parametrize("state", [State.UNKNOWN, State.PLANNED, State.FAILED, State.EXPIRED])
def test_what_arrived_is_delivered_whatever_was_thought_of_it(state: State) -> None:
    one = sent(state=state, sent_at=None)
    tell(one, "delivered")
    assert one.state == State.DELIVERED
    assert one.sent_at == one.handed_over_at


def test_an_unknown_outcome_is_settled_by_what_the_provider_says() -> None:
    one = sent(state=State.UNKNOWN, sent_at=None)
    tell(one, "queued")
    assert one.state == State.SENT


def test_a_delivery_that_never_left_is_moved_by_no_event() -> None:
    one = sent(state=State.PLANNED, sent_at=None, handed_over_at=None)
    tell(one, "delivered")
    assert one.state == State.PLANNED


def test_who_complains_is_unsubscribed_too() -> None:
    one = sent()
    tell(one, "complained", "complaint")
    one.subscriber.refresh_from_db()
    assert one.subscriber.state == Subscriber.State.UNSUBSCRIBED
    assert Suppression.objects.get().reason == Suppression.Reason.COMPLAINT


def test_who_unsubscribes_at_the_provider_is_unsubscribed_here() -> None:
    one = sent()
    tell(one, "unsubscribed")
    one.subscriber.refresh_from_db()
    assert one.subscriber.state == Subscriber.State.UNSUBSCRIBED


@pytest.mark.parametrize(
    ("state", "then"), [(State.FAILED, State.FAILED), (State.UNKNOWN, State.BOUNCED)]
)
def test_a_mail_that_the_provider_dropped_for_who_left_is_not_sent(
    state: State, then: State
) -> None:
    one = sent(state=state, sent_at=None, error="550 no")
    tell(one, "rejected", "unsubscribed")
    assert one.state == then
    assert one.error == ("550 no" if state == State.FAILED else "")
    one.subscriber.refresh_from_db()
    assert one.subscriber.state == Subscriber.State.UNSUBSCRIBED


def test_soft_bounces_in_a_row_over_enough_days_suppress(settings: Settings) -> None:
    settings.SOFT_BOUNCE_LIMIT, settings.SOFT_BOUNCE_DAYS = 3, 4
    for days_ago in (5, 3):
        tell(sent(days_ago=days_ago), "bounced", "mailbox")
    assert not suppressed()
    tell(sent(), "bounced", "soft")
    assert suppressed()


@pytest.mark.parametrize(
    ("cause", "for_good", "suppresses"),
    [("mailbox", False, True), ("soft", False, False), ("policy", False, False)],
)
def test_a_mailbox_that_is_full_for_days_is_suppressed_though_no_server_gave_up(
    settings: Settings, cause: str, for_good: bool, suppresses: bool
) -> None:
    settings.SOFT_BOUNCE_LIMIT, settings.SOFT_BOUNCE_DAYS = 3, 4
    for days_ago in (9, 6, 3, 0):
        assert not suppressed()
        one = sent(days_ago=days_ago, state=State.PLANNED, sent_at=None)
        for one.attempts in (1, 2):
            events.refused(one, cause, "452 4.2.2 mailbox full", for_good=for_good)
        Delivery.objects.filter(pk=one.pk, state=State.PLANNED).update(
            state=State.EXPIRED if days_ago else State.PLANNED
        )
    assert suppressed() == suppresses
    assert DeliveryEvent.objects.count() == 4 * suppresses


def test_what_a_full_mailbox_took_at_a_later_try_ends_the_row(settings: Settings) -> None:
    settings.SOFT_BOUNCE_LIMIT, settings.SOFT_BOUNCE_DAYS = 3, 4
    for days_ago, then in ((12, "expired"), (9, "expired"), (6, "sent"), (3, "expired"), (0, "")):
        one = sent(days_ago=days_ago, state=State.PLANNED, sent_at=None)
        events.refused(one, "mailbox", "452 4.2.2 mailbox full", for_good=False)
        rows = Delivery.objects.filter(pk=one.pk)
        rows.update(state=then or State.PLANNED, sent_at=timezone.now())
    assert not suppressed()


@pytest.mark.parametrize("days", [(2, 1, 0), (9, 5)])
def test_too_few_soft_bounces_or_over_too_few_days_do_not(
    settings: Settings, days: tuple[int, ...]
) -> None:
    settings.SOFT_BOUNCE_LIMIT, settings.SOFT_BOUNCE_DAYS = 3, 4
    for days_ago in days:
        tell(sent(days_ago=days_ago), "bounced", "mailbox")
    assert not suppressed()


def test_a_delivery_between_them_ends_the_row(settings: Settings) -> None:
    settings.SOFT_BOUNCE_LIMIT, settings.SOFT_BOUNCE_DAYS = 3, 4
    tell(sent(days_ago=9), "bounced", "mailbox")
    tell(sent(days_ago=6), "bounced", "mailbox")
    tell(sent(days_ago=3), "delivered")
    tell(sent(), "bounced", "mailbox")
    assert not suppressed()


def sent_to(domain: str, number: int) -> list[Delivery]:
    edition, now = make_frozen_edition(make_paper()), timezone.now()
    return [
        make_delivery(
            make_subscriber(f"{number}@{domain}"),
            edition=edition, state=State.SENT, sent_at=now, handed_over_at=now,
        )
        for number in range(number)
    ]  # fmt: skip


def test_a_domain_that_refuses_too_many_by_policy_is_paused(settings: Settings) -> None:
    settings.POLICY_BOUNCE_PERCENT = 50
    ours = sent_to("big.example", 12)
    for one in ours[:5]:
        tell(one, "bounced", "policy")
    assert not sending.is_paused("big.example")
    tell(ours[5], "bounced", "policy")
    assert sending.is_paused("big.example")
    assert not sending.is_paused()
    assert not Suppression.objects.exists()


def test_a_days_deliveries_are_counted_once_however_many_are_refused(settings: Settings) -> None:
    settings.POLICY_BOUNCE_PERCENT = 50
    with CaptureQueriesContext(connection) as queries:
        for one in sent_to("big.example", 9):
            one.state = State.FAILED
            one.save()
            events.refused(one, "policy", "554 5.7.1 blocked")
        process_pending()
    assert sending.is_paused("big.example")
    assert sum("COUNT(" in query["sql"] for query in queries) == 1


def test_what_a_domain_refused_before_its_pause_ended_pauses_it_no_more(
    settings: Settings,
) -> None:
    settings.POLICY_BOUNCE_PERCENT = 50
    ours = sent_to("big.example", 12)
    for one in ours[:6]:
        tell(one, "bounced", "policy")
    assert sending.resume_domain("big.example")
    tell(ours[6], "bounced", "policy", occurred_at=timezone.now() - timedelta(hours=2))
    assert not sending.is_paused("big.example")
    # What it refuses of the mails since counts as before.
    Delivery.objects.filter(state=State.SENT).update(handed_over_at=timezone.now())
    for one in ours[7:]:
        tell(one, "bounced", "policy")
    assert sending.is_paused("big.example")


def test_a_pause_that_ended_by_itself_ends_what_was_before_it(settings: Settings) -> None:
    settings.POLICY_BOUNCE_PERCENT = 50
    ours = sent_to("big.example", 6)
    hour = timedelta(hours=1)
    Delivery.objects.update(handed_over_at=timezone.now() - 2 * hour)
    SendingPause.objects.create(
        domain="big.example", why="They asked.", until=timezone.now() - hour
    )
    for one in ours:
        tell(one, "bounced", "policy")
    assert not sending.is_paused("big.example")


def test_a_persons_pause_that_will_end_by_itself_has_not_ended(settings: Settings) -> None:
    settings.POLICY_BOUNCE_PERCENT = 50
    olga = User.objects.create_user("olga")
    ours = sent_to("big.example", 6)
    sending.pause_domain(
        "big.example", "by hand", until=timezone.now() + timedelta(hours=1), by=olga
    )
    for one in ours:
        tell(one, "bounced", "policy")
    assert Alert.objects.get().subject == "Mail to big.example is refused while it is paused"


def test_a_pause_of_another_domain_ends_nothing(settings: Settings) -> None:
    settings.POLICY_BOUNCE_PERCENT = 50
    ours = sent_to("big.example", 6)
    for pause in (sending.pause("stop"), sending.pause_domain("other.example", "stop")):
        assert pause
    sending.resume()
    sending.resume_domain("other.example")
    for one in ours:
        tell(one, "bounced", "policy")
    assert sending.is_paused("big.example")


def test_few_refusals_pause_no_domain_whatever_the_share(settings: Settings) -> None:
    settings.POLICY_BOUNCE_PERCENT = 0
    for one in sent_to("small.example", 4):
        tell(one, "bounced", "policy")
    assert not sending.is_paused("small.example")


def test_a_refusal_of_us_pauses_all_sending() -> None:
    tell(sent(), "failed", "sender", detail="domain is not verified")
    assert sending.is_paused()


def test_a_refusal_of_us_of_before_sending_was_resumed_pauses_nothing() -> None:
    first, second, third = sent_to("big.example", 3)
    before = timezone.now() - timedelta(minutes=10)
    tell(first, "failed", "sender", occurred_at=before)
    assert sending.resume()
    tell(second, "failed", "sender", occurred_at=before)
    assert not sending.is_paused()
    assert second.state == State.PLANNED
    tell(third, "failed", "sender")
    assert sending.is_paused()


def test_a_poisoned_event_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sent(), sent("bob@example.org", days_ago=1)
    for one in (first, second):
        store("delivered", source="Mailgun", delivery_uuid=one.uuid, event_id=str(one.pk))
    real = events._delivery_of

    def poisoned(event: DeliveryEvent) -> Delivery | None:
        if event.delivery_uuid == first.uuid:
            raise RuntimeError
        return real(event)

    monkeypatch.setattr(events, "_delivery_of", poisoned)
    tally = process_pending()
    assert (tally.failed, tally.processed) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_an_event_whose_reader_is_erased_meanwhile_keeps_no_other_waiting() -> None:
    first, second = sent(), sent("bob@example.org", days_ago=1)
    for one in (first, second):
        store("bounced", source="Mailgun", cause="soft", delivery_uuid=one.uuid, event_id=str(one))
    tallies: list[events.Tally] = []
    with transaction.atomic():
        subscriptions.erase(first.subscriber, way="link")
        worker = in_thread(lambda: tallies.append(process_pending()))
        until_blocked(worker)
    worker.join()
    [tally] = tallies
    assert (tally.waiting, tally.processed, tally.failed) == (1, 1, 0)
    second.refresh_from_db()
    assert second.state == State.BOUNCED


def test_no_plain_address_and_no_control_character_is_kept() -> None:
    detail = "550 <alice@example.org>: \x1b[31m no\x00\u2028 such user " + "x" * 5000
    tell(sent(), "bounced", "invalid", recipient="alice@example.org", detail=detail)
    event = DeliveryEvent.objects.get()
    assert "alice" not in event.detail
    assert not bounces.CONTROLS.search(event.detail)
    assert len(event.detail) <= events.LONGEST_DETAIL
    assert event.address_hash == address_hash("alice@example.org")


def test_what_a_server_says_is_plain_text_in_the_admin() -> None:
    tell(sent(), "bounced", "soft", detail="<script>alert(1)</script>")
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    event = DeliveryEvent.objects.get()
    for page in ("", f"{event.pk}/change/"):
        shown = client.get(f"/admin/newsletter/deliveryevent/{page}").content.decode()
        assert "<script>alert" not in shown


# Webhooks


@pytest.fixture
def webhooks(settings: Settings) -> Client:
    settings.ROOT_URLCONF = "tests.newsletter.test_events"
    settings.ANYMAIL = {"WEBHOOK_SECRET": "user:secret"}
    return Client()


def told_by(client: Client, *told: dict[str, Any], secret: str = "user:secret") -> int:
    """One POST in SparkPost's form: a list of events."""
    response = client.post(
        "/webhooks/sparkpost/tracking/",
        json.dumps([{"msys": {"message_event": one}} for one in told]),
        content_type="application/json",
        headers={"Authorization": f"Basic {b64encode(secret.encode()).decode()}"},
    )
    return response.status_code


def bounce_of(one: Delivery, **values: Any) -> dict[str, Any]:
    return {
        "type": "bounce", "raw_rcpt_to": "alice@example.org", "event_id": "e1",
        "timestamp": int(timezone.now().timestamp()), "bounce_class": "30",
        "raw_reason": "550 5.1.1 user unknown", "rcpt_meta": {"delivery": str(one.uuid)},
    } | values  # fmt: skip


def test_a_webhook_stores_and_the_task_processes(webhooks: Client) -> None:
    one = sent()
    assert told_by(webhooks, bounce_of(one)) == 200
    assert told_by(webhooks, bounce_of(one)) == 200
    event = DeliveryEvent.objects.get()
    assert (event.source, event.cause, event.processed_at) == ("SparkPost", "invalid", None)
    process_pending()
    one.refresh_from_db()
    assert one.state == State.BOUNCED
    assert suppressed()


@pytest.mark.parametrize("secret", ["user:wrong", "", "user:"])
def test_a_forged_webhook_is_refused(webhooks: Client, secret: str) -> None:
    assert told_by(webhooks, bounce_of(sent()), secret=secret) == 400
    assert not DeliveryEvent.objects.exists()


def test_without_a_secret_there_are_no_webhooks() -> None:
    assert Client().post("/webhooks/sparkpost/tracking/").status_code == 404


def test_one_bad_event_of_a_webhook_loses_no_other(webhooks: Client) -> None:
    one = sent()
    bad = bounce_of(
        one, event_id="e0\x00\ud800", rcpt_meta={"delivery": "x"}, raw_rcpt_to="\x00\ud800"
    )
    assert told_by(webhooks, bad, bounce_of(one)) == 200
    assert DeliveryEvent.objects.filter(event_id="e1").exists()


def test_opens_and_clicks_are_not_kept(webhooks: Client) -> None:
    assert told_by(webhooks, bounce_of(sent(), type="open")) == 200
    assert not DeliveryEvent.objects.exists()


def test_a_provider_who_names_no_delivery_is_found_by_its_own_id() -> None:
    one = sent(provider_id="<abc@mailgun>")
    store("delivered", source="Mailgun", message_id="<abc@mailgun>", event_id="1")
    process_pending()
    one.refresh_from_db()
    assert one.state == State.DELIVERED


def test_a_provider_suppresses_an_address_of_no_delivery() -> None:
    store("bounced", source="Mailgun", cause="invalid", recipient="zoe@example.org", event_id="1")
    process_pending()
    assert suppressed("zoe@example.org")


@pytest.mark.parametrize(
    ("kind", "reason", "text", "expected"),
    [
        ("rejected", "unsubscribed", "", ("rejected", "unsubscribed")),
        ("rejected", "spam", "", ("rejected", "complaint")),
        ("rejected", "bounced", "", ("rejected", "invalid")),
        ("rejected", "blocked", "", ("rejected", "policy")),
        ("rejected", "timed_out", "", ("rejected", "soft")),
        ("bounced", "bounced", "552 5.2.2 mailbox full", ("bounced", "mailbox")),
        ("bounced", "invalid", "", ("bounced", "invalid")),
        ("bounced", "spam", "", ("bounced", "policy")),
        ("bounced", "other", "domain is not verified", ("bounced", "policy")),
        ("failed", "other", "domain is not verified", ("failed", "sender")),
        ("complained", "spam", "", ("complained", "complaint")),
        ("delivered", "", "250 blocked", ("delivered", "")),
    ],
)
def test_a_providers_reasons_map_to_ours(
    kind: str, reason: str, text: str, expected: tuple[str, str]
) -> None:
    assert events.translated(kind, reason, text) == expected


# Bounce mails


def test_a_return_path_names_its_delivery_and_only_ours_does(settings: Settings) -> None:
    settings.BOUNCE_ADDRESS = "bounces@news.example.org"
    one = uuid.uuid4()
    address = return_path(one)
    assert len(address.partition("@")[0]) <= 64
    assert delivery_of_return_path(address.upper()) == one
    token = address.partition("+")[2].partition("@")[0]
    for forged in ("b" + token[1:] if token[0] != "b" else "c" + token[1:], token[:-1], "", "é"):
        assert delivery_of_return_path(f"bounces+{forged}@news.example.org") is None
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "new" * 20
    assert delivery_of_return_path(address) == one


def returned(raw: bytes, one: Delivery | None = None, *, to: str = "") -> bytes:
    """A report that comes back to `to`, and returns the mail of `one`."""
    if one is not None:
        raw = raw.replace(b"5f0c3a52-0d3b-4f0e-9a39-0c1d3b1f7a11", str(one.uuid).encode())
    return raw.replace(b"bounces+token@news.example.org", to.encode()) if to else raw


def test_a_bounce_to_its_return_path_suppresses(settings: Settings) -> None:
    settings.BOUNCE_ADDRESS = "bounces@news.example.org"
    one = sent()
    raw = plain("<alice@example.org>: user unknown").replace(
        b"bounces@news.example.org", return_path(one.uuid).encode()
    )
    assert events.store_report(bounces.read(raw), raw)
    assert not events.store_report(bounces.read(raw), raw)
    process_pending()
    one.refresh_from_db()
    assert (one.state, suppressed()) == (State.BOUNCED, True)


@pytest.mark.parametrize(
    ("reader", "named", "suppresses"),
    [
        ("alice@example.org", "old@elsewhere.example", False),
        ("alice@example.org", "old@elsewhere.example, alice@example.org", True),
        ("alice@example.org", "ALICE@Example.ORG", True),
        ("alice+news@example.org", "alice@example.org", True),
        ("alice+news@example.org", "bob@example.org", False),
        ("alice@xn--mller-kva.example", "alice@xn--mller-kva.example", True),
    ],
)
def test_an_address_behind_the_readers_own_does_not_suppress_them(
    settings: Settings, reader: str, named: str, suppresses: bool
) -> None:
    settings.BOUNCE_ADDRESS = "bounces@news.example.org"
    one = sent(reader)
    final = b"Final-Recipient: rfc822; alice@example.org\n"
    original = f"Original-Recipient: rfc822; {reader}\n".encode()
    raw = dsn("smtp; 550 5.1.1 user unknown")
    blocks = [
        b"%sFinal-Recipient: rfc822; %s\n" % (original, address.encode())
        for address in named.split(", ")
    ]
    rest = b"Action: failed\nStatus: 5.1.1\n\n"
    raw = returned(raw.replace(final, rest.join(blocks)), to=return_path(one.uuid))
    assert bounces.read(raw).cls is bounces.Class.INVALID
    assert events.store_report(bounces.read(raw), raw)
    process_pending()
    one.refresh_from_db()
    assert (one.state, suppressed(reader)) == (State.BOUNCED, suppresses)
    assert not suppressed("old@elsewhere.example")


def test_a_provider_that_names_an_address_behind_the_readers_own_does_not_suppress_them() -> None:
    one = sent("alice@xn--mller-kva.example")
    tell(one, "bounced", "invalid", recipient="old@elsewhere.example")
    assert not suppressed(one.subscriber.address)
    tell(one, "bounced", "invalid", recipient="Alice@Müller.example")
    assert suppressed(one.subscriber.address)


def test_who_complains_of_a_forwarded_mail_complains() -> None:
    one = sent()
    tell(one, "complained", "complaint", recipient="old@elsewhere.example")
    assert suppressed()


@pytest.mark.parametrize("raw", [dsn(), feedback()])
def test_a_report_that_returns_our_message_id_suppresses(raw: bytes) -> None:
    one = sent()
    raw = returned(raw, one)
    assert events.store_report(bounces.read(raw), raw)
    process_pending()
    assert suppressed()


@pytest.mark.parametrize("raw", [dsn(), feedback(), plain("<alice@example.org>: user unknown")])
def test_a_report_that_proves_nothing_suppresses_nobody(raw: bytes, settings: Settings) -> None:
    settings.BOUNCE_ADDRESS = "bounces@news.example.org"
    one = sent()
    forged = return_path(one.uuid).replace("+", "+a", 1).encode()
    raw = raw.replace(b"bounces+token@news.example.org", forged)
    assert not events.store_report(bounces.read(raw), raw)
    assert not DeliveryEvent.objects.exists()


def test_a_forged_refusal_of_us_pauses_nothing() -> None:
    raw = returned(dsn("smtp; 535 5.7.8 authentication failed", status="5.7.8"), sent())
    events.store_report(bounces.read(raw), raw)
    process_pending()
    assert not sending.is_paused()


# In our own conversation


def planned(address: str = "alice@example.org") -> Delivery:
    paper = make_paper()
    return make_delivery(make_subscriber(address), paper, edition=make_frozen_edition(paper))


def test_an_address_that_is_refused_as_unknown_is_suppressed_at_once(smtp: SmtpServer) -> None:
    one = planned()
    smtp.replies["alice@example.org"] = "550 5.1.1 <alice@example.org>: user unknown"
    delivery.send_planned()
    one.refresh_from_db()
    assert (one.state, suppressed()) == (State.FAILED, True)
    event = DeliveryEvent.objects.get()
    assert (event.source, event.cause, event.kind) == ("smtp", "invalid", Kind.BOUNCED)
    assert event.processed_at is not None


@pytest.mark.parametrize(
    "reply", ["552 5.2.2 mailbox full", "554 5.7.1 blocked", "550 no", "450 4.1.1 user unknown"]
)
def test_another_refusal_suppresses_nobody(smtp: SmtpServer, reply: str) -> None:
    planned()
    smtp.replies["alice@example.org"] = reply
    delivery.send_planned()
    assert not suppressed()


def test_a_server_that_refuses_us_gets_nothing_more_and_nothing_is_lost(smtp: SmtpServer) -> None:
    one = planned()
    smtp.replies["alice@example.org"] = "530 5.7.0 Authentication required"
    delivery.send_planned()
    one.refresh_from_db()
    assert one.state == State.PLANNED
    assert sending.is_paused()


def test_a_mail_leaves_with_a_return_path_of_its_own_and_its_from_stays(
    smtp: SmtpServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BOUNCE_ADDRESS = "bounces@news.example.org"
    senders: list[str] = []
    real = SmtpServer.handle_MAIL

    async def note(
        self: Any, server: Any, session: Any, envelope: Any, address: str, o: Any
    ) -> str:
        senders.append(address)
        return await real(self, server, session, envelope, address, o)

    monkeypatch.setattr(SmtpServer, "handle_MAIL", note)
    one = planned()
    delivery.send_planned()
    [address] = senders
    assert addresses.delivery_of_return_path(address) == one.uuid
    assert smtp.messages[0]["From"] == "Paperround <daily@papers.example>"
