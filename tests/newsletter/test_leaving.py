"""Leaving: the one-click unsubscription, the page, and being forgotten."""

from __future__ import annotations

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from newsletter import delivery, picks, subscriptions
from newsletter.addresses import address_hash
from newsletter.links import Purpose
from newsletter.models import ConsentRecord, Delivery, Interest, Subscriber, Suppression
from tests.factories import make_frozen_edition, make_paper, make_subscriber
from tests.newsletter.pages import page_of
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db

State = Subscriber.State
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


def test_one_click_works_without_cookies_and_without_a_redirect() -> None:
    client = Client(enforce_csrf_checks=True)
    page = page_of(make_subscriber(), Purpose.UNSUBSCRIBE)
    answer = client.post(page, ONE_CLICK)
    assert answer.status_code == 200
    assert not answer.cookies
    alice = Subscriber.objects.get()
    assert (alice.state, alice.next_send_at) == (State.UNSUBSCRIBED, None)
    assert alice.unsubscribed_at is not None
    assert ConsentRecord.objects.get().way == "one click"


def test_one_click_takes_a_form_in_parts_too() -> None:
    """RFC 8058 allows multipart/form-data as well as a urlencoded form."""
    client = Client(enforce_csrf_checks=True)
    body = "List-Unsubscribe=One-Click"
    page = page_of(make_subscriber(), Purpose.UNSUBSCRIBE)
    answer = client.post(page, body, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 200
    assert ConsentRecord.objects.get().way == "one click"


def test_one_click_is_not_redirected_by_a_proxy_that_forwards_plain_http(
    settings: Settings,
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    client = Client(enforce_csrf_checks=True)
    assert client.get("/subscribe/").status_code == 301
    answer = client.post(page_of(make_subscriber(), Purpose.UNSUBSCRIBE), ONE_CLICK, secure=False)
    assert answer.status_code == 200
    assert Subscriber.objects.get().state == State.UNSUBSCRIBED


def test_the_link_in_the_header_of_a_mail_is_the_one_that_works(smtp: SmtpServer) -> None:
    make_paper()
    make_subscriber()
    call_command("run_day")
    [message] = smtp.messages
    value = str(message["List-Unsubscribe"]).strip()
    found = re.fullmatch(r"<http://testserver(/unsubscribe/[^>]+)>", value)
    assert found is not None
    assert Client(enforce_csrf_checks=True).post(found[1], ONE_CLICK).status_code == 200
    assert Subscriber.objects.get().state == State.UNSUBSCRIBED


@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_opening_the_link_only_shows_a_page(client: Client, method: str) -> None:
    alice = make_subscriber()
    before = Subscriber.objects.values().get()
    assert getattr(client, method)(page_of(alice, Purpose.UNSUBSCRIBE)).status_code == 200
    assert Subscriber.objects.values().get() == before
    assert not ConsentRecord.objects.exists()


def test_the_button_of_the_page_unsubscribes(client: Client) -> None:
    page = page_of(make_subscriber(), Purpose.UNSUBSCRIBE)
    assert re.search(r'<form[^>]*method="post"', client.get(page).content.decode())
    assert client.post(page).status_code == 200
    assert Subscriber.objects.get().state == State.UNSUBSCRIBED
    assert ConsentRecord.objects.get().way == "web page"


@pytest.mark.parametrize("state", [State.PENDING, State.ACTIVE, State.PAUSED])
def test_whoever_has_a_mail_of_ours_can_leave(client: Client, state: Subscriber.State) -> None:
    page = page_of(make_subscriber(state=state), Purpose.UNSUBSCRIBE)
    assert client.post(page, ONE_CLICK).status_code == 200
    assert Subscriber.objects.get().state == State.UNSUBSCRIBED


def test_unsubscribing_twice_is_as_good_as_once(client: Client) -> None:
    page = page_of(make_subscriber(), Purpose.UNSUBSCRIBE)
    assert client.post(page, ONE_CLICK).status_code == 200
    first = Subscriber.objects.get().unsubscribed_at
    assert client.post(page, ONE_CLICK).status_code == 200
    assert client.get(page).status_code == 200
    assert Subscriber.objects.get().unsubscribed_at == first
    assert ConsentRecord.objects.count() == 1


def test_what_is_planned_for_who_left_is_not_sent(client: Client, smtp: SmtpServer) -> None:
    edition = make_frozen_edition(make_paper())
    alice, bob = make_subscriber(), make_subscriber("bob@example.org")
    picks.plan_everybody(edition, timezone.now())
    client.post(page_of(alice, Purpose.UNSUBSCRIBE), ONE_CLICK)
    delivery.send_planned()
    assert smtp.count() == {bob.address: 1}
    assert Delivery.objects.get(subscriber=alice).state == Delivery.State.SUPPRESSED


def test_an_answer_that_is_due_is_not_sent_to_who_left(client: Client) -> None:
    subscriptions.subscribe("alice@example.org", [], time_zone="UTC", send_hour=7)
    client.post(page_of(Subscriber.objects.get(), Purpose.UNSUBSCRIBE))
    assert subscriptions.send_answers() == 0


def test_settings_of_who_left_are_behind_no_link(client: Client) -> None:
    alice = make_subscriber()
    page = page_of(alice, Purpose.PREFERENCES)
    subscriptions.unsubscribe(alice, way="test")
    assert client.get(page).status_code == 410
    assert client.post(page, {}).status_code == 410


def test_a_forwarded_mail_cannot_erase_anybody(client: Client) -> None:
    """Its links reach the settings and the unsubscription, and nothing that cannot be undone."""
    alice = make_subscriber(interests=("robots",))
    for purpose in Purpose:
        for method in (client.get, client.post, client.put, client.delete):
            method(page_of(alice, purpose))
    assert Subscriber.objects.filter(pk=alice.pk).exists()
    assert Interest.objects.exists()


# --- Being forgotten ------------------------------------------------------------------------------


def test_erasing_leaves_nothing_but_hashes() -> None:
    edition = make_frozen_edition(make_paper())
    alice = make_subscriber(interests=("very secret wishes",), name="Alice Example")
    picks.plan_everybody(edition, timezone.now())
    subscriptions.erase(alice, way="letter")
    assert not Subscriber.objects.exists()
    assert not Interest.objects.exists()
    assert not Delivery.objects.exists()
    kept = [*Suppression.objects.values(), *ConsentRecord.objects.values()]
    assert len(kept) == 2
    for row in kept:
        assert row["address_hash"] == address_hash("alice@example.org")
        assert "alice" not in str(row).lower()
        assert "secret" not in str(row)


@pytest.mark.parametrize("spelling", ["alice@example.org", "ALICE@Example.ORG"])
def test_who_was_erased_is_never_mailed_again(
    spelling: str, mailoutbox: list[EmailMessage]
) -> None:
    subscriptions.erase(make_subscriber(), way="letter")
    subscriptions.subscribe(spelling, [], time_zone="UTC", send_hour=7)
    assert subscriptions.send_answers() == 0
    with pytest.raises(ValueError, match="suppressed"):
        subscriptions.bring_in(spelling, [], name="", time_zone="UTC", send_hour=7, way="import")
    assert mailoutbox == []


def test_a_suppression_outlives_a_new_secret_key(settings: Settings) -> None:
    subscriptions.suppress("alice@example.org", Suppression.Reason.COMPLAINT)
    settings.SECRET_KEY = "another-key-after-a-rotation-that-is-long-enough"
    assert delivery.is_suppressed("Alice@example.org")


def test_suppressing_twice_keeps_the_first_reason() -> None:
    subscriptions.suppress("alice@example.org", Suppression.Reason.COMPLAINT)
    subscriptions.suppress("alice@example.org", Suppression.Reason.OPERATOR)
    assert Suppression.objects.get().reason == Suppression.Reason.COMPLAINT


# --- Pages behind a link --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("purpose", sorted(set(Purpose) - {Purpose.FEED}))
def test_pages_behind_a_link_are_neither_kept_nor_named_elsewhere(
    client: Client, purpose: Purpose, method: str
) -> None:
    state = State.PENDING if purpose == Purpose.CONFIRM else State.ACTIVE
    page = page_of(make_subscriber(state=state), purpose)
    for path in (reverse(purpose, args=["garbage"]), page):
        answer = getattr(client, method)(path)
        # Its form has a CSRF token, and is not sent with an Origin if no referrer is.
        own = purpose == Purpose.SIGN_IN and answer.status_code in (200, 302)
        assert answer["Referrer-Policy"] == (
            "same-origin" if own and method == "get" else "no-referrer"
        )
        assert "no-store" in answer["Cache-Control"]
        assert answer["X-Robots-Tag"] == "noindex"


def test_one_click_of_somebody_erased_is_as_good_as_done() -> None:
    alice = make_subscriber()
    page = page_of(alice, Purpose.UNSUBSCRIBE)
    subscriptions.erase(alice, way="test")
    answer = Client(enforce_csrf_checks=True).post(page, {"List-Unsubscribe": "One-Click"})
    assert answer.status_code == 200
    assert "unsubscribed" in answer.content.decode()


def test_the_admins_trail_of_an_erasure_names_no_address(admin_client: Client) -> None:
    alice = make_subscriber()
    for action in ("unsubscribe", "erase"):
        admin_client.post(
            "/admin/newsletter/subscriber/",
            {"action": action, "_selected_action": [alice.pk], "sure": "Yes"},
        )
    assert not Subscriber.objects.exists()
    trail = list(LogEntry.objects.values_list("object_repr", flat=True))
    assert trail == [str(alice.uuid), str(alice.uuid)]


def test_no_address_is_hashed_with_a_key_that_could_be_lost(settings: Settings) -> None:
    settings.ADDRESS_HASH_KEY = ""
    with pytest.raises(ImproperlyConfigured, match="ADDRESS_HASH_KEY"):
        address_hash("alice@example.org")
