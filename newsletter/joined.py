"""Papers that turned out to be one: what readers said of either is said of the one that stays.

Rows that point at a paper are moved in papers/joining.py; here is what it cannot know of. Examples
have ids without a foreign key, and are rewritten. What a mail held stays as it was sent, and is
followed when it is read: Delivery.follow.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Exists, OuterRef, Q

from newsletter import votes
from newsletter.feedback import OPPOSITE
from newsletter.models import Feedback, Interest
from papers.models import Paper


def settle(sender: object, kept: Paper, gone: int, **_: Any) -> None:
    """Two papers became one: count its votes anew, and of "more" and "less" the newer is meant."""
    asked = Feedback.objects.filter(paper=kept, kind__in=OPPOSITE)
    newer = asked.filter(subscriber=OuterRef("subscriber")).filter(
        Q(at__gt=OuterRef("at")) | Q(at=OuterRef("at"), pk__gt=OuterRef("pk"))
    )
    asked.filter(Exists(newer)).delete()
    # After the judgements, as a reader's own change of their subjects locks them.
    for row in Interest.objects.filter(example_ids__contains=[gone]).order_by("pk"):
        examples = (kept.pk if pk == gone else pk for pk in row.example_ids)
        Interest.objects.filter(pk=row.pk).update(example_ids=list(dict.fromkeys(examples)))
    if kept.votes.exists():
        votes.tell([kept.pk])
