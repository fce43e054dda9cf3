"""When a subscriber's next mail is due: zones, and their two odd hours a year."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from newsletter.picks import _choice, _missed
from newsletter.schedule import (
    QUARTERS,
    WEEKDAYS,
    Days,
    in_words,
    last_slot,
    next_slot,
    same_local_day,
    slot,
    zone_names,
)
from papers.models import Edition

ODD = [
    "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Australia/Eucla", "Pacific/Chatham",
    "Pacific/Kiritimati", "Pacific/Pago_Pago", "Pacific/Apia", "America/Nuuk", "America/St_Johns",
    "Africa/Casablanca", "America/Santiago", "Europe/Berlin", "America/New_York", "UTC",
]  # fmt: skip

zones = st.sampled_from(sorted(zone_names())) | st.sampled_from(ODD)
hours = st.integers(0, 23)
quarters = st.sampled_from(QUARTERS)
choices_of_days = st.sampled_from(Days.values)
moments = st.datetimes(
    datetime(2020, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC), allow_imaginary=False
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day", "hour", "expected"),
    [
        ("UTC", "2026-11-20", 7, "2026-11-20T07:00"),
        ("Europe/Berlin", "2026-01-15", 7, "2026-01-15T06:00"),
        ("Europe/Berlin", "2026-07-15", 7, "2026-07-15T05:00"),
        ("Asia/Kolkata", "2026-11-20", 7, "2026-11-20T01:30"),
        ("Asia/Kathmandu", "2026-11-20", 7, "2026-11-20T01:15"),
        ("Pacific/Chatham", "2026-07-15", 7, "2026-07-14T18:15"),
        ("America/St_Johns", "2026-01-15", 7, "2026-01-15T10:30"),
        # Either side of the date line, the same date is a day apart.
        ("Pacific/Kiritimati", "2026-11-20", 0, "2026-11-19T10:00"),
        ("Pacific/Pago_Pago", "2026-11-20", 23, "2026-11-21T10:00"),
    ],
)
def test_an_hour_strikes_at_its_moment(zone: str, day: str, hour: int, expected: str) -> None:
    assert slot(date.fromisoformat(day), ZoneInfo(zone), hour) == at(expected)


@pytest.mark.parametrize(
    ("zone", "day", "hour", "expected"),
    [
        ("Europe/Berlin", "2026-03-29", 2, "2026-03-29T01:00"),
        ("America/New_York", "2026-03-08", 2, "2026-03-08T07:00"),
        # Half an hour: 02:00 does not strike, and the first instant after the gap is 02:30.
        ("Australia/Lord_Howe", "2026-10-04", 2, "2026-10-03T15:30"),
        ("America/Santiago", "2026-09-06", 0, "2026-09-06T04:00"),
        ("Africa/Cairo", "2026-04-24", 0, "2026-04-23T22:00"),
        # A whole day that Samoa left out, on its way over the date line.
        ("Pacific/Apia", "2011-12-30", 7, "2011-12-30T10:00"),
    ],
)
def test_in_the_spring_gap_it_is_the_first_instant_after_it(
    zone: str, day: str, hour: int, expected: str
) -> None:
    moment = slot(date.fromisoformat(day), ZoneInfo(zone), hour)
    assert moment == at(expected)
    before = (moment - timedelta(microseconds=1)).astimezone(ZoneInfo(zone))
    assert before.utcoffset() != moment.astimezone(ZoneInfo(zone)).utcoffset()


@pytest.mark.parametrize(
    ("zone", "day", "hour", "expected"),
    [
        ("Europe/Berlin", "2026-10-25", 2, "2026-10-25T00:00"),
        ("America/New_York", "2026-11-01", 1, "2026-11-01T05:00"),
        # Half an hour back at 02:00: 01:30 to 02:00 comes twice, so no full hour does.
        ("Australia/Lord_Howe", "2026-04-05", 1, "2026-04-04T14:00"),
        ("Australia/Lord_Howe", "2026-04-05", 2, "2026-04-04T15:30"),
        ("Africa/Cairo", "2026-10-29", 23, "2026-10-29T20:00"),
    ],
)
def test_in_the_autumn_overlap_it_is_the_first_of_the_two(
    zone: str, day: str, hour: int, expected: str
) -> None:
    assert slot(date.fromisoformat(day), ZoneInfo(zone), hour) == at(expected)


def test_in_the_second_hour_of_an_overlap_the_slot_has_passed() -> None:
    second = at("2026-10-25T01:00")  # 02:00 in Berlin, for the second time
    assert last_slot(second, "Europe/Berlin", 2) == at("2026-10-25T00:00")
    assert next_slot(second, "Europe/Berlin", 2) == at("2026-10-26T01:00")


def test_the_days_around_a_change_are_23_and_25_hours_apart() -> None:
    spring = next_slot(at("2026-03-28T06:00"), "Europe/Berlin", 7)
    assert spring - at("2026-03-28T06:00") == timedelta(hours=23)
    autumn = next_slot(at("2026-10-24T05:00"), "Europe/Berlin", 7)
    assert autumn - at("2026-10-24T05:00") == timedelta(hours=25)


def test_the_next_slot_is_after_the_moment_and_the_last_may_be_the_moment() -> None:
    moment = at("2026-11-20T07:00")
    assert next_slot(moment, "UTC", 7) == moment + timedelta(days=1)
    assert last_slot(moment, "UTC", 7) == moment
    just_before = moment - timedelta(microseconds=1)
    assert next_slot(just_before, "UTC", 7) == moment
    assert last_slot(just_before, "UTC", 7) == moment - timedelta(days=1)


def test_the_same_moment_may_be_another_day_elsewhere() -> None:
    one, other = at("2026-11-20T09:00"), at("2026-11-20T11:00")
    assert same_local_day(one, other, "UTC")
    assert not same_local_day(one, other, "Pacific/Kiritimati")


def test_a_quarter_past_is_where_it_strikes() -> None:
    kathmandu = ZoneInfo("Asia/Kathmandu")  # UTC+5:45
    assert slot(date(2026, 11, 20), kathmandu, 7, 30) == at("2026-11-20T01:45")
    lord_howe = ZoneInfo("Australia/Lord_Howe")
    # 02:00 to 02:30 is left out in spring, and 01:30 to 02:00 comes twice in autumn.
    for minute, struck in ((0, "15:30"), (15, "15:30"), (30, "15:30"), (45, "15:45")):
        assert slot(date(2026, 10, 4), lord_howe, 2, minute) == at(f"2026-10-03T{struck}")
    assert slot(date(2026, 4, 5), lord_howe, 1, 45) == at("2026-04-04T14:45")


def test_weekdays_and_a_day_of_the_week_are_those_of_the_local_calendar() -> None:
    friday = at("2026-11-20T12:00")
    assert next_slot(friday, "UTC", 7, 30, Days.WEEKDAYS) == at("2026-11-23T07:30")
    assert next_slot(friday, "UTC", 7, 0, Days.THURSDAY) == at("2026-11-26T07:00")
    assert last_slot(friday, "UTC", 7, 0, Days.MONDAY) == at("2026-11-16T07:00")
    # Monday morning begins on Sunday in UTC, or is not over on Tuesday.
    assert next_slot(friday, "Pacific/Kiritimati", 7, 0, Days.MONDAY) == at("2026-11-22T17:00")
    assert next_slot(friday, "Pacific/Pago_Pago", 23, 0, Days.MONDAY) == at("2026-11-24T10:00")


def test_a_day_that_a_zone_left_out_brings_no_mail_at_an_odd_hour() -> None:
    """Samoa went from Thursday, 29 December 2011, to Saturday."""
    thursday = at("2011-12-29T17:00")
    assert next_slot(thursday - timedelta(days=1), "Pacific/Apia", 7) == thursday
    saturday = next_slot(thursday, "Pacific/Apia", 7)
    assert saturday == at("2011-12-30T17:00")
    assert saturday.astimezone(ZoneInfo("Pacific/Apia")).isoformat()[:16] == "2011-12-31T07:00"
    # Who would wait for days or a week gets it as soon as the day that was left out is over.
    midnight = at("2011-12-30T10:00")
    for days in (Days.WEEKDAYS, Days.FRIDAY):
        assert next_slot(thursday, "Pacific/Apia", 7, 0, days) == midnight
    assert next_slot(midnight, "Pacific/Apia", 7, 0, Days.FRIDAY) == at("2012-01-05T17:00")


def test_a_gap_that_ends_at_midnight_takes_no_slot_away() -> None:
    before = at("2024-03-30T12:00")  # in Nuuk, 23:00 to 24:00 is left out on this day
    assert next_slot(before, "America/Nuuk", 23) == at("2024-03-31T01:00")
    assert next_slot(before, "America/Nuuk", 23, 0, Days.SATURDAY) == at("2024-03-31T01:00")
    assert next_slot(at("2024-03-31T01:00"), "America/Nuuk", 23) == at("2024-04-01T00:00")


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (Days.DAILY, "at most once a day, at 07:30 (Asia/Kolkata)"),
        (Days.WEEKDAYS, "at most once a day, at 07:30 (Asia/Kolkata), Monday to Friday"),
        (Days.SUNDAY, "at most once a week, at 07:30 (Asia/Kolkata), on Sundays"),
    ],
)
def test_when_mail_comes_is_said_in_words(days: Days, words: str) -> None:
    assert in_words("Asia/Kolkata", 7, 30, days) == words


def days_of(moment: datetime, zone: str, hour: int, minute: int) -> list[date]:
    """The local days whose wanted time this is: struck, or jumped over at this very instant."""
    local, before = (
        instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        for instant in (moment, moment - timedelta(seconds=1))
    )
    midnight = datetime(before.year, before.month, before.day)
    wanted = (midnight + timedelta(days=n, hours=hour, minutes=minute) for n in range(3))
    return [time.date() for time in wanted if before < time <= local]


@settings(deadline=None)
@given(moments, zones, hours, quarters, choices_of_days)
def test_the_next_slot_is_soon_and_at_the_wanted_time_of_a_wanted_day(
    after: datetime, zone: str, hour: int, minute: int, days: str
) -> None:
    found = next_slot(after, zone, hour, minute, days)
    wanted = WEEKDAYS[days]
    longest = {7: 49, 5: 24 * 3 + 25, 1: 24 * 7 + 25}[len(wanted)]
    assert timedelta() < found - after <= timedelta(hours=longest)
    assert any(day.weekday() in wanted for day in days_of(found, zone, hour, minute))


@settings(deadline=None)
@given(moments, zones, hours, quarters, choices_of_days)
def test_no_slot_lies_between_the_last_and_the_next(
    moment: datetime, zone: str, hour: int, minute: int, days: str
) -> None:
    slots = (zone, hour, minute, days)
    last, following = last_slot(moment, *slots), next_slot(moment, *slots)
    assert last <= moment < following
    assert next_slot(last, *slots) == following
    assert last_slot(following - timedelta(microseconds=1), *slots) == last


@settings(deadline=None)
@given(moments, zones, hours, quarters, choices_of_days)
def test_sixty_slots_are_on_the_wanted_local_days_in_a_row(
    start: datetime, zone: str, hour: int, minute: int, days: str
) -> None:
    moment, found = start, []
    for _ in range(60):
        moment = next_slot(moment, zone, hour, minute, days)
        found += days_of(moment, zone, hour, minute)
    every = (found[0] + timedelta(days=n) for n in range((found[-1] - found[0]).days + 1))
    assert found == [day for day in every if day.weekday() in WEEKDAYS[days]]


# --- Whole years, edition by edition --------------------------------------------------------------


def mails_of_years(
    slots: tuple[str, int, int, str], freeze: timedelta, start: date, years: int
) -> list[tuple[datetime, list[date]]]:
    """When a reader gets mail, and the days of the editions that each is chosen from."""
    editions = [
        Edition(
            pk=number + 1,
            day=start + timedelta(days=number),
            state=Edition.State.FROZEN,
            frozen_at=datetime.combine(start, datetime.min.time(), UTC)
            + timedelta(days=number)
            + freeze,
        )
        for number in range(366 * years)
    ]
    first, end = editions[0].frozen_at, editions[-1].frozen_at
    assert first is not None
    assert end is not None
    due, mails, served = next_slot(first, *slots), [], None
    while due < end:
        current = (due - first) // timedelta(days=1)
        older = editions[max(current - 7, 0) : current][::-1]
        if served != editions[current].day:
            missed = older[: _missed(editions[current], older, slots)]
            choice = _choice(editions[current], missed, served)
            served = choice[0].day
            mails.append((due, [edition.day for edition in choice]))
        due = next_slot(due, *slots)
    return mails


@settings(deadline=None, max_examples=25)
@given(zones, hours, quarters, choices_of_days, st.integers(0, 95), st.integers(2010, 2030))
@example("Europe/Berlin", 4, 30, Days.DAILY, 12, 2025)
@example("Europe/Berlin", 4, 30, Days.MONDAY, 12, 2025)
@example("Europe/Berlin", 2, 0, Days.DAILY, 4, 2025)
@example("Australia/Lord_Howe", 2, 15, Days.SUNDAY, 62, 2025)
@example("Pacific/Apia", 7, 0, Days.DAILY, 12, 2011)
@example("Pacific/Apia", 7, 0, Days.FRIDAY, 12, 2011)
@example("Pacific/Kiritimati", 0, 0, Days.WEEKDAYS, 12, 2025)
@example("Pacific/Pago_Pago", 23, 45, Days.WEEKDAYS, 12, 2025)
@example("Asia/Kathmandu", 8, 45, Days.DAILY, 12, 2025)
def test_in_two_years_every_edition_is_in_exactly_one_mail_at_the_right_local_time(
    zone: str, hour: int, minute: int, days: str, freeze_quarter: int, year: int
) -> None:
    slots = (zone, hour, minute, days)
    freeze = timedelta(minutes=15 * freeze_quarter)
    mails = mails_of_years(slots, freeze, date(year, 1, 1), 2)
    for moment, _ in mails:
        on = days_of(moment, zone, hour, minute)
        assert any(day.weekday() in WEEKDAYS[days] for day in on)
    brought = [day for _, chosen in mails for day in reversed(chosen)]
    assert brought == [brought[0] + timedelta(days=n) for n in range(len(brought))]
    if days == Days.DAILY:
        # Two editions in one mail, or no mail, only where clocks change around the freeze.
        assert sum(len(chosen) > 1 for _, chosen in mails) <= 8
    else:
        assert max(len(chosen) for _, chosen in mails) <= 8


def test_no_stand_in_for_a_zone_is_offered() -> None:
    assert {"UTC", "Europe/Berlin", "Asia/Kolkata", "CET"} <= zone_names()
    assert not {"Factory", "localtime"} & zone_names()
