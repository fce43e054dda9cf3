"""A reader in a real browser: signs in by a mail, upvotes, submits, reads the feed, leaves."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from newsletter import links, sign_in, submissions, votes
from newsletter.links import Purpose
from newsletter.models import Submission, Subscriber, Vote
from tests.factories import make_delivery, make_frozen_edition, make_paper, make_subscriber
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without"])
def test_sign_in_upvote_submit_and_have_it_erased(
    browser: Browser, live_server: LiveServer, smtp: SmtpServer, settings: Settings, script: bool
) -> None:
    settings.SITE_URL = live_server.url
    paper, other = make_paper("Graphs that forget"), make_paper("Groups of odd order")
    edition = make_frozen_edition(paper, other)
    alice = make_subscriber()
    make_delivery(alice, paper, edition=edition)
    context = browser.new_context(java_script_enabled=script)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)

    # From a paper's button to the form, to the mail, and back to the paper's place in the list.
    page.goto(live_server.url)
    card = page.get_by_role("listitem").filter(has_text="Graphs that forget")
    card.get_by_role("button", name=re.compile("^Sign in to upvote.* 0$")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to upvote")
    page.get_by_label(re.compile("e-mail", re.I)).fill("alice@example.org")
    page.get_by_role("button", name="Send me a link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Check your mail")
    assert sign_in.send_links() == 1
    body = smtp.messages[0].get_body(("plain",))
    assert body is not None
    found = re.search(r"\S+/sign-in/\S+", body.get_content())
    assert found is not None
    page.goto(found.group())
    assert Subscriber.objects.get().sign_ins == 0
    page.get_by_role("button", name="Sign in").click()
    assert urlsplit(page.url)[2:] == ("/", "", f"up-{paper.uuid}")
    said = page.get_by_text("Press ▲ to upvote.").filter(visible=True)
    expect(said).to_have_count(1)
    page.keyboard.press("Tab")
    upvote = page.get_by_role("button", name=re.compile("upvotes?: Graphs"))
    expect(upvote).to_be_focused()
    upvote.press("Enter")
    expect(upvote).to_have_attribute("aria-pressed", "true")
    expect(upvote).to_be_focused()
    expect(said).to_have_count(0)
    assert Vote.objects.get().paper == paper
    page.goto(live_server.url)
    other_button = page.get_by_role("button", name=re.compile("upvotes?: Groups"))
    other_button.click()
    expect(other_button).to_have_attribute("aria-pressed", "true")
    other_button.click()
    expect(other_button).to_have_attribute("aria-pressed", "false")
    expect(said).to_have_count(0)
    assert Vote.objects.get().paper == paper

    page.get_by_role("link", name="Your papers").click()
    expect(page.get_by_role("link", name="Graphs that forget")).to_be_visible()
    page.get_by_role("link", name="Submit a paper").click()
    page.get_by_label(re.compile("arXiv")).fill("https://arxiv.org/abs/2505.24864v2")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Thank you")
    assert Submission.objects.get().arxiv_id == "2505.24864"

    page.get_by_role("link", name="Your papers").first.click()
    feed = page.get_by_role("link", name=re.compile("feeds.picks")).get_attribute("href")
    assert feed is not None
    assert "Graphs that forget" in context.request.get(feed).text()

    page.get_by_role("link", name="Have all of it erased").click()
    page.get_by_role("button", name="Erase everything").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Everything is erased")
    assert not Subscriber.objects.exists()
    assert context.request.get(feed).status == 410
    assert problems == []


def test_axe_finds_nothing_on_readers_pages_and_none_is_wider_than_a_phone(
    browser: Browser, live_server: LiveServer
) -> None:
    paper = make_paper("Graphs that forget, and what remains of them after all is said and done")
    make_frozen_edition(paper)
    alice = make_subscriber()
    votes.give(alice, paper)
    submissions.decline(submissions.submit(alice, "2505.24864"), "Off topic.", alice.created_at)
    for width, scheme in ((1280, "light"), (320, "dark")):
        page = browser.new_page(
            viewport={"width": width, "height": 720},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        alice.refresh_from_db()
        link = links.numbered_url(alice, Purpose.SIGN_IN)
        page.goto(live_server.url + urlsplit(link).path)
        page.get_by_role("button", name="Sign in").click()
        for path in ("/", paper.get_absolute_url(), "/reader/", "/submit/", "/reader/erase/"):
            page.goto(live_server.url + path)
            results = Axe().run(page)
            assert results.response["passes"]
            assert results.violations_count == 0, f"{path}: {results.generate_report()}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width
