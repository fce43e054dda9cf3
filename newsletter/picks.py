"""Plan deliveries for many subscribers at a time: who is due, what each one gets, and one COPY."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise, repeat
from typing import Any

import numpy as np
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max

from newsletter import schedule
from newsletter.batch import LOOK_BACK, Batch, Reader
from newsletter.candidates import today
from newsletter.models import Delivery, Subscriber
from papers import editions
from papers.models import Edition

log = logging.getLogger(__name__)

State = Delivery.State

NOT_CLOSE = "Nothing of this day was close enough to the reader's subjects."
ALL_SHOWN = "Every paper of this day was hidden, withdrawn, muted or shown to this reader before."
NOT_CLOSE_OF_DAYS = NOT_CLOSE.replace("this day", "these days")
ALL_SHOWN_OF_DAYS = ALL_SHOWN.replace("this day", "these days")

CLOCK_SKEW = timedelta(minutes=5)  # between machines; what is planned later than that was not now

# The editions that somebody chooses from, the newest first: it is the mail's.
Choice = tuple[Edition, ...]
Slots = tuple[str, int, int, str]  # what the functions of `schedule` take


def plan_due(now: datetime) -> int:
    """Plan the current edition for every subscriber whose slot has come; returns how many.

    Without a current edition nobody moves: they are served as soon as one is frozen.
    """
    # A tick of the freeze and one of this may come in either order: who is due at the hour of the
    # freeze must not be found "served" with the edition of the day before.
    editions.freeze_due(now)
    _mend(now)
    planned = 0
    # Asked anew for each batch: a freeze in the middle of a long plan counts at once.
    while edition := Edition.objects.current(now):
        batch = _plan_batch(edition, now, only_due=True)
        if not batch:
            break
        planned += batch
    return planned


def more_are_due(now: datetime) -> bool:
    """Whether there is work for another planner beside this one."""
    due = Subscriber.objects.due(now)
    return due[settings.PLAN_BATCH_SIZE : settings.PLAN_BATCH_SIZE + 1].exists()


def plan_everybody(edition: Edition, now: datetime) -> int:
    """Plan `edition` for every active subscriber, whatever the hour; returns how many."""
    planned = 0
    while batch := _plan_batch(edition, now, only_due=False):
        planned += batch
    return planned


def _plan_batch(edition: Edition, now: datetime, *, only_due: bool) -> int:
    """One transaction: subscribers locked, one delivery each, their next slots. Returns how many
    subscribers were dealt with, 0 when none is left."""
    waiting = Subscriber.objects.due(now) if only_due else Subscriber.objects.active()
    with transaction.atomic():
        if not only_due:
            waiting = waiting.exclude(deliveries__edition=edition)
        # Who is being changed at this moment is due again at the next tick; a whole day run by hand
        # has no next tick, and waits.
        locked = waiting.order_by("id").select_for_update(skip_locked=only_due)
        rows = locked.values_list(*Reader._fields)[: settings.PLAN_BATCH_SIZE]
        readers = list(map(Reader._make, rows))
        if not readers:
            return 0
        served = set(
            Delivery.objects.filter(
                edition=edition, subscriber__in=[reader.pk for reader in readers]
            ).values_list("subscriber_id", flat=True)
        )
        unserved = [reader for reader in readers if reader.pk not in served]
        plans = []
        for choice, group in _by_choice(edition, unserved, now).items():
            plans += plan(choice, group, now)
        _write(plans)
        _reschedule(readers, now)
    skipped = sum(1 for row in plans if row[COLUMNS.index("state")] == State.SKIPPED)
    log.info(
        "edition %s: %d due, %d planned, %d skipped, %d served before",
        edition.day, len(readers), len(plans) - skipped, skipped, len(served),
    )  # fmt: skip
    return len(readers)


def _reschedule(readers: Sequence[Reader], now: datetime) -> None:
    """Write everybody's next slot; what few zones and hours there are is computed once."""
    slots: dict[Slots, datetime] = {}
    moments = []
    for reader in readers:
        key = reader.slots
        if key not in slots:
            slots[key] = schedule.next_slot(now, *key)
        moments.append(slots[key])
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE newsletter_subscriber SET next_send_at = slot.moment "
            "FROM unnest(%s::bigint[], %s::timestamptz[]) AS slot (id, moment) "
            "WHERE newsletter_subscriber.id = slot.id",
            [[reader.pk for reader in readers], moments],
        )


def _mend(now: datetime) -> None:
    """After a clock that ran ahead was set right: nobody waits for a slot that is too far away."""
    newest = Delivery.objects.order_by("-pk").values_list("planned_at", flat=True).first()
    if newest is None or newest <= now + CLOCK_SKEW:
        return
    edition = Edition.objects.current(now)
    names = ("time_zone", "send_hour", "send_minute", "send_days")
    mended = 0
    for key in Subscriber.objects.active().order_by().values_list(*names).distinct():
        due = schedule.next_slot(now, *key)
        same = Subscriber.objects.active().filter(**dict(zip(names, key, strict=True)))
        passed = schedule.last_slot(now, *key)
        # Today's slot may have passed meanwhile; who was served then is found to be.
        owed = edition is not None and edition.frozen_at is not None and edition.frozen_at <= passed
        mended += same.filter(next_send_at__gt=due).update(next_send_at=now if owed else due)
    if mended:
        log.warning("the clock was set back: %d subscribers have a nearer slot again", mended)


# --- From which editions --------------------------------------------------------------------------


