"""The public status: why there is mail or none, for everybody to see.

No address, no number of a reader, no path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from django.core.cache import cache
from django.db.models import Count, Max

from newsletter import health
from newsletter.findings import Level
from newsletter.models import Delivery, RankingModel, SendingPause
from papers import embeddings
from papers.models import Edition, EditionPaper, Embedding, Paper

SHOWN = 10  # editions on the status page
STATUS_SECONDS = 60  # that what the status page says may be old

S = Delivery.State


@dataclass(frozen=True, slots=True)
class EditionStatus:
    """One day on the status page; `due` is everybody whose turn came."""

    day: date
    state: str
    reason: str
    papers: int
    sent: int
    waiting: int
    skipped: int
    failed: int
    unknown: int  # it may have arrived

    @property
    def due(self) -> int:
        return self.sent + self.waiting + self.skipped + self.failed + self.unknown


@dataclass(frozen=True, slots=True)
class SourceStatus:
    name: str
    at: datetime
    new: int
    unreadable: int
    trouble: str


@dataclass(frozen=True, slots=True)
class Status:
    """What everybody may see."""

    at: datetime
    troubles: list[str]
    today: str
    editions: list[EditionStatus]
    sources: list[SourceStatus]
    papers: int
    encoded: int | None
    fitted_at: datetime | None
    next_freeze: datetime


WAITING = (S.PLANNED, S.CLAIMED, S.HANDED_OVER)
ARRIVING = (S.SENT, S.DELIVERED, S.COMPLAINED)
UNSENT = (S.FAILED, S.BOUNCED, S.SUPPRESSED, S.EXPIRED)

PAUSED = "Sending is paused. Mails leave as soon as it goes on."
LATE = "Mails are late. They are sent as soon as it is mended."
UNKNOWN = "Of some mails it is not known whether they arrived. It is being looked into."


def status(now: datetime) -> Status:
    """The public status, at most STATUS_SECONDS old: nobody makes the database count at will.

    But for a pause, which is asked for each time: whoever pauses looks here at once, and each
    process keeps a memory of its own.
    """
    known: Status | None = cache.get("health.status")
    if known is None:
        known = _status(now)
        cache.set("health.status", known, STATUS_SECONDS)
    if SendingPause.objects.in_force().filter(domain=SendingPause.ALL).exists():
        others = [trouble for trouble in known.troubles if trouble != LATE]
        return replace(known, troubles=[PAUSED, *others])
    return known


def _status(now: datetime) -> Status:
    rows = list(Edition.objects.filter(day__lte=now.date()).order_by("-day")[:SHOWN])
    shown = EditionPaper.objects.filter(edition__in=rows).exclude(
        curation=EditionPaper.Curation.HIDDEN
    )
    papers = dict(shown.order_by().values_list("edition").annotate(Count("pk")))
    counted: dict[int, dict[str, int]] = {row.pk: {} for row in rows}
    states = Delivery.objects.filter(edition__in=rows).order_by().values_list("edition", "state")
    for pk, state, count in states.annotate(count=Count("pk")):
        counted[pk][state] = count
    editions = [
        EditionStatus(
            day=row.day,
            state=row.state,
            reason=row.reason,
            papers=papers.get(row.pk, 0),
            sent=sum(counted[row.pk].get(state, 0) for state in ARRIVING),
            waiting=sum(counted[row.pk].get(state, 0) for state in WAITING),
            skipped=counted[row.pk].get(S.SKIPPED, 0),
            failed=sum(counted[row.pk].get(state, 0) for state in UNSENT),
            unknown=counted[row.pk].get(S.UNKNOWN, 0),
        )
        for row in rows
    ]
    identity = embeddings.configured_identity()
    encoded = None if identity is None else Embedding.objects.filter(encoder=identity).count()
    return Status(
        at=now,
        troubles=_public_troubles(now, unknown=any(row.unknown for row in editions)),
        today=_today(rows[0] if rows else None, now),
        editions=editions,
        sources=[
            SourceStatus(
                name=health.source_of(one),
                at=one.started_at,
                new=one.new,
                unreadable=one.failed,
                trouble=health.trouble_of(one, now),
            )
            for one in health.newest_harvests()
        ],
        papers=Paper.objects.count(),
        encoded=encoded,
        fitted_at=RankingModel.objects.aggregate(at=Max("fitted_at"))["at"],
        next_freeze=health.last_freeze(now) + timedelta(days=1),
    )


def _public_troubles(now: datetime, *, unknown: bool) -> list[str]:
    """The watch's findings in words that help a reader."""
    troubles = []
    if health.missing_edition(now, health.FREEZE_EXPECTED):
        troubles.append("Today’s edition is late. Mail follows as soon as it is there.")
    if any(one.level == Level.ERROR for one in health.stuck(now)):
        troubles.append(LATE)
    if unknown:
        troubles.append(UNKNOWN)
    own = health.own_harvests(now)
    failed = [health.source_of(one) for one in own if health.trouble_of(one, now)]
    if failed:
        troubles.append(f"The last harvest failed: {', '.join(failed)}. Papers may be missing.")
    return troubles


def _today(newest: Edition | None, now: datetime) -> str:
    """Whether there is mail today, in a sentence; "" where that is one of the troubles."""
    due = health.last_freeze(now).date()
    if newest is None or newest.day < due or newest.is_open:
        return ""
    if newest.state == Edition.State.EMPTY:
        return f"There is no mail today. {newest.reason}"
    return "Today’s edition is out, and goes to every reader at their own hour."
