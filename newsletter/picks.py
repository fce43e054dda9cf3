"""The one bridge from rows to arrays and back: plan deliveries for many subscribers at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
from django.conf import settings
from django.db import transaction
from scipy.sparse import csr_matrix

from newsletter import schedule
from newsletter.models import Delivery, Interest, Subscriber
from newsletter.recommender.profiles import SparseView, terms
from newsletter.recommender.ranking import best_of, category_bonus, relevance
from newsletter.recommender.selection import Section, Selection, select
from papers import editions
from papers.categories import CATEGORY_NAMES
from papers.models import Edition

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidates:
    """An edition's pool with its sparse view, computed once and used for every batch."""

    pool: editions.Pool
    view: SparseView
    vectors: csr_matrix


@lru_cache(maxsize=4)
def _candidates(edition_id: int, changed_at: datetime) -> Candidates:
    pool = editions.pool(Edition.objects.get(pk=edition_id))
    view = SparseView().fit(pool.texts)
    return Candidates(pool, view, view.transform(pool.texts))


def candidates(edition: Edition) -> Candidates:
    return _candidates(edition.pk, edition.changed_at)


def plan_due(now: datetime) -> int:
    """Plan the current edition for every subscriber whose slot has come; returns how many.

    Without a current edition nobody moves: they are served as soon as one is frozen.
    """
    # A tick of the freeze and one of this may come in either order: who is due at the hour of the
    # freeze must not be found "served" with the edition of the day before.
    editions.freeze_due(now)
    planned = 0
    # Asked anew for each batch: a freeze in the middle of a long plan counts at once.
    while edition := Edition.objects.current(now):
        batch = _plan_batch(edition, now, only_due=True)
        if not batch:
            break
        planned += batch
    return planned


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
        locked = waiting.order_by("id").select_for_update(skip_locked=only_due, of=("self",))
        subscribers = list(locked[: settings.PLAN_BATCH_SIZE])
        if not subscribers:
            return 0
        served = set(
            Delivery.objects.filter(edition=edition, subscriber__in=subscribers).values_list(
                "subscriber_id", flat=True
            )
        )
        unserved = [subscriber for subscriber in subscribers if subscriber.pk not in served]
        deliveries = Delivery.objects.bulk_create(plan(edition, unserved, now), batch_size=500)
        for subscriber in subscribers:
            subscriber.next_send_at = schedule.next_slot(
                now, subscriber.time_zone, subscriber.send_hour
            )
        Subscriber.objects.bulk_update(subscribers, ["next_send_at"], batch_size=500)
    skipped = sum(1 for delivery in deliveries if delivery.state == Delivery.State.SKIPPED)
    log.info(
        "edition %s: %d due, %d planned, %d skipped, %d served before",
        edition.day, len(subscribers), len(deliveries) - skipped, skipped, len(served),
    )  # fmt: skip
    return len(subscribers)


def plan(edition: Edition, subscribers: Sequence[Subscriber], now: datetime) -> list[Delivery]:
    """A delivery of `edition` for each subscriber, not yet saved: planned, or skipped with why."""
    if edition.state == Edition.State.EMPTY:
        return [_skipped(edition, subscriber, edition.reason, now) for subscriber in subscribers]
    today = candidates(edition)
    interests = list(
        Interest.objects.filter(subscriber__in=subscribers).order_by("subscriber_id", "id")
    )
    index = {subscriber.pk: i for i, subscriber in enumerate(subscribers)}
    interests.sort(key=lambda interest: index[interest.subscriber_id])
    owners = np.array([index[interest.subscriber_id] for interest in interests], dtype=np.intp)
    vectors = today.view.transform([interest_text(interest) for interest in interests])
    similar = relevance(vectors, today.vectors)
    bonus = category_bonus([interest.categories for interest in interests], today.pool.categories)
    best, winner = best_of(similar + bonus, owners, len(subscribers))
    deliveries = []
    for i, subscriber in enumerate(subscribers):
        choice = select(best[i], today.pool.trend, today.pool.pinned, subscriber.papers_per_mail)
        if not len(choice.papers):
            reason = "Every paper of this day was hidden after its edition was frozen."
            deliveries.append(_skipped(edition, subscriber, reason, now))
            continue
        rows = [winner[i, paper] for paper in choice.papers]
        reasons = [
            _reason(today, int(paper), Section(section), interests, vectors, bonus, int(row))
            for paper, section, row in zip(choice.papers, choice.sections, rows, strict=True)
        ]
        deliveries.append(_delivery(edition, subscriber, today.pool, choice, reasons, now))
    return deliveries


def interest_text(interest: Interest) -> str:
    """A stated category also counts as the words of its name."""
    return "\n".join(
        [interest.words, *(CATEGORY_NAMES.get(code, "") for code in interest.categories)]
    )


def _skipped(edition: Edition, subscriber: Subscriber, reason: str, now: datetime) -> Delivery:
    return Delivery(
        edition=edition,
        subscriber=subscriber,
        state=Delivery.State.SKIPPED,
        skip_reason=reason,
        planned_at=now,
    )


def _delivery(
    edition: Edition,
    subscriber: Subscriber,
    pool: editions.Pool,
    choice: Selection,
    reasons: Iterable[tuple[Delivery.Reason, str]],
    now: datetime,
) -> Delivery:
    codes, details = zip(*reasons, strict=True)
    return Delivery(
        edition=edition,
        subscriber=subscriber,
        paper_ids=pool.paper_ids[choice.papers].tolist(),
        sections=choice.sections.tolist(),
        terms=np.round(choice.terms, 4).ravel().tolist(),
        reasons=[int(code) for code in codes],
        reason_details=list(details),
        planned_at=now,
    )


def _reason(
    today: Candidates,
    paper: int,
    section: Section,
    interests: Sequence[Interest],
    vectors: csr_matrix,
    bonus: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    row: int,
) -> tuple[Delivery.Reason, str]:
    """The reason that carried this pick: what the score was really made of."""
    if section == Section.PINNED:
        return Delivery.Reason.PINNED, ""
    if section == Section.FOR_YOU:
        words = today.view.shared_terms(vectors[row], today.vectors[paper])
        if bonus[row, paper] and not _words_count(interests[row], words):
            shared = set(interests[row].categories) & set(today.pool.categories[paper])
            return Delivery.Reason.CATEGORY, ", ".join(sorted(shared))
        return Delivery.Reason.WORDS, ", ".join(words)
    if today.pool.upvotes[paper] > 0:
        gained = int(today.pool.gained[paper])
        votes = int(today.pool.upvotes[paper])
        return Delivery.Reason.UPVOTES, f"{votes} {gained}" if gained > 0 else str(votes)
    return Delivery.Reason.NEW, ""


def _words_count(interest: Interest, words: Sequence[str]) -> bool:
    """Whether the reader's own words matched, not just the name of a category."""
    stated = set(terms(interest.words))
    return any(part in stated for word in words for part in word.split())
