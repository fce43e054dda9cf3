"""manage.py process_bounces, with a Maildir, standard input and an IMAP server on loopback."""

from __future__ import annotations

import io
import json
import re
import socketserver
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest
from django.core.management import CommandError, call_command

from newsletter.models import Delivery, DeliveryEvent, Suppression
from tests.newsletter.test_bounces import dsn, feedback, plain
from tests.newsletter.test_events import returned, sent, suppressed

pytestmark = pytest.mark.django_db


def run(*args: str) -> list[dict[str, str]]:
    out = StringIO()
    call_command("process_bounces", *args, "--json", stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    for name in ("new", "cur", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_one_mail_comes_by_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    one = sent()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(returned(dsn(), one))))
    assert run("-") == [
        {"file": "-", "kind": "bounce", "recipient": "alice@example.org", "class": "invalid"}
    ]
    one.refresh_from_db()
    assert one.state == Delivery.State.BOUNCED
    assert suppressed()


def test_a_maildir_is_read_once(maildir: Path) -> None:
    one = sent()
    (maildir / "new" / "1.a").write_bytes(returned(dsn(), one))
    (maildir / "cur" / "2.b:2,").write_bytes(returned(feedback(), one))
    (maildir / "cur" / "3.c:2,S").write_bytes(plain("<alice@example.org>: user unknown"))
    assert [line["kind"] for line in run("--maildir", str(maildir))] == ["complaint", "bounce"]
    assert DeliveryEvent.objects.count() == 2
    assert sorted(path.name for path in (maildir / "cur").iterdir()) == [
        "1.a:2,S", "2.b:2,S", "3.c:2,S",
    ]  # fmt: skip
    assert run("--maildir", str(maildir)) == []


def test_a_dry_run_only_says(maildir: Path) -> None:
    (maildir / "new" / "1.a").write_bytes(returned(dsn(), sent()))
    for _ in range(2):
        [line] = run("--maildir", str(maildir), "--dry-run")
        assert line["class"] == "invalid"
    assert not DeliveryEvent.objects.exists()


def test_an_unknown_address_is_no_error_and_suppresses_nobody(maildir: Path) -> None:
    (maildir / "new" / "1.a").write_bytes(dsn())
    (maildir / "new" / "2.b").write_bytes(b"\xff\x00")
    assert [line["kind"] for line in run("--maildir", str(maildir))] == ["bounce", "other"]
    assert not Suppression.objects.exists()


def test_a_folder_of_mails_that_is_no_maildir_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.eml").write_bytes(dsn())
    [line] = run("--maildir", str(tmp_path))
    assert line["file"] == "a/1.eml"
    assert (tmp_path / "a" / "1.eml").exists()


def test_without_json_a_line_is_tab_separated(tmp_path: Path) -> None:
    (tmp_path / "1.eml").write_bytes(dsn())
    out = StringIO()
    call_command("process_bounces", "--maildir", str(tmp_path), "--dry-run", stdout=out)
    assert out.getvalue() == "1.eml\tbounce\talice@example.org\tinvalid\n"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="not a folder"):
        run("--maildir", str(tmp_path / "none"))


