"""When mail may leave: pauses, rates and the warm-up, against real PostgreSQL and SMTP.

Buckets and pauses go by the database's clock, which no test can set: time passes for a bucket by
putting the moment of its last filling back.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from threading import Barrier, Thread

import pytest
import time_machine
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core import mail
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, DjangoCaptureOnCommitCallbacks, Settings

from newsletter import delivery, sending, subscriptions
from newsletter.delivery import send_planned
from newsletter.models import Alert, Delivery, SendingPause, Subscriber, TokenBucket
from newsletter.roles import GROUPS
from newsletter.sending import Permit, Walk, burst, parse_domain_rates, parse_warm_up, refilled
from papers.models import Edition, Paper
from tests.factories import make_delivery, make_frozen_edition, make_paper, make_subscriber
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db

State = Delivery.State
Limit = TokenBucket.Limit
SWITCH = "/admin/newsletter/sendingpause/switch/"
LIST = "/admin/newsletter/sendingpause/"


def planned_for(*addresses: str) -> Edition:
    """Deliveries planned in the order of the addresses."""
    paper = make_paper()
    edition = make_frozen_edition(paper)
    for address in addresses:
        make_delivery(make_subscriber(address), paper, edition=edition)
    return edition


def readers(count: int, domain: str = "example.org") -> list[str]:
    return [f"reader{number}@{domain}" for number in range(count)]


def planned_more(*addresses: str) -> list[Delivery]:
    """Further ones of the same edition."""
    paper, edition = Paper.objects.get(), Edition.objects.get()
    return [make_delivery(make_subscriber(one), paper, edition=edition) for one in addresses]


def states() -> dict[str, str]:
    return dict(Delivery.objects.values_list("subscriber__address", "state"))


def let_pass(span: timedelta) -> None:
    """As far as buckets go."""
    TokenBucket.objects.update(filled_at=F("filled_at") - span)


def elsewhere(work: Callable[[], object]) -> None:
    """Do something as another process would: in a thread, on a connection of its own."""

    def alone() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = Thread(target=alone)
    thread.start()
    thread.join()


class OnRecipient(dict[str, str]):
    """A mail server's replies; on the first mail to `address` something happens elsewhere."""

    def __init__(self, address: str, work: Callable[[], object]) -> None:
        self.address, self.work = address, work

    def get(self, address: str, default: str = "") -> str:  # type: ignore[override]
        if address == self.address:
            elsewhere(self.work)
        return default


# Pauses


def test_while_all_is_paused_nothing_leaves_and_no_try_is_counted(smtp: SmtpServer) -> None:
    planned_for(*readers(3))
    assert sending.pause("the provider asks us to wait")
    assert send_planned().sent == 0
    assert set(Delivery.objects.values_list("state", "attempts")) == {(State.PLANNED, 0)}
    assert smtp.messages == []

    assert sending.resume()
    assert send_planned().sent == 3


@pytest.mark.django_db(transaction=True)
def test_a_worker_in_the_middle_of_a_batch_stops_at_the_next_mail(smtp: SmtpServer) -> None:
    planned_for(*readers(6))
    olga = User.objects.create_user("olga")
    smtp.replies = OnRecipient("reader2@example.org", lambda: sending.pause("stop", by=olga))
    tally = send_planned()
    assert (tally.sent, tally.later) == (3, 3)
    assert smtp.count() == dict.fromkeys(readers(3), 1)
    waiting = Delivery.objects.exclude(state=State.SENT)
    assert set(waiting.values_list("state", "attempts", "lease_until", "not_before")) == {
        (State.PLANNED, 0, None, None)
    }
    smtp.replies = {}
    sending.resume()
    assert send_planned().sent == 3
    assert smtp.count() == dict.fromkeys(readers(6), 1)


@pytest.mark.django_db(transaction=True)
def test_a_domain_paused_in_the_middle_of_a_batch_stops_alone(smtp: SmtpServer) -> None:
    planned_for("a@one.example", "b@two.example", "c@one.example", "d@two.example")
    olga = User.objects.create_user("olga")
    smtp.replies = OnRecipient(
        "a@one.example", lambda: sending.pause_domain("one.example", "it blocks us", by=olga)
    )
    assert send_planned().sent == 3
    assert states()["c@one.example"] == State.PLANNED
    assert "c@one.example" not in smtp.recipients


