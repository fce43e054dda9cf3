"""Everybody's mail at their own hour: over days, with skipped days, late freezes and odd clocks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.db import connection
from pytest_django import DjangoAssertNumQueries, Settings

from newsletter import explaining, mail, picks, schedule, subscriptions
from newsletter.models import Delivery, Subscriber
from newsletter.schedule import Days
from papers import editions
from papers.models import Edition, EditionPaper, Paper
from tests.factories import make_delivery, make_interest, make_paper, make_subscriber

pytestmark = pytest.mark.django_db

State, Section = Delivery.State, Delivery.Section

QUARTER = timedelta(minutes=15)
ONE_DAY = timedelta(days=1)
MONDAY = date(2026, 11, 16)


@pytest.fixture(autouse=True)
def _frozen_at_three(settings: Settings) -> None:
    settings.EDITION_FREEZE_AT = datetime(2026, 1, 1, 3, 0).time()


def at(day: date, clock: str) -> datetime:
    return datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=UTC)


def edition_of(day: date, *papers: Paper, clock: str = "03:00") -> Edition:
    """Frozen on its day; without papers it is empty."""
    frozen_at = at(day, clock)
    state = Edition.State.FROZEN if papers else Edition.State.EMPTY
    edition = Edition.objects.create(
        day=day,
        state=state,
        reason="" if papers else "No new papers have arrived for this day.",
        frozen_at=frozen_at,
        changed_at=frozen_at,
    )
    for paper in papers:
        EditionPaper.objects.create(edition=edition, paper=paper)
    return edition


def papers_of(day: date, count: int = 2) -> list[Paper]:
    """Each in words of its own, since what is alike is folded into one."""
    stem = "".join("bdfgklmpvz"[int(digit)] for digit in f"{day:%y%j}")
    words = [" ".join(f"{a}{n * 'o'}{stem}" for a in "bcdfghkl") for n in range(count)]
    return [
        make_paper(f"{day:%A} {own} number {n}", abstract=f"{own}.", listing_day=day)
        for n, own in enumerate(words)
    ]


def a_week(start: date = MONDAY, days: int = 7) -> list[Edition]:
    return [edition_of(day, *papers_of(day)) for day in (start + n * ONE_DAY for n in range(days))]


def reader(
    name: str = "alice",
    zone: str = "UTC",
    clock: tuple[int, int] = (7, 0),
    days: Days = Days.DAILY,
    since: datetime | None = None,
    muted_terms: tuple[str, ...] = (),
) -> Subscriber:
    """Who waits for the next slot after `since`; without it, who is overdue."""
    slots = (zone, *clock, days)
    due = schedule.next_slot(since, *slots) if since else at(MONDAY, "00:00")
    return make_subscriber(
        f"{name}@example.org",
        time_zone=zone,
        send_hour=clock[0],
        send_minute=clock[1],
        send_days=days,
        next_send_at=due,
        papers_per_mail=20,
        muted_terms=list(muted_terms),
    )


def ticks(now: datetime, end: datetime) -> Iterator[datetime]:
    """Those of beat at which something happens: a slot or a freeze."""
    while now < end:
        with time_machine.travel(now, tick=False):
            yield now
        freeze = at(now.date(), "03:00") + (ONE_DAY if now.hour >= 3 else ONE_DAY * 0)
        slots = Subscriber.objects.filter(next_send_at__gt=now).order_by("next_send_at")
        due = slots.values_list("next_send_at", flat=True).first()
        now = min(freeze, due or freeze)


def days_in(delivery: Delivery) -> set[str]:
    """The days of the editions that its papers are of."""
    titles = Paper.objects.filter(pk__in=delivery.paper_ids).values_list("title", flat=True)
    return {title.split()[0] for title in titles}


def only_delivery(subscriber: Subscriber) -> Delivery:
    return Delivery.objects.get(subscriber=subscriber)


# --- Day by day -----------------------------------------------------------------------------------

CAST = {
    "alice": ("Europe/Berlin", (7, 0), Days.DAILY),
    "bob": ("Asia/Kolkata", (7, 30), Days.WEEKDAYS),
    "carol": ("Asia/Kathmandu", (5, 45), Days.MONDAY),
    "dave": ("Australia/Lord_Howe", (2, 15), Days.DAILY),
    "erin": ("Pacific/Kiritimati", (0, 0), Days.SUNDAY),
    "frank": ("Pacific/Pago_Pago", (23, 45), Days.WEEKDAYS),
    # Its slot comes an hour after the freeze in summer, and at the freeze in winter.
    "grace": ("America/New_York", (23, 0), Days.DAILY),
}


@pytest.mark.parametrize(
    "start",
    [date(2026, 10, 19), date(2026, 3, 23), date(2026, 9, 27)],
    ids=["berlin and new york back", "berlin forward", "lord howe forward"],
)
def test_everybody_gets_each_edition_in_one_mail_at_the_right_local_time(start: date) -> None:
    cast = {
        name: reader(name, zone, clock, days, since=at(start, "00:00"))
        for name, (zone, clock, days) in CAST.items()
    }
    edition_of(start - ONE_DAY, *papers_of(start - ONE_DAY, 1))
    for n in range(15):
        papers_of(start + n * ONE_DAY, 1)
    for now in ticks(at(start, "00:00"), at(start + 15 * ONE_DAY, "00:00")):
        picks.plan_due(now)
        picks.plan_due(now)  # a task may run twice
    for name, (zone, clock, days) in CAST.items():
        mails = list(
            Delivery.objects.filter(subscriber=cast[name])
            .select_related("edition")
            .order_by("planned_at")
        )
        assert len(mails) >= {7: 13, 5: 10, 1: 2}[len(schedule.WEEKDAYS[days])], name
        for one in mails:
            assert one.state == State.PLANNED
            local = one.planned_at.astimezone(ZoneInfo(zone))
            if (zone, local.date()) == ("Australia/Lord_Howe", date(2026, 10, 4)):
                assert (local.hour, local.minute) == (2, 30)  # 02:15 did not strike
            else:
                assert (local.hour, local.minute) == clock, name
            assert local.weekday() in schedule.WEEKDAYS[days], name
        shown = [pk for one in mails for pk in one.paper_ids]
        assert len(shown) == len(set(shown)), name
        for before, one in pairwise(mails):
            first = one.editions_from or one.edition.day
            assert first == before.edition.day + ONE_DAY, name
        first, last = mails[0].edition.day, mails[-1].edition.day
        every = set(Paper.objects.filter(listing_day__range=(first, last)).values_list("pk"))
        assert every <= {(pk,) for pk in shown}, name


# --- Who skips days -------------------------------------------------------------------------------


def test_a_weekly_reader_chooses_from_the_whole_week_and_the_mail_is_the_newest_edition_s() -> None:
    week = a_week()
    sunday = at(week[-1].day, "07:00")
    alice = reader(days=Days.SUNDAY, since=sunday - QUARTER)
    assert picks.plan_due(sunday) == 1
    delivery = only_delivery(alice)
    assert (delivery.edition, delivery.editions_from) == (week[-1], MONDAY)
    assert len(delivery.paper_ids) == 14
    assert len(days_in(delivery)) == 7
    assert list(delivery.editions().order_by("day")) == week


def test_on_mondays_a_weekday_reader_chooses_from_the_weekend_too() -> None:
    week = a_week(MONDAY + 3 * ONE_DAY, 5)  # Thursday to Monday
    friday = at(week[1].day, "07:00")
    alice, bob = reader(days=Days.WEEKDAYS, since=friday - QUARTER), reader("bob", since=friday)
    picks.plan_due(friday)
    monday = at(week[-1].day, "07:00")
    picks.plan_due(monday)
    first, second = alice.deliveries.order_by("planned_at")
    # Never served before, so Thursday is not known to have come.
    assert days_in(first) == {"Thursday", "Friday"}
    assert days_in(second) == {"Saturday", "Sunday", "Monday"}
    daily = bob.deliveries.get()
    assert (daily.editions_from, days_in(daily)) == (None, {"Monday"})


def test_what_is_older_than_seven_days_is_left_out() -> None:
    week = a_week(MONDAY, 12)
    alice = reader(days=Days.FRIDAY)
    picks.plan_due(at(week[-1].day, "07:00"))
    assert only_delivery(alice).editions_from == week[-1].day - timedelta(days=7)


def test_a_week_that_came_late_is_not_offered_again() -> None:
    """The slot was on Monday; nobody planned before Thursday."""
    week = a_week(MONDAY, 15)
    alice = reader(days=Days.MONDAY)
    thursday = at(week[10].day, "09:00")
    picks.plan_due(thursday)
    late = only_delivery(alice)
    assert (late.edition, late.editions_from) == (week[10], week[3].day)
    picks.plan_due(at(week[14].day, "07:00"))
    newest = alice.deliveries.get(edition=week[14])
    assert newest.editions_from == week[11].day


def test_a_week_s_papers_come_in_an_empty_edition_s_mail() -> None:
    week = a_week(days=6)
    sunday = edition_of(MONDAY + 6 * ONE_DAY)
    alice, bob = reader(days=Days.SUNDAY), reader("bob")
    picks.plan_due(at(sunday.day, "07:00"))
    weekly, daily = only_delivery(alice), only_delivery(bob)
    assert (weekly.edition, weekly.state) == (sunday, State.PLANNED)
    assert len(weekly.paper_ids) == 2 * len(week)
    assert (daily.edition, daily.state, daily.skip_reason) == (sunday, State.SKIPPED, sunday.reason)
    assert sunday.may_be_mailed(at(sunday.day, "07:01"))
    assert mail.compose(weekly).subject


def test_a_week_without_papers_is_skipped_with_its_reason() -> None:
    days = [edition_of(MONDAY + n * ONE_DAY) for n in range(7)]
    alice = reader(days=Days.SUNDAY)
    picks.plan_due(at(days[-1].day, "07:00"))
    delivery = only_delivery(alice)
    assert (delivery.state, delivery.skip_reason) == (State.SKIPPED, days[-1].reason)
    assert delivery.editions_from is None


def test_a_week_in_which_nothing_was_close_enough_is_skipped_with_its_reason() -> None:
    week = a_week()
    alice = reader(days=Days.SUNDAY)
    make_interest(alice, "hers", authors=["Nobody Here"])
    bob = reader("bob", days=Days.SUNDAY, muted_terms=("number",))
    picks.plan_due(at(week[-1].day, "07:00"))
    assert only_delivery(alice).skip_reason == picks.NOT_CLOSE_OF_DAYS
    assert only_delivery(bob).skip_reason == picks.ALL_SHOWN_OF_DAYS
    assert "these days" in picks.NOT_CLOSE_OF_DAYS


def test_the_best_of_the_week_comes_first_and_only_the_newest_pins_are_pinned() -> None:
    week = a_week()
    best = week[2].candidates.get(paper__title__endswith="number 1")
    EditionPaper.objects.filter(pk=best.pk).update(trend=0.9)
    old, new = week[1].candidates.first(), week[-1].candidates.last()
    assert old is not None
    assert new is not None
    for pin in (old, new):
        EditionPaper.objects.filter(pk=pin.pk).update(curation="pinned")
    alice = reader(days=Days.SUNDAY)
    picks.plan_due(at(week[-1].day, "07:00"))
    delivery = only_delivery(alice)
    sections = dict(zip(delivery.paper_ids, delivery.sections, strict=True))
    assert delivery.paper_ids[0] == best.paper_id
    assert sections[new.paper_id] == Section.PINNED
    assert sections[old.paper_id] == Section.TRENDING


def test_a_paper_of_two_editions_comes_once_and_one_hidden_in_any_does_not() -> None:
    twice, hidden = make_paper("Monday twice"), make_paper("Monday hidden")
    monday = edition_of(MONDAY, twice, hidden)
    tuesday = edition_of(MONDAY + ONE_DAY, twice, hidden, *papers_of(MONDAY + ONE_DAY))
    monday.candidates.filter(paper=hidden).update(curation="hidden")
    monday.candidates.filter(paper=twice).update(note="Of Monday.", trend=0.9)
    tuesday.candidates.filter(paper=twice).update(note="Of Tuesday.", trend=0.1)
    alice = reader(days=Days.TUESDAY)
    picks.plan_due(at(tuesday.day, "07:00"))
    delivery = only_delivery(alice)
    assert delivery.paper_ids.count(twice.pk) == 1
    assert hidden.pk not in delivery.paper_ids
    trend = delivery.terms[delivery.paper_ids.index(twice.pk) * len(Delivery.TERMS) + 5]
    assert trend == pytest.approx(0.1)
    [note] = [pick.note for pick in mail.picks_of(delivery) if pick.paper == twice]
    assert note == "Of Tuesday."


def test_the_mail_shows_papers_of_every_day_with_their_notes_and_true_reasons() -> None:
    week = a_week()
    noted = week[0].candidates.get(paper__title__endswith="number 0")
    EditionPaper.objects.filter(pk=noted.pk).update(note="Read the appendix.")
    alice = reader("alice", "Asia/Kolkata", (7, 30), Days.SUNDAY)
    picks.plan_due(at(week[-1].day, "07:00"))
    delivery = only_delivery(alice)
    shown = {pick.paper.pk: pick for pick in mail.picks_of(delivery)}
    assert len(shown) == 14
    assert shown[noted.paper_id].note == "Read the appendix."
    assert shown[noted.paper_id].reason == "New on 16 November"
    newest = week[-1].candidates.first()
    assert newest is not None
    assert shown[newest.paper_id].reason == "New today"
    text = " ".join(str(mail.compose(delivery).body).split())
    assert "at most once a week, at 07:30 (Asia/Kolkata), on Sundays." in text
    assert "Read the appendix." in text

    editions.curate(noted, EditionPaper.Curation.HIDDEN)
    assert noted.paper_id not in {pick.paper.pk for pick in mail.picks_of(delivery)}
    assert explaining.why_not(delivery, noted.paper).verdict == "picked"
    explained = {pick.paper_id: pick.hidden for pick in explaining.explain(delivery).picks}
    assert explained[noted.paper_id]


def test_why_not_knows_the_papers_of_all_the_days() -> None:
    week = a_week()
    alice = reader(days=Days.SUNDAY)
    Subscriber.objects.update(papers_per_mail=3)
    picks.plan_due(at(week[-1].day, "07:00"))
    delivery = only_delivery(alice)
    left_out = Paper.objects.exclude(pk__in=delivery.paper_ids)
    verdicts = {explaining.why_not(delivery, paper).verdict for paper in left_out}
    assert verdicts == {"outranked"}
    elsewhere = edition_of(MONDAY - ONE_DAY, make_paper("Elsewhere")).papers.get()
    assert explaining.why_not(delivery, elsewhere).verdict == "elsewhere"


def test_what_a_weekly_mail_has_shown_is_not_shown_again() -> None:
    week = a_week()
    alice = reader(days=Days.SUNDAY)
    picks.plan_due(at(week[-1].day, "07:00"))
    again = Paper.objects.get(title__startswith="Tuesday", title__endswith="number 0")
    monday = edition_of(MONDAY + 7 * ONE_DAY, again, *papers_of(MONDAY + 7 * ONE_DAY))
    picks.plan_everybody(monday, at(monday.day, "04:00"))
    assert again.pk not in alice.deliveries.get(edition=monday).paper_ids


def test_few_queries_for_a_batch_of_all_kinds(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    week = a_week()
    for n, days in enumerate([*Days, *Days, Days.DAILY]):
        reader(f"r{n}", days=days)
    sunday = at(week[-1].day, "07:00")
    picks.plan_due(sunday)
    Delivery.objects.all().delete()
    Subscriber.objects.update(next_send_at=sunday)
    with django_assert_max_num_queries(26):
        assert picks.plan_due(sunday) == 19
    assert Delivery.objects.filter(editions_from=None).count() == 3


# --- Late freezes, outages, changes of settings ---------------------------------------------------


def test_who_is_daily_gets_an_edition_that_no_slot_has_brought_with_the_next_one() -> None:
    """Held by the curators until after the reader's hour, when the one before was still current."""
    late = edition_of(MONDAY - ONE_DAY, *papers_of(MONDAY - ONE_DAY), clock="10:00")
    alice = reader(since=at(MONDAY, "00:00"))
    make_delivery(alice, edition=late)
    held = edition_of(MONDAY, *papers_of(MONDAY), clock="10:00")
    picks.plan_due(at(MONDAY, "07:00"))
    assert not held.deliveries.exists()
    tuesday = edition_of(MONDAY + ONE_DAY, *papers_of(MONDAY + ONE_DAY))
    picks.plan_due(at(tuesday.day, "07:00"))
    delivery = alice.deliveries.get(edition=tuesday)
    assert delivery.editions_from == MONDAY
    assert days_in(delivery) == {"Monday", "Tuesday"}


