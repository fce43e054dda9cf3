"""The browser of these tests, and a site with something on every page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connections
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from playwright.sync_api import Browser, sync_playwright

from newsletter.links import Purpose
from newsletter.models import Feedback
from papers.models import Edition, Signal
from tests.factories import (
    make_delivery,
    make_frozen_edition,
    make_interest,
    make_paper,
    make_subscriber,
)
from tests.newsletter.pages import feedback_page, page_of

FLAGS = [
    "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Debian's Chromium, else Playwright's own."""
    # Playwright's sync API runs an event loop in this thread; Django's guard takes our ordinary
    # queries for queries inside it.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(program).exists():  # one that is there and does not start is a failure
            pytest.skip("NO BROWSER TEST: there is no Chromium, neither Debian's nor Playwright's")
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS + as_root)
        yield chromium
        chromium.close()
        connections.close_all()  # inside that loop Django had opened one more connection
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def paths(transactional_db: None) -> dict[str, str]:
    """One path of each kind of public page, by what it shows."""
    now = timezone.now()
    today = now.date()
    paper = make_paper(
        "A paper with everything",
        authors=["Ada Alvarez", "Bo Berg", "Chinua Achebe", "Đặng Văn", 'O’Neil / "Zed"'],
        arxiv_id="2611.00001",
        doi="10.1000/182",
        categories=["cs.LG", "stat.ML"],
        published_on=today,
        code_url="https://code.example/a",
        project_url="https://project.example",
        keywords=["graphs", "attention"],
        summary="It is about graphs.",
        summary_source="huggingface",
        organisation="Example Institute",
        submitter="ada",
        sources=["arxiv", "huggingface"],
        versions=[{"number": 1, "on": "2026-11-02"}, {"number": 2, "on": "2026-11-12"}],
        licence="http://creativecommons.org/licenses/by/4.0/",
        comment="12 pages",
        journal_ref="Journal of Examples 1",
    )
    withdrawn = make_paper("One that was taken back", withdrawn_on=today)
    for source in ("huggingface", "listing"):
        for hours in range(72, 0, -6):
            Signal.objects.create(
                paper=paper,
                source=source,
                counter="upvotes",
                value=100 - hours,
                observed_at=now - timedelta(hours=hours),
            )
    edition = make_frozen_edition(
        paper, withdrawn, *(make_paper(f"Paper number {n}") for n in range(55)), day=today
    )
    edition.candidates.filter(paper=paper).update(curation="pinned", note="Read it with tea.")
    make_frozen_edition(make_paper("An older one"), day=today - timedelta(days=3))
    empty = today - timedelta(days=4)
    Edition.objects.create(
        day=empty, state="empty", frozen_at=now, reason="No new papers have arrived for this day."
    )
    alice = make_subscriber(interests=("graphs",))
    bob = make_subscriber("bob@example.org", state="pending")
    interest = make_interest(alice, "optics")
    delivery = make_delivery(alice, paper, interest=interest, edition=edition)
    Feedback.objects.create(subscriber=alice, paper=paper, interest=interest, kind="more")
    found = {
        "the newest day": "/",
        "a day": f"/papers/{today}",
        "an older day": f"/papers/{today - timedelta(days=3)}",
        "a day without papers": f"/papers/{empty}",
        "a day without a list": f"/papers/{today - timedelta(days=1)}",
        "a week": reverse("week", args=[today]),
        "a month": reverse("month", args=[today]),
        "the top": "/papers/top",
        "its second page": "/papers/top?page=2",
        "a paper": paper.get_absolute_url(),
        "a withdrawn paper": withdrawn.get_absolute_url(),
        "an author": "/authors/Ada%20Alvarez",
        "all categories": "/categories/",
        "a category": "/categories/cs.LG",
        "a category without papers": "/categories/math.AG",
        "signing up": "/subscribe/",
        "check your mail": "/subscribe/check-your-mail/",
        "the status": "/status/",
        "privacy": "/privacy/",
        "the API": "/api/",
        "settings": page_of(alice, Purpose.PREFERENCES),
        "confirming": page_of(bob, Purpose.CONFIRM),
        "leaving": page_of(alice, Purpose.UNSUBSCRIBE),
        "signing in": "/sign-in/",
        "check your mail for a link": "/sign-in/check-your-mail/",
        "a link to sign in": page_of(alice, Purpose.SIGN_IN),
        "a judgement": feedback_page(delivery, paper),
        "a broken link": "/preferences/x/",
        "no such page": "/nowhere",
    }
    try:
        found["searching"] = reverse("search")
        found["a search"] = f"{reverse('search')}?q=paper"
    except NoReverseMatch:
        pass
    return found