def test_a_paused_domain_holds_up_no_other(smtp: SmtpServer, settings: Settings) -> None:
    settings.SEND_BATCH_SIZE = 2
    planned_for(*readers(7, "blocked.example"), *readers(3))
    sending.pause_domain("Blocked.Example", "it blocks us")
    assert send_planned().sent == 3
    assert smtp.count() == dict.fromkeys(readers(3), 1)
    sending.resume_domain("blocked.example")
    assert send_planned().sent == 7


def test_a_pause_ends_by_itself(smtp: SmtpServer) -> None:
    planned_for("alice@example.org")
    sending.pause("an hour", until=timezone.now() + timedelta(hours=1))
    assert sending.is_paused()
    assert sending.is_paused("example.org")
    SendingPause.objects.update(until=timezone.now())
    assert not sending.is_paused()
    assert send_planned().sent == 1
    assert sending.pause("again")
    assert SendingPause.objects.filter(ended_at=None).count() == 1
    assert SendingPause.objects.count() == 2


def test_a_second_pause_keeps_the_first_ones_reason_and_the_later_end() -> None:
    soon, late = (timezone.now() + timedelta(hours=hours) for hours in (1, 2))
    assert sending.pause("first", until=soon)
    assert sending.pause("second", until=late) is None
    [standing] = SendingPause.objects.all()
    assert (standing.why, standing.until) == ("first", late)
    assert sending.pause("third") is None
    assert sending.pause("fourth", until=soon) is None
    standing.refresh_from_db()
    assert standing.until is None


def test_a_pause_says_why() -> None:
    with pytest.raises(ValueError, match="reason"):
        sending.pause("  ")


@pytest.mark.parametrize(
    "text", ["", "@", ".".join(["a"] * 200), "a b.example", "*", "a@b.example"]
)
def test_what_is_no_domain_cannot_be_paused(text: str) -> None:
    with pytest.raises(ValueError, match="not a domain"):
        sending.pause_domain(text, "why")


def test_answers_to_people_wait_for_a_pause_too(smtp: SmtpServer) -> None:
    for address in ("a@one.example", "b@two.example"):
        subscriptions.subscribe(address, [], time_zone="UTC", send_hour=7)
    sending.pause_domain("one.example", "it blocks us")
    assert subscriptions.send_answers() == 1
    sending.pause("stop")
    sending.resume_domain("one.example")
    assert subscriptions.send_answers() == 0
    sending.resume()
    assert subscriptions.send_answers() == 1
    assert smtp.count() == {"a@one.example": 1, "b@two.example": 1}


