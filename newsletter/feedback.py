"""What readers say of papers, and what it counts for: give, undo, reset.

A judgement counts from the next planned mail on; nothing is computed here.
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from newsletter.models import MAX_INTERESTS, Delivery, Feedback, Interest, Subscriber
from papers import joining
from papers.models import Paper

Kind = Feedback.Kind

LIKED = "Papers you liked"  # the subject of what was liked outside every subject
ASKED = (Kind.MORE, Kind.LESS, Kind.SAVE)  # what a reader is asked; a click is only observed
OPPOSITE = {Kind.MORE: Kind.LESS, Kind.LESS: Kind.MORE}


def interest_of(delivery: Delivery, paper_id: int) -> Interest | None:
    """The interest that chose a paper of a mail, if one did and it is still there."""
    chosen = dict(zip(delivery.paper_ids, delivery.interest_ids, strict=False)).get(paper_id, 0)
    # A deleted subject's id is found no more, and what is another reader's is never looked at.
    return Interest.objects.filter(pk=chosen, subscriber=delivery.subscriber_id).first()


def give(
    subscriber: Subscriber,
    paper: Paper,
    kind: Kind,
    interest: Interest | None = None,
    now: datetime | None = None,
) -> Feedback:
    """Note a judgement; twice is as good as once, and "more" takes back "less".

    Without an interest, liking and saving count for the subject `LIKED`, made where it is wanting
    (a reader who has all the subjects there can be gets it in the first); disliking counts against
    the paper in all subjects.

    Raises:
        ValueError: the interest is another reader's.
    """
    if interest is not None and interest.subscriber_id != subscriber.pk:
        raise ValueError("An interest of another subscriber.")
    with transaction.atomic():
        paper = joining.lock_paper(paper)
        lock(subscriber)
        if interest is not None:  # it may have been removed meanwhile
            interest = subscriber.interests.filter(pk=interest.pk).first()
        if interest is None and kind in (Kind.MORE, Kind.SAVE):
            interest = _liked(subscriber)
        values: dict[str, object] = {"interest": interest} | ({"at": now} if now else {})
        given, _ = Feedback.objects.update_or_create(
            subscriber=subscriber, paper=paper, kind=kind, defaults=values
        )
        if kind == Kind.MORE:  # said by itself, it stays when an upvote is taken back
            subscriber.votes.filter(paper=paper).update(judged=False)
        if kind in OPPOSITE:
            _take_back(subscriber, paper, OPPOSITE[kind])
    return given


def undo(subscriber: Subscriber, paper: Paper, kind: Kind) -> bool:
    """Take a judgement back; False if there is none."""
    with transaction.atomic():
        paper = joining.lock_paper(paper)
        lock(subscriber)
        return _take_back(subscriber, paper, kind)


def reset(interest: Interest) -> int:
    """Forget all that was learned for an interest; returns how many judgements that were."""
    with transaction.atomic():
        lock(interest.subscriber)
        forgotten, _ = interest.feedback.all().delete()
        _drop_if_void(interest)
    return forgotten


def reset_general(subscriber: Subscriber) -> int:
    """Forget the judgements that count for no interest alone; returns how many."""
    with transaction.atomic():
        lock(subscriber)
        return subscriber.feedback.filter(interest=None).delete()[0]


def _take_back(subscriber: Subscriber, paper: Paper, kind: Kind) -> bool:
    row = subscriber.feedback.filter(paper=paper, kind=kind).select_related("interest").first()
    if row is None:
        return False
    row.delete()
    if row.interest is not None:
        _drop_if_void(row.interest)
    return True


def _liked(subscriber: Subscriber) -> Interest:
    interests = list(subscriber.interests.all())
    for interest in interests:
        if interest.name == LIKED:
            return interest
    if len(interests) >= MAX_INTERESTS:
        return interests[0]
    return subscriber.interests.create(name=LIKED)


def _drop_if_void(interest: Interest) -> None:
    """One that states nothing lives by its feedback alone, and not longer."""
    if not interest.states_something and not interest.feedback.exists():
        interest.delete()


def lock(subscriber: Subscriber) -> None:
    """Two buttons pressed at once are two judgements one after the other."""
    Subscriber.objects.select_for_update().only("pk").get(pk=subscriber.pk)