def _by_choice(
    edition: Edition, readers: Sequence[Reader], now: datetime
) -> dict[Choice, list[Reader]]:
    """The readers by the editions they choose from: nearly all of them from `edition` alone.

    Who skips days chooses from all since the slot before, at most LOOK_BACK. Who gets mail every
    day chooses from an older one only where no slot of theirs came while it was current, as in
    autumn for who has the very hour of the freeze.
    """
    days = (edition.day - LOOK_BACK, edition.day - schedule.ONE_DAY)
    older = list(
        Edition.objects.settled().filter(day__range=days, frozen_at__lte=now).order_by("-day")
    )
    missed: dict[Slots, int] = {}
    groups: dict[int, list[Reader]] = {}
    for reader in readers:
        key = reader.slots
        if key not in missed:
            missed[key] = _missed(edition, older, key)
        groups.setdefault(missed[key], []).append(reader)
    choices: dict[Choice, list[Reader]] = {}
    if alone := groups.pop(0, []):
        choices[edition,] = alone
    several = [reader for group in groups.values() for reader in group]
    if not several:
        return choices
    served = dict(
        Delivery.objects.filter(subscriber__in=[reader.pk for reader in several], edition__in=older)
        .order_by()
        .values_list("subscriber")
        .annotate(day=Max("edition__day"))
    )
    for reader in several:
        choice = _choice(edition, older[: missed[reader.slots]], served.get(reader.pk))
        choices.setdefault(choice, []).append(reader)
    return choices


def _choice(edition: Edition, missed: Sequence[Edition], served: date | None) -> Choice:
    """With those that were missed, as far as they have papers and are newer than what came last."""
    frozen = (one for one in missed if one.state == Edition.State.FROZEN)
    return (edition, *(one for one in frozen if served is None or one.day > served))


def _missed(edition: Edition, older: Sequence[Edition], slots: Slots) -> int:
    """How many of the older editions, the newest first, no slot has brought."""
    if slots[-1] != schedule.Days.DAILY:
        return len(older)
    newer = edition
    for count, one in enumerate(older):
        # What was frozen when its day was over is no news to who gets mail every day.
        if one.frozen_at is None or newer.frozen_at is None or one.frozen_at.date() != one.day:
            return count
        if schedule.last_slot(newer.frozen_at - schedule.MOMENT, *slots) >= one.frozen_at:
            return count
        newer = one
    return len(older)


# --- Rows -----------------------------------------------------------------------------------------

COLUMNS = (
    "uuid", "edition_id", "editions_from", "subscriber_id", "state", "skip_reason", "paper_ids",
    "sections", "terms", "reasons", "reason_details", "interest_ids", "sentences",
    "ranking_model_id", "planned_at", "attempts", "provider_id", "error",
)  # fmt: skip
ARRAYS = (
    "paper_ids", "sections", "terms", "reasons", "reason_details", "interest_ids", "sentences",
)  # fmt: skip

Row = tuple[object, ...]  # a delivery, in the order of COLUMNS


def _write(rows: Sequence[Row]) -> None:
    """Insert deliveries by COPY: ten times as fast as the rows of an INSERT."""
    if not rows:
        return
    statement = f"COPY newsletter_delivery ({', '.join(COLUMNS)}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def plan(choice: Choice, readers: Sequence[Reader], now: datetime) -> list[Row]:
    """A delivery of the newest edition for each reader, with papers of any of them, not yet
    written: planned, or skipped with why."""
    newest, *older = choice
    frozen = [edition for edition in choice if edition.state == Edition.State.FROZEN]
    if not frozen:
        return list(_rows(choice, readers, now, [newest.reason] * len(readers)))
    if not readers:
        return []
    not_close, all_shown = (
        (NOT_CLOSE_OF_DAYS, ALL_SHOWN_OF_DAYS) if older else (NOT_CLOSE, ALL_SHOWN)
    )
    batch = Batch(today(*frozen), newest, readers, now)
    chosen = batch.choose()
    ledger = batch.ledger(chosen)
    # As text, and of all picks at once: a reader's part is then a slice.
    texts = [list(map(TEXTS.get(name, str), ledger[name])) for name in ARRAYS]
    bounds = np.searchsorted(chosen.reader, np.arange(len(readers) + 1)).tolist()
    skips, arrays = [], []
    for place, (start, end) in enumerate(pairwise(bounds)):
        arrays.append(["{" + ",".join(text[start:end]) + "}" for text in texts])
        why = not_close if batch.has_choice(place) else all_shown
        skips.append(why if start == end else "")
    return list(_rows(choice, readers, now, skips, arrays, batch.today.fitted.pk))


def _rows(
    choice: Choice,
    readers: Sequence[Reader],
    now: datetime,
    skips: Iterable[str],
    arrays: Iterable[list[str]] = repeat(["{}"] * len(ARRAYS)),
    model: int | None = None,
) -> Iterator[Row]:
    edition, since = choice[0].pk, choice[-1].day if len(choice) > 1 else None
    random = os.urandom(16 * len(readers))  # at once: a call for each takes as long as the rest
    for place, (reader, why, picks) in enumerate(zip(readers, skips, arrays, strict=False)):
        key = uuid.UUID(bytes=random[16 * place : 16 * place + 16], version=4)
        state = State.SKIPPED if why else State.PLANNED
        made_by = None if why else model
        yield (key, edition, since, reader.pk, state.value, why, *picks, made_by, now, 0, "", "")


def _quoted(text: str) -> str:
    """PostgreSQL's spelling of a text in an array."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _numbers(values: list[float]) -> str:
    return ",".join(map(str, values))


# Of what is not a number.
TEXTS: dict[str, Callable[[Any], str]] = {"terms": _numbers, "reason_details": _quoted}
