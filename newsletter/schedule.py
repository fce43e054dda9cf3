"""All arithmetic with time zones: when a subscriber's next slot is, in UTC."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from django.db import models

ONE_DAY = timedelta(days=1)
MOMENT = timedelta(microseconds=1)

QUARTERS = (0, 15, 30, 45)


class Days(models.TextChoices):
    """On which days of their own calendar somebody wants mail."""

    DAILY = "daily", "Every day"
    WEEKDAYS = "weekdays", "Monday to Friday"
    MONDAY = "monday", "Once a week, on Mondays"
    TUESDAY = "tuesday", "Once a week, on Tuesdays"
    WEDNESDAY = "wednesday", "Once a week, on Wednesdays"
    THURSDAY = "thursday", "Once a week, on Thursdays"
    FRIDAY = "friday", "Once a week, on Fridays"
    SATURDAY = "saturday", "Once a week, on Saturdays"
    SUNDAY = "sunday", "Once a week, on Sundays"


_WEEK = (
    Days.MONDAY, Days.TUESDAY, Days.WEDNESDAY, Days.THURSDAY, Days.FRIDAY, Days.SATURDAY,
    Days.SUNDAY,
)  # fmt: skip

WEEKDAYS: dict[str, frozenset[int]] = {
    Days.DAILY: frozenset(range(7)),
    Days.WEEKDAYS: frozenset(range(5)),
    **{day: frozenset([number]) for number, day in enumerate(_WEEK)},
}  # Monday is 0


def in_words(zone_name: str, hour: int, minute: int, days: str) -> str:
    """When mail comes, as the end of a sentence."""
    clock = f"at {hour:02}:{minute:02} ({zone_name})"
    if days == Days.DAILY:
        return f"at most once a day, {clock}"
    if days == Days.WEEKDAYS:
        return f"at most once a day, {clock}, Monday to Friday"
    return f"at most once a week, {clock}, on {days.capitalize()}s"


@cache
def zone_names() -> frozenset[str]:
    """Every zone a subscriber may live in; without the database's two stand-ins for none."""
    return frozenset(available_timezones() - {"Factory", "localtime"})


def _zone(name: str) -> ZoneInfo:
    """UTC stands in for a zone that the database of zones has dropped: no reader stops the run."""
    return ZoneInfo(name if name in zone_names() else "UTC")


def slot(day: date, zone: ZoneInfo, hour: int, minute: int = 0) -> datetime:
    """The moment, in UTC, at which the clocks of `zone` show `hour`:`minute` on `day`.

    A local time that the spring gap leaves out is the first instant after the gap; of the two in
    the autumn overlap it is the first.
    """
    local = datetime.combine(day, time(hour, minute), tzinfo=zone)  # fold=0: the first of two
    moment = local.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return moment
    # In the gap, fold=0 counts with the offset before it: `moment` lies as far after the jump as
    # the wanted time lies after the gap's start. Find the jump between the two readings.
    low, high = local.replace(fold=1).astimezone(UTC), moment
    offset = high.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return high.replace(microsecond=0)


def next_slot(
    after: datetime, zone_name: str, hour: int, minute: int = 0, days: str = Days.DAILY
) -> datetime:
    """The first slot strictly after `after`, in UTC."""
    start = after.astimezone(_zone(zone_name)).date() - ONE_DAY
    moments = _slots(start, ONE_DAY, zone_name, hour, minute, days)
    return next(moment for moment in moments if moment > after)


def last_slot(
    until: datetime, zone_name: str, hour: int, minute: int = 0, days: str = Days.DAILY
) -> datetime:
    """The newest slot not after `until`, in UTC."""
    start = until.astimezone(_zone(zone_name)).date() + ONE_DAY
    moments = _slots(start, -ONE_DAY, zone_name, hour, minute, days)
    return next(moment for moment in moments if moment <= until)


def _slots(
    day: date, step: timedelta, zone_name: str, hour: int, minute: int, days: str
) -> Iterator[datetime]:
    """The slots from `day` on, forwards or backwards."""
    zone, wanted = _zone(zone_name), WEEKDAYS[days]
    while True:
        if day.weekday() in wanted:
            moment = slot(day, zone, hour, minute)
            # A day that the zone left out, as Samoa did once on its way over the date line, has no
            # slot where the next one has: two on one day would be a mail at the wrong hour.
            there = _on(day, moment, zone) or _on(day, slot(day, zone, 0), zone)
            if there or (day + ONE_DAY).weekday() not in wanted:
                yield moment
        day += step


def _on(day: date, moment: datetime, zone: ZoneInfo) -> bool:
    return moment.astimezone(zone).date() == day


def same_local_day(one: datetime, other: datetime, zone_name: str) -> bool:
    """Whether two moments fall on the same date in a zone."""
    zone = _zone(zone_name)
    return one.astimezone(zone).date() == other.astimezone(zone).date()
