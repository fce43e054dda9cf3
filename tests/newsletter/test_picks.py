"""From rows to arrays and back: who is planned, when, and with what."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from newsletter import candidates, mail, subscriptions
from newsletter.models import Delivery, Interest, Subscriber, Suppression
from newsletter.picks import plan_due, plan_everybody
from newsletter.recommender.profiles import terms
from newsletter.recommender.selection import Section
from papers import editions
from papers.models import Edition, EditionPaper, Paper
from tests.factories import make_frozen_edition, make_paper, make_signal, make_subscriber

pytestmark = pytest.mark.django_db

State = Subscriber.State
Reason = Delivery.Reason

TITLES = [
    "Video diffusion transformers for long clips",
    "Consistent video generation with diffusion",
    "Robot manipulation from few demonstrations",
    "Learning robot grasping in clutter",
    "Dark matter in dwarf galaxies",
    "Star formation in early galaxies",
    "Cryptography from lattices",
    "A survey of database indexes",
    "Protein folding with language models",
    "Sampling bias in opinion polls",
]


def an_edition() -> Edition:
    return make_frozen_edition(*[make_paper(title) for title in TITLES])


def delivery_of(subscriber: Subscriber) -> Delivery:
    return Delivery.objects.get(subscriber=subscriber)


def titles_of(delivery: Delivery) -> list[str]:
    titles = dict(Paper.objects.values_list("pk", "title"))
    return [titles[pk] for pk in delivery.paper_ids]


def reasons_of(delivery: Delivery) -> dict[str, tuple[int, str]]:
    pairs = zip(delivery.reasons, delivery.reason_details, strict=True)
    return dict(zip(titles_of(delivery), pairs, strict=True))


def next_send_at(subscriber: Subscriber) -> object:
    return Subscriber.objects.values_list("next_send_at", flat=True).get(pk=subscriber.pk)


# --- What is picked -------------------------------------------------------------------------------


def test_readers_with_different_interests_get_different_mails_with_true_reasons() -> None:
    edition = an_edition()
    readers = {
        "video": make_subscriber("v@example.org", interests=("video diffusion",)),
        "robot": make_subscriber("r@example.org", interests=("robots that grasp",)),
        "galaxi": make_subscriber("g@example.org", interests=("galaxies",)),
    }
    Subscriber.objects.update(papers_per_mail=4)
    plan_everybody(edition, timezone.now())
    for stem, reader in readers.items():
        delivery = delivery_of(reader)
        assert all(stem in title.lower() for title in titles_of(delivery)[:2]), stem
        for title, (code, detail) in reasons_of(delivery).items():
            if code == Reason.WORDS:
                own = {word for i in reader.interests.all() for word in terms(i.words)}
                assert detail
                both = own & set(terms(f"{title}. We study {title}"))
                assert all(terms(word)[-1] in both for word in detail.split(", "))
    leads = {titles_of(delivery_of(reader))[0] for reader in readers.values()}
    assert len(leads) == 3


def test_the_arrays_of_a_delivery_fit_together() -> None:
    edition = an_edition()
    reader = make_subscriber(interests=("robots", "galaxies", "video"), papers_per_mail=6)
    plan_everybody(edition, timezone.now())
    delivery = delivery_of(reader)
    n = len(delivery.paper_ids)
    assert 3 <= n <= 6
    assert len(set(delivery.paper_ids)) == n
    assert [len(delivery.sections), len(delivery.reasons), len(delivery.reason_details)] == [n] * 3
    assert [len(delivery.interest_ids), len(delivery.sentences)] == [n] * 2
    assert len(delivery.terms) == n * len(Delivery.TERMS)
    delivery.full_clean()


def test_sections_mean_the_same_to_the_recommender_and_to_the_database() -> None:
    assert {s.name: s.value for s in Section} == {s.name: s.value for s in Delivery.Section}


def test_a_reader_without_interests_gets_what_is_trending() -> None:
    edition = an_edition()
    for place, row in enumerate(edition.candidates.order_by("-id")):
        edition.candidates.filter(pk=row.pk).update(trend=1 - place / 10)
    reader = make_subscriber(papers_per_mail=5)
    plan_everybody(edition, timezone.now())
    assert titles_of(delivery_of(reader)) == TITLES[::-1][:5]
    lead, *others = delivery_of(reader).sections
    assert lead == Delivery.Section.LEAD
    assert set(others) == {Delivery.Section.TRENDING}


def test_upvotes_given_as_a_reason_are_those_of_the_edition() -> None:
    popular, other = make_paper("Popular"), make_paper("Other")
    edition = editions.open_edition(timezone.now().date())
    now = timezone.now()
    make_signal(popular, 30, observed_at=now - timedelta(days=2))
    make_signal(popular, 42, observed_at=now)
    make_signal(popular, 999, observed_at=now + timedelta(days=3))
    edition = editions.freeze(edition, now)
    reader = make_subscriber()
    plan_everybody(edition, now)
    assert reasons_of(delivery_of(reader)) == {
        popular.title: (Reason.UPVOTES, "42 12"),
        other.title: (Reason.NEW, ""),
    }


def test_a_shared_category_is_named_when_no_word_of_the_reader_matched() -> None:
    paper = make_paper("Sparse experts", categories=["cs.CL", "cs.LG"])
    edition = make_frozen_edition(paper, *[make_paper(title) for title in TITLES])
    reader = make_subscriber(papers_per_mail=3)
    Interest.objects.create(
        subscriber=reader, name="mine", words="", categories=["cs.LG", "math.ST"]
    )
    plan_everybody(edition, timezone.now())
    assert reasons_of(delivery_of(reader))["Sparse experts"] == (Reason.CATEGORY, "cs.LG")


def test_a_piece_of_a_word_is_no_word_of_the_reader() -> None:
    """Of cs.CV, "vision" stands in "television"; that is not why the paper was picked."""
    paper = make_paper("Sparse experts", categories=["cs.CV"])
    edition = make_frozen_edition(paper, *[make_paper(title) for title in TITLES])
    reader = make_subscriber(papers_per_mail=3)
    Interest.objects.create(
        subscriber=reader, name="mine", words="television history", categories=["cs.CV"]
    )
    plan_everybody(edition, timezone.now())
    assert reasons_of(delivery_of(reader))["Sparse experts"] == (Reason.CATEGORY, "cs.CV")


def test_a_paper_without_category_is_matched_by_the_words_of_its_name() -> None:
    edition = an_edition()
    reader = make_subscriber(papers_per_mail=3)
    Interest.objects.create(subscriber=reader, name="mine", categories=["astro-ph.GA"])
    plan_everybody(edition, timezone.now())
    assert "galaxies" in titles_of(delivery_of(reader))[0]


def test_a_pinned_paper_is_in_everybody_s_mail_and_a_hidden_one_in_nobody_s() -> None:
    for title in TITLES:
        make_paper(title)
    edition = editions.open_edition(timezone.now().date())
    pinned, hidden = (edition.candidates.get(paper__title=TITLES[n]) for n in (7, 2))
    editions.curate(pinned, EditionPaper.Curation.PINNED)
    editions.curate(hidden, EditionPaper.Curation.HIDDEN)
    edition = editions.freeze(edition, timezone.now())
    for n, wish in enumerate(["robot manipulation", "galaxies", ""]):
        make_subscriber(f"r{n}@example.org", interests=(wish,) if wish else (), papers_per_mail=3)
    make_subscriber("all@example.org", papers_per_mail=20)
    assert plan_everybody(edition, timezone.now()) == 4
    for delivery in Delivery.objects.all():
        place = titles_of(delivery).index(TITLES[7])
        assert place <= 1, "after the lead at most"
        assert (delivery.reasons[place], delivery.sections[place]) == (
            Reason.PINNED,
            Delivery.Section.PINNED,
        )
        assert TITLES[2] not in titles_of(delivery)
    everything = Delivery.objects.get(subscriber__address="all@example.org")
    assert len(everything.paper_ids) == 9


def test_a_paper_hidden_after_the_freeze_is_in_no_later_plan() -> None:
    edition = an_edition()
    early, late = make_subscriber("early@example.org"), make_subscriber("late@example.org")
    Subscriber.objects.update(papers_per_mail=20)
    Subscriber.objects.filter(pk=late.pk).update(next_send_at=timezone.now() + timedelta(hours=1))
    plan_due(timezone.now())
    editions.curate(edition.candidates.get(paper__title=TITLES[0]), EditionPaper.Curation.HIDDEN)
    plan_due(timezone.now() + timedelta(hours=2))
    assert TITLES[0] in titles_of(delivery_of(early))
    assert TITLES[0] not in titles_of(delivery_of(late))


@pytest.mark.parametrize("interests", [(), ("robots",)])
def test_when_everything_was_hidden_after_the_freeze_readers_are_skipped_with_the_reason(
    interests: tuple[str, ...],
) -> None:
    edition = an_edition()
    for candidate in edition.candidates.all():
        editions.curate(candidate, EditionPaper.Curation.HIDDEN)
    reader = make_subscriber(interests=interests)
    assert plan_due(timezone.now()) == 1
    assert delivery_of(reader).state == Delivery.State.SKIPPED
    assert "hidden" in delivery_of(reader).skip_reason


@pytest.mark.parametrize("wish", ["", "🤖🔥", "the of and", "робот " * 3000, "\u2028\x0b -- __"])
def test_interests_that_say_nothing_get_a_whole_mail_all_the_same(wish: str) -> None:
    edition = an_edition()
    reader = make_subscriber()
    Interest.objects.create(subscriber=reader, name="odd", words=wish, categories=["no.such"])
    plan_everybody(edition, timezone.now())
    assert len(delivery_of(reader).paper_ids) == 8
    assert mail.compose(delivery_of(reader)).subject


# --- Who is planned, and when ---------------------------------------------------------------------


def test_only_who_is_due_is_planned_and_only_once() -> None:
    edition = an_edition()
    now = timezone.now()
    due = [make_subscriber(f"due{n}@example.org") for n in range(3)]
    later = make_subscriber("later@example.org", next_send_at=now + timedelta(minutes=1))
    assert plan_due(now) == 3
    assert set(Delivery.objects.values_list("subscriber", flat=True)) == {s.pk for s in due}
    for subscriber in due:
        moved = next_send_at(subscriber)
        assert now < moved <= now + timedelta(days=1)  # type: ignore[operator]
    assert next_send_at(later) == later.next_send_at

    assert plan_due(now) == 0
    assert plan_everybody(edition, now) == 1
    assert plan_everybody(edition, now) == 0
    assert Delivery.objects.count() == 4


def leave(subscriber: Subscriber) -> None:
    subscriptions.unsubscribe(subscriber, way="test")


def pause(subscriber: Subscriber) -> None:
    subscriptions.change(
        subscriber, [], time_zone="UTC", send_hour=7, papers_per_mail=8, paused=True
    )


def never_confirm(subscriber: Subscriber) -> None:
    Subscriber.objects.filter(pk=subscriber.pk).update(state=State.PENDING, next_send_at=None)


@pytest.mark.parametrize("prepare", [leave, pause, never_confirm])
def test_who_is_not_active_is_not_planned(prepare: Callable[[Subscriber], None]) -> None:
    edition = an_edition()
    prepare(make_subscriber())
    assert plan_due(timezone.now()) == 0
    assert plan_everybody(edition, timezone.now()) == 0
    assert not Delivery.objects.exists()


def test_who_is_suppressed_gets_nothing(mailoutbox: list[object]) -> None:
    an_edition()
    make_subscriber()
    subscriptions.suppress("ALICE@example.org", Suppression.Reason.COMPLAINT)
    call_command("run_day")
    assert mailoutbox == []
    assert not Delivery.objects.filter(state=Delivery.State.SENT).exists()


def test_without_a_current_edition_nobody_moves() -> None:
    edition = an_edition()
    Edition.objects.update(frozen_at=timezone.now() - timedelta(hours=24, seconds=1))
    reader = make_subscriber()
    assert plan_due(timezone.now()) == 0
    assert next_send_at(reader) == reader.next_send_at
    Edition.objects.update(frozen_at=timezone.now())
    assert plan_due(timezone.now()) == 1
    assert delivery_of(reader).edition == edition


def test_an_empty_edition_skips_everybody_with_its_reason() -> None:
    editions.freeze(editions.open_edition(timezone.now().date()), timezone.now())
    readers = [make_subscriber(f"r{n}@example.org", interests=("robots",)) for n in range(3)]
    assert plan_due(timezone.now()) == 3
    for delivery in Delivery.objects.all():
        assert delivery.state == Delivery.State.SKIPPED
        assert delivery.skip_reason == "No new papers have arrived for this day."
        assert delivery.paper_ids == []
    assert all(next_send_at(reader) != reader.next_send_at for reader in readers)


def test_over_an_edition_s_life_due_is_planned_plus_skipped() -> None:
    edition = an_edition()
    for n in range(7):
        make_subscriber(f"r{n}@example.org", interests=("robots",) if n % 2 else ())
    now = timezone.now()
    due = Subscriber.objects.due(now).count()
    assert plan_due(now) == due == 7
    settled = edition.deliveries.filter(
        state__in=[Delivery.State.PLANNED, Delivery.State.SKIPPED]
    ).count()
    assert settled == due


def test_who_was_served_by_run_day_is_not_served_again_at_the_slot() -> None:
    edition = an_edition()
    now = timezone.now()
    slot = now + timedelta(hours=3)
    reader = make_subscriber(next_send_at=slot)
    assert plan_everybody(edition, now) == 1
    Subscriber.objects.update(next_send_at=slot)
    assert plan_due(slot) == 1, "dealt with"
    assert Delivery.objects.count() == 1
    assert next_send_at(reader) != slot


def test_many_are_planned_in_batches(settings: Settings) -> None:
    settings.PLAN_BATCH_SIZE = 4
    edition = an_edition()
    for n in range(10):
        make_subscriber(f"r{n}@example.org", interests=("robots",))
    assert plan_due(timezone.now()) == 10
    assert edition.deliveries.count() == 10


@pytest.mark.parametrize("readers", [1, 12, 60])
def test_the_number_of_queries_does_not_grow_with_the_readers(
    readers: int, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    edition = an_edition()
    for n in range(readers):
        make_subscriber(f"r{n}@example.org", interests=("robots", "galaxies"))
    candidates.today(edition)
    # The freeze (after its hour); the newest delivery; the edition; a batch between savepoint and
    # release: lock, served, older editions, model, interests, feedback, what was shown, deliveries
    # and slots; then the edition and the batch that is empty.
    with django_assert_max_num_queries(18):
        plan_due(timezone.now())
    assert edition.deliveries.count() == readers


def test_a_reader_whose_zone_is_unknown_stops_nobody() -> None:
    an_edition()
    make_subscriber()
    bob = make_subscriber("bob@example.org")
    Subscriber.objects.filter(pk=bob.pk).update(time_zone="Gone/Away")
    assert plan_due(timezone.now()) == 2
    assert Delivery.objects.count() == 2


def test_who_is_due_at_the_hour_of_the_freeze_gets_the_new_edition(settings: Settings) -> None:
    """Beat's ticks of freezing and of planning come in either order."""
    now = timezone.now()
    settings.EDITION_FREEZE_AT = now.time()
    alice = make_subscriber()
    older = make_frozen_edition(make_paper("Of yesterday"), day=now.date() - timedelta(days=1))
    plan_everybody(older, now)
    Subscriber.objects.update(next_send_at=now)
    make_paper("Of today")
    plan_due(now)
    today = Edition.objects.get(day=now.date())
    assert alice.deliveries.filter(edition=today).exists()


# --- Real papers ----------------------------------------------------------------------------------


def test_on_real_papers_interests_make_visibly_different_mails(data: Path) -> None:
    call_command("import_papers", str(data / "listings"), verbosity=0)
    edition = editions.freeze(editions.open_edition(timezone.now().date()), timezone.now())
    wishes = ["video generation", "reinforcement learning for robots", "quantization", "graphs"]
    readers = [
        make_subscriber(f"r{n}@example.org", interests=(wish,)) for n, wish in enumerate(wishes)
    ]
    plan_everybody(edition, timezone.now())
    picked = [set(delivery_of(reader).paper_ids[:6]) for reader in readers]
    for n, one in enumerate(picked):
        for other in picked[n + 1 :]:
            assert len(one & other) <= 2


def test_the_first_papers_of_an_installation_find_their_readers() -> None:
    edition = make_frozen_edition(make_paper(TITLES[0]), make_paper(TITLES[4]))
    reader = make_subscriber(interests=("video diffusion",))
    plan_everybody(edition, timezone.now())
    assert titles_of(delivery_of(reader))[0] == TITLES[0]
