"""A reader's picks as an Atom feed, behind an address of their own.

It names no mail address and no setting: what stands in it is what stands in the reader's mails.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime

from django.conf import settings
from django.http import HttpResponse

from newsletter import links
from newsletter.links import Purpose
from newsletter.mail import LABELS, reason_text, titles_named_by
from newsletter.models import Delivery, Subscriber
from papers.feeds import Entry, Notice, atom
from papers.models import EditionPaper, Paper

MAILS = 14  # the newest ones of a reader: their picks stand in the feed


def feed_of(reader: Subscriber) -> tuple[HttpResponse, datetime]:
    """The feed, and when it last changed by what was sent, curated or fetched."""
    deliveries = list(
        reader.deliveries.exclude(state=Delivery.State.SUPPRESSED)
        .exclude(paper_ids=[])
        .select_related("edition")
        .order_by("-planned_at", "-id")[:MAILS]
    )
    entries = list(_entries(deliveries))
    curated = [max(one.planned_at, one.edition.changed_at) for one in deliveries]
    newest = max([*curated, *(one.updated for one in entries)], default=reader.created_at)
    notices = []
    if reader.state == Subscriber.State.PAUSED:
        notices.append(
            Notice(
                identity=uuid.uuid5(reader.uuid, "paused").urn,
                title="Your mail is paused",
                text="No papers are chosen for you until you end the pause in your settings.",
                since=newest,
            )
        )
    answer = atom(
        identity=uuid.uuid5(reader.uuid, "picks").urn,
        title=f"{settings.SITE_NAME}: your papers",
        subtitle="The papers chosen for you. This address is yours alone: give it to nobody.",
        feed=links.numbered_url(reader, Purpose.FEED).removeprefix(settings.SITE_URL),
        page="/",
        updated=newest,
        entries=[*notices, *entries],
    )
    return answer, newest


def _entries(deliveries: Sequence[Delivery]) -> Iterator[Entry]:
    Delivery.follow(deliveries)
    papers = Paper.objects.in_bulk({pk for one in deliveries for pk in one.paper_ids})
    rows = EditionPaper.objects.filter(paper__in=papers)
    hidden = set(
        rows.filter(curation=EditionPaper.Curation.HIDDEN).values_list("paper_id", flat=True)
    )
    titles = titles_named_by(*deliveries)
    for delivery in deliveries:
        for place, pk in enumerate(delivery.paper_ids):
            if pk not in papers or pk in hidden:
                continue
            reason = reason_text(
                Delivery.Reason(delivery.reasons[place]), delivery.reason_details[place], titles
            )
            section = LABELS[Delivery.Section(delivery.sections[place])]
            yield Entry(
                papers[pk],
                delivery.planned_at,
                reason=f"{section}. {reason}.",
                identity=uuid.uuid5(delivery.uuid, str(papers[pk].uuid)).urn,
            )
