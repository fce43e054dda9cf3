"""What a mail to the return path says; real mails are judged where they lie."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from time import process_time

import pytest
from flufl.bounce import all_failures
from hypothesis import given
from hypothesis import strategies as st

from newsletter import bounces
from newsletter.bounces import BounceReport, Class, Kind, classify, read

SUPPRESSING = {Class.INVALID, Class.COMPLAINT}
UUID = "5f0c3a52-0d3b-4f0e-9a39-0c1d3b1f7a11"


def dsn(
    diagnostic: str = "smtp; 550 5.1.1 <alice@example.org>: user unknown",
    *,
    status: str = "5.1.1",
    action: str = "failed",
    text: str = "Your mail could not be delivered.",
) -> bytes:
    return f"""From: Mail Delivery System <MAILER-DAEMON@mx.example.net>
To: bounces+token@news.example.org
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

{text}

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; alice@example.org
Action: {action}
Status: {status}
Diagnostic-Code: {diagnostic}

--b
Content-Type: message/rfc822

Message-ID: <{UUID}@papers.example>
From: daily@papers.example
To: alice@example.org
Subject: user unknown, mailbox full, spam

550 5.1.1 user unknown
--b--
""".encode()


def feedback(kind: str = "abuse") -> bytes:
    return f"""From: fbl@example.net
To: bounces@news.example.org
Subject: FW: your mail
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="b"

--b
Content-Type: text/plain

This is an abuse report.

--b
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: Some/1.0
Version: 1
Original-Rcpt-To: <alice@example.org>

--b
Content-Type: text/rfc822-headers

Message-ID: <{UUID}@papers.example>
To: alice@example.org