def test_after_an_outage_who_is_daily_gets_the_newest_edition_alone() -> None:
    """An edition older than its day is not mailed."""
    week = a_week()
    alice = reader(since=at(MONDAY, "00:00"))
    picks.plan_due(at(week[0].day, "07:00"))
    assert picks.plan_due(at(week[4].day, "09:00")) == 1
    first, second = alice.deliveries.order_by("planned_at")
    assert (first.edition, second.edition) == (week[0], week[4])
    assert (second.editions_from, days_in(second)) == (None, {"Friday"})
    alice.refresh_from_db()
    assert alice.next_send_at == at(week[5].day, "07:00")


def test_days_frozen_when_they_were_over_are_no_news_to_who_is_daily() -> None:
    today = MONDAY + 3 * ONE_DAY
    for n in range(3):
        edition = edition_of(MONDAY + n * ONE_DAY, *papers_of(MONDAY + n * ONE_DAY))
        moment = at(today, "02:00") + n * timedelta(minutes=1)
        Edition.objects.filter(pk=edition.pk).update(frozen_at=moment)
    edition_of(today, *papers_of(today))
    alice, bob = reader(), reader("bob", days=Days.THURSDAY)
    picks.plan_due(at(today, "07:00"))
    assert days_in(only_delivery(alice)) == {"Thursday"}
    assert len(days_in(only_delivery(bob))) == 4


