"""What holds for every page; no browser is needed to see it."""

from __future__ import annotations

from django.test import Client

from newsletter.models import Subscriber
from tests.newsletter.pages import signed_in

FORMS = {"signing up", "signing in", "a link to sign in"}  # that a cookie protects
# Those that know who came, or that ask for an address themselves.
OF_A_READER = FORMS | {
    "check your mail", "settings", "confirming", "leaving", "check your mail for a link",
    "a judgement", "a broken link",
}  # fmt: skip


def test_who_only_reads_gets_no_cookie(paths: dict[str, str]) -> None:
    given = {name for name, path in paths.items() if Client().get(path).cookies}
    assert given == FORMS


def test_every_public_page_has_one_subscribe_box(paths: dict[str, str]) -> None:
    boxes = {name: boxes_on(Client(), path) for name, path in paths.items()}
    assert boxes == {name: 0 if name in OF_A_READER else 1 for name in paths}


def test_who_is_signed_in_is_not_asked_to_subscribe(paths: dict[str, str]) -> None:
    client = signed_in(Client(), Subscriber.objects.get(address="alice@example.org"))
    assert {name for name, path in paths.items() if boxes_on(client, path)} == set()


def boxes_on(client: Client, path: str) -> int:
    return client.get(path).content.count(b'id="subscribe-box"')
