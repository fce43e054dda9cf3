"""Readers' upvotes: one of each reader for each paper, and their number as a Signal.

An upvote is also a judgement: the reader wants more like this paper. Taking it back takes that
back too, unless the reader also said so in a mail. `papers` sees nobody's vote, only how many
there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection, transaction
from django.db.models import Count, OuterRef, QuerySet
from django.utils import timezone

from newsletter import feedback
from newsletter.models import Delivery, Feedback, Interest, Subscriber, Vote
from papers import joining
from papers.locks import Lock
from papers.models import Paper, Signal, Source

LOCK = Lock.VOTE  # with a paper's id: one vote at a time is counted for it

MORE = Feedback.Kind.MORE


def give(subscriber: Subscriber, paper: Paper) -> bool:
    """Upvote a paper; False, and nothing is changed, where the reader has already."""
    with transaction.atomic():
        paper = joining.lock_paper(paper)
        feedback.lock(subscriber)
        vote, new = Vote.objects.get_or_create(subscriber=subscriber, paper=paper)
        if new:
            if not subscriber.feedback.filter(paper=paper, kind=MORE).exists():
                feedback.give(subscriber, paper, MORE, _interest_of(subscriber, paper))
                vote.judged = True
                vote.save(update_fields=["judged"])
            tell([paper.pk])
    return new


def take_back(subscriber: Subscriber, paper: Paper) -> bool:
    """Take an upvote back; False where there is none."""
    with transaction.atomic():
        paper = joining.lock_paper(paper)
        feedback.lock(subscriber)
        vote = Vote.objects.filter(subscriber=subscriber, paper=paper).first()
        if vote is None:
            return False
        vote.delete()
        if vote.judged:
            feedback.undo(subscriber, paper, MORE)
        tell([paper.pk])
    return True


def tell(paper_ids: Iterable[int], now: datetime | None = None) -> None:
    """Write how many votes these papers have, as the Signal of the hour that ends next.

    One row for a paper and hour, whose number is true when the hour is over, whatever is voted
    until then. To be called in the transaction that changed them: so no vote is ever lost or
    counted twice, and no task need look for those that changed.
    """
    wanted = sorted(set(paper_ids))  # in one order: two who wait for each other wait for ever
    with transaction.atomic():
        with connection.cursor() as cursor:
            for pk in wanted:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK, pk % 2**31])
        # Now, and not before the lock: who waited for it must not write an hour that is over.
        now = now or timezone.now()
        hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        counts = of_papers(wanted)
        Signal.objects.bulk_create(
            [
                Signal(
                    paper_id=pk,
                    source=Source.PAPERROUND,
                    counter=Signal.Counter.UPVOTES,
                    value=counts[pk],
                    observed_at=hour,
                )
                for pk in wanted
            ],
            update_conflicts=True,
            unique_fields=["paper", "counter", "source", "observed_at"],
            update_fields=["value"],
        )


def of_papers(paper_ids: Iterable[int]) -> dict[int, int]:
    """How many upvotes each of these papers has: what `tell` tells, and pages then read."""
    ids = list(paper_ids)
    if not ids:
        return {}
    rows = Vote.objects.filter(paper__in=ids).order_by().values("paper")
    return dict.fromkeys(ids, 0) | dict(rows.values_list("paper", Count("pk")))


def with_voted(readers: QuerySet[Subscriber]) -> QuerySet[Subscriber]:
    """The same rows, each with the ids of the papers it upvoted: one query fewer for a page."""
    voted = Vote.objects.filter(subscriber=OuterRef("pk")).values("paper")
    return readers.annotate(voted=ArraySubquery(voted))


def voted_by(reader: Subscriber) -> set[int]:
    """The ids of the papers a reader upvoted."""
    known = getattr(reader, "voted", None)
    return set(reader.votes.values_list("paper", flat=True) if known is None else known)


def _interest_of(subscriber: Subscriber, paper: Paper) -> Interest | None:
    """The subject for which the paper was in a mail of theirs, if it was."""
    carried = subscriber.deliveries.filter(paper_ids__overlap=paper.ids).order_by("-id").first()
    if carried is None:
        return None
    Delivery.follow([carried])
    return feedback.interest_of(carried, paper.pk)