def save(subscriber: Subscriber, **settings: object) -> None:
    values: dict[str, object] = {
        "time_zone": "UTC", "send_hour": 7, "papers_per_mail": 20, "paused": False,
    }  # fmt: skip
    subscriptions.change(subscriber, [], **(values | settings))  # type: ignore[arg-type]
    subscriber.refresh_from_db()


@pytest.mark.parametrize(
    "changed",
    [
        {"send_hour": 5}, {"send_hour": 8}, {"send_hour": 18, "send_minute": 45},
        {"time_zone": "Pacific/Kiritimati"}, {"time_zone": "Pacific/Pago_Pago"},
        {"send_days": Days.WEEKDAYS}, {"send_days": Days.MONDAY}, {"send_days": Days.TUESDAY},
    ],
)  # fmt: skip
@pytest.mark.parametrize("clock", ["06:00", "07:05", "12:00"])
def test_no_change_of_settings_doubles_or_loses_an_edition(
    changed: dict[str, object], clock: str
) -> None:
    """On Monday, before the reader's slot, after it, and at noon."""
    days = [MONDAY + n * ONE_DAY for n in range(-1, 9)]
    for day in days:
        edition_of(day, *papers_of(day, 1))
    alice = reader(since=at(MONDAY - ONE_DAY, "06:00"))
    changed_at = at(MONDAY, clock)
    for now in ticks(at(MONDAY - ONE_DAY, "06:00"), changed_at):
        picks.plan_due(now)
    with time_machine.travel(changed_at, tick=False):
        save(alice, **changed)
    for now in ticks(changed_at + timedelta(minutes=1), at(days[-1], "23:59")):
        picks.plan_due(now)
    mails = list(alice.deliveries.select_related("edition").order_by("planned_at"))
    shown = [pk for one in mails for pk in one.paper_ids]
    assert len(shown) == len(set(shown))
    for before, one in pairwise(mails):
        assert (one.editions_from or one.edition.day) == before.edition.day + ONE_DAY
    assert mails[0].edition.day == MONDAY - ONE_DAY
    assert mails[-1].edition.day >= MONDAY + 6 * ONE_DAY
    for one in mails[2:]:
        local = one.planned_at.astimezone(ZoneInfo(alice.time_zone))
        assert local.hour == alice.send_hour
        assert local.weekday() in schedule.WEEKDAYS[alice.send_days]


