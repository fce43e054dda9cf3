"""Signed links: what one may do, no other can, and nothing else can either."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import quote

import pytest
import time_machine
from django.conf import settings as django_settings
from django.core.signing import TimestampSigner
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from newsletter import links, subscriptions
from newsletter.links import ExpiredLink, InvalidLink, Purpose, SpentLink
from newsletter.models import Subscriber
from tests.factories import make_subscriber
from tests.newsletter.pages import page_of

pytestmark = pytest.mark.django_db

PENDING, ACTIVE = Subscriber.State.PENDING, Subscriber.State.ACTIVE


def later(days: float) -> time_machine.travel:
    return time_machine.travel(timezone.now() + timedelta(days=days), tick=False)


@pytest.mark.parametrize("purpose", Purpose)
def test_a_link_stands_for_its_subscriber(purpose: Purpose) -> None:
    alice = make_subscriber()
    assert links.subscriber_of(links.token(alice.uuid, purpose), purpose) == alice


@pytest.mark.parametrize("made_for", Purpose)
@pytest.mark.parametrize("used_for", Purpose)
def test_a_link_for_one_purpose_serves_no_other(made_for: Purpose, used_for: Purpose) -> None:
    token = links.token(make_subscriber().uuid, made_for)
    if made_for == used_for:
        links.subscriber_of(token, used_for)
    else:
        with pytest.raises(InvalidLink):
            links.subscriber_of(token, used_for)


@pytest.mark.parametrize("purpose", [one for one in Purpose if one != Purpose.FEED])
def test_a_link_is_signed_as_django_signs(purpose: Purpose) -> None:
    """Its key is derived once, by the rules of django.core.signing: old links stay good."""
    alice = make_subscriber()
    with time_machine.travel(timezone.now(), tick=False):
        token = links.token(alice.uuid, purpose)
        signer = TimestampSigner(salt=f"paperround.{purpose}", sep=".")
        assert token == signer.sign(token.split(".", 1)[0])
    assert signer.unsign(token)


def test_alice_s_link_cannot_be_turned_into_bob_s() -> None:
    alice, bob = make_subscriber("alice@example.org"), make_subscriber("bob@example.org")
    of_alice, of_bob = (links.token(s.uuid, Purpose.UNSUBSCRIBE) for s in (alice, bob))
    name_of_bob = of_bob.split(".", 1)[0]
    forged = ".".join([name_of_bob, of_alice.split(".", 1)[1]])
    with pytest.raises(InvalidLink):
        links.subscriber_of(forged, Purpose.UNSUBSCRIBE)


def test_a_change_of_any_one_character_breaks_it() -> None:
    token = links.token(make_subscriber().uuid, Purpose.PREFERENCES)
    for place, character in enumerate(token):
        tampered = token[:place] + ("A" if character != "A" else "B") + token[place + 1 :]
        with pytest.raises(InvalidLink):
            links.subscriber_of(tampered, Purpose.PREFERENCES)


def test_the_time_of_making_cannot_be_moved() -> None:
    alice = make_subscriber()
    token = links.token(alice.uuid, Purpose.CONFIRM)
    with later(days=30):
        name, _, signature = token.split(".")
        now = links.token(alice.uuid, Purpose.CONFIRM).split(".")[1]
        with pytest.raises(InvalidLink):
            links.subscriber_of(f"{name}.{now}.{signature}", Purpose.CONFIRM)


@pytest.mark.parametrize(
    ("purpose", "days"),
    [
        (Purpose.SIGN_IN, links.SIGN_IN_MINUTES / (24 * 60)),
        (Purpose.CONFIRM, django_settings.CONFIRMATION_DAYS),
        (Purpose.PREFERENCES, django_settings.PREFERENCES_LINK_DAYS),
    ],
)
def test_a_link_works_to_its_last_day_and_then_says_that_it_expired(
    client: Client, purpose: Purpose, days: float
) -> None:
    alice = make_subscriber()
    token, path = links.token(alice.uuid, purpose), page_of(alice, purpose)
    with later(days - 0.001):
        assert links.subscriber_of(token, purpose) == alice
        assert client.get(path).status_code == 200
    with later(days + 0.001):
        with pytest.raises(SpentLink if purpose == Purpose.SIGN_IN else ExpiredLink):
            links.subscriber_of(token, purpose)
        answer = client.get(path)
        assert answer.status_code == 410
        assert re.search("expired|too old", answer.content.decode())
        assert client.post(path).status_code == 410


def test_an_expired_confirmation_confirms_nothing(client: Client) -> None:
    alice = make_subscriber(state=PENDING)
    path = page_of(alice, Purpose.CONFIRM)
    with later(django_settings.CONFIRMATION_DAYS + 1):
        client.post(path)
    alice.refresh_from_db()
    assert alice.state == PENDING


def test_the_link_to_unsubscribe_of_a_very_old_mail_still_works(client: Client) -> None:
    alice = make_subscriber()
    path = page_of(alice, Purpose.UNSUBSCRIBE)
    with later(days=3650):
        assert client.post(path).status_code == 200
    alice.refresh_from_db()
    assert alice.state == Subscriber.State.UNSUBSCRIBED


def test_links_outlive_a_new_secret_key_while_the_old_one_is_a_fallback(
    settings: Settings,
) -> None:
    alice = make_subscriber()
    token = links.token(alice.uuid, Purpose.UNSUBSCRIBE)
    old = settings.SECRET_KEY
    settings.SECRET_KEY = "a-new-key-after-a-rotation-that-is-long-enough"
    settings.SECRET_KEY_FALLBACKS = [old]
    assert links.subscriber_of(token, Purpose.UNSUBSCRIBE) == alice
    assert links.token(alice.uuid, Purpose.UNSUBSCRIBE).split(".")[-1] != token.split(".")[-1]

    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(InvalidLink):
        links.subscriber_of(token, Purpose.UNSUBSCRIBE)


def test_the_link_of_an_erased_subscriber_is_invalid() -> None:
    alice = make_subscriber()
    token = links.token(alice.uuid, Purpose.PREFERENCES)
    subscriptions.erase(alice, way="test")
    with pytest.raises(InvalidLink):
        links.subscriber_of(token, Purpose.PREFERENCES)


@pytest.mark.parametrize(
    ("purpose", "posted", "status"),
    [
        (Purpose.CONFIRM, {}, 410),
        (Purpose.PREFERENCES, {"forget": "general"}, 410),
        (Purpose.UNSUBSCRIBE, {"List-Unsubscribe": "One-Click"}, 200),
        (Purpose.SIGN_IN, {}, 410),
    ],
)
def test_who_is_erased_while_a_page_is_at_work_gets_an_answer(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    purpose: Purpose,
    posted: dict[str, str],
    status: int,
) -> None:
    alice = make_subscriber(state=PENDING if purpose == Purpose.CONFIRM else ACTIVE)
    find = links.subscriber_of

    def find_and_erase(text: str, purpose: Purpose) -> Subscriber:
        found = find(text, purpose)
        subscriptions.erase(alice, way="another tab")
        return found

    monkeypatch.setattr(links, "subscriber_of", find_and_erase)
    assert client.post(page_of(alice, purpose), posted).status_code == status
    assert not Subscriber.objects.exists()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters()), purpose=st.sampled_from(Purpose))
def test_garbage_is_an_invalid_link_and_never_another_error(text: str, purpose: Purpose) -> None:
    with pytest.raises(InvalidLink):
        links.subscriber_of(text, purpose)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), min_size=1), purpose=st.sampled_from(Purpose))
def test_garbage_in_the_address_bar_is_a_page_that_was_not_found(
    client: Client, text: str, purpose: Purpose
) -> None:
    path = reverse(purpose, args=["TOKEN"]).replace("TOKEN", quote(text, safe=""))
    for ask in (client.get, client.head, client.post):
        refused = 405 if purpose == Purpose.FEED and ask == client.post else 404
        assert ask(path).status_code in (404, refused)


@pytest.mark.parametrize(
    "cut", [lambda path: path[:-2] + "/", lambda path: path.rpartition(".")[0] + "/"]
)
def test_a_link_that_a_mail_program_cut_gets_a_page_that_says_so(
    client: Client, cut: Callable[[str], str]
) -> None:
    answer = client.get(cut(page_of(make_subscriber(), Purpose.PREFERENCES)))
    assert answer.status_code == 404
    assert "not complete" in answer.content.decode()
    assert answer["Referrer-Policy"] == "no-referrer"


def test_a_token_fits_a_line_and_needs_no_quoting() -> None:
    token = links.token(uuid.uuid4(), Purpose.UNSUBSCRIBE)
    assert quote(token) == token
    assert len(token) < 100
