"""Signing in by a link in a mail, the session that follows, and what of it meets the admin's."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import time_machine
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.encoding import iri_to_uri

from newsletter import feedback, links, reader_views, sign_in, submissions, subscriptions, votes
from newsletter.addresses import address_hash
from newsletter.links import Purpose, SpentLink
from newsletter.models import (
    Delivery,
    DeliveryEvent,
    Feedback,
    SignInRequest,
    Subscriber,
    Suppression,
)
from newsletter.sign_in import LEASE, LINKS_A_DAY, send_links
from tests.factories import (
    make_delivery,
    make_frozen_edition,
    make_interest,
    make_paper,
    make_subscriber,
)
from tests.newsletter.pages import link_in, page_of, press, signed_in, text_of
from tests.newsletter.test_delivery import many_deliveries
from tests.plans import analyse, rows_touched
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db

State = Subscriber.State
ALICE = "alice@example.org"


def after(pause: timedelta) -> time_machine.travel:
    return time_machine.travel(timezone.now() + pause, tick=False)


def ask(address: str = ALICE, *, client: Client | None = None, **fields: str) -> str:
    answer = (client or Client()).post("/sign-in/", {"address": address, **fields})
    assert answer.status_code == 302
    return str(answer["Location"])


def is_signed_in(client: Client) -> bool:
    return client.get("/reader/").status_code == 200


# --- The whole way --------------------------------------------------------------------------------


def test_a_reader_asks_gets_a_mail_presses_the_button_and_is_in(
    smtp: SmtpServer, client: Client
) -> None:
    make_subscriber()
    ask(client=client)
    assert client.get("/sign-in/check-your-mail/").status_code == 200
    assert smtp.messages == [], "the page itself never waits for a mail server"
    assert send_links() == 1
    assert send_links() == 0
    [message] = smtp.to(ALICE)
    text, marked_up = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert marked_up is not None
    path = link_in(text.get_content(), Purpose.SIGN_IN)
    assert path in marked_up.get_content()
    assert "20 minutes" in text.get_content()

    assert client.get(path).status_code == 200
    assert not is_signed_in(client)
    answer = client.post(path)
    assert (answer.status_code, answer["Location"]) == (302, "/reader/")
    assert ALICE in client.get("/reader/").content.decode()


def test_the_page_of_a_link_names_nobody(client: Client) -> None:
    page = client.get(page_of(make_subscriber(), Purpose.SIGN_IN)).content.decode()
    assert ALICE not in page


@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_opening_the_link_does_nothing_whoever_does_it(client: Client, method: str) -> None:
    path = page_of(make_subscriber(), Purpose.SIGN_IN)
    before = Subscriber.objects.values().get()
    for _ in range(3):
        assert getattr(client, method)(path).status_code == 200
    assert Subscriber.objects.values().get() == before
    assert not Session.objects.exists()
    assert set(client.cookies) <= {"csrftoken"}


def test_a_link_works_once(client: Client) -> None:
    path = page_of(make_subscriber(), Purpose.SIGN_IN)
    assert client.post(path).status_code == 302
    other = Client()
    for answer in (other.get(path), other.post(path)):
        assert answer.status_code == 410
        assert "was used" in answer.content.decode()
    assert not is_signed_in(other)
    assert is_signed_in(client)


def test_two_who_press_the_button_of_one_link_at_once_are_not_both_in() -> None:
    alice = make_subscriber()
    requests = [HttpRequest(), HttpRequest()]
    for request in requests:
        request.session = Client().session
    assert [sign_in.sign_in(request, alice) for request in requests] == [True, False]


def test_a_link_of_an_hour_ago_is_too_old(client: Client) -> None:
    path = page_of(make_subscriber(), Purpose.SIGN_IN)
    with after(timedelta(hours=1)):
        assert client.post(path).status_code == 410
        assert not is_signed_in(client)


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
def test_another_site_cannot_sign_somebody_in_as_somebody_else(headers: dict[str, str]) -> None:
    client = Client(enforce_csrf_checks=True)
    path = page_of(make_subscriber("mallory@example.org"), Purpose.SIGN_IN)
    assert client.post(path, headers=headers).status_code == 403
    assert not is_signed_in(client)
    assert client.get(path)["Referrer-Policy"] == "same-origin"  # or a browser sends no Origin
    assert press(client, path).status_code == 302
    assert is_signed_in(client)


# --- The same page whoever asks -------------------------------------------------------------------


def prepare(kind: str) -> None:
    match kind:
        case "pending":
            make_subscriber(state=State.PENDING)
        case "active":
            make_subscriber()
        case "paused":
            make_subscriber(state=State.PAUSED)
        case "unsubscribed":
            subscriptions.unsubscribe(make_subscriber(), way="test")
        case "complained":
            make_subscriber()
            subscriptions.suppress(ALICE, Suppression.Reason.COMPLAINT)
        case "erased":
            subscriptions.erase(make_subscriber(), way="test")


KINDS = ["new", "pending", "active", "paused", "unsubscribed", "complained", "erased"]


def test_nobody_learns_from_the_page_whether_an_address_is_known(
    mailoutbox: list[EmailMessage],
) -> None:
    seen = set()
    for kind in KINDS:
        with transaction.atomic():
            prepare(kind)
            client = Client()
            with CaptureQueriesContext(
                connection,
            ) as queries:
                answer = client.post("/sign-in/", {"address": ALICE})
            statements = tuple(query["sql"].partition("VALUES")[0] for query in queries)
            page = client.get(answer["Location"])
            seen.add((answer.status_code, answer["Location"], page.content, statements))
            assert not client.cookies, kind
            assert mailoutbox == []
            transaction.set_rollback(True)
    assert len(seen) == 1


def test_the_page_asks_the_database_the_same_for_everybody() -> None:
    make_subscriber()
    asked = []
    for address in (ALICE, "nobody@example.org", ALICE, "nobody@example.org"):
        with CaptureQueriesContext(connection) as queries:
            ask(address)
        asked.append([query["sql"].split()[:3] for query in queries])
    assert asked == [[["INSERT", "INTO", '"newsletter_signinrequest"']]] * 4


@pytest.mark.parametrize(
    ("kind", "mails"),
    [
        ("new", 0), ("pending", 0), ("active", 1), ("paused", 1), ("unsubscribed", 0),
        ("complained", 0), ("erased", 0),
    ],
)  # fmt: skip
def test_only_who_is_subscribed_gets_a_mail(
    kind: str, mails: int, mailoutbox: list[EmailMessage]
) -> None:
    prepare(kind)
    ask()
    assert send_links() == mails
    assert [message.to for message in mailoutbox] == [[ALICE]] * mails
    assert not SignInRequest.objects.filter(due_at__isnull=False).exists()


def test_nobody_s_address_is_kept_for_having_been_typed() -> None:
    ask("stranger@example.org")
    row = json.dumps(list(SignInRequest.objects.values()), default=str)
    assert "stranger" not in row
    assert not Subscriber.objects.exists()
    with after(timedelta(days=1, minutes=1)):
        assert sign_in.forget_requests(timezone.now()) == 1


@pytest.mark.parametrize("spelling", ["ALICE@EXAMPLE.ORG", " alice@Example.org "])
def test_the_case_of_an_address_does_not_matter(
    spelling: str, mailoutbox: list[EmailMessage]
) -> None:
    make_subscriber()
    ask(spelling)
    assert send_links() == 1


def test_another_spelling_of_the_mailbox_is_another_address(
    mailoutbox: list[EmailMessage],
) -> None:
    make_subscriber()
    ask("alice+evil@example.org")
    assert send_links() == 0


@pytest.mark.parametrize("address", ["", "alice", "al\x00ice@example.org", "jürgen@example.org"])
def test_what_is_no_address_is_refused_with_words(address: str) -> None:
    answer = Client().post("/sign-in/", {"address": address})
    assert answer.status_code == 400
    assert not SignInRequest.objects.exists()


def test_the_form_is_protected_against_forged_posts() -> None:
    client = Client(enforce_csrf_checks=True)
    assert client.post("/sign-in/", {"address": ALICE}).status_code == 403


# --- How many mails -------------------------------------------------------------------------------


def test_a_mailbox_gets_only_a_few_links_a_day_however_it_is_spelled(
    mailoutbox: list[EmailMessage],
) -> None:
    spellings = [ALICE, "alice+papers@example.org", "a.lice@example.org"]
    for address in spellings:
        make_subscriber(address)
    for n in range(3 * LINKS_A_DAY):
        with after(timedelta(minutes=30 * n)):
            ask(spellings[n % 3])
            send_links()
    assert len(mailoutbox) == LINKS_A_DAY
    with after(timedelta(days=2)):
        ask()
        assert send_links() == 1


def test_nobody_who_only_knows_an_address_locks_its_reader_out(
    mailoutbox: list[EmailMessage],
) -> None:
    alice = make_subscriber()
    for n in range(LINKS_A_DAY + 1):
        with after(timedelta(minutes=5 * n)):
            ask()
            send_links()
    assert len(mailoutbox) == LINKS_A_DAY
    client = Client(enforce_csrf_checks=True)
    settings_page = page_of(alice, Purpose.PREFERENCES)
    assert 'action="sign-in/"' in client.get(settings_page).content.decode()
    for n in range(2 * LINKS_A_DAY):
        with after(timedelta(minutes=40 + 5 * n)):
            answer = client.post(f"{settings_page}sign-in/")
            assert answer["Location"] == "/sign-in/check-your-mail/"
            send_links()
    assert len(mailoutbox) == 2 * LINKS_A_DAY, "and these have an end, too"
    assert {tuple(message.to) for message in mailoutbox} == {(ALICE,)}


@pytest.mark.parametrize("method", ["get", "head"])
def test_only_the_button_of_the_settings_asks_for_a_link(client: Client, method: str) -> None:
    alice = make_subscriber()
    path = f"{page_of(alice, Purpose.PREFERENCES)}sign-in/"
    assert getattr(client, method)(path).status_code == 405
    assert client.post("/preferences/garbage/sign-in/").status_code == 404
    other = links.token(alice.uuid, Purpose.UNSUBSCRIBE)
    assert client.post(f"/preferences/{other}/sign-in/").status_code == 404
    assert not SignInRequest.objects.exists()


def test_who_clicks_twice_gets_one_mail_and_leaves_one_row(
    mailoutbox: list[EmailMessage],
) -> None:
    make_subscriber()
    for _ in range(20):
        ask()
        ask("nobody@example.org")
    send_links()
    assert len(mailoutbox) == 1
    assert SignInRequest.objects.count() == 1, "and who is nobody here leaves none"
    ask()
    send_links()
    assert (len(mailoutbox), SignInRequest.objects.count()) == (1, 1)
    with after(timedelta(seconds=61)):
        ask()
        assert send_links() == 1


def test_who_asks_while_the_mail_is_on_its_way_gets_one() -> None:
    make_subscriber()
    ask()
    assert sign_in._claim(timezone.now())
    ask()
    assert not sign_in._claim(timezone.now())


def test_a_mail_that_a_crash_interrupted_is_sent_after_its_lease(
    mailoutbox: list[EmailMessage],
) -> None:
    make_subscriber()
    ask()
    assert sign_in._claim(timezone.now())
    assert send_links() == 0
    with after(LEASE + timedelta(seconds=1)):
        assert send_links() == 1


def test_nobody_who_asks_in_masses_keeps_a_reader_waiting(
    mailoutbox: list[EmailMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_subscriber("mallory@example.org")
    make_subscriber()
    with after(timedelta(minutes=-30)):
        sign_in.ask(ALICE)
    for n in range(100):
        sign_in.ask(f"nobody{n}@example.org")
        sign_in.ask(f"mallory+{n}@example.org")
        sign_in.ask("mallory@example.org")
    sign_in.ask(ALICE)
    monkeypatch.setattr(sign_in, "AT_A_TIME", 70)
    with CaptureQueriesContext(connection) as queries:
        assert send_links() == 2
    assert {message.to[0] for message in mailoutbox} == {ALICE, "mallory@example.org"}
    assert SignInRequest.objects.count() == 2
    assert len(queries) < 150


def test_a_mail_that_comes_too_late_to_be_of_use_is_not_sent(
    mailoutbox: list[EmailMessage],
) -> None:
    make_subscriber()
    ask()
    with after(timedelta(minutes=30)):
        assert send_links() == 0
    assert not SignInRequest.objects.filter(due_at__isnull=False).exists()


def test_one_reader_s_refusal_keeps_no_other_waiting(smtp: SmtpServer) -> None:
    make_subscriber()
    make_subscriber("bob@example.org")
    smtp.replies[ALICE] = "550 5.1.1 no such user"
    ask()
    ask("bob@example.org")
    assert send_links() == 1
    assert smtp.count() == {"bob@example.org": 1}
    assert not SignInRequest.objects.filter(due_at__isnull=False).exists()


# --- The session ----------------------------------------------------------------------------------


def test_a_session_ends_after_thirty_days(client: Client) -> None:
    signed_in(client, make_subscriber())
    with after(timedelta(days=29)):
        assert is_signed_in(client)
    with after(timedelta(days=31)):
        assert not is_signed_in(client)


def test_a_session_is_never_one_that_somebody_prepared(client: Client) -> None:
    client.force_login(User.objects.create_user("eve", is_staff=True))
    prepared = client.cookies["sessionid"].value
    signed_in(client, make_subscriber())
    assert client.cookies["sessionid"].value != prepared
    eve = Client()
    eve.cookies["sessionid"] = prepared
    assert not is_signed_in(eve)


def test_an_admin_stays_logged_in_when_signing_in_and_out_as_a_reader(client: Client) -> None:
    root = User.objects.create_superuser("root", password="a long enough password")
    client.force_login(root)
    age = client.session.get_expiry_age()
    alice = signed_in(client, make_subscriber())
    assert client.get("/admin/").status_code == 200
    assert client.session.get_expiry_age() == age
    assert alice.post("/sign-out/").status_code == 302
    assert not is_signed_in(client)
    assert client.get("/admin/").status_code == 200


def test_an_admin_who_logs_in_where_a_reader_is_gets_no_longer_session(client: Client) -> None:
    User.objects.create_superuser("root", password="a long enough password")
    usual = Client().session.get_expiry_age()
    signed_in(client, make_subscriber())
    assert client.session.get_expiry_age() > usual
    form = {"username": "root", "password": "a long enough password"}
    assert client.post("/admin/login/?next=/admin/", form).status_code == 302
    assert client.session.get_expiry_age() == usual
    assert is_signed_in(client)


def test_a_reader_is_no_admin(client: Client) -> None:
    signed_in(client, make_subscriber())
    assert client.get("/admin/").status_code == 302


def test_signing_out_leaves_nothing_behind(client: Client) -> None:
    signed_in(client, make_subscriber())
    other = signed_in(Client(), Subscriber.objects.get())
    assert client.get("/sign-out/").status_code == 405
    assert is_signed_in(client)
    client.post("/sign-out/")
    assert not is_signed_in(client)
    assert Session.objects.count() == 1
    assert is_signed_in(other)


def test_signing_out_everywhere_ends_each_session_and_each_link(client: Client) -> None:
    alice = make_subscriber()
    signed_in(client, alice)
    other = signed_in(Client(), alice)
    alice.refresh_from_db()
    token = links.token(alice.uuid, Purpose.SIGN_IN, alice.sign_ins)
    client.post("/sign-out/", {"where": "everywhere"})
    assert not is_signed_in(client)
    assert not is_signed_in(other)
    with pytest.raises(SpentLink):
        links.subscriber_of(token, Purpose.SIGN_IN)


@pytest.mark.parametrize("ended_by", ["unsubscribe", "erase", "address"])
def test_a_session_ends_with_what_it_stands_for(client: Client, ended_by: str) -> None:
    alice = make_subscriber()
    signed_in(client, alice)
    match ended_by:
        case "unsubscribe":
            subscriptions.unsubscribe(alice, way="test")
        case "erase":
            subscriptions.erase(alice, way="test")
        case "address":
            Subscriber.objects.update(address="bob@example.org")
    assert not is_signed_in(client)


def test_who_comes_back_after_unsubscribing_has_to_sign_in_anew(client: Client) -> None:
    alice = make_subscriber()
    signed_in(client, alice)
    subscriptions.unsubscribe(alice, way="test")
    Subscriber.objects.update(state=State.ACTIVE, next_send_at=timezone.now())
    assert not is_signed_in(client)


def test_a_paused_reader_stays_signed_in(client: Client) -> None:
    signed_in(client, make_subscriber())
    Subscriber.objects.update(state=State.PAUSED, next_send_at=None)
    assert is_signed_in(client)


# --- Where it leads -------------------------------------------------------------------------------


def test_who_was_asked_to_sign_in_comes_back_to_where_they_were(
    client: Client, mailoutbox: list[EmailMessage]
) -> None:
    make_subscriber()
    where = client.get("/submit/")["Location"]
    assert where == "/sign-in/?next=%2Fsubmit%2F"
    assert 'name="next" value="/submit/"' in client.get(where).content.decode()
    ask(client=client, next="/submit/")
    send_links()
    assert "next" not in text_of(mailoutbox[0])
    answer = client.post(link_in(text_of(mailoutbox[0]), Purpose.SIGN_IN))
    assert answer["Location"] == "/submit/"
    assert not client.cookies["next"].value


EVIL = [
    "//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example/",
    "///evil.example", "javascript:alert(1)", "/\t/evil.example", "\x00//evil.example", "evil",
    "http:evil.example", " //evil.example", "/" * 3 + "evil.example",
]  # fmt: skip


@pytest.mark.parametrize("evil", EVIL)
def test_nobody_is_led_to_another_site(client: Client, evil: str) -> None:
    alice, paper = make_subscriber(), make_paper()
    client.cookies["next"] = evil
    answer = client.post(page_of(alice, Purpose.SIGN_IN))
    assert answer["Location"] == "/reader/"
    assert client.get("/sign-in/", {"next": evil})["Location"] == "/reader/"
    answer = client.post(f"/votes/{paper.uuid}/", {"next": evil})
    assert answer["Location"] == f"/paper/{paper.uuid}#vote-{paper.uuid}"
    client.post("/sign-out/")
    answer = client.post(f"/votes/{paper.uuid}/", {"next": evil})
    assert answer["Location"] == f"/sign-in/?next=%2Freader%2F&vote={paper.uuid}"
    assert evil not in client.get("/sign-in/", {"next": evil}).content.decode()


@pytest.mark.parametrize("there", ["/search?q=グラフ", "/authors/Łukasz", "/search?q=%E3%82%B0"])
def test_where_it_leads_may_be_written_in_any_script(client: Client, there: str) -> None:
    alice = make_subscriber()
    ask(client=client, next=there)
    kept = client.cookies["next"].value
    assert kept == iri_to_uri(there)
    assert client.post(page_of(alice, Purpose.SIGN_IN))["Location"] == kept


def test_an_address_that_no_cookie_can_hold_leads_to_the_own_page(client: Client) -> None:
    alice = make_subscriber()
    ask(client=client, next="/search?q=" + "グ" * 900)
    assert "next" not in client.cookies
    assert client.post(page_of(alice, Purpose.SIGN_IN))["Location"] == "/reader/"


def test_crawlers_are_kept_from_the_form_that_each_paper_leads_to(client: Client) -> None:
    robots = client.get("/robots.txt").content.decode().splitlines()
    assert {"Disallow: /sign-in/", "Disallow: /reader/"} <= set(robots)
    assert client.get("/sign-in/", {"next": "/papers/top"})["X-Robots-Tag"] == "noindex"
    assert client.post("/sign-in/", {"address": ""})["X-Robots-Tag"] == "noindex"
    page = client.get(make_paper().get_absolute_url()).content.decode()
    assert page.count('href="/sign-in/') == page.count('href="/sign-in/">Sign in</a>') == 1


# --- What it costs --------------------------------------------------------------------------------


def test_an_anonymous_visitor_costs_no_query_and_gets_no_session(client: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        page = client.get("/privacy/")
    assert len(queries) == 0
    assert not client.cookies
    assert "Cookie" in page["Vary"]
    assert "Sign in" in page.content.decode()


def test_a_signed_in_reader_costs_two_queries_on_each_page(client: Client) -> None:
    signed_in(client, make_subscriber())
    with CaptureQueriesContext(connection) as queries:
        page = client.get("/privacy/")
    assert len(queries) == 2
    assert "Your papers" in page.content.decode()


def test_a_cookie_of_no_session_is_an_anonymous_visitor(client: Client) -> None:
    client.cookies["sessionid"] = "nosuchsessionnosuchsession"
    assert not is_signed_in(client)


# --- A reader's own page --------------------------------------------------------------------------

READERS_PAGES = ["/reader/", "/reader/export/", "/reader/erase/", "/submit/"]


@pytest.mark.parametrize("path", READERS_PAGES)
def test_readers_pages_are_for_readers_and_kept_by_no_cache(client: Client, path: str) -> None:
    assert client.get(path).status_code == 302
    answer = signed_in(client, make_subscriber()).get(path)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    assert answer["X-Robots-Tag"] == "noindex"
    assert answer["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/reader/", "/reader/erase/", "/submit/", "/sign-out/"])
def test_readers_forms_are_protected_against_forged_posts(path: str) -> None:
    alice = make_subscriber()
    client = signed_in(Client(enforce_csrf_checks=True), alice)
    assert client.post(path, {"where": "everywhere", "renew": "feed"}).status_code == 403
    alice.refresh_from_db()
    assert (alice.sign_outs, alice.feed_number) == (0, 0)


def test_the_settings_are_one_click_away(client: Client) -> None:
    page = signed_in(client, make_subscriber()).get("/reader/").content.decode()
    [path] = {urlsplit(url).path for url in page.split('"') if "/preferences/" in url}
    assert client.get(path).status_code == 200


def test_the_settings_by_a_mail_s_link_name_no_address_of_the_feed(client: Client) -> None:
    alice = make_subscriber()
    path = page_of(alice, Purpose.PREFERENCES)
    assert "/feeds/picks/" not in client.get(path).content.decode()
    bob = signed_in(Client(), make_subscriber("bob@example.org"))
    assert "/feeds/picks/" not in bob.get(path).content.decode()
    assert "/feeds/picks/" in signed_in(client, alice).get(path).content.decode()


def test_saved_papers_stand_on_the_own_page(client: Client) -> None:
    alice, saved, liked = make_subscriber(), make_paper("Worth a read"), make_paper("Just liked")
    assert "Worth a read" not in signed_in(client, alice).get("/reader/").content.decode()
    feedback.give(alice, saved, Feedback.Kind.SAVE)
    feedback.give(alice, liked, Feedback.Kind.MORE)
    page = client.get("/reader/").content.decode()
    assert f'<a href="{saved.get_absolute_url()}">Worth a read</a>' in page
    assert "Just liked" not in page


def test_a_reader_takes_everything_along(client: Client) -> None:
    alice, paper = make_subscriber(name="Alice"), make_paper("Graphs that forget")
    interest = make_interest(alice, "graphs", example_ids=[paper.pk])
    make_delivery(alice, paper, interest=interest)
    votes.give(alice, paper)
    submissions.submit(alice, "2505.24864", shown_name="A. Reader")
    answer = signed_in(client, alice).get("/reader/export/")
    assert answer["Content-Disposition"].startswith("attachment")
    told = json.loads(answer.content)
    assert (told["address"], told["name"], told["state"]) == (ALICE, "Alice", "active")
    assert told["interests"][0]["examples"][0]["paper"] == "Graphs that forget"
    assert told["mails"][0]["picks"][0]["reason"] == "Matches your interest: graphs"
    assert told["upvotes"][0]["paper"] == "Graphs that forget"
    assert told["feedback"][0]["kind"] == "more"
    assert told["submissions"][0]["shown_name"] == "A. Reader"


def test_the_export_reads_the_events_of_its_reader_and_of_the_address_alone() -> None:
    alice, bob = make_subscriber(), make_subscriber("bob@example.org")
    edition = make_frozen_edition()
    mails = [make_delivery(reader, edition=edition) for reader in (alice, bob)]
    many_deliveries(1000)
    others = Delivery.objects.exclude(edition=edition)
    hashed = address_hash(alice.address)
    now = timezone.now()

    def event(detail: str, **fields: object) -> DeliveryEvent:
        digest = uuid.uuid4().hex
        return DeliveryEvent(
            kind="bounced", detail=detail, content_digest=digest, occurred_at=now, **fields
        )

    DeliveryEvent.objects.bulk_create(
        [
            event("both", delivery=mails[0], address_hash=hashed),
            event("of the mail", delivery=mails[0]),
            event("of the address", address_hash=hashed),
            event("of another's mail", delivery=mails[1], address_hash=hashed),
            *(event("of others", delivery=one) for one in others),
        ]
    )
    analyse(DeliveryEvent, Delivery)
    told = [row["detail"] for row in subscriptions.export(alice)["mail_events"]]
    assert told == ["both", "of the mail", "of the address", "of another's mail"]
    # Once from end to end, for the address; but not all mails beside them.
    assert rows_touched(subscriptions._told_of(alice, hashed)) <= 1100


def test_the_export_names_every_table_that_holds_something_of_a_reader() -> None:
    told = subscriptions.export(make_subscriber())
    named = {
        "interests": "interests", "feedback": "feedback", "votes": "upvotes",
        "submissions": "submissions", "deliveries": "mails",
    }  # fmt: skip
    relations = {relation.get_accessor_name() for relation in Subscriber._meta.related_objects}
    assert relations == set(named)
    assert set(named.values()) <= set(told)


def test_a_reader_has_everything_erased(client: Client) -> None:
    alice, paper = make_subscriber(), make_paper()
    votes.give(alice, paper)
    submissions.submit(alice, "2505.24864")
    ask()
    signed_in(client, alice)
    assert "Erase everything" in client.get("/reader/erase/").content.decode()
    assert Subscriber.objects.exists()
    assert client.post("/reader/erase/").status_code == 200
    assert not Subscriber.objects.exists()
    assert not SignInRequest.objects.exists()
    assert Suppression.objects.get().reason == Suppression.Reason.ERASURE
    assert not is_signed_in(client)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [("/reader/erase/", 200, "Everything is erased"), ("/submit/", 302, ""), ("/votes/", 302, "")],
)
def test_who_was_erased_in_another_tab_a_moment_ago_meets_no_error(
    rf: RequestFactory, path: str, status: int, says: str
) -> None:
    alice, paper = make_subscriber(), make_paper()
    request = rf.post(path, {"arxiv_id": "2505.24864", "vote": "1"})
    request.session = Client().session
    assert sign_in.sign_in(request, alice)
    subscriptions.erase(Subscriber.objects.get(), way="test")
    match path:
        case "/reader/erase/":
            answer = reader_views.erase(request)
        case "/submit/":
            answer = reader_views.submit(request)
        case _:
            answer = reader_views.vote(request, paper.uuid)
    assert answer.status_code == status
    assert says in answer.content.decode()
    assert status == 200 or answer["Location"] == "/sign-in/?next=%2Freader%2F"
