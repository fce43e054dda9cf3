"""When a subscriber's next mail is due: zones, and their two odd hours a year."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsletter.schedule import last_slot, next_slot, same_local_day, slot, zone_names

zones = st.sampled_from(sorted(zone_names()))
hours = st.integers(0, 23)
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


@settings(deadline=None)
@given(moments, zones, hours)
def test_the_next_slot_is_soon_and_at_the_wanted_hour(
    after: datetime, zone: str, hour: int
) -> None:
    found = next_slot(after, zone, hour)
    assert timedelta() < found - after <= timedelta(hours=49)
    local = found.astimezone(ZoneInfo(zone))
    if (local.hour, local.minute) != (hour, 0):
        # Only in a gap, at the very instant at which clocks jump over the wanted hour.
        before = (found - timedelta(seconds=1)).astimezone(ZoneInfo(zone))
        assert before.replace(tzinfo=None) < local.replace(tzinfo=None) - timedelta(minutes=1)
        assert (
            before.replace(tzinfo=None)
            < local.replace(hour=hour, minute=0, tzinfo=None)
            <= local.replace(tzinfo=None)
        )


@settings(deadline=None)
@given(moments, zones, hours)
def test_no_slot_lies_between_the_last_and_the_next(moment: datetime, zone: str, hour: int) -> None:
    last, following = last_slot(moment, zone, hour), next_slot(moment, zone, hour)
    assert last <= moment < following
    assert next_slot(last, zone, hour) == following
    assert last_slot(following - timedelta(microseconds=1), zone, hour) == last


@settings(deadline=None)
@given(moments, zones, hours)
def test_sixty_slots_are_on_sixty_local_days_in_a_row(
    start: datetime, zone: str, hour: int
) -> None:
    moment, days = start, []
    for _ in range(60):
        moment = next_slot(moment, zone, hour)
        days.append(moment.astimezone(ZoneInfo(zone)).date())
    assert days == [days[0] + timedelta(days=n) for n in range(60)]


def test_no_stand_in_for_a_zone_is_offered() -> None:
    assert {"UTC", "Europe/Berlin", "Asia/Kolkata", "CET"} <= zone_names()
    assert not {"Factory", "localtime"} & zone_names()
