"""The signed page on which a reader changes what comes, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from newsletter import picks, subscriptions
from newsletter.links import Purpose
from newsletter.models import MAX_INTERESTS, Delivery, Subscriber
from newsletter.subscriptions import Subject
from tests.factories import make_frozen_edition, make_paper, make_subscriber
from tests.newsletter.pages import page_of

pytestmark = pytest.mark.django_db

State = Subscriber.State


def form_of(*subjects: str | tuple[str, list[str]], **fields: object) -> dict[str, object]:
    form: dict[str, object] = {
        "time_zone": "UTC",
        "send_hour": "7",
        "papers_per_mail": "8",
        "form-TOTAL_FORMS": str(len(subjects)),
        "form-INITIAL_FORMS": "0",
    }
    for n, subject in enumerate(subjects):
        words, categories = (subject, []) if isinstance(subject, str) else subject
        form |= {f"form-{n}-words": words, f"form-{n}-categories": categories}
    return form | fields


def save(subscriber: Subscriber, form: dict[str, object]) -> HttpResponse:
    answer = Client(enforce_csrf_checks=True).post(page_of(subscriber, Purpose.PREFERENCES), form)
    assert isinstance(answer, HttpResponse)
    subscriber.refresh_from_db()
    return answer


def words_of(subscriber: Subscriber) -> list[str]:
    return [interest.words for interest in subscriber.interests.all()]


def everything() -> tuple[object, ...]:
    subscriber = Subscriber.objects.get()
    return (
        Subscriber.objects.values().get(),
        list(subscriber.interests.order_by("id").values()),
    )


def test_the_page_shows_what_is_kept(client: Client) -> None:
    alice = make_subscriber(interests=("video diffusion", "robots"), time_zone="Asia/Tokyo")
    page = client.get(page_of(alice, Purpose.PREFERENCES)).content.decode()
    for expected in ("alice@example.org", "video diffusion", "robots", "Asia/Tokyo"):
        assert expected in page


@pytest.mark.parametrize("method", ["get", "head"])
def test_opening_the_page_writes_nothing(client: Client, method: str) -> None:
    alice = make_subscriber(interests=("robots",))
    before = everything()
    assert getattr(client, method)(page_of(alice, Purpose.PREFERENCES)).status_code == 200
    assert everything() == before


def test_interests_are_added_changed_and_removed() -> None:
    alice = make_subscriber(interests=("galaxies", "robots"))
    answer = save(alice, form_of("robots", ("", ["cs.CL"]), ("graphs", ["cs.LG", "stat.ML"]), ""))
    assert answer.status_code == 200
    assert "Saved" in answer.content.decode()
    kept = {interest.name: interest for interest in alice.interests.all()}
    assert set(kept) == {"robots", "cs.CL", "graphs"}
    assert kept["graphs"].categories == ["cs.LG", "stat.ML"]
    save(alice, form_of(("robots", ["cs.RO"])))
    [robots] = alice.interests.all()
    assert (robots.pk, robots.categories) == (kept["robots"].pk, ["cs.RO"])


def test_all_interests_can_be_taken_away() -> None:
    alice = make_subscriber(interests=("galaxies", "robots"))
    save(alice, form_of("", "  "))
    assert words_of(alice) == []


@pytest.mark.parametrize(
    ("zone", "hour"), [("Asia/Kolkata", 9), ("America/New_York", 0), ("CET", 23), ("Etc/UTC", 7)]
)
def test_hour_and_zone_move_the_next_mail(zone: str, hour: int) -> None:
    alice = make_subscriber(next_send_at=timezone.now() + timedelta(hours=1))
    save(alice, form_of(time_zone=zone, send_hour=str(hour)))
    assert (alice.time_zone, alice.send_hour) == (zone, hour)
    assert alice.next_send_at is not None
    assert timedelta() < alice.next_send_at - timezone.now() <= timedelta(hours=26)
    assert alice.next_send_at.astimezone(ZoneInfo(zone)).hour == hour


def test_an_overdue_mail_is_not_lost_by_a_change_of_hour() -> None:
    alice = make_subscriber()
    due = alice.next_send_at
    save(alice, form_of(send_hour="23"))
    assert alice.next_send_at == due


def test_saving_the_page_as_it_is_changes_no_zone(client: Client) -> None:
    """Also one that is named without a city, as an imported list may bring it."""
    alice = make_subscriber(time_zone="EST5EDT")
    page = client.get(page_of(alice, Purpose.PREFERENCES)).content.decode()
    assert 'value="EST5EDT" selected' in page


def test_the_count_changes() -> None:
    alice = make_subscriber()
    save(alice, form_of(papers_per_mail="20"))
    assert alice.papers_per_mail == 20


def test_a_pause_stops_the_mail_and_its_end_starts_it_again() -> None:
    edition = make_frozen_edition(make_paper())
    alice = make_subscriber(interests=("robots",))
    save(alice, form_of("robots", paused="on"))
    assert (alice.state, alice.next_send_at) == (State.PAUSED, None)
    assert picks.plan_everybody(edition, timezone.now()) == 0
    assert words_of(alice) == ["robots"]

    save(alice, form_of("robots"))
    assert alice.state == State.ACTIVE
    assert alice.next_send_at is not None
    assert alice.next_send_at > timezone.now()
    assert picks.plan_everybody(edition, timezone.now()) == 1


def test_a_later_hour_on_the_same_day_brings_no_second_mail() -> None:
    morning = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    with time_machine.travel(morning, tick=False):
        make_frozen_edition(make_paper())
        alice = make_subscriber()
        assert picks.plan_due(morning) == 1
        save(alice, form_of(send_hour="18"))
    assert alice.next_send_at == morning + timedelta(hours=10)
    evening = morning + timedelta(hours=10, minutes=1)
    picks.plan_due(evening)
    assert Delivery.objects.count() == 1


# --- Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"time_zone": "Mars/Olympus"},
        {"send_hour": "24"},
        {"send_hour": ""},
        {"papers_per_mail": "2"},
        {"papers_per_mail": "21"},
        {"papers_per_mail": "many"},
        {"form-0-categories": ["cs.NO"]},
        {"form-0-words": "x" * 10_001},
        {"form-0-words": "nul \x00 nul"},
        {"form-TOTAL_FORMS": ""},
        {"form-INITIAL_FORMS": "what"},
    ],
)
def test_a_mistake_is_shown_and_loses_nothing(fields: dict[str, object]) -> None:
    alice = make_subscriber(interests=("galaxies",), time_zone="Asia/Tokyo")
    before = everything()
    answer = save(alice, form_of("something new") | fields)
    page = answer.content.decode()
    assert "Nothing is saved" in page
    assert "errorlist" in page
    assert everything() == before


def test_an_empty_post_loses_nothing() -> None:
    alice = make_subscriber(interests=("galaxies",))
    before = everything()
    save(alice, {})
    assert everything() == before


def test_what_was_typed_survives_a_mistake() -> None:
    alice = make_subscriber()
    page = save(alice, form_of("typed with care", papers_per_mail="99")).content.decode()
    assert "typed with care" in page


def test_ten_interests_are_taken_and_eleven_refused() -> None:
    alice = make_subscriber()
    ten = [f"subject number {n}" for n in range(MAX_INTERESTS)]
    save(alice, form_of(*ten))
    assert words_of(alice) == ten
    answer = save(alice, form_of(*ten, "one too many"))
    assert str(MAX_INTERESTS) in answer.content.decode()
    assert "Nothing is saved" in answer.content.decode()
    assert words_of(alice) == ten


def test_a_thousand_forms_are_refused_too() -> None:
    alice = make_subscriber(interests=("galaxies",))
    before = everything()
    save(alice, form_of("robots") | {"form-TOTAL_FORMS": "1000000"})
    assert everything() == before


@pytest.mark.parametrize("again", ["robots", " robots  ", "robots\n"])
def test_an_interest_that_is_named_twice_is_refused(again: str) -> None:
    alice = make_subscriber(interests=("galaxies",))
    answer = save(alice, form_of("robots", again))
    assert "twice" in answer.content.decode()
    assert words_of(alice) == ["galaxies"]


def test_stored_markup_is_shown_as_text(client: Client) -> None:
    alice = make_subscriber(interests=("</textarea><script>alert(1)</script>",))
    page = client.get(page_of(alice, Purpose.PREFERENCES)).content.decode()
    assert "<script>alert" not in page


def test_a_change_of_one_reader_touches_no_other() -> None:
    alice = make_subscriber(interests=("robots",))
    bob = make_subscriber("bob@example.org", interests=("robots",))
    save(alice, form_of("galaxies"))
    assert words_of(bob) == ["robots"]


def test_settings_cannot_make_a_pending_subscriber_active(client: Client) -> None:
    pending = make_subscriber(state=State.PENDING)
    assert save(pending, form_of()).status_code == 410
    assert pending.state == State.PENDING
    subscriptions.change(
        pending,
        [Subject(words="robots")],
        time_zone="UTC",
        send_hour=7,
        papers_per_mail=8,
        paused=False,
    )
    pending.refresh_from_db()
    assert pending.state == State.PENDING