def test_a_pause_by_the_service_tells_the_operators_and_one_by_hand_does_not(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        sending.pause_domain("one.example", "by hand", by=User.objects.create_user("olga"))
        assert not Alert.objects.exists()
        sending.pause("the provider refuses our key")
    assert Alert.objects.get().subject == "All sending is paused"
    assert "refuses our key" in Alert.objects.get().text


@pytest.mark.django_db(transaction=True)
def test_each_pause_by_the_service_is_mailed_and_each_day_that_it_lasts(
    settings: Settings,
) -> None:
    settings.OPERATOR_ADDRESSES = ["olga@papers.example"]

    def mails_after(span: timedelta) -> int:
        """How many there are when a watch each ten minutes has gone on for so long."""
        for _ in range(span // timedelta(minutes=10)):
            clock.shift(timedelta(minutes=10))
            sending.tell_of_standing_pauses(timezone.now())
        return len(mail.outbox)

    with time_machine.travel(timezone.now(), tick=False) as clock:
        sending.pause("the key is refused")
        assert mails_after(timedelta(minutes=20)) == 1
        sending.resume()
        sending.pause("the key is refused again")
        assert len(mail.outbox) == 2
        assert "again" in mail.outbox[-1].body
        assert mails_after(timedelta(hours=23, minutes=50)) == 2
        assert mails_after(timedelta(minutes=10)) == 3
        sending.resume()
        sending.pause_domain("one.example", "by hand", by=User.objects.create_user("olga"))
        assert mails_after(timedelta(days=2)) == 3


@pytest.mark.django_db(transaction=True)
def test_a_pause_of_which_the_operators_may_not_know_is_told_each_hour(
    smtp: SmtpServer, settings: Settings
) -> None:
    settings.OPERATOR_ADDRESSES = ["olga@papers.example"]
    with time_machine.travel(timezone.now(), tick=False) as clock:
        sending.pause("the provider does not answer")
        sending.resume()
        assert len(smtp.messages) == 1
        smtp.after_data["olga@papers.example"] = "drop"
        sending.pause("the provider still does not answer")
        for _ in range(12):
            clock.shift(timedelta(minutes=10))
            sending.tell_of_standing_pauses(timezone.now())
        assert len(smtp.messages) == 4
        smtp.after_data.clear()
        for _ in range(24):
            clock.shift(timedelta(minutes=10))
            sending.tell_of_standing_pauses(timezone.now())
        assert len(smtp.messages) == 5


@pytest.mark.parametrize("hours", [2, None])
def test_the_service_leaves_the_end_of_a_persons_pause_and_tells_the_operators(
    hours: int | None, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    olga = User.objects.create_user("olga")
    end = timezone.now() + timedelta(hours=hours) if hours else None
    for domain in ("one.example", SendingPause.ALL):
        why = "maintenance there"
        with django_capture_on_commit_callbacks(execute=True):
            if domain:
                sending.pause_domain(domain, why, until=end, by=olga)
                sending.pause_domain(domain, "It refuses 50 % of its mails by policy.")
            else:
                sending.pause(why, until=end, by=olga)
                sending.pause("the provider refuses our key")
        standing = SendingPause.objects.get(domain=domain)
        assert (standing.until, standing.why, standing.by) == (end, why, olga)
        alert = Alert.objects.get(subject=f"{standing.words} is refused while it is paused")
        assert "refuses" in alert.text
        assert (f"{end:%H:%M} UTC" if end else "when somebody resumes it") in alert.text


# Buckets

moments = st.lists(
    st.tuples(st.integers(-7200, 7200), st.integers(0, 50)), max_size=40
)  # seconds since the last one, tokens wanted


@given(per_hour=st.integers(1, 100_000), steps=moments)
def test_a_bucket_gives_no_more_than_its_burst_and_what_flowed_in(
    per_hour: int, steps: list[tuple[int, int]]
) -> None:
    """Whatever the clock does: going back brings nothing, and does not stop the flow either."""
    with time_machine.travel(datetime(2026, 11, 20, tzinfo=UTC), tick=False) as clock:
        tokens, filled_at = burst(per_hour), timezone.now()
        given_out, forward = 0, 0
        for seconds, wanted in steps:
            clock.shift(seconds)
            forward += max(seconds, 0)
            tokens = refilled(tokens, filled_at, timezone.now(), per_hour)
            taken = min(int(tokens), wanted)
            tokens, filled_at = tokens - taken, timezone.now()
            given_out += taken
            assert 0 <= tokens <= burst(per_hour)
        assert given_out <= burst(per_hour) + forward * per_hour / 3600 + 1e-6


@given(per_hour=st.integers(1, 100_000))
def test_an_hour_of_a_run_a_minute_uses_the_whole_rate(per_hour: int) -> None:
    with time_machine.travel(datetime(2026, 11, 20, tzinfo=UTC), tick=False) as clock:
        tokens, filled_at, given_out = 0.0, timezone.now(), 0
        for _ in range(60):
            clock.shift(60)
            tokens = refilled(tokens, filled_at, timezone.now(), per_hour)
            given_out += int(tokens)
            tokens, filled_at = tokens - int(tokens), timezone.now()
    assert per_hour - 1 <= given_out <= per_hour


def ask(wanted: int) -> int:
    with transaction.atomic():
        permit = Permit(Walk(), timezone.now(), wanted)
        if not permit.size:
            return 0
        return len(permit.choose([(number, "example.org") for number in range(permit.size)]))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("limit", [Limit.ALL, "example.org"])
def test_several_workers_together_never_exceed_a_bucket(settings: Settings, limit: str) -> None:
    per_hour = 3000
    if limit == Limit.ALL:
        settings.SEND_RATE_PER_HOUR = per_hour
    else:
        settings.SEND_DOMAIN_RATES = f"example.org={per_hour}"
    workers = 6
    together = Barrier(workers)

    def work() -> int:
        try:
            together.wait()
            return sum(ask(7) for _ in range(10))
        finally:
            connection.close()

    assert ask(1) == 1  # the row is there before the workers are
    first = TokenBucket.objects.get(name=limit)
    with ThreadPoolExecutor(workers) as pool:
        given_out = sum(f.result() for f in [pool.submit(work) for _ in range(workers)])
    last = TokenBucket.objects.get(name=limit)
    # By the database's clock.
    flowed_in = (last.filled_at - first.filled_at).total_seconds() * per_hour / 3600
    assert int(first.tokens) <= given_out <= first.tokens + flowed_in


def test_a_clock_set_back_brings_no_tokens_and_does_not_stop_the_mail(
    settings: Settings,
) -> None:
    settings.SEND_RATE_PER_HOUR = 60
    future = timezone.now() + timedelta(days=365)
    TokenBucket.objects.create(name=Limit.ALL, tokens=0, filled_at=future)
    assert ask(5) == 0
    assert TokenBucket.objects.get().filled_at < future
    let_pass(timedelta(minutes=1))
    assert ask(5) == 1


def test_mail_to_a_limited_domain_holds_up_no_other(smtp: SmtpServer, settings: Settings) -> None:
    settings.SEND_BATCH_SIZE = 4
    settings.SEND_DOMAIN_RATES = "gmail.example=60"  # a bucket of three
    planned_for(*readers(15, "gmail.example"), *readers(5))
    assert send_planned().sent == 8
    assert smtp.count() == dict.fromkeys([*readers(3, "gmail.example"), *readers(5)], 1)
    assert send_planned().sent == 0
    let_pass(timedelta(minutes=1))
    assert send_planned().sent == 1
    waiting = Delivery.objects.filter(state=State.PLANNED)
    assert set(waiting.values_list("attempts", "not_before", "error")) == {(0, None, "")}


def test_each_other_domain_has_a_rate_of_its_own(smtp: SmtpServer, settings: Settings) -> None:
    settings.SEND_DOMAIN_RATES = "big.example=60, *=30"
    planned_for(*readers(9, "big.example"), *readers(4, "one.example"), *readers(4, "two.example"))
    assert send_planned().sent == 3 + 2 + 2


def test_a_long_run_asks_again_for_what_it_passed_and_still_ends(
    smtp: SmtpServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "WALK_SECONDS", 0.0)
    settings.SEND_BATCH_SIZE = 2
    settings.SEND_DOMAIN_RATES = "gmail.example=60"
    planned_for(*readers(8, "gmail.example"), *readers(8))
    assert send_planned().sent == 3 + 8


def test_after_an_outage_the_mail_catches_up_by_its_rate(
    smtp: SmtpServer, settings: Settings
) -> None:
    settings.SEND_RATE_PER_HOUR = 60
    planned_for(*readers(10))
    assert [send_planned().sent for _ in range(3)] == [3, 0, 0]
    let_pass(timedelta(minutes=1))
    assert send_planned().sent == 1
    let_pass(timedelta(hours=20))  # nothing ran; nothing was saved up
    assert send_planned().sent == 3
    waiting = Delivery.objects.filter(state=State.PLANNED)
    assert list(waiting.values_list("attempts", flat=True)) == [0, 0, 0]


def test_a_claim_asks_as_much_for_many_as_for_few(settings: Settings) -> None:
    planned_for(*readers(20, "one.example"), *readers(20, "two.example"))

    def queries(size: int) -> int:
        settings.SEND_BATCH_SIZE = size
        with CaptureQueriesContext(connection) as asked:
            claimed = delivery._claim(timezone.now(), None, Walk())
        assert len(claimed or []) == size
        return len(asked)

    without = queries(2)
    assert without == queries(10)
    settings.SEND_RATE_PER_HOUR = 100_000
    settings.SEND_DOMAIN_RATES = "*=100000"
    for name in (Limit.ALL, "one.example", "two.example"):
        TokenBucket.objects.create(name=name, tokens=100, filled_at=timezone.now())
    few, many = queries(2), queries(20)
    assert few == many == without + 3  # one for all, one for the domains, one to write both


# The warm-up


def test_a_warm_up_caps_each_day_and_then_no_more() -> None:
    plan = parse_warm_up("2026-11-20", "50, 100,500")
    assert plan is not None
    start = date(2026, 11, 20)
    caps = [plan.cap(start + timedelta(days=n)) for n in range(-2, 5)]
    assert caps == [None, None, 50, 100, 500, None, None]
    assert parse_warm_up("", "nonsense") is None


@pytest.fixture
def day() -> date:
    """The day before yesterday: what the database's clock notes is later than its edition."""
    return timezone.now().date() - timedelta(days=2)


def at(day: date, hour: int) -> time_machine.travel:
    return time_machine.travel(datetime.combine(day, time(hour), tzinfo=UTC), tick=False)


def test_in_the_warm_up_each_day_sends_its_share_and_the_rest_expires_with_its_reason(
    smtp: SmtpServer, settings: Settings, day: date
) -> None:
    settings.SEND_WARMUP_START, settings.SEND_WARMUP_PLAN = str(day), "2,4"
    with at(day, 6):
        planned_for(*readers(10))
        assert [send_planned().sent for _ in range(2)] == [2, 0]
    with at(day, 23):
        assert send_planned().sent == 0
    with at(day + timedelta(days=1), 1):
        assert [send_planned().sent for _ in range(2)] == [4, 0]
    with at(day + timedelta(days=1), 7):  # its edition is over
        assert send_planned().dropped == 4
    expired = Delivery.objects.filter(state=State.EXPIRED)
    assert set(expired.values_list("error", flat=True)) == {
        "Its edition was over before it could leave: the warm-up cap was reached."
    }
    with at(day + timedelta(days=2), 7):  # the plan is, too
        planned_for(*[f"late{n}@example.org" for n in range(9)])
        assert send_planned().sent == 9


def test_all_limits_hold_together(smtp: SmtpServer, settings: Settings, day: date) -> None:
    settings.SEND_WARMUP_START, settings.SEND_WARMUP_PLAN = str(day), "4,100,100"
    settings.SEND_RATE_PER_HOUR, settings.SEND_DOMAIN_RATES = 150, "gmail.example=30"
    with at(day, 6):
        planned_for(*readers(5, "gmail.example"), *readers(9))
        assert send_planned().sent == 4  # the day's
        assert smtp.count() == dict.fromkeys([*readers(2, "gmail.example"), *readers(2)], 1)
    with at(day + timedelta(days=1), 1):
        assert send_planned().sent == 2  # of the bucket of six
    let_pass(timedelta(minutes=10))
    with at(day + timedelta(days=1), 2):
        assert send_planned().sent == 6  # two of them to gmail.example
    waiting = Delivery.objects.filter(state=State.PLANNED).order_by("pk")
    assert [one.subscriber.address for one in waiting] == [
        "reader4@gmail.example",
        "reader8@example.org",
    ]


def test_what_never_left_takes_no_share_of_the_day(
    smtp: SmtpServer, settings: Settings, day: date
) -> None:
    settings.SEND_WARMUP_START, settings.SEND_WARMUP_PLAN = str(day), "2"
    with at(day, 6):
        planned_for(*readers(5))
        subscriptions.unsubscribe(Subscriber.objects.order_by("pk")[0], way="test")
        assert send_planned().sent == 2


@pytest.mark.django_db(transaction=True)
def test_several_workers_share_what_is_left_of_a_day(settings: Settings, day: date) -> None:
    settings.SEND_BATCH_SIZE = 4
    settings.SEND_WARMUP_START, settings.SEND_WARMUP_PLAN = str(timezone.now().date()), "7"
    planned_for(*readers(20))
    together = Barrier(4)

    def claim() -> int:
        try:
            together.wait()
            return sum(len(delivery._claim(timezone.now(), None, Walk()) or []) for _ in range(3))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        claimed = sum(f.result() for f in [pool.submit(claim) for _ in range(4)])
    assert claimed == 7


def test_what_a_pause_held_past_its_edition_says_so(smtp: SmtpServer, day: date) -> None:
    with at(day, 6):
        planned_for("a@one.example", "b@two.example")
        Delivery.objects.filter(subscriber__address="b@two.example").update(error="451 later")
    sending.pause_domain("one.example", "it blocks us")
    sending.pause_domain("two.example", "it blocks us, too")
    assert send_planned().dropped == 2
    errors = dict(Delivery.objects.values_list("subscriber__address", "error"))
    assert errors["a@one.example"].endswith("mail to one.example was paused (it blocks us).")
    assert errors["b@two.example"] == "451 later"


def test_a_clock_set_back_expires_nothing(smtp: SmtpServer) -> None:
    edition = planned_for("alice@example.org")
    ahead = timezone.now() + timedelta(hours=1)
    Edition.objects.filter(pk=edition.pk).update(frozen_at=ahead)
    assert delivery.expire_outdated(timezone.now()) == 0


# Settings


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SEND_DOMAIN_RATES", "gmail.com", "newsletter.E002"),
        ("SEND_DOMAIN_RATES", "gmail.com=0", "newsletter.E002"),
        ("SEND_DOMAIN_RATES", "gmail.com=10,GMAIL.com=20", "newsletter.E002"),
        ("SEND_DOMAIN_RATES", "=10", "newsletter.E002"),
        ("SEND_WARMUP_START", "tomorrow", "newsletter.E003"),
        ("SEND_RATE_PER_HOUR", -1, "newsletter.E004"),
        ("RETAIN_DELIVERIES_DAYS", 7, "newsletter.W010"),
    ],
)
def test_a_limit_that_cannot_be_read_is_found_by_a_check(
    settings: Settings, name: str, value: object, expected: str
) -> None:
    setattr(settings, name, value)
    [found] = [one for one in run_checks() if str(one.id).startswith("newsletter.")]
    assert found.id == expected
    assert found.hint


@pytest.mark.parametrize("plan", ["", "50,many", "50,0", "50,-1"])
def test_a_plan_that_cannot_be_read_is_named(plan: str) -> None:
    with pytest.raises(ValueError, match="SEND_WARMUP_PLAN"):
        parse_warm_up("2026-11-20", plan)


def test_by_rates_that_cannot_be_read_nothing_is_sent(smtp: SmtpServer, settings: Settings) -> None:
    planned_for("alice@example.org")
    settings.SEND_DOMAIN_RATES = "example.org:100"
    with pytest.raises(ImproperlyConfigured, match="SEND_DOMAIN_RATES"):
        send_planned()
    assert states() == {"alice@example.org": State.PLANNED}


@given(st.text())
def test_whatever_is_set_as_rates_is_read_or_refused(text: str) -> None:
    try:
        rates = parse_domain_rates(text)
    except ValueError:
        return
    assert all(rate > 0 for rate in rates.values())


# The admin


def client_of(role: str) -> Client:
    user = User.objects.create_user(role, is_staff=True)
    if role in GROUPS:
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


def test_an_operator_stops_and_resumes_all_sending_with_one_switch() -> None:
    client = client_of("operators")
    shown = client.post(SWITCH, {"do": "pause", "why": "wrong <b>link</b>"}, follow=True)
    assert "All sending is paused" in shown.content.decode()
    assert "by operators: wrong &lt;b&gt;link&lt;/b&gt;" in shown.content.decode()
    standing = SendingPause.objects.get()
    assert (standing.by, sending.is_paused()) == (User.objects.get(), True)
    shown = client.post(SWITCH, {"do": "resume"}, follow=True)
    assert "Sending is on." in shown.content.decode()
    assert not sending.is_paused()
    log = list(LogEntry.objects.order_by("pk").values_list("user__username", "change_message"))
    assert log == [
        ("operators", "Paused all sending: wrong <b>link</b>"),
        ("operators", "Resumed all sending."),
    ]


def test_no_pause_by_hand_without_a_reason() -> None:
    shown = client_of("operators").post(SWITCH, {"do": "pause", "why": " "}, follow=True)
    assert "needs a reason" in shown.content.decode()
    assert not sending.is_paused()


def test_an_operator_pauses_a_domain_and_resumes_it() -> None:
    client = client_of("operators")
    form = {"domain": "Gmail.com", "why": "it blocks us", "until_0": "", "until_1": ""}
    assert client.post(f"{LIST}add/", form).status_code == 302
    assert sending.is_paused("gmail.com")
    assert not sending.is_paused()
    again = client.post(f"{LIST}add/", form).content.decode()
    assert "is paused already" in again
    standing = SendingPause.objects.get()
    chosen = {"action": "resume", "_selected_action": [standing.pk]}
    client.post(LIST, chosen)
    assert not sending.is_paused("gmail.com")
    assert LogEntry.objects.filter(object_id=standing.pk).count() == 2


@pytest.mark.parametrize(
    "form",
    [
        {"domain": ""},
        {"domain": "not one"},
        {"why": "  "},
        {"until_0": "2020-01-01", "until_1": "00:00"},
    ],
)
def test_a_domain_pause_that_says_too_little_is_refused(form: dict[str, str]) -> None:
    whole = {"domain": "a.example", "why": "it blocks us", "until_0": "", "until_1": ""} | form
    assert client_of("operators").post(f"{LIST}add/", whole).status_code == 200
    assert not SendingPause.objects.exists()


@pytest.mark.parametrize("role", ["curators", "plain staff"])
def test_nobody_else_touches_the_switch(role: str) -> None:
    client = client_of(role)
    assert client.post(SWITCH, {"do": "pause", "why": "mischief"}).status_code == 403
    sending.pause("stop")
    for response in (client.post(SWITCH, {"do": "resume"}), client.get(SWITCH)):
        assert response.status_code == 403
    assert sending.is_paused()


def test_whoever_is_not_staff_is_asked_to_log_in(client: Client) -> None:
    response = client.post(SWITCH, {"do": "pause", "why": "mischief"})
    assert response["Location"].startswith("/admin/login/")
    assert not sending.is_paused()


def test_the_switch_does_nothing_on_a_get() -> None:
    sending.pause("stop")
    assert client_of("operators").get(f"{SWITCH}?do=resume").status_code == 302
    assert sending.is_paused()


def test_the_admin_shows_the_limits_in_force(settings: Settings) -> None:
    settings.SEND_RATE_PER_HOUR = 1234
    settings.SEND_DOMAIN_RATES = "gmail.com=777,*=555"
    settings.SEND_WARMUP_START = str(timezone.now().date())
    client = client_of("operators")
    shown = client.get(LIST).content.decode()
    for words in ("1234 mails an hour", "777 an hour to gmail.com", "555 an hour to each other"):
        assert words in shown
    assert "Day 1 of the warm-up: 0 of 50 mails" in shown
    settings.SEND_DOMAIN_RATES = "nonsense"
    assert "Nothing is sent:" in client.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("hold", "words"),
    [
        (lambda settings: None, "A worker."),
        (lambda settings: sending.pause("a wrong link"), "a wrong link"),
        (lambda settings: sending.pause_domain("example.org", "blocks us"), "Mail to example.org"),
        (lambda settings: use_up(settings, "SEND_RATE_PER_HOUR", 30), "rate of 30 mails an hour"),
        (
            lambda settings: use_up(settings, "SEND_DOMAIN_RATES", "*=30"),
            "30 mails an hour to example.org",
        ),
        (lambda settings: warm_up(settings), "warm-up cap of the day, 1 mails"),
        (lambda settings: setattr(settings, "SEND_DOMAIN_RATES", "?"), "not like gmail.com=2000"),
    ],
)
def test_a_planned_delivery_says_what_it_waits_for(
    smtp: SmtpServer, settings: Settings, hold: Callable[[Settings], object], words: str
) -> None:
    planned_for("alice@example.org")
    hold(settings)
    [bob] = planned_more("bob@example.org")
    url = f"/admin/newsletter/delivery/{bob.pk}/change/"
    assert words in client_of("operators").get(url).content.decode()


def test_the_list_of_deliveries_says_why_each_waits_and_asks_once_a_domain(
    smtp: SmtpServer, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    planned_for("alice@example.org", *readers(20, "example.net"))
    Delivery.objects.filter(subscriber__address="alice@example.org").update(state=State.EXPIRED)
    sending.pause_domain("example.net", "it blocks us")
    client = client_of("operators")
    with django_assert_max_num_queries(20):
        shown = client.get("/admin/newsletter/delivery/").content.decode()
    assert shown.count("Mail to example.net is paused") == 20
    assert "A worker." not in shown


def test_the_list_of_pauses_counts_pauses() -> None:
    sending.pause_domain("example.net", "it blocks us")
    shown = client_of("operators").get(LIST).content.decode()
    assert "1 pause<" in shown
    assert "1 sending" not in shown


def use_up(settings: Settings, name: str, value: object) -> None:
    setattr(settings, name, value)
    planned_more("carol@example.org", "dora@example.org")
    assert send_planned().sent == 2


def warm_up(settings: Settings) -> None:
    settings.SEND_WARMUP_START, settings.SEND_WARMUP_PLAN = str(timezone.now().date()), "1"
    assert send_planned().sent == 1
