"""manage.py run_day: the whole day, on real papers, through a real SMTP server."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from newsletter.addresses import mailbox_key
from newsletter.models import Delivery, Interest, Subscriber
from papers.models import Edition, Paper
from tests.factories import make_frozen_edition, make_paper, make_subscriber
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db


def run_day(**options: object) -> str:
    out = StringIO()
    call_command("run_day", stdout=out, **options)
    return out.getvalue()


def test_a_thousand_subscribers_get_the_listed_papers_exactly_once(
    smtp: SmtpServer, data: Path
) -> None:
    call_command("import_papers", str(data / "listings"), stdout=StringIO())
    assert Paper.objects.count() == 405
    wishes = ["linear attention", "quantization", "robots", "", "graph neural networks"]
    now = timezone.now()
    readers = Subscriber.objects.bulk_create(
        Subscriber(
            address=f"reader{n}@example.org",
            mailbox_key=mailbox_key(f"reader{n}@example.org"),
            state=Subscriber.State.ACTIVE,
            confirmed_at=now,
            next_send_at=now + timedelta(hours=n % 24 + 1),
            send_hour=n % 24,
        )
        for n in range(1000)
    )
    Interest.objects.bulk_create(
        Interest(subscriber=reader, name=wish, words=wish)
        for n, reader in enumerate(readers)
        if (wish := wishes[n % len(wishes)])
    )
    out = run_day()
    assert "1000 sent" in out
    assert smtp.count() == {reader.address: 1 for reader in readers}
    assert Delivery.objects.filter(state=Delivery.State.SENT).count() == 1000

    assert "0 sent" in run_day()
    assert len(smtp.messages) == 1000


def test_the_sample_papers_make_different_mails_for_different_interests(smtp: SmtpServer) -> None:
    call_command("import_papers", "papers/sample/papers.jsonl", stdout=StringIO())
    make_subscriber("astro@example.org", interests=("galaxies and black holes",))
    make_subscriber("robot@example.org", interests=("robot manipulation",))
    run_day()
    [astro], [robot] = smtp.to("astro@example.org"), smtp.to("robot@example.org")
    assert astro["Subject"] != robot["Subject"]
    of_astro, of_robot = (set(delivery.paper_ids) for delivery in Delivery.objects.order_by("id"))
    assert len(of_astro & of_robot) < len(of_astro) / 2


def test_a_day_without_papers_is_an_empty_edition_and_no_mail(smtp: SmtpServer) -> None:
    make_subscriber()
    out = run_day()
    assert "No new papers have arrived for this day." in out
    assert smtp.messages == []
    [skipped] = Delivery.objects.all()
    assert skipped.state == Delivery.State.SKIPPED
    assert skipped.skip_reason == "No new papers have arrived for this day."


def test_an_older_day_can_be_run_by_its_date(smtp: SmtpServer) -> None:
    day = timezone.now().date() - timedelta(days=400)
    make_paper("From back then", listing_day=day)
    make_subscriber()
    run_day()
    assert smtp.messages == []
    run_day(date=day)
    [message] = smtp.messages
    assert message["Subject"] == "From back then"


def test_an_edition_that_a_newer_one_replaced_is_not_mailed(smtp: SmtpServer) -> None:
    make_frozen_edition(make_paper("Of today"))
    day = timezone.now().date() - timedelta(days=2)
    make_paper("Of old", listing_day=day)
    make_subscriber()
    with pytest.raises(CommandError, match="no longer the newest news"):
        run_day(date=day)
    assert smtp.messages == []


def test_tomorrow_cannot_be_run() -> None:
    with pytest.raises(CommandError, match="not come yet"):
        run_day(date=timezone.now().date() + timedelta(days=1))
    assert not Edition.objects.exists()


def test_a_refused_mail_makes_the_command_fail(smtp: SmtpServer) -> None:
    make_paper("Of today")
    make_subscriber()
    smtp.replies["alice@example.org"] = "550 5.1.1 no such user"
    with pytest.raises(CommandError, match="Not every delivery was sent"):
        run_day()
