"""The pages behind signed links, as a reader's browser finds them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from html.parser import HTMLParser
from urllib.parse import urlsplit

from django.core.mail import EmailMessage
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from newsletter import links
from newsletter.links import Purpose
from newsletter.models import Delivery, Subscriber
from papers.models import Paper


def page_of(subscriber: Subscriber, purpose: Purpose) -> str:
    """The path of a subscriber's signed page."""
    return urlsplit(links.url(subscriber.uuid, purpose)).path


def feedback_page(delivery: Delivery, paper: Paper) -> str:
    """The path of the page for feedback on one paper of a mail."""
    return urlsplit(links.pick_url(delivery.uuid, paper.pk)).path


def link_in(text: str, purpose: Purpose) -> str:
    """The path of the one link for `purpose` that stands in the text of a mail."""
    start = reverse(purpose, args=["TOKEN"]).partition("TOKEN")[0]
    [path] = set(re.findall(rf"http://testserver({start}[^\s]+)", text))
    return str(path)


def signed_in(client: Client, reader: Subscriber) -> Client:
    """The client after its reader pressed the button of a link to sign in."""
    reader.refresh_from_db()
    path = urlsplit(links.numbered_url(reader, Purpose.SIGN_IN)).path
    assert press(client, path).status_code == 302
    return client


def press(client: Client, path: str) -> HttpResponse:
    """Press the button of a page that has nothing but its token."""
    token = form_on(client.get(path).content.decode()).get("csrfmiddlewaretoken", [""])[0]
    answer = client.post(path, {"csrfmiddlewaretoken": token})
    assert isinstance(answer, HttpResponse)
    return answer


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """`work`, as another process would do it: by a connection of its own."""

    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def until_blocked(thread: threading.Thread) -> None:
    """Wait until another connection waits for this one, or its thread has ended."""
    while thread.is_alive():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM pg_locks"
                " WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if cursor.fetchone():
                return
        time.sleep(0.01)


def text_of(message: EmailMessage) -> str:
    return str(message.body)


def form_on(page: str) -> dict[str, list[str]]:
    """What a browser would send of the page's first form that changes anything, left as it is."""
    reader = _Form()
    reader.feed(page)
    return reader.values


class _Form(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[str]] = {}
        self._within, self._ended = False, False
        self._textarea = self._select = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        name = given.get("name") or ""
        # Not the search box, which stands on every page.
        if tag == "form" and given.get("method") == "post" and not self._ended:
            self._within = True
        if not self._within:
            return
        if tag == "input" and (given.get("type") != "checkbox" or "checked" in given):
            self._add(name, given.get("value") or "")
        elif tag == "textarea":
            self._textarea = name
            self.values[name] = [""]
        elif tag == "select":
            self._select = name
        elif tag == "option" and "selected" in given:
            self._add(self._select, given.get("value") or "")

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.values[self._textarea][0] += data.removeprefix("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._textarea = ""
        elif tag == "form" and self._within:
            self._within, self._ended = False, True

    def _add(self, name: str, value: str) -> None:
        self.values.setdefault(name, []).append(value)
