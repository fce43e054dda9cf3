"""The small cast: plain functions that make rows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from django.utils import timezone

from newsletter.addresses import mailbox_key
from newsletter.models import Interest, Subscriber
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
