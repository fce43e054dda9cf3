"""What is kept for how long: old rows go in small batches, beside the day's run and not before it.

A delivery that is not settled never goes, however old: a mail of unknown outcome is an operator's
to judge. Records of consent stay for ever: they prove that a reader asked for this mail, or left,
and hold no address but its keyed hash. So do suppressions, for what they are. Of harvests the last
finished one of each source and part stays: the next one begins where it began.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.db import transaction
from django.db.models import F, Q, QuerySet

from newsletter.models import Delivery, DeliveryEvent, TokenBucket
from papers.models import Harvest, Source, SourceAnswer

log = logging.getLogger(__name__)

S = Delivery.State

SETTLED = (
    S.SENT, S.DELIVERED, S.BOUNCED, S.COMPLAINED, S.FAILED, S.SUPPRESSED, S.EXPIRED, S.SKIPPED,
)  # fmt: skip

ROWS_AT_ONCE = 2000
PAUSE_SECONDS = 0.5  # between two batches, for vacuum, replicas and whoever waits
# Of one run; what is left waits for the next day. Shorter than Redis keeps a task in hand.
PRUNE_SECONDS = 1800.0
# A bucket that nobody asked for this long is full, as is one that is not there.
BUCKETS_KEPT = timedelta(days=2)


@dataclass(slots=True)
class Pruned:
    """How many rows went, or would go."""

    deliveries: int = 0
    events: int = 0
    harvests: int = 0

    def __str__(self) -> str:
        return f"{self.deliveries} deliveries, {self.events} events, {self.harvests} harvests"


def prune(now: datetime, *, seconds: float = PRUNE_SECONDS, pause: float = PAUSE_SECONDS) -> Pruned:
    """Delete what is older than the settings keep, a few thousand rows in a transaction.

    An event goes with its delivery, if not before. Two calls at the same time do not wait for each
    other, nor for a worker that holds a row.

    Args:
        seconds: no batch begins after them.
        pause: seconds between two batches.
    """
    ends = time.monotonic() + seconds
    pruned = Pruned()
    # Events first: those of a delivery that goes need not be found by way of it.
    for batch in _old_events(now):
        pruned.events += _delete(DeliveryEvent.objects.filter(pk__in=batch))
        if not _go_on(ends, pause):
            return pruned
    for batch in _old_deliveries(now):
        pruned.deliveries += _delete(Delivery.objects.filter(pk__in=batch, state__in=SETTLED))
        if not _go_on(ends, pause):
            return pruned
    for batch in _old_harvests(now):
        pruned.harvests += _delete(Harvest.objects.filter(pk__in=batch, retry_at=None))
        if not _go_on(ends, pause):
            return pruned
    if settings.RETAIN_EVENTS_DAYS:
        # Without what a server called its answer, it is asked for all of it once more.
        old = now - timedelta(days=settings.RETAIN_EVENTS_DAYS)
        SourceAnswer.objects.filter(at__lt=old).delete()
    TokenBucket.objects.filter(filled_at__lt=now - BUCKETS_KEPT).delete()
    SessionStore.clear_expired()
    log.info("pruned: %s", pruned)
    return pruned


def would_prune(now: datetime) -> Pruned:
    """What `prune` would delete, given the time; but for the events that go with a delivery."""
    deliveries = (
        Delivery.objects.filter(pk__in=batch, state__in=SETTLED).count()
        for batch in _old_deliveries(now)
    )
    return Pruned(
        sum(deliveries),
        sum(len(batch) for batch in _old_events(now)),
        sum(len(batch) for batch in _old_harvests(now)),
    )


def _go_on(ends: float, pause: float) -> bool:
    if time.monotonic() >= ends:
        log.info("pruning ends for today; the next run goes on")
        return False
    time.sleep(pause)
    return True


def _delete(rows: QuerySet[Any]) -> int:
    """Delete those of `rows` that nobody holds, in one transaction; returns how many."""
    with transaction.atomic():
        free = list(rows.select_for_update(skip_locked=True).values_list("pk", flat=True))
        rows.model.objects.filter(pk__in=free).delete()
    return len(free)


def _old_deliveries(now: datetime) -> Iterator[list[int]]:
    days = settings.RETAIN_DELIVERIES_DAYS
    if days:
        rows = Delivery.objects.values_list("pk", "planned_at")
        yield from _old(rows, now - timedelta(days=days))


def _old_events(now: datetime) -> Iterator[list[int]]:
    """Of processed ones."""
    days = settings.RETAIN_EVENTS_DAYS
    if days:
        rows = DeliveryEvent.objects.filter(processed_at__isnull=False)
        yield from _old(rows.values_list("pk", "received_at"), now - timedelta(days=days))


def _old_harvests(now: datetime) -> Iterator[list[int]]:
    """Of those that nobody takes up any more."""
    days = settings.RETAIN_EVENTS_DAYS
    if not days:
        return
    done = Harvest.objects.filter(source__in=Source.values, state=Harvest.State.DONE)
    # A window that somebody chose is not the one that the next begins after.
    to_now = Q(until=None) | Q(until__gte=F("started_at__date"))
    kept = {
        pk
        for rows in (done, done.filter(to_now))
        for pk in rows.order_by("source", "part", "-started_at")
        .distinct("source", "part")
        .values_list("pk", flat=True)
    }
    settled = Harvest.objects.filter(retry_at=None).exclude(pk__in=kept)
    yield from _old(settled.values_list("pk", "started_at"), now - timedelta(days=days))


def _old(rows: QuerySet[Any, tuple[int, datetime]], before: datetime) -> Iterator[list[int]]:
    """The ids of those whose date is before `before`, a batch at a time.

    By way of the ids, whose order is that of the dates but for what was written at the same moment:
    the walk ends at the first batch that holds nothing old, and needs no index on the date.
    """
    after = 0
    while True:
        batch = list(rows.filter(pk__gt=after).order_by("pk")[:ROWS_AT_ONCE])
        old = [pk for pk, date in batch if date < before]
        if not old:
            return
        after = batch[-1][0]
        yield old
