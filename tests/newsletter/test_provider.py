"""Several dialogues at once, against servers that pipeline, are slow, encrypt, or hang up."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
from django.core.mail import EmailMessage
from pytest_django import Settings

from newsletter import provider
from newsletter.provider import Answer, OutcomeUnknown, Refused


class Server:
    """A mail server that announces PIPELINING and waits for all commands before it replies.

    `replies` maps a recipient to the words after RCPT, `delays` to the seconds before the last
    reply; it hangs up after `most` mails on one connection.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._context = context
        self.replies: dict[str, str] = {}
        self.delays: dict[str, float] = {}
        self.most = 1_000
        self.connections = 0
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

            say("220 here")
            try:
                self._talk(lines.readline, say)
            except OSError:
                return

    def _talk(self, hear: Callable[[], bytes], say: Callable[..., None]) -> None:
        told = 0
        while line := hear():
            if line.lower().startswith(b"ehlo"):
                say("250-here", "250 PIPELINING")
            elif line.lower().startswith(b"quit"):
                say("221 bye")
                return
            else:
                assert line.startswith(b"MAIL FROM:<")
                if told == self.most:
                    return
                recipient = hear().decode().partition("<")[2].partition(">")[0]
                assert hear() == b"DATA\r\n"  # nothing was said yet: they came together
                reply = self.replies.get(recipient, "250 yes")
                say("250 yes", reply, "354 go on")
                content = bytearray()
                while not content.endswith(b"\r\n.\r\n"):
                    if not (line := hear()):
                        return
                    content += line
                sleep(self.delays.get(recipient, 0))
                self.contents[recipient] = bytes(content)
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


def tell(*recipients: str, over: int, body: str = "Hello.\n") -> dict[str, tuple[Answer, float]]:
    """Send each a mail; what was answered, and after how many seconds."""
    began, found, waiting = monotonic(), {}, list(recipients)
    with provider.sessions(over) as sessions:
        while waiting or sessions.are_talking:
            for one in sessions.take(len(waiting)):
                recipient = waiting.pop(0)
                message = EmailMessage("Hello", body, "daily@papers.example", [recipient])
                sessions.begin(one, recipient, sessions.prepared(message))
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