def test_days_and_quarter_of_who_signs_up_again_are_what_the_page_promises() -> None:
    alice = reader(clock=(9, 45), days=Days.FRIDAY)
    subscriptions.unsubscribe(alice, way="test")
    subscriptions.subscribe(alice.address, [], time_zone="Asia/Tokyo", send_hour=6)
    alice.refresh_from_db()
    assert alice.slots == ("Asia/Tokyo", 6, 0, Days.DAILY)


# --- Two beats, and clocks that jump --------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_planners_at_one_time_double_and_lose_nobody(settings: Settings) -> None:
    settings.PLAN_BATCH_SIZE = 3
    week = a_week()
    for n in range(30):
        reader(f"r{n}", days=Days.SUNDAY if n % 5 == 0 else Days.DAILY)
    sunday = at(week[-1].day, "07:00")
    planned: list[int] = []

    def plan() -> None:
        try:
            planned.append(picks.plan_due(sunday))
        finally:
            connection.close()

    threads = [threading.Thread(target=plan) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(planned) == 30
    assert len(planned) == 4
    assert Delivery.objects.values("subscriber").distinct().count() == 30
    assert Delivery.objects.count() == 30
    assert not Subscriber.objects.due(sunday).exists()


def deliveries_by_day(subscriber: Subscriber) -> list[date]:
    rows = subscriber.deliveries.exclude(state=State.SKIPPED).order_by("edition__day")
    return list(rows.values_list("edition__day", flat=True))


def test_a_clock_that_ran_a_day_ahead_loses_nobody_when_it_is_set_right() -> None:
    tuesday = MONDAY + ONE_DAY
    papers_of(MONDAY)
    early = reader("early", clock=(7, 0), since=at(MONDAY, "00:00"))
    late = reader("late", clock=(18, 0), since=at(MONDAY, "00:00"))
    missed = reader("missed", clock=(9, 30), since=at(MONDAY, "00:00"))
    weekly = reader("weekly", clock=(18, 0), days=Days.TUESDAY, since=at(MONDAY, "00:00"))
    with time_machine.travel(at(MONDAY, "08:00"), tick=False) as clock:
        for now in (at(MONDAY, "03:00"), at(MONDAY, "07:00"), at(MONDAY, "08:00")):
            picks.plan_due(now)
        clock.move_to(at(tuesday, "19:00"))
        picks.plan_due(at(tuesday, "19:00"))  # without papers: Tuesday's edition is empty
        clock.move_to(at(MONDAY, "10:00"))
        picks.plan_due(at(MONDAY, "10:00"))
        assert deliveries_by_day(missed) == [MONDAY]
        picks.plan_due(at(MONDAY, "18:00"))
        papers_of(MONDAY + 2 * ONE_DAY)
        clock.move_to(at(tuesday, "19:00"))
        picks.plan_due(at(tuesday, "19:00"))
        clock.move_to(at(MONDAY + 2 * ONE_DAY, "19:00"))
        picks.plan_due(at(MONDAY + 2 * ONE_DAY, "19:00"))
    wednesday = MONDAY + 2 * ONE_DAY
    for one in (early, late, missed):
        assert deliveries_by_day(one) == [MONDAY, wednesday], one.address
        one.refresh_from_db()
        assert one.next_send_at == schedule.next_slot(at(wednesday, "19:00"), *one.slots)
    assert deliveries_by_day(weekly) == [tuesday]


def test_a_clock_that_goes_back_an_hour_doubles_nobody() -> None:
    papers_of(MONDAY)
    alice = reader(since=at(MONDAY, "00:00"))
    with time_machine.travel(at(MONDAY, "07:00"), tick=False) as clock:
        assert picks.plan_due(at(MONDAY, "07:00")) == 1
        clock.move_to(at(MONDAY, "06:00"))
        for minutes in range(0, 120, 15):
            picks.plan_due(at(MONDAY, "06:00") + timedelta(minutes=minutes))
    assert deliveries_by_day(alice) == [MONDAY]
    alice.refresh_from_db()
    assert alice.next_send_at == at(MONDAY + ONE_DAY, "07:00")


def test_a_clock_that_goes_back_behind_the_freeze_waits_for_it() -> None:
    papers_of(MONDAY)
    alice = reader(clock=(3, 0), since=at(MONDAY, "00:00"))
    with time_machine.travel(at(MONDAY, "02:30"), tick=False) as clock:
        clock.move_to(at(MONDAY, "03:10"))
        editions.freeze_due(at(MONDAY, "03:10"))
        clock.move_to(at(MONDAY, "02:10"))
        assert picks.plan_due(at(MONDAY, "02:10")) == 0
        clock.move_to(at(MONDAY, "03:15"))
        assert picks.plan_due(at(MONDAY, "03:15")) == 1
    assert deliveries_by_day(alice) == [MONDAY]
