"""No page asks anything of anybody else, or breaks the policy it is sent with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page
from pytest_django.live_server_helper import LiveServer

from newsletter.models import Delivery, Subscriber
from papers.models import Edition, EditionPaper, Paper

MISSING = ("a day without a list", "a broken link", "no such page")
# Before any script of a page, so that nothing escapes it.
WATCH = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", event =>
        window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.add_init_script(WATCH)
    yield context
    context.close()


def breaches(page: Page, live_server: LiveServer, paths: dict[str, str]) -> dict[str, object]:
    """What each page asked of others, and what its policy had to stop."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    found: dict[str, object] = {}
    for name, path in paths.items():
        asked.clear()
        answer = page.goto(live_server.url + path, wait_until="networkidle")
        assert answer is not None
        assert answer.status == (404 if name in MISSING else 200), name
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        elsewhere = [
            url for url in asked if not url.startswith((live_server.url, "data:", "about:"))
        ]
        violations = page.evaluate("window.violations")
        if elsewhere or violations:
            found[name] = (elsewhere, violations)
    return found


def test_the_policy_is_enforced_at_all(
    context: BrowserContext, live_server: LiveServer, paths: dict[str, str]
) -> None:
    page = context.new_page()
    page.goto(live_server.url)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "https://elsewhere.example/x.png";
            document.body.append(image);
        }"""
    )
    page.wait_for_function("window.violations.length >= 2")
    assert page.evaluate("window.ran") is None


def test_public_pages_keep_to_themselves(
    context: BrowserContext, live_server: LiveServer, paths: dict[str, str]
) -> None:
    assert breaches(context.new_page(), live_server, paths) == {}


def test_the_curators_pages_keep_to_themselves(
    context: BrowserContext, live_server: LiveServer, paths: dict[str, str]
) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("curator"))
    context.add_cookies(
        [{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}]
    )
    alice = Subscriber.objects.earliest("pk")
    edition = Edition.objects.get(candidates__curation="pinned")
    candidate = EditionPaper.objects.filter(edition=edition).first()
    assert candidate is not None
    opened = Edition.objects.exclude(pk=edition.pk).get(state="frozen")
    opened.state, opened.frozen_at = Edition.State.OPEN, None
    opened.save()
    admin_paths = {
        "index": "/admin/",
        "editions": "/admin/papers/edition/",
        "an edition": f"/admin/papers/edition/{edition.pk}/change/",
        "its candidates": f"/admin/papers/editionpaper/?edition__id__exact={edition.pk}",
        "a candidate": f"/admin/papers/editionpaper/{candidate.pk}/change/",
        "adding a paper": f"/admin/papers/edition/{opened.day}/add/",
        "freezing": f"/admin/papers/edition/{opened.day}/freeze/",
        "papers": "/admin/papers/paper/",
        "a paper": f"/admin/papers/paper/{Paper.objects.earliest('pk').pk}/change/",
        "harvests": "/admin/papers/harvest/",
        "subscribers": "/admin/newsletter/subscriber/",
        "a subscriber": f"/admin/newsletter/subscriber/{alice.pk}/change/",
        "deliveries": "/admin/newsletter/delivery/",
        "a delivery": f"/admin/newsletter/delivery/{Delivery.objects.get().pk}/change/",
        "sending": "/admin/newsletter/sendingpause/",
        "a user": f"/admin/auth/user/{User.objects.get().pk}/change/",
    }
    assert breaches(context.new_page(), live_server, admin_paths) == {}
