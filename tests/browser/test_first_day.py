"""A reader's first day in a real browser: sign up, confirm, read, leave."""

from __future__ import annotations

import re
from email.message import EmailMessage

import pytest
from django.core.management import call_command
from playwright.sync_api import Browser, expect
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from newsletter import subscriptions
from newsletter.models import Subscriber
from tests.factories import make_paper
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db(transaction=True)


def link_in(message: EmailMessage, page: str) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    found = re.search(rf"\S+/{page}/\S+", body.get_content())
    assert found is not None
    return found.group()


def test_sign_up_confirm_read_unsubscribe(
    browser: Browser, live_server: LiveServer, smtp: SmtpServer, settings: Settings
) -> None:
    settings.SITE_URL = live_server.url
    make_paper("Video diffusion in real time", abstract="Video diffusion made fast.")
    make_paper("Groups of odd order", abstract="Finite groups are solvable.")
    page = browser.new_context(timezone_id="Asia/Tokyo").new_page()
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    problems: list[str] = []
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)

    page.goto(live_server.url)
    page.get_by_role("link", name=re.compile("subscribe", re.I)).first.click()
    expect(page.get_by_label(re.compile("time zone", re.I))).to_have_value("Asia/Tokyo")
    page.get_by_label(re.compile("e-mail", re.I)).fill("alice@example.org")
    page.get_by_label(re.compile("what interests you", re.I)).fill("video diffusion")
    page.get_by_role("button", name=re.compile("subscribe", re.I)).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(re.compile("mail", re.I))

    subscriptions.send_answers()
    [confirmation] = smtp.messages
    page.goto(link_in(confirmation, "confirm"))
    assert Subscriber.objects.get().state == Subscriber.State.PENDING
    page.get_by_role("button", name=re.compile("confirm", re.I)).click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    subscriber = Subscriber.objects.get()
    assert subscriber.state == Subscriber.State.ACTIVE
    assert subscriber.time_zone == "Asia/Tokyo"

    call_command("run_day")
    [mail] = smtp.messages[1:]
    assert mail["Subject"].startswith("Video diffusion in real time")
    html = mail.get_body(("html",))
    assert html is not None
    letter = browser.new_page()  # a mail styles itself, which our pages may not
    letter.set_content(html.get_content())
    expect(letter.get_by_role("link", name="Video diffusion in real time")).to_be_visible()

    page.goto(live_server.url)
    expect(page.get_by_text("Groups of odd order")).to_be_visible()

    page.goto(link_in(mail, "unsubscribe"))
    assert Subscriber.objects.get().state == Subscriber.State.ACTIVE
    page.get_by_role("button", name=re.compile("unsubscribe", re.I)).click()
    expect(page.get_by_text(re.compile("unsubscribed", re.I)).first).to_be_visible()
    assert Subscriber.objects.get().state == Subscriber.State.UNSUBSCRIBED

    assert problems == []
    assert all(url.startswith((live_server.url, "about:", "data:")) for url in seen)
