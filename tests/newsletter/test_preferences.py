"""The signed page on which a reader changes what comes, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from newsletter import feedback, picks, schedule, subscriptions
from newsletter.links import Purpose
from newsletter.models import MAX_EXAMPLES, MAX_INTERESTS, Delivery, Feedback, Subscriber
from newsletter.subscriptions import Subject
from papers.models import Paper
from tests.factories import make_frozen_edition, make_interest, make_paper, make_subscriber
from tests.newsletter.pages import form_on, page_of

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
    """Post the form as the page sends it: with the interests that its subjects were read from."""
    for n, interest in enumerate(subscriber.interests.all()):
        form.setdefault(f"form-{n}-interest", str(interest.pk))
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
    save(alice, form_of(("robots", ["cs.RO"]), "", ""))
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


def test_quarter_and_days_are_shown_kept_and_said_in_words(client: Client) -> None:
    alice = make_subscriber(next_send_at=timezone.now() + timedelta(hours=1))
    chosen = {"send_hour": "7", "send_minute": "30", "time_zone": "Asia/Kolkata"}
    answer = save(alice, form_of(**chosen, send_days="weekdays"))
    assert "at most once a day, at 07:30 (Asia/Kolkata), Monday to Friday" in str(answer.content)
    assert alice.slots == ("Asia/Kolkata", 7, 30, "weekdays")
    assert alice.next_send_at == schedule.next_slot(timezone.now(), *alice.slots)
    page = client.get(page_of(alice, Purpose.PREFERENCES)).content.decode()
    shown = form_on(page)
    assert (shown["send_hour"], shown["send_minute"]) == (["7"], ["30"])
    assert shown["send_days"] == ["weekdays"]
    save(alice, form_of(**chosen))  # from a page that was opened before there were these
    assert alice.slots == ("Asia/Kolkata", 7, 30, "weekdays")
    save(alice, form_of(**chosen | {"send_minute": "0"}, send_days="sunday"))
    assert alice.slots == ("Asia/Kolkata", 7, 0, "sunday")


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
        {"send_minute": "20"},
        {"send_minute": "60"},
        {"send_days": "never"},
        {"papers_per_mail": "2"},
        {"papers_per_mail": "21"},
        {"papers_per_mail": "many"},
        {"form-0-categories": ["cs.NO"]},
        {"form-0-words": "x" * 10_001},
        {"form-0-words": "nul \x00 nul"},
        {"form-TOTAL_FORMS": ""},
        {"form-INITIAL_FORMS": "what"},
        {"form-0-interest": "what"},
        {"form-0-name": "x" * 101},
        {"form-0-authors": "x" * 101},
        {"form-0-authors": "\n".join(f"Author {n}" for n in range(101))},
        {"form-0-examples": "nul \x00"},
        {"form-0-examples": "\n".join(f"title {n}" for n in range(5_001))},
        {"popularity": "101"},
        {"popularity": "-1"},
        {"popularity": "much"},
        {"muted_terms": "x" * 101},
        {"muted_terms": "\n".join(f"term {n}" for n in range(101))},
        {"muted_terms": "x\n" * 10_001},
        {"muted_authors": "nul \x00"},
        {"muted_categories": ["cs.NO"]},
        {"must_phrases": "y" * 101},
        {"must_authors": "\n".join(f"Author {n}" for n in range(101))},
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


# --- All that can be stated of a subject ----------------------------------------------------------


def shown_to(subscriber: Subscriber) -> dict[str, list[str]]:
    """The form as the page brings it to a browser."""
    page = Client().get(page_of(subscriber, Purpose.PREFERENCES)).content.decode()
    return form_on(page)


def send(subscriber: Subscriber, form: dict[str, list[str]], **changed: object) -> str:
    """Send that form with these fields changed; returns the page that answers."""
    answer = Client().post(page_of(subscriber, Purpose.PREFERENCES), {**form, **changed})
    subscriber.refresh_from_db()
    return answer.content.decode()


def a_reader_with_everything() -> Subscriber:
    alice = make_subscriber(
        popularity=65,
        muted_terms=["survey", "bench, mark"],
        muted_categories=["cs.CY"],
        muted_authors=["Bo Berg"],
        must_phrases=["sparse autoencoder"],
        must_authors=["Ada Alvarez"],
        time_zone="Asia/Tokyo",
        papers_per_mail=12,
    )
    papers = [make_paper("One", arxiv_id="2505.24864"), make_paper("Two", doi="10.1000/182")]
    make_interest(
        alice,
        "graph learning",
        words="message passing",
        categories=["cs.LG", "stat.ML"],
        authors=["Ada Alvarez", "Bo Berg"],
        example_ids=[papers[1].pk, papers[0].pk, make_paper("Without an id").pk],
    )
    make_interest(alice, "cs.RO", categories=["cs.RO"])
    make_interest(alice, "Ada Alvarez", authors=["Ada Alvarez"])
    feedback.give(alice, papers[0], Feedback.Kind.MORE)
    return alice


def test_saving_the_page_as_it_is_changes_nothing_at_all() -> None:
    alice = a_reader_with_everything()
    before = everything()
    assert "Saved" in send(alice, shown_to(alice))
    assert everything() == before
    assert alice.feedback.get().interest is not None


def test_words_are_changed_and_what_was_learned_stays() -> None:
    alice = make_subscriber(interests=("graphs",))
    interest = alice.interests.get()
    feedback.give(alice, make_paper(), Feedback.Kind.MORE, interest)
    send(alice, shown_to(alice), **{"form-0-words": "sparse graphs"})
    changed = alice.interests.get()
    assert (changed.pk, changed.name, changed.words) == (
        interest.pk, "sparse graphs", "sparse graphs",
    )  # fmt: skip
    assert changed.feedback.count() == 1


def test_a_name_of_ones_own_stays_whatever_the_words() -> None:
    alice = make_subscriber(interests=("graphs",))
    send(alice, shown_to(alice), **{"form-0-name": "  My   graphs "})
    assert alice.interests.get().name == "My graphs"
    send(alice, shown_to(alice), **{"form-0-words": "sparse graphs"})
    assert alice.interests.get().name == "My graphs"
    send(alice, shown_to(alice), **{"form-0-name": ""})
    assert alice.interests.get().name == "sparse graphs"


def test_two_subjects_exchange_their_names() -> None:
    alice = make_subscriber(interests=("graphs", "robots"))
    rows = {interest.pk: interest.name for interest in alice.interests.all()}
    words = {"form-0-words": "robots", "form-1-words": "graphs"}
    assert "Saved" in send(alice, shown_to(alice), **words)
    exchanged = {interest.pk: interest.name for interest in alice.interests.all()}
    assert list(exchanged.values()) == ["robots", "graphs"]
    assert exchanged.keys() == rows.keys()


def test_a_subject_is_removed_by_its_tick_with_what_it_learned() -> None:
    alice = make_subscriber(interests=("graphs", "robots"))
    graphs = alice.interests.get(name="graphs")
    feedback.give(alice, make_paper(), Feedback.Kind.MORE, graphs)
    form = shown_to(alice)
    # Also where something else of it is mistaken.
    send(alice, form, **{"form-0-DELETE": "on", "form-0-authors": "x" * 101})
    assert words_of(alice) == ["robots"]
    assert not alice.feedback.exists()


def test_an_emptied_subject_goes_unless_it_has_learned() -> None:
    alice = make_subscriber(interests=("graphs", "robots"))
    robots = alice.interests.get(name="robots")
    feedback.give(alice, make_paper(), Feedback.Kind.MORE, robots)
    send(alice, shown_to(alice), **{"form-0-words": "", "form-1-words": ""})
    assert [(i.pk, i.name, i.words) for i in alice.interests.all()] == [(robots.pk, "robots", "")]


def test_a_subject_made_since_the_page_was_opened_is_not_lost() -> None:
    alice = make_subscriber(interests=("graphs",))
    form = shown_to(alice)
    feedback.give(alice, make_paper(), Feedback.Kind.SAVE)
    send(alice, form, **{"form-1-words": "robots"})
    assert {i.name for i in alice.interests.all()} == {"graphs", "robots", feedback.LIKED}
    assert alice.feedback.count() == 1


def test_an_id_of_another_readers_subject_touches_nothing_of_theirs() -> None:
    alice, bob = make_subscriber(), make_subscriber("bob@example.org", interests=("secret",))
    theirs = bob.interests.get()
    feedback.give(bob, make_paper(), Feedback.Kind.MORE, theirs)
    before = list(bob.interests.values())
    tampered = {"form-0-interest": str(theirs.pk), "form-0-words": "mine"}
    page = send(alice, shown_to(alice), **tampered)
    assert "secret" not in page
    send(alice, shown_to(alice), **tampered, **{"form-0-DELETE": "on", "form-INITIAL_FORMS": "1"})
    assert list(bob.interests.values()) == before
    assert bob.feedback.count() == 1
    assert theirs.pk not in alice.interests.values_list("pk", flat=True)


@pytest.mark.parametrize("number", ["0", "-1", "9" * 40])
def test_an_id_that_nobody_has_makes_a_new_subject(number: str) -> None:
    alice = make_subscriber()
    page = send(alice, shown_to(alice), **{"form-0-interest": number, "form-0-words": "graphs"})
    assert "Saved" in page
    assert words_of(alice) == ["graphs"]


def test_one_id_in_two_subjects_is_the_first_s() -> None:
    alice = make_subscriber(interests=("graphs",))
    pk = alice.interests.get().pk
    send(alice, shown_to(alice), **{"form-1-interest": str(pk), "form-1-words": "robots"})
    assert alice.interests.get(pk=pk).words == "graphs"
    assert words_of(alice) == ["graphs", "robots"]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("Ada Alvarez\nBo Berg", ["Ada Alvarez", "Bo Berg"]),
        ("Ada Alvarez, Bo Berg; Cy Cole", ["Ada Alvarez", "Bo Berg", "Cy Cole"]),
        ("Alvarez, Ada\r\nvan der Berg, Bo", ["Ada Alvarez", "Bo van der Berg"]),
        ("  Ada   Alvarez ,\n\n,;ADA ALVAREZ", ["ADA ALVAREZ"]),
        ("张三", ["张三"]),
    ],
)
def test_authors_are_named_one_a_line_or_with_commas(typed: str, kept: list[str]) -> None:
    alice = make_subscriber()
    send(alice, shown_to(alice), **{"form-0-authors": typed, "muted_authors": typed})
    assert alice.interests.get().authors == kept
    assert alice.muted_authors == kept


def test_the_rules_are_kept_and_taken_away() -> None:
    alice = make_subscriber()
    rules = {
        "popularity": "0",
        "muted_terms": "survey\n  large   benchmark\nSurvey\n",
        "muted_categories": ["cs.CY", "cs.AI"],
        "must_phrases": "sparse autoencoder",
        "must_authors": "Ada Alvarez",
    }
    send(alice, shown_to(alice), **rules)
    assert alice.popularity == 0
    assert alice.muted_terms == ["Survey", "large benchmark"]
    assert sorted(alice.muted_categories) == ["cs.AI", "cs.CY"]
    assert (alice.must_phrases, alice.must_authors) == (["sparse autoencoder"], ["Ada Alvarez"])
    send(alice, shown_to(alice), **dict.fromkeys(("muted_terms", "must_phrases"), ""))
    assert (alice.muted_terms, alice.must_phrases) == ([], [])
    assert (alice.popularity, alice.must_authors) == (0, ["Ada Alvarez"])


def test_examples_known_here_are_kept_and_the_others_said_back() -> None:
    alice = make_subscriber()
    one, two = make_paper("One", arxiv_id="2505.24864"), make_paper("Two", doi="10.1000/182")
    typed = "\n".join(
        ["https://doi.org/10.1000/182", "9901.00001", "<b>unheard</b>", "2505.24864v1"]
    )
    page = send(alice, shown_to(alice), **{"form-0-examples": typed})
    assert "Saved" in page
    assert "not known here" in page
    assert "<li>9901.00001</li><li>&lt;b&gt;unheard&lt;/b&gt;</li>" in page
    assert alice.interests.get().example_ids == [two.pk, one.pk]
    assert shown_to(alice)["form-0-examples"] == ["doi:10.1000/182 Two\narXiv:2505.24864 One"]


def test_an_example_that_vanished_is_not_shown_and_harms_nothing() -> None:
    alice = make_subscriber()
    gone, there = make_paper("Gone"), make_paper("There", arxiv_id="2505.24864")
    make_interest(alice, "graphs", example_ids=[gone.pk, there.pk])
    gone.delete()
    assert shown_to(alice)["form-0-examples"] == ["arXiv:2505.24864 There"]


def test_as_many_examples_as_there_can_be_are_taken_and_one_more_refused() -> None:
    alice = make_subscriber()
    Paper.objects.bulk_create(
        Paper(title=f"{n}", title_key=f"{n}", doi=f"10.1000/{n}", listing_day="2026-11-20")
        for n in range(MAX_EXAMPLES + 1)
    )
    lines = [f"10.1000/{n}" for n in range(MAX_EXAMPLES + 1)]
    page = send(alice, shown_to(alice), **{"form-0-examples": "\n".join(lines)})
    assert "Nothing is saved" in page
    assert "these are 501" in page
    assert not alice.interests.exists()
    send(alice, shown_to(alice), **{"form-0-examples": "\n".join(lines[:-1])})
    assert len(alice.interests.get().example_ids) == MAX_EXAMPLES


def test_signing_up_again_keeps_what_the_form_does_not_ask() -> None:
    alice = make_subscriber(state=State.UNSUBSCRIBED)
    paper = make_paper()
    interest = make_interest(
        alice, "graphs", words="graphs", authors=["Ada Alvarez"], example_ids=[paper.pk]
    )
    feedback.give(alice, paper, Feedback.Kind.MORE, interest)
    subscriptions.subscribe(
        alice.address,
        [Subject(words="graphs", categories=("cs.LG",))],
        time_zone="UTC",
        send_hour=7,
    )
    again = alice.interests.get()
    assert (again.pk, again.categories, again.authors) == (interest.pk, ["cs.LG"], ["Ada Alvarez"])
    assert (again.example_ids, again.feedback.count()) == ([paper.pk], 1)
