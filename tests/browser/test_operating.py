"""The operators' pages in a browser: nothing stands outside the window, or under another thing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser, Page
from pytest_django.live_server_helper import LiveServer

from newsletter.models import Delivery, Feedback, Interest, Subscriber
from papers.models import Harvest, Paper

LONG = "x" * 120  # without a blank, as addresses of the web are


@pytest.fixture
def desk(browser: Browser, live_server: LiveServer, paths: dict[str, str]) -> Page:
    """Signed in as a superuser, with long texts wherever some may stand."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    context = browser.new_context(base_url=live_server.url)
    value = client.cookies["sessionid"].value
    context.add_cookies([{"name": "sessionid", "value": value, "url": live_server.url}])
    now = timezone.now()
    Paper.objects.update(title=f"A paper with a long title {'of many words ' * 12}")
    Delivery.objects.update(state=Delivery.State.UNKNOWN, error=f"the dialogue broke: {LONG}")
    Interest.objects.update(words="words " * 40)
    Feedback.objects.update(at=now)
    Harvest.objects.create(source=f"/srv/{LONG}/cs_LG.html", state="done", read=200, new=100)
    Harvest.objects.create(
        source="arxiv", part="cs.LG", state="failed", since=now.date() - timedelta(days=3),
        until=now.date(), retry_at=now, errors=[f"ServerFailed: https://{LONG}"], read=10_000,
        new=5_000, updated=2_000, skipped=3_000, failed=12,
    )  # fmt: skip
    return context.new_page()


def test_no_page_of_the_operators_is_wider_than_the_window(desk: Page) -> None:
    pages = [
        f"/admin/newsletter/subscriber/{Subscriber.objects.earliest('pk').pk}/change/",
        f"/admin/newsletter/delivery/{Delivery.objects.get().pk}/change/",
        f"/admin/papers/paper/{Paper.objects.earliest('pk').pk}/change/",
        *(f"/admin/newsletter/{name}/" for name in ("delivery", "feedback", "sendingpause")),
        "/admin/papers/harvest/",
        "/admin/",
    ]
    wide = {}
    for width in (1280, 375):
        desk.set_viewport_size({"width": width, "height": 800})
        for path in pages:
            desk.goto(path)
            # On a desk, a list shows all its columns; on a phone, it scrolls within the page.
            boxes = "html, .results" if width == 1280 else "html"
            found = desk.eval_on_selector_all(
                boxes, "boxes => boxes.filter(box => box.scrollWidth > box.clientWidth).length"
            )
            if found:
                wide[width, path] = found
    assert wide == {}


def test_the_question_below_a_delivery_stands_clear_of_its_buttons(desk: Page) -> None:
    desk.set_viewport_size({"width": 1280, "height": 800})
    desk.goto(f"/admin/newsletter/delivery/{Delivery.objects.get().pk}/change/")
    buttons = desk.locator(".submit-row").bounding_box()
    heading = desk.get_by_role("heading", name="Why not this paper?").bounding_box()
    assert buttons is not None
    assert heading is not None
    assert heading["y"] >= buttons["y"] + buttons["height"]
