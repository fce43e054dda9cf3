"""A reader's picks as an Atom feed, behind an address of their own.

It names no mail address and no setting: what stands in it is what stands in the reader's mails.
"""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Any
from xml.sax.xmlreader import AttributesImpl

from django.conf import settings
from django.utils.feedgenerator import Atom1Feed
from django.utils.html import format_html, format_html_join
from django.utils.xmlutils import SimplerXMLGenerator

from newsletter import links
from newsletter.links import Purpose
from newsletter.mail import LABELS, header, quoted, reason_text, titles_named_by
from newsletter.models import Delivery, Subscriber
from papers.abstracts import cut
from papers.models import EditionPaper, Paper

MAILS = 14  # the newest ones of a reader: their picks stand in the feed
# What XML 1.0 cannot hold, not even escaped.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class PicksFeed(Atom1Feed):
    """Atom with every author of an entry by themselves."""

    def add_item_elements(self, handler: SimplerXMLGenerator, item: dict[str, Any]) -> None:
        super().add_item_elements(handler, item)
        for name in item["authors"]:
            handler.startElement("author", AttributesImpl({}))
            handler.addQuickElement("name", name)
            handler.endElement("author")


def feed_of(reader: Subscriber) -> tuple[bytes, datetime]:
    """The feed, and when it last changed by what was sent or curated."""
    deliveries = list(
        reader.deliveries.exclude(state=Delivery.State.SUPPRESSED)
        .exclude(paper_ids=[])
        .select_related("edition")
        .order_by("-planned_at", "-id")[:MAILS]
    )
    name = settings.SITE_NAME
    changes = [max(one.planned_at, one.edition.changed_at) for one in deliveries]
    newest = max(changes, default=reader.created_at)
    feed = PicksFeed(
        title=f"{name}: your papers",
        link=f"{settings.SITE_URL}/",
        description="",
        subtitle="The papers chosen for you. This address is yours alone: give it to nobody.",
        author_name=name,
        feed_url=links.numbered_url(reader, Purpose.FEED),
        feed_guid=f"urn:uuid:{uuid.uuid5(reader.uuid, 'picks')}",
        language="en",
    )
    if reader.state == Subscriber.State.PAUSED:
        feed.add_item(
            title="Your mail is paused",
            link=f"{settings.SITE_URL}/",
            description="No papers are chosen for you until you end the pause in your settings.",
            unique_id=f"urn:uuid:{uuid.uuid5(reader.uuid, f'paused {newest}')}",
            updateddate=newest,
            authors=(),
        )
    papers = Paper.objects.in_bulk({pk for one in deliveries for pk in one.paper_ids})
    rows = EditionPaper.objects.filter(paper__in=papers)
    hidden = set(
        rows.filter(curation=EditionPaper.Curation.HIDDEN).values_list("paper_id", flat=True)
    )
    titles = titles_named_by(*deliveries)
    for delivery in deliveries:
        for place, pk in enumerate(delivery.paper_ids):
            if pk in papers and pk not in hidden:
                _add(feed, delivery, place, papers[pk], titles)
    return feed.writeString("utf-8").encode(), newest


def _add(
    feed: PicksFeed, delivery: Delivery, place: int, paper: Paper, titles: dict[str, str]
) -> None:
    reason = reason_text(
        Delivery.Reason(delivery.reasons[place]), delivery.reason_details[place], titles
    )
    key, excerpt = quoted(paper.abstract, delivery.sentences[place])
    section = LABELS[Delivery.Section(delivery.sections[place])]
    page = settings.SITE_URL + paper.get_absolute_url()
    paragraphs = [f"{section}. {reason}.", key, excerpt]
    text = format_html_join("\n", "<p>{}</p>", ((_writable(one),) for one in paragraphs if one))
    feed.add_item(
        title=cut(header(_writable(paper.title)), 500),
        link=page,
        description=format_html('{}\n<p><a href="{}">The paper’s page</a></p>', text, page),
        unique_id=f"urn:uuid:{uuid.uuid5(delivery.uuid, str(paper.uuid))}",
        pubdate=delivery.planned_at,
        updateddate=delivery.planned_at,
        categories=[_writable(code) for code in paper.categories],
        authors=[name for one in paper.authors if (name := header(_writable(one)))],
    )


def _writable(text: str) -> str:
    return _UNWRITABLE.sub("", text)