@pytest.mark.parametrize("folder", ["new", "."])
def test_a_mail_that_cannot_be_opened_keeps_none_back_and_is_said(
    maildir: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if folder == ".":
        for name in ("new", "cur", "tmp"):
            (maildir / name).rmdir()
    (maildir / folder / "1.eml").symlink_to("/proc/self/mem")  # a file that opens and reads as none
    (maildir / folder / "2.eml").write_bytes(returned(dsn(), sent()))
    with pytest.raises(CommandError, match=r"1 mail could not be read, the first is 1\.eml"):
        call_command("process_bounces", "--maildir", str(maildir))
    assert "2.eml\tbounce" in capsys.readouterr().out
    assert suppressed()


class ImapServer(socketserver.ThreadingTCPServer):
    """Speaks as much of RFC 3501 as reading unseen mails takes; imaplib is the client."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, mails: dict[int, bytes]) -> None:
        self.mails = mails
        self.seen: set[int] = set()
        self.heard: list[str] = []
        super().__init__(("127.0.0.1", 0), Session)


class Session(socketserver.StreamRequestHandler):
    server: ImapServer

    def handle(self) -> None:
        self.wfile.write(b"* OK [CAPABILITY IMAP4rev1] ready\r\n")
        while line := self.rfile.readline().decode().strip():
            tag, _, rest = line.partition(" ")
            self.server.heard.append(rest)
            self.wfile.writelines(self.answers(rest))
            self.wfile.write(f"{tag} {self.verdict(rest)} done\r\n".encode())
            if rest == "LOGOUT":
                return

    def verdict(self, rest: str) -> str:
        return "NO" if rest.startswith("LOGIN") and '"p%w/1"' not in rest else "OK"

    def answers(self, rest: str) -> Iterator[bytes]:
        mails, seen = self.server.mails, self.server.seen
        if rest == "CAPABILITY":
            yield b"* CAPABILITY IMAP4rev1\r\n"
        elif rest.startswith("SELECT"):
            yield f"* {len(mails)} EXISTS\r\n".encode()
        elif rest == "UID SEARCH UNSEEN":
            yield f"* SEARCH {' '.join(str(uid) for uid in mails if uid not in seen)}\r\n".encode()
        elif match := re.match(r"UID FETCH (\d+) \(BODY\.PEEK\[\]<0\.\d+>\)", rest):
            content = mails[int(match[1])]
            yield f"* 1 FETCH (UID {match[1]} BODY[]<0> {{{len(content)}}}\r\n".encode()
            yield content + b")\r\n"
        elif match := re.match(r"UID STORE (\d+) \+FLAGS \(\\Seen\)", rest):
            seen.add(int(match[1]))
            yield b"* 1 FETCH (FLAGS (\\Seen))\r\n"


@pytest.fixture
def imap() -> Iterator[ImapServer]:
    server = ImapServer({})
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url_of(server: ImapServer, user: str = "bounces:p%25w%2F1") -> str:
    return f"imap://{user}@127.0.0.1:{server.server_address[1]}/Return%20mail"


def test_the_unseen_mails_of_an_imap_folder_are_read_and_then_seen(imap: ImapServer) -> None:
    one = sent()
    imap.mails = {7: returned(dsn(), one), 9: plain("hello", subject="Hi", sender="bob@x.example")}
    lines = run("--imap", url_of(imap), "--dry-run")
    assert [(line["file"], line["kind"]) for line in lines] == [("7", "bounce"), ("9", "other")]
    assert imap.seen == set()
    assert run("--imap", url_of(imap)) == lines
    assert imap.seen == {7, 9}
    assert 'SELECT "Return mail"' in imap.heard
    assert run("--imap", url_of(imap)) == []
    assert suppressed()


def test_a_refused_password_is_not_repeated(imap: ImapServer) -> None:
    with pytest.raises(CommandError, match="refused") as caught:
        run("--imap", url_of(imap, "bounces:hunter2"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("user", ["bounces:p%C3%BCss", "b%C3%B6b:x"])
def test_a_password_that_imap_cannot_carry_is_said_and_not_repeated(
    imap: ImapServer, user: str
) -> None:
    with pytest.raises(CommandError, match="ASCII") as caught:
        run("--imap", url_of(imap, user))
    assert "ü" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://x/", "imaps://host/INBOX", "imap://[", "x"])
def test_an_imap_address_that_is_none_is_said(url: str) -> None:
    with pytest.raises(CommandError, match="IMAP address"):
        run("--imap", url)


def test_a_password_is_not_sent_in_the_clear(
    imap: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newsletter.postbox._is_loopback", lambda host: False)
    with pytest.raises(CommandError, match="STARTTLS"):
        run("--imap", url_of(imap))
    assert not any(line.startswith("LOGIN") for line in imap.heard)


def test_a_server_that_is_away_is_said(imap: ImapServer) -> None:
    url = url_of(imap)
    imap.shutdown()
    imap.server_close()
    with pytest.raises(CommandError, match="no connection"):
        run("--imap", url)
