"""All arithmetic with time zones: when a subscriber's next slot is, in UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones


@cache
def zone_names() -> frozenset[str]:
    """Every zone a subscriber may live in; without the database's two stand-ins for none."""
    return frozenset(available_timezones() - {"Factory", "localtime"})


def _zone(name: str) -> ZoneInfo:
    """UTC stands in for a zone that the database of zones has dropped: no reader stops the run."""
    return ZoneInfo(name if name in zone_names() else "UTC")


def slot(day: date, zone: ZoneInfo, hour: int) -> datetime:
    """The moment, in UTC, at which `hour` strikes on `day` in `zone`.

    A local time that the spring gap leaves out is the first instant after the gap; of the two in
    the autumn overlap it is the first.
    """
    local = datetime.combine(day, time(hour), tzinfo=zone)  # fold=0: the first of two
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


def next_slot(after: datetime, zone_name: str, hour: int) -> datetime:
    """The first slot strictly after `after`, in UTC."""
    zone = _zone(zone_name)
    day = after.astimezone(zone).date() - timedelta(days=1)
    while True:
        moment = slot(day, zone, hour)
        if moment > after:
            return moment
        day += timedelta(days=1)


def last_slot(until: datetime, zone_name: str, hour: int) -> datetime:
    """The newest slot not after `until`, in UTC."""
    zone = _zone(zone_name)
    day = until.astimezone(zone).date() + timedelta(days=1)
    while True:
        moment = slot(day, zone, hour)
        if moment <= until:
            return moment
        day -= timedelta(days=1)


def same_local_day(one: datetime, other: datetime, zone_name: str) -> bool:
    """Whether two moments fall on the same date in a zone."""
    zone = _zone(zone_name)
    return one.astimezone(zone).date() == other.astimezone(zone).date()
