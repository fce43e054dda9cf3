"""Several dialogues at once, against servers that pipeline, are slow, encrypt, or hang up."""

from __future__ import annotations

import shutil
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
from django.core.mail import EmailMessage, get_connection
from pytest_django import Settings

from newsletter import provider
from newsletter.bounces import Class
from newsletter.provider import Answer, NoServer, OutcomeUnknown, Refused
from newsletter.smtp import IDEMPOTENCY_HEADERS, TellingSMTP, _Line
from tests.smtp import SmtpServer


class Server:
    """A mail server that announces PIPELINING and waits for all commands before it replies.

    `replies` maps a recipient to the words after RCPT, `delays` to the seconds before the last
    reply; after `most` mails on one connection it hangs up, or says `too_many` at `full_at` first.
    It greets `greets` connections and is silent to all others. `at_login` is what it says to a
    password, `at_mail` to a sender.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._context = context
        self.replies: dict[str, str] = {}
        self.delays: dict[str, float] = {}
        self.pipelines = True
        self.at_login, self.at_mail = "", "250 yes"
        self.most = 1_000
        self.too_many, self.full_at = "", "MAIL"
        self.greets = 1_000
        self.to_nobody = "354 go on"
        self.after_lone_dot = "554 no valid recipients"
        self.connections = 0
        self.resets = 0
        self.contents: dict[str, bytes] = {}
        self._threads: list[Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *args: object) -> None:
        self._threads.append(Thread(target=work, args=args))
        self._threads[-1].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=10)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection, connection.makefile("rb") as lines:

            def say(*replies: str) -> None:
                connection.sendall("".join(f"{reply}\r\n" for reply in replies).encode())

            if self.connections > self.greets:
                lines.read()
                return
            say("220 here")
            try:
                self._talk(lines.readline, say)
            except OSError:
                return

    def _talk(self, hear: Callable[[], bytes], say: Callable[..., None]) -> None:
        told, recipient, is_refused = 0, "", False
        replies: list[str] = []
        while line := hear():
            verb, reply = line[:4].upper().decode(), "250 yes"
            if verb == "EHLO":
                can = ["AUTH PLAIN"] if self.at_login else []
                can.append("PIPELINING" if self.pipelines else "HELP")
                reply = "\r\n".join(["250-here", *(f"250-{one}" for one in can), "250 SIZE"])
            elif verb == "AUTH":
                reply = self.at_login
            elif verb == "MAIL":
                reply = self.at_mail
            elif verb == "RCPT":
                recipient = line.decode().partition("<")[2].partition(">")[0]
                reply = self.replies.get(recipient, reply)
                is_refused = reply.startswith("5")
            elif verb == "DATA":
                reply = self.to_nobody if is_refused else "354 go on"
            elif verb == "RSET":
                self.resets += 1
            if told == self.most and verb == self.full_at:
                if not self.too_many:
                    return
                reply = self.too_many
            replies.append(reply)
            if self.pipelines and verb in ("MAIL", "RCPT"):
                continue  # all come together, before anything is said
            say(*replies)
            if verb == "QUIT" or self.too_many in replies:
                return
            replies.clear()
            if not reply.startswith("354"):
                continue
            content = bytearray(b"\r\n")  # a lone dot ends it, too
            while not content.endswith(b"\r\n.\r\n"):
                if not (line := hear()):
                    return
                content += line
            if is_refused:
                if not self.after_lone_dot:  # says nothing until the other side is gone
                    hear()
                    return
                say(self.after_lone_dot)
                continue
            sleep(self.delays.get(recipient, 0))
            self.contents[recipient] = bytes(content[2:])
            told += 1
            say("250 kept")


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    with closing(Server()) as server:
        use(server, settings)
        yield server


def use(server: Server, settings: Settings) -> None:
    settings.EMAIL_BACKEND = "newsletter.smtp.SmtpBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    settings.EMAIL_TIMEOUT = 10


def message_to(recipient: str, body: str = "Hello.\n") -> EmailMessage:
    return EmailMessage("Hello", body, "daily@papers.example", [recipient])


def tell(*recipients: str, over: int, body: str = "Hello.\n") -> dict[str, tuple[Answer, float]]:
    """Send each a mail; what was answered, and after how many seconds."""
    began, found, waiting = monotonic(), {}, list(recipients)
    with provider.sessions(over) as sessions:
        while waiting or sessions.are_talking:
            for one in sessions.take(len(waiting)):
                recipient = waiting.pop(0)
                sessions.begin(one, recipient, sessions.prepared(message_to(recipient, body)))
            for recipient, answer in sessions.answers():
                found[recipient] = answer, monotonic() - began
    return found


READERS = [f"reader{n}@example.org" for n in range(6)]


def test_commands_go_together_where_the_server_takes_them_so(server: Server) -> None:
    found = tell(*READERS, over=2)
    assert {answer for answer, _ in found.values()} == {Answer()}
    assert set(server.contents) == set(READERS)
    assert server.connections == 2


def test_a_recipient_that_is_refused_is_told_no_content(server: Server) -> None:
    """Though the server says to go on: it was asked before it had refused."""
    server.replies[READERS[1]] = "550 5.1.1 no such user"
    found = tell(*READERS[:3], over=1)
    refused = found[READERS[1]][0].error
    assert isinstance(refused, Refused)
    assert refused.for_good
    assert "no such user" in str(refused)
    assert set(server.contents) == {READERS[0], READERS[2]}


@pytest.mark.parametrize(
    ("pipelines", "to_nobody"), [(True, "354 go on"), (True, "503 to whom?"), (False, "")]
)
def test_a_recipient_that_is_refused_costs_no_connection(
    server: Server, pipelines: bool, to_nobody: str
) -> None:
    server.pipelines, server.to_nobody = pipelines, to_nobody
    server.replies[READERS[1]] = "550 5.1.1 no such user"
    server.replies[READERS[2]] = "550 5.1.1 no such user"
    found = tell(*READERS, over=1)
    assert sum(answer == Answer() for answer, _ in found.values()) == 4
    assert (server.connections, server.resets) == (1, 2)


@pytest.mark.parametrize("after", ["250 kept", "junk", "421 closing", ""])
def test_whatever_a_server_says_of_a_mail_for_nobody_the_refusal_stands(
    server: Server, settings: Settings, after: str
) -> None:
    settings.EMAIL_TIMEOUT = 1
    server.after_lone_dot = after
    server.replies[READERS[0]] = "550 5.1.1 no such user"
    found = tell(*READERS[:2], over=1)
    refused = found[READERS[0]][0].error
    assert isinstance(refused, Refused)
    assert refused.for_good
    assert found[READERS[1]][0] == Answer()
    assert server.connections == (1 if after else 2)


def test_a_recipient_of_whom_something_odd_is_said_is_told_no_empty_mail(server: Server) -> None:
    """It may be accepted, and so would be the lone dot that ends what was begun for a refused."""
    server.replies[READERS[0]] = "2.1.5 Ok"
    found = tell(READERS[0], over=1)
    assert isinstance(found[READERS[0]][0].error, Refused)
    assert server.contents == {}
    assert server.resets == 0


@pytest.mark.parametrize("full_at", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("told_one_by_one", [True, False])
def test_what_is_too_much_for_one_connection_goes_over_the_next_at_once(
    server: Server, full_at: str, told_one_by_one: bool
) -> None:
    server.most, server.full_at = 2, full_at
    server.too_many = "421 4.7.0 too many messages on this connection"
    if told_one_by_one:
        with closing(get_connection()) as backend:
            backend.open()
            for reader in READERS[:3]:
                provider.hand_over(message_to(reader), backend)
    else:
        found = tell(*READERS[:3], over=1)
        assert {answer for answer, _ in found.values()} == {Answer()}
    assert set(server.contents) == set(READERS[:3])
    assert server.connections == 2


def test_a_server_that_is_always_full_is_asked_twice_and_its_words_are_kept(
    server: Server,
) -> None:
    server.most, server.too_many = 0, "421 4.7.0 too many messages"
    found = tell(READERS[0], over=1)
    refused = found[READERS[0]][0].error
    assert isinstance(refused, Refused)
    assert not refused.for_good
    assert "too many messages" in str(refused)
    assert server.connections == 2


def test_lost_connections_are_opened_again_together(server: Server, settings: Settings) -> None:
    settings.EMAIL_TIMEOUT = 1
    server.most, server.greets = 0, 4
    found = tell(*READERS[:4], over=4)
    assert all(isinstance(answer.error, Refused) for answer, _ in found.values())
    assert max(after for _, after in found.values()) < 3


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("252 kept", None),
        ("2.0.0 Ok queued", OutcomeUnknown),
        ("250 " + "long " * 4000, OutcomeUnknown),
        ("554 5.7.1 no", Refused),
    ],
)
def test_a_mail_that_is_told_alone_is_judged_alike(
    smtp: SmtpServer, reply: str, error: type[Exception] | None
) -> None:
    smtp.after_data[READERS[0]] = reply
    with closing(get_connection()) as backend:
        backend.open()
        if error is None:
            provider.hand_over(message_to(READERS[0]), backend)
        else:
            with pytest.raises(error):
                provider.hand_over(message_to(READERS[0]), backend)


def test_no_session_waits_for_a_slow_one(server: Server) -> None:
    server.delays[READERS[0]] = 1.5
    found = tell(*READERS, over=2)
    assert found[READERS[0]][1] > 1.5
    assert all(found[other][1] < 1.0 for other in READERS[1:])


def test_a_silent_server_leaves_one_unknown_and_the_others_go_on(
    server: Server, settings: Settings
) -> None:
    settings.EMAIL_TIMEOUT = 1
    server.delays[READERS[0]] = 2.5
    found = tell(*READERS, over=2)
    assert isinstance(found[READERS[0]][0].error, OutcomeUnknown)
    assert {found[other][0] for other in READERS[1:]} == {Answer()}


def test_a_server_that_hangs_up_after_some_mails_is_called_again(server: Server) -> None:
    server.most = 2
    found = tell(*READERS, over=1)
    assert {answer for answer, _ in found.values()} == {Answer()}
    assert server.connections == 3


def test_a_line_of_dots_arrives_as_it_was(server: Server) -> None:
    tell(READERS[0], over=1, body=".\n..\n.a\n")
    assert b"\r\n..\r\n...\r\n..a\r\n.\r\n" in server.contents[READERS[0]]


def test_what_is_told_is_encrypted_where_it_is_set(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl makes the certificate, and is not here")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with closing(Server(context)) as server:
        use(server, settings)
        settings.EMAIL_USE_SSL = True
        long = "A line of a mail that is longer than any buffer.\n" * 20_000
        found = tell(*READERS, over=3, body=long)
        assert {answer for answer, _ in found.values()} == {Answer()}
        assert len(server.contents[READERS[0]]) > len(long)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("535 5.7.8 Username and Password not accepted", Class.SENDER),
        ("534 5.7.9 Application-specific password required", Class.SENDER),
        ("454 4.7.0 Temporary authentication failure", Class.NONE),
    ],
)
def test_a_server_that_does_not_let_us_in_is_told_from_one_that_is_away(
    server: Server, settings: Settings, said: str, cause: Class
) -> None:
    server.at_login = said
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "papers", "wrong"
    with pytest.raises(NoServer, match=said[10:]) as refused:
        tell(READERS[0], over=2)
    assert refused.value.cause is cause


def test_a_server_that_is_away_refuses_nobody(server: Server, settings: Settings) -> None:
    settings.EMAIL_TIMEOUT = 1
    server.greets = 0
    with pytest.raises(NoServer) as refused:
        tell(READERS[0], over=1)
    assert refused.value.cause is Class.NONE


def test_a_password_that_is_withdrawn_meanwhile_is_no_fault_of_the_next_reader(
    server: Server, settings: Settings
) -> None:
    server.at_login = "235 2.7.0 welcome"
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "papers", "right"
    server.most = 0  # hangs up at the first mail, and lets nobody in again
    with provider.sessions(1) as sessions:
        [one] = sessions.take(1)
        server.at_login = "535 5.7.8 no"
        sessions.begin(one, "letter", sessions.prepared(message_to(READERS[0])))
        [(_, answer)] = sessions.answers() or sessions.answers()
    assert_refused(answer, for_good=False, cause=Class.SENDER)


def assert_refused(answer: Answer, *, for_good: bool, cause: Class) -> None:
    assert isinstance(answer.error, Refused)
    assert (answer.error.for_good, answer.error.cause) == (for_good, cause)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("553 5.7.1 <daily@papers.example>: Sender address rejected: not owned", Class.SENDER),
        ("550 5.1.0 sender rejected, domain not configured here", Class.SENDER),
        ("550 5.7.60 Client does not have permissions to send as this sender", Class.SENDER),
        ("554 5.7.8 sending disabled for this account", Class.SENDER),
        ("501 5.1.7 bad address", Class.SENDER),
        ("530 5.7.0 Authentication required", Class.SENDER),
        ("552 5.3.4 Message size exceeds fixed limit", Class.NONE),
        ("503 5.5.1 nested MAIL command", Class.NONE),
        ("451 4.7.1 Sender address rejected: try again later", Class.NONE),
    ],
)
@pytest.mark.parametrize("pipelines", [True, False])
def test_what_is_said_at_mail_from_is_no_readers_fault(
    server: Server, said: str, cause: Class, pipelines: bool
) -> None:
    server.pipelines, server.at_mail = pipelines, said
    assert_refused(tell(READERS[0], over=1)[READERS[0]][0], for_good=False, cause=cause)
    assert server.contents == {}


@pytest.mark.parametrize(
    ("said", "for_good", "cause"),
    [
        # Of the sender, by a server that says so here, or that repeats the words of another.
        ("554 5.7.1 <reader0@example.org>: Relay access denied", False, Class.POLICY),
        ("550 relaying denied", False, Class.POLICY),
        ("553 5.7.1 <daily@x.example>: Sender address rejected: not owned", False, Class.POLICY),
        ("550 5.7.1 Daily sending quota exceeded", False, Class.POLICY),
        ("550 5.7.1 domain is not verified", False, Class.POLICY),
        # Nobody's words but our own server's: it did not hear a password.
        ("530 5.7.0 Authentication required", False, Class.SENDER),
        ("535 5.7.8 Authentication failed", False, Class.SENDER),
        # Of the reader, and of the mail.
        ("550 5.1.1 user unknown", True, Class.INVALID),
        ("552 5.2.2 mailbox full", True, Class.MAILBOX),
        ("550 5.7.1 blocked using a list", True, Class.POLICY),
    ],
)
def test_what_one_domain_says_at_rcpt_to_stops_no_others_mail(
    server: Server, said: str, for_good: bool, cause: Class
) -> None:
    server.replies[READERS[0]] = said
    found = tell(*READERS[:2], over=1)
    assert_refused(found[READERS[0]][0], for_good=for_good, cause=cause)
    assert found[READERS[1]][0] == Answer()


@pytest.mark.parametrize(
    "said",
    [
        "554 5.7.60 Client does not have permissions to send as this sender",
        "550 5.1.8 Access denied, bad outbound sender",
        "554 Message rejected: Email address is not verified",
    ],
)
def test_what_our_server_says_of_us_after_the_content_is_no_readers_fault(
    smtp: SmtpServer, said: str
) -> None:
    smtp.after_data[READERS[0]] = said
    assert_refused(tell(READERS[0], over=1)[READERS[0]][0], for_good=False, cause=Class.SENDER)


@pytest.mark.parametrize("at", ["rcpt", "data", "mail"])
def test_an_operator_reads_a_servers_words_as_it_said_them(server: Server, at: str) -> None:
    said = "550 5.7.1 no, thank you"
    if at == "mail":
        server.at_mail = said
    elif at == "rcpt":
        server.replies[READERS[0]] = said
    else:
        server.most, server.too_many, server.full_at = 0, said, "DATA"
    error = str(tell(READERS[0], over=1)[READERS[0]][0].error)
    assert error.endswith(f"refused: {said}")


def test_an_operator_reads_how_a_connection_broke(server: Server) -> None:
    server.most = 0
    error = str(tell(READERS[0], over=1)[READERS[0]][0].error)
    assert error == "the connection broke: Connection unexpectedly closed"


def test_a_byte_that_no_database_takes_is_left_out_of_what_a_server_said(server: Server) -> None:
    server.replies[READERS[0]] = "550 5.7.1 no\0body"
    assert str(tell(READERS[0], over=1)[READERS[0]][0].error).endswith("550 5.7.1 no body")


class Endless:
    """A mail server that from one step on repeats some bytes, each `every` seconds, for ever."""

    def __init__(self, step: str, what: bytes, every: float) -> None:
        self._step, self._what, self._every = step, what, every
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.said = 0
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.settimeout(10)
            try:
                for step in ("greeting", "EHLO", "MAIL"):
                    if step != "greeting":
                        lines.readline()
                    while step == self._step:
                        connection.sendall(self._what)
                        self.said += len(self._what)
                        sleep(self._every)
                    connection.sendall(b"220 here\r\n" if step == "greeting" else b"250 yes\r\n")
            except OSError:
                pass  # it was hung up on

    def close(self) -> None:
        self._thread.join(timeout=10)
        self._listener.close()


@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL"])
@pytest.mark.parametrize(
    ("what", "every"),
    [
        (b"250-" + b"a" * 4000 + b"\r\n", 0.0),  # lines for ever
        (b"2", 0.1),  # a line for ever, and each byte in time
        (b"250-a\r\n", 0.3),  # some of both
    ],
)
def test_a_server_that_talks_without_an_end_holds_no_session(
    settings: Settings, step: str, what: bytes, every: float
) -> None:
    with closing(Endless(step, what, every)) as server:
        settings.EMAIL_BACKEND = "newsletter.smtp.SmtpBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        settings.EMAIL_TIMEOUT = 1
        began = monotonic()
        if step == "MAIL":
            assert_refused(
                tell(READERS[0], over=1)[READERS[0]][0], for_good=False, cause=Class.NONE
            )
        else:
            with pytest.raises(NoServer):
                tell(READERS[0], over=1)
        assert monotonic() - began < 3
        assert server.said < 8_000_000


def test_a_server_that_takes_a_mail_byte_by_byte_holds_no_session(settings: Settings) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.settimeout(0)
        connection = TellingSMTP(timeout=1)
        connection.sock = ours

        def take_it_slowly() -> None:
            for _ in _Line(connection).say(b"a" * 1_000_000):
                theirs.recv(4096)
                sleep(0.05)

        began = monotonic()
        with pytest.raises(smtplib.SMTPServerDisconnected, match="slow"):
            take_it_slowly()
        assert monotonic() - began < 3


def test_a_mail_server_that_takes_a_key_is_given_each_deliverys_own(
    server: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(IDEMPOTENCY_HEADERS, settings.EMAIL_HOST, "Resend-Idempotency-Key")
    message, other = message_to(READERS[0]), message_to(READERS[1])
    message.metadata = {"delivery": "5e6f9a0e-3f5a-4a3e-9c39-0a4f6f7b6c11"}  # type: ignore[attr-defined]
    with provider.sessions(1) as sessions:
        for one in (message, other):
            [session] = sessions.take(1)
            sessions.begin(session, one, sessions.prepared(one))
            assert sessions.answers() == [(one, Answer())]
    key = b"Resend-Idempotency-Key: 5e6f9a0e-3f5a-4a3e-9c39-0a4f6f7b6c11\r\n"
    assert server.contents[READERS[0]].count(key) == 1
    assert b"Idempotency" not in server.contents[READERS[1]]


def test_a_mail_server_that_knows_a_key_again_may_have_the_mail(smtp: SmtpServer) -> None:
    smtp.after_data[READERS[0]] = "550 idempotency key was used with another payload"
    assert isinstance(tell(READERS[0], over=1)[READERS[0]][0].error, OutcomeUnknown)
