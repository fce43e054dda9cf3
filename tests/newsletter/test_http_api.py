"""Providers' HTTP APIs, by Anymail, on loopback: what leaves, and what is said of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.utils import timezone
from pytest_django import Settings

from newsletter import delivery, provider, sending
from newsletter.bounces import Class
from newsletter.delivery import send_planned
from newsletter.models import Alert, Delivery
from newsletter.provider import OutcomeUnknown, Refused
from tests.newsletter.test_delivery import planned_for, the_delivery

State = Delivery.State


class Api:
    """Answers each request with `status` and `body`, and keeps what it was asked.

    Like Resend's, it knows a key again: with another content it says so, and takes nothing.
    """

    def __init__(self) -> None:
        self.status, self.body = 200, {"id": "told-1"}
        self.knows_keys = self.hangs_up = False
        self.keys: list[str | None] = []
        self.taken: dict[str | None, bytes] = {}
        api = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                key = self.headers["Idempotency-Key"]
                api.keys.append(key)
                status, body = api.status, api.body
                if api.knows_keys and api.taken.setdefault(key, content) != content:
                    status, body = 409, {"name": "invalid_idempotent_request", "message": "used"}
                if api.hangs_up:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port: int = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def answers(self, status: int, body: Any) -> None:
        self.status, self.body = status, body

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    with closing(Api()) as api:
        use("resend", f"http://127.0.0.1:{api.port}/", settings)
        yield api


def use(name: str, url: str, settings: Settings, **more: object) -> None:
    settings.EMAIL_BACKEND = f"anymail.backends.{name}.EmailBackend"
    key = {"postmark": "SERVER_TOKEN"}.get(name, "API_KEY")
    settings.ANYMAIL = {
        f"{name.upper()}_{key}": "key",
        f"{name.upper()}_API_URL": url,
        "MAILGUN_SENDER_DOMAIN": "x.example",
        **more,
    }


def tell(times: int = 1) -> list[provider.Answer]:
    """The answers to as many mails, one after the other over one session."""
    found = []
    with provider.sessions(1) as sessions:
        for n in range(times):
            [server] = sessions.take(1)
            message = EmailMessage("Hello", "Hi.", "daily@papers.example", [f"r{n}@example.org"])
            sessions.begin(server, n, sessions.prepared(message))
            found += [answer for _, answer in sessions.answers()]
    return found


# What never left


def test_a_tls_handshake_that_fails_is_known_to_have_told_nothing(
    api: Api, settings: Settings
) -> None:
    use("resend", f"https://127.0.0.1:{api.port}/", settings)
    for answer in tell(2):
        assert isinstance(answer.error, Refused)
        assert not answer.error.for_good
        assert str(answer.error).startswith("the provider's API was not reached: [SSL")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_away_is_known_to_have_told_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://127.0.0.1:{port}")
    use("resend", f"{scheme}://api.example.invalid/", settings)
    [answer] = tell()
    assert isinstance(answer.error, Refused)
    assert "refused" in str(answer.error)
    assert "object at 0x" not in str(answer.error)


@pytest.mark.parametrize("wrong", ["10", 0])
def test_what_is_raised_before_a_request_leaves_is_no_unknown_outcome(
    api: Api, settings: Settings, wrong: object
) -> None:
    use("resend", f"http://127.0.0.1:{api.port}/", settings, REQUESTS_TIMEOUT=wrong)
    for answer in tell(2):
        assert isinstance(answer.error, Refused)
        assert not answer.error.for_good
    assert api.keys == []


def test_an_address_that_is_none_is_no_unknown_outcome(settings: Settings) -> None:
    use("resend", "api.example.org", settings)
    [answer] = tell()
    assert isinstance(answer.error, Refused)


def test_an_answer_that_breaks_off_leaves_it_unknown_also_after_one_that_did_not(
    api: Api,
) -> None:
    """The second goes over the connection of the first."""
    with provider.sessions(1) as sessions:
        found = []
        for n in range(3):
            api.hangs_up = n == 1
            [server] = sessions.take(1)
            message = EmailMessage("Hello", "Hi.", "daily@papers.example", ["r@example.org"])
            sessions.begin(server, n, sessions.prepared(message))
            found += [type(answer.error) for _, answer in sessions.answers()]
    assert found == [type(None), OutcomeUnknown, type(None)]


def test_a_gateways_bad_answer_leaves_it_unknown(api: Api) -> None:
    api.answers(502, {})
    assert [type(answer.error) for answer in tell()] == [OutcomeUnknown]


# What is said of the sender

OURS = [
    (401, "resend", {"name": "restricted_api_key"}),
    (402, "brevo", {"code": "not_enough_credits", "message": "You have no credits left."}),
    (403, "resend", {"message": "The x.example domain is not verified."}),
    (404, "mailgun", {"message": "Domain not found: x.example"}),
    (405, "resend", {}),
    (429, "resend", {"name": "daily_quota_exceeded", "message": "Your daily quota is used up."}),
    (429, "resend", {"name": "monthly_quota_exceeded", "message": "No more mails this month."}),
    (422, "postmark", {"ErrorCode": 405, "Message": "Not allowed to send: out of credits."}),
    (422, "postmark", {"ErrorCode": 400, "Message": "Sender signature was not found."}),
    (422, "postmark", {"ErrorCode": 401, "Message": "Your 'From' address is not confirmed."}),
    (422, "postmark", {"ErrorCode": 412, "Message": "While your account is pending approval …"}),
    (422, "postmark", {"ErrorCode": 413, "Message": "This account may not send at present."}),
    (400, "brevo", {"code": "permission", "message": "Your account has been suspended."}),
    (400, "resend", {"name": "validation_error", "message": "The domain is not verified."}),
    (422, "resend", {"message": "Invalid `from` field."}),
]
NOT_OURS = [
    (400, "mailgun", {"message": "'to' parameter is not a valid address."}, True),
    (422, "resend", {"message": "Invalid `to` field: <user@domain-not-verified.example>"}, True),
    (
        422,
        "postmark",
        {
            "ErrorCode": 406,
            "Message": "Found inactive addresses: r0@example.org. Inactive recipients …",
        },
        True,
    ),
    (
        422,
        "postmark",
        {"ErrorCode": 300, "Message": "Invalid 'To' address: 'r0@example.org'"},
        True,
    ),
    (413, "mailgun", {"message": "The message is too large."}, True),
    (429, "resend", {"name": "rate_limit_exceeded", "message": "Only 2 requests a second."}, False),
    (429, "mailgun", {"message": "Sending limit of 10 per minute; too many requests."}, False),
    (408, "resend", {}, False),
    (425, "resend", {}, False),
    (409, "mailgun", {"message": "conflict"}, False),
]


@pytest.mark.parametrize(("status", "name", "body"), OURS)
def test_what_an_api_says_to_each_of_our_mails_is_the_senders_fault(
    api: Api, settings: Settings, status: int, name: str, body: dict[str, object]
) -> None:
    use(name, f"http://127.0.0.1:{api.port}/", settings)
    api.answers(status, body)
    [answer] = tell()
    assert isinstance(answer.error, Refused)
    assert (answer.error.cause, answer.error.for_good) == (Class.SENDER, False)


@pytest.mark.parametrize(("status", "name", "body", "for_good"), NOT_OURS)
def test_what_an_api_says_of_one_mail_stops_no_other(
    api: Api, settings: Settings, status: int, name: str, body: dict[str, object], for_good: bool
) -> None:
    use(name, f"http://127.0.0.1:{api.port}/", settings)
    api.answers(status, body)
    [answer] = tell()
    assert isinstance(answer.error, Refused)
    assert (answer.error.cause, answer.error.for_good) == (Class.NONE, for_good)


@pytest.mark.django_db
def test_a_quota_that_is_used_up_stops_all_sending_and_alerts_and_loses_nobody(api: Api) -> None:
    planned_for(*[f"reader{n}@example.org" for n in range(5)])
    api.answers(402, {"message": "You have no credits left."})
    assert send_planned().later == 5
    assert len(api.keys) == 1
    assert sending.is_paused()
    assert Alert.objects.count() == 1
    assert set(Delivery.objects.values_list("state", flat=True)) == {State.PLANNED}


def test_an_error_that_is_of_no_recipient_that_is_known_is_no_success(
    api: Api, settings: Settings
) -> None:
    use("postmark", f"http://127.0.0.1:{api.port}/", settings)
    api.answers(422, {"ErrorCode": 406, "Message": "There are inactive addresses."})
    assert [type(answer.error) for answer in tell()] == [OutcomeUnknown]


# A key for each delivery


@pytest.mark.django_db
def test_each_delivery_is_told_with_a_key_of_its_own_which_a_repeat_keeps(api: Api) -> None:
    planned_for("alice@example.org", "bob@example.org")
    api.answers(429, {"name": "rate_limit_exceeded"})
    send_planned()
    api.answers(200, {"id": "told-1"})
    Delivery.objects.update(not_before=None)
    assert send_planned().sent == 2
    keys = {str(uuid) for uuid in Delivery.objects.values_list("uuid", flat=True)}
    assert set(api.keys[:2]) == set(api.keys[2:]) == keys


@pytest.mark.django_db
def test_a_mail_that_is_sent_again_is_not_taken_twice_and_is_not_given_up(api: Api) -> None:
    """Its content is another, for its links are made anew: the provider says that it has one."""
    api.knows_keys = api.hangs_up = True
    planned_for("alice@example.org")
    assert send_planned().unknown == 1
    api.hangs_up = False
    assert delivery.settle_unknown(the_delivery(), State.PLANNED)
    Delivery.objects.update(not_before=None)
    api.taken = dict.fromkeys(api.taken, b"what was made a second earlier")
    assert send_planned().unknown == 1
    one = the_delivery()
    assert (one.state, api.keys) == (State.UNKNOWN, [str(one.uuid)] * 2)
    assert "knows this mail" in one.error


@pytest.mark.django_db
def test_a_provider_that_takes_no_key_is_given_none(api: Api, settings: Settings) -> None:
    use("mailgun", f"http://127.0.0.1:{api.port}/", settings)
    api.answers(200, {"id": "<told-1>", "message": "Queued."})
    planned_for("alice@example.org")
    assert send_planned().sent == 1
    assert api.keys == [None]
    assert the_delivery().sent_at is not None
    assert the_delivery().handed_over_at <= timezone.now()  # type: ignore[operator]