--b--
""".encode()


def plain(
    text: str, *, subject: str = "failure notice", sender: str = "MAILER-DAEMON@x.example"
) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, "bounces@news.example.org", subject
    mail.set_content(text)
    return mail.as_bytes()


def test_a_status_notification_is_read_whole() -> None:
    assert read(dsn()) == BounceReport(
        Kind.BOUNCE,
        Class.INVALID,
        ("alice@example.org",),
        "5.1.1",
        "smtp; 550 5.1.1 <alice@example.org>: user unknown",
        (f"<{UUID}@papers.example>",),
        ("bounces+token@news.example.org",),
    )
    assert [str(one) for one in read(dsn()).delivery_uuids] == [UUID]


@pytest.mark.parametrize("ends", [b"\r\n", b"\r"])
def test_its_line_ends_change_nothing(ends: bytes) -> None:
    assert read(dsn().replace(b"\n", ends)) == read(dsn())


@pytest.mark.parametrize(
    ("diagnostic", "status", "expected"),
    [
        ("smtp; 550 5.1.1 no such user", "5.1.1", Class.INVALID),
        ("smtp; 550 5.1.10 RecipientNotFound", "5.1.10", Class.INVALID),
        ("dns; host not found", "5.4.4", Class.INVALID),
        ("smtp; 552 5.2.2 mailbox full", "5.2.2", Class.MAILBOX),
        ("smtp; 550 over quota (#5.1.1)", "5.1.1", Class.MAILBOX),
        ("smtp; 554 5.6.0 conversion not supported", "5.6.0", Class.CONTENT),
        ("smtp; 554 5.7.1 blocked using a list", "5.7.1", Class.POLICY),
        ("smtp; 550 5.1.1 spam from 192.0.2.1, see our policy", "5.1.1", Class.POLICY),
        ("smtp; 553 5.1.8 domain of sender address does not exist", "5.1.8", Class.POLICY),
        ("smtp; 450 4.1.1 user unknown", "4.1.1", Class.SOFT),
        ("smtp; 421 4.4.2 connection timed out", "4.4.7", Class.SOFT),
        ("smtp; 550 something else", "5.0.0", Class.SOFT),
        # What an address or a link spells is nobody's reason.
        ("smtp; 550 <user.unknown@spam.example> https://x.example/blocked", "5.0.0", Class.SOFT),
        # Our own provider does not speak by mail, which anybody could write.
        ("smtp; 535 5.7.8 authentication failed", "5.7.8", Class.POLICY),
    ],
)
def test_the_servers_words_and_codes_give_the_class(
    diagnostic: str, status: str, expected: Class
) -> None:
    assert read(dsn(diagnostic, status=status)).cls is expected


def test_unknown_user_after_the_content_is_a_readers_filter() -> None:
    assert classify(550, "", "Unknown user (in reply to RCPT TO)") is Class.INVALID
    assert classify(550, "", "Unknown user (in reply to end of DATA command)") is Class.SOFT


@pytest.mark.parametrize("code", [401, 403, 535])
def test_a_refusal_of_our_credentials_is_the_senders(code: int) -> None:
    assert classify(code, "", "no") is Class.SENDER
    assert classify(554, "", "Email address is not verified") is Class.SENDER


@pytest.mark.parametrize(
    "words",
    [
        "Benutzer unbekannt",
        "Utilisateur inconnu",
        "Usuario desconocido",
        "Пользователь не найден",
        "用户不存在",
        "User unknown",
    ],
)
def test_an_unknown_user_is_known_in_many_languages(words: str) -> None:
    report = read(plain(f"<alice@example.org>:\n{words}\n"))
    assert (report.kind, report.cls, report.recipient) == ("bounce", "invalid", "alice@example.org")


def test_a_delay_is_no_reason_to_give_an_address_up() -> None:
    report = read(dsn(action="delayed"))
    assert (report.kind, report.cls, report.is_delay) == (Kind.BOUNCE, Class.SOFT, True)


def test_a_notice_of_delivery_is_no_bounce() -> None:
    assert read(dsn(action="delivered")).kind is Kind.OTHER


def test_a_feedback_report_is_a_complaint() -> None:
    report = read(feedback())
    assert (report.kind, report.cls) == (Kind.COMPLAINT, Class.COMPLAINT)
    assert report.recipients == ("alice@example.org",)
    assert [str(one) for one in report.delivery_uuids] == [UUID]


@pytest.mark.parametrize("kind", ["not-spam", "auth-failure"])
def test_a_feedback_report_in_which_nobody_complains_is_none(kind: str) -> None:
    assert read(feedback(kind)).kind is Kind.OTHER


@pytest.mark.parametrize(
    ("subject", "header"),
    [("Automatic reply: news", ""), ("Abwesenheit", ""), ("Thank you", "auto-replied")],
)
def test_an_automatic_reply_is_nothing(subject: str, header: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "Alice <alice@example.org>", subject
    if header:
        mail["Auto-Submitted"] = header
    mail.set_content("I no longer work here: user unknown. My mailbox is full.")
    report = read(mail.as_bytes())
    assert (report.kind, report.cls) == (Kind.AUTOREPLY, Class.AUTOREPLY)


def test_a_persons_mail_about_a_bounce_is_none() -> None:
    mail = plain("What does “user unknown” mean?", subject="A question", sender="bob@example.org")
    assert read(mail).kind is Kind.OTHER


def test_what_is_kept_of_a_diagnostic_is_bounded_and_has_no_control_characters() -> None:
    report = read(dsn("smtp; 550 \x1b[31m<script>\x00\u2028" + "x" * 100_000))
    assert len(report.diagnostic) <= bounces.LONGEST_DIAGNOSTIC
    assert not bounces.CONTROLS.search(report.diagnostic)


def hostile() -> Iterator[bytes]:
    yield b""
    yield b"\x00\xff" * 1000
    yield b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 50_000
    yield b"Content-Type: message/rfc822\n\n" * 3000
    nested = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(3000)
    )
    yield nested
    yield b"Subject: =?utf-16?B?////?= =?x?Q?=zz?=\nFrom: =?\n\n<" + b"a" * 200_000
    yield b'Content-Type: text/html; charset="\x00"\n\n' + b"<style " * 20_000
    yield plain("<" * 50_000 + "user " * 20_000)
    yield plain("a@" * 40_000)
    yield plain("x: " * 30_000 + "\n" + "From: a\n" * 20_000)
    yield b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n" + b"=" * 100_000
    yield plain('{"notificationType": "Bounce", "bounce": []}')
    yield plain("{" * 50_000)


@pytest.mark.parametrize("raw", list(hostile()))
def test_hostile_mail_raises_nothing_and_suppresses_nobody(raw: bytes) -> None:
    assert read(raw).cls not in (Class.INVALID, Class.COMPLAINT)


def slow() -> Iterator[bytes]:
    """What takes a reader long whose time grows with the square of a length."""
    parts = b'From: MAILER-DAEMON@x.example\nContent-Type: multipart/mixed; boundary="b"\n\n'
    for kind, text in (
        (b"text/html", b"<style" * 5000),
        (b"message/feedback-report", b"\n" * 30_000),
        (b"message/delivery-status", b"Diagnostic-Code:" + b"\n  a" * 7500),
    ):
        yield parts + (b"--b\nContent-Type: " + kind + b"\n\n" + text + b"\n") * 30
    for kind in (b"text/plain", b"multipart/mixed"):
        yield b"Content-Type: " + kind + b";" * 900_000 + b"\n\nhi"
        yield b"Content-Type: " + kind + b"; " + b"a*0*=b;" * 100_000 + b"\n\nhi"
    nested = b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n'
    for depth in (50, 900):
        yield b"".join(nested % (n, n) for n in range(depth)) + b"x\n" * 450_000


def test_no_mail_holds_up_those_behind_it() -> None:
    for number, raw in enumerate(slow()):
        assert len(raw) < bounces.LONGEST_MAIL
        began = process_time()
        read(raw)
        assert process_time() - began < 1, number


def test_what_follows_a_long_report_is_not_read() -> None:
    assert read(dsn() + b"x" * (20 * bounces.LONGEST_MAIL)) == read(dsn())


@given(st.binary(max_size=400))
def test_no_bytes_raise(raw: bytes) -> None:
    read(raw)


@given(st.data())
def test_no_damage_to_a_report_raises(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([dsn(), feedback(), plain("<a@x.example>: no")])))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
    read(bytes(raw))


# The real mails


def labelled(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@dataclass
class Score:
    """How one reader of bounces does on the labelled mails."""

    right: int = 0  # to suppress, or not
    harmed: int = 0  # suppressed without being invalid or a complaint
    found: int = 0  # the recipient, where one is given
    same: int = 0  # the class

    def count(self, row: dict[str, str], *, suppresses: bool, recipients: Iterable[str]) -> None:
        wanted = row["class"] in SUPPRESSING
        self.right += wanted == suppresses
        self.harmed += suppresses and not wanted
        self.found += bool(row["recipient"]) and row["recipient"].lower() in recipients

    def __str__(self) -> str:
        return f"{self.right} right, {self.harmed} harmed, {self.found} recipients"


def by_flufl(raw: bytes) -> tuple[set[str], bool]:
    """The addresses flufl.bounce finds, and whether it calls a failure permanent."""
    temporary, permanent = all_failures(message_from_bytes(raw.replace(b"\r\n", b"\n")))
    return {one.decode("latin-1").lower() for one in temporary | permanent}, bool(permanent)


def test_real_mails_are_decided_right_and_better_than_by_flufl_bounce(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = labelled(data / "bounces")
    ours, flufl = Score(), Score()
    for row in rows:
        raw = (data / "bounces" / row["file"]).read_bytes()
        report = read(raw)
        suppresses = report.cls in SUPPRESSING
        ours.count(row, suppresses=suppresses, recipients=[report.recipient.lower()])
        ours.same += row["class"] == report.cls
        addresses, permanent = by_flufl(raw)
        flufl.count(row, suppresses=permanent, recipients=addresses)
        assert not (suppresses and row["class"] == "autoreply")
    others = sum(row["class"] not in SUPPRESSING for row in rows)
    named = sum(bool(row["recipient"]) for row in rows)
    with capsys.disabled():
        print(  # noqa: T201  (the accuracy is reported)
            f"\n{len(rows)} mails, {others} of them to suppress nobody, {named} with a recipient\n"
            f"ours:         {ours}, {ours.same} classes\nflufl.bounce: {flufl}"
        )
    assert ours.right >= 0.95 * len(rows)
    assert ours.harmed <= 0.01 * others
    assert ours.found >= 0.95 * named
    assert (ours.right, ours.found) >= (flufl.right, flufl.found)


def test_real_mails_that_are_no_bounces_suppress_nobody(data: Path) -> None:
    paths = sorted((data / "bounces" / "not").iterdir())
    assert paths
    for path in paths:
        assert read(path.read_bytes()).cls not in (Class.INVALID, Class.COMPLAINT), path.name


def test_real_mails_of_every_folder_raise_nothing(data: Path) -> None:
    for path in (data / "bounces").rglob("*.eml"):
        raw = path.read_bytes()
        assert read(raw).kind in Kind
        assert read(raw[: len(raw) // 2]).kind in Kind
