"""The small cast: plain functions that make rows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from django.utils import timezone

from newsletter.addresses import mailbox_key
from newsletter.models import Delivery, Interest, Subscriber
from papers.models import Edition, EditionPaper, Paper, Signal
from papers.sources.identifiers import title_key

TODAY = date(2026, 11, 20)
MORNING = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)


def make_paper(title: str = "Attention over sparse graphs", **fields: object) -> Paper:
    fields.setdefault("listing_day", timezone.now().date())
    fields.setdefault("abstract", f"We study {title.lower()} and report what we found.")
    fields.setdefault("authors", ["Ada Alvarez", "Bo Berg"])
    fields.setdefault("sources", ["file"])
    return Paper.objects.create(title=title, title_key=title_key(title), **fields)


def make_signal(
    paper: Paper, value: int, *, counter: str = "upvotes", observed_at: datetime | None = None
) -> Signal:
    return Signal.objects.create(
        paper=paper,
        source="huggingface",
        counter=counter,
        value=value,
        observed_at=observed_at or timezone.now(),
    )


def make_subscriber(
    address: str = "alice@example.org", *, interests: tuple[str, ...] = (), **fields: object
) -> Subscriber:
    """An active subscriber whose next slot is an hour ago, unless the fields say otherwise."""
    now = timezone.now()
    fields.setdefault("state", Subscriber.State.ACTIVE)
    if fields["state"] in (Subscriber.State.ACTIVE, Subscriber.State.PAUSED):
        fields.setdefault("confirmed_at", now)
    if fields["state"] == Subscriber.State.ACTIVE:
        fields.setdefault("next_send_at", now - timedelta(hours=1))
    subscriber = Subscriber.objects.create(
        address=address, mailbox_key=mailbox_key(address), **fields
    )
    for words in interests:
        Interest.objects.create(subscriber=subscriber, name=words, words=words)
    return subscriber


def make_frozen_edition(*papers: Paper, day: date | None = None) -> Edition:
    now = timezone.now()
    edition = Edition.objects.create(
        day=day or now.date(), state=Edition.State.FROZEN, frozen_at=now, changed_at=now
    )
    for paper in papers:
        EditionPaper.objects.create(edition=edition, paper=paper)
    return edition


def make_interest(
    subscriber: Subscriber, name: str = "graph learning", **fields: object
) -> Interest:
    if not fields.keys() & {"words", "categories", "authors", "example_ids"}:
        fields["words"] = name
    return Interest.objects.create(subscriber=subscriber, name=name, **fields)


def make_delivery(
    subscriber: Subscriber,
    *papers: Paper,
    interest: Interest | None = None,
    edition: Edition | None = None,
    **fields: object,
) -> Delivery:
    """A planned delivery of these papers, picked for the interest or for none."""
    picks = len(papers)
    section = Delivery.Section.FOR_YOU if interest else Delivery.Section.TRENDING
    values: dict[str, object] = {
        "paper_ids": [paper.pk for paper in papers],
        "sections": [section] * picks,
        "reasons": [Delivery.Reason.WORDS if interest else Delivery.Reason.NEW] * picks,
        "reason_details": ["graphs" if interest else ""] * picks,
        "terms": [0.5] * len(Delivery.TERMS) * picks,
        "interest_ids": [interest.pk if interest else 0] * picks,
        "sentences": [-1] * picks,
    }
    return Delivery.objects.create(
        edition=edition or make_frozen_edition(*papers), subscriber=subscriber, **(values | fields)
    )
