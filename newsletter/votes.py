"""Readers' upvotes: one of each reader for each paper, and their number as a Signal.

An upvote is also a judgement: the reader wants more like this paper. Taking it back takes that
back too. `papers` sees nobody's vote, only how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Count, Q
from django.utils import timezone

from newsletter import feedback
from newsletter.models import Feedback, Interest, Subscriber, Vote
from papers.models import Paper, Signal, Source

LOCK = 7_405_002  # with a paper's id: one vote at a time is counted for it

MORE = Feedback.Kind.MORE


@dataclass(frozen=True, slots=True)
class Votes:
    """Of one paper: how many, and whether the reader who looks gave one."""

    count: int = 0
    own: bool = False


def give(subscriber: Subscriber, paper: Paper) -> bool:
    """Upvote a paper; False, and nothing is changed, where the reader has already."""
    with transaction.atomic():
        feedback.lock(subscriber)
        _, new = Vote.objects.get_or_create(subscriber=subscriber, paper=paper)
        if new:
            feedback.give(subscriber, paper, MORE, _interest_of(subscriber, paper))
            tell([paper.pk])
    return new


def take_back(subscriber: Subscriber, paper: Paper) -> bool:
    """Take an upvote back; False where there is none."""
    with transaction.atomic():
        feedback.lock(subscriber)
        gone, _ = Vote.objects.filter(subscriber=subscriber, paper=paper).delete()
        if gone:
            feedback.undo(subscriber, paper, MORE)
            tell([paper.pk])
    return bool(gone)


def tell(paper_ids: Iterable[int], now: datetime | None = None) -> None:
    """Write how many votes these papers have, as the Signal of the hour that ends next.

    One row for a paper and hour, whose number is true when the hour is over, whatever is voted
    until then. To be called in the transaction that changed them: so no vote is ever lost or
    counted twice, and no task need look for those that changed.
    """
    hour = (now or timezone.now()).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    wanted = sorted(set(paper_ids))  # in one order: two who wait for each other wait for ever
    with transaction.atomic():
        with connection.cursor() as cursor:
            for pk in wanted:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK, pk % 2**31])
        counts = dict(
            Vote.objects.filter(paper__in=wanted)
            .values("paper")
            .values_list("paper", Count("pk"))
            .order_by()
        )
        Signal.objects.bulk_create(
            [
                Signal(
                    paper_id=pk,
                    source=Source.PAPERROUND,
                    counter=Signal.Counter.UPVOTES,
                    value=counts.get(pk, 0),
                    observed_at=hour,
                )
                for pk in wanted
            ],
            update_conflicts=True,
            unique_fields=["paper", "counter", "source", "observed_at"],
            update_fields=["value"],
        )


def of_papers(paper_ids: Iterable[int], reader: Subscriber | None) -> dict[int, Votes]:
    """The votes of papers, in one query; a reader's own are told apart."""
    ids = list(paper_ids)
    own = Count("pk", filter=Q(subscriber=reader.pk if reader else None))
    rows = Vote.objects.filter(paper__in=ids).values("paper").order_by()
    found = {
        pk: Votes(count, bool(mine))
        for pk, count, mine in rows.annotate(n=Count("pk"), own=own).values_list(
            "paper", "n", "own"
        )
    }
    return {pk: found.get(pk, Votes()) for pk in ids}


def _interest_of(subscriber: Subscriber, paper: Paper) -> Interest | None:
    """The subject for which the paper was in a mail of theirs, if it was."""
    carried = subscriber.deliveries.filter(paper_ids__contains=[paper.pk]).order_by("-id").first()
    return feedback.interest_of(carried, paper.pk) if carried else None
