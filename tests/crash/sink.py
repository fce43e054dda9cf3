"""A mail server that can be struck at any point of its dialogue, and keeps what it accepted.

Written on bare sockets, since the point is what lies between two lines of the dialogue.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event, Lock, Thread
from typing import BinaryIO


class Point(StrEnum):
    """Where of a dialogue something happens, in their order; the words are the matrix's."""

    CONNECT = "connected, before the greeting"
    EHLO = "EHLO told, before its reply"
    MAIL = "MAIL told, before its reply"
    RCPT = "RCPT told, before its reply"
    DATA = "DATA told, before its reply"
    CONTENT = "half of the content told"
    DOT = "the final dot told, the mail not kept, before the reply"
    KEPT = "the final dot told, the mail kept, before the reply"
    REPLIED = "the mail kept and said so"
    QUIT = "QUIT told, before its reply"


@dataclass(frozen=True, slots=True)
class Mail:
    recipient: str
    message_id: str


@dataclass(slots=True)
class Strike:
    """What happens at the `nth` time that a dialogue comes to `point`; 0: each time.

    act: does it; returns whether this dialogue goes on.
    """

    point: Point
    nth: int
    act: Callable[[socket.socket], bool]
    struck: Event = field(default_factory=Event)


class _Cut(Exception):
    """The dialogue was struck."""


def drop(connection: socket.socket) -> bool:
    """The mail server dies, or the network between."""
    return False


def fall_silent(connection: socket.socket) -> bool:
    """The mail server says no more, and the other side gives up some time."""
    connection.settimeout(60)
    while connection.recv(4096):
        pass
    return False


class Sink:
    """An SMTP server on loopback, a thread for each connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = Lock()
        self.reset()
        self._thread = Thread(target=self._accept, daemon=True)
        self._thread.start()

    def reset(self, strike: Strike | None = None) -> None:
        """Forget everything; `strike` is what happens next."""
        self.mails: list[Mail] = []
        self._strike = strike
        self._seen = dict.fromkeys(Point, 0)

    def strike_no_more(self) -> None:
        self._strike = None

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                self._talk(connection, lines)
            except (_Cut, OSError):
                return

    def _at(self, point: Point, connection: socket.socket) -> None:
        with self._lock:
            self._seen[point] += 1
            strike = self._strike
            if strike is None or strike.point != point or strike.nth not in (0, self._seen[point]):
                return
            if strike.nth:
                self._strike = None
        goes_on = strike.act(connection)
        strike.struck.set()
        if not goes_on:
            raise _Cut

    def _talk(self, connection: socket.socket, lines: BinaryIO) -> None:
        def say(line: str) -> None:
            connection.sendall(line.encode() + b"\r\n")

        self._at(Point.CONNECT, connection)
        say("220 sink")
        recipient = ""
        while line := lines.readline():
            verb = line[:4].upper().decode(errors="replace")
            if verb == "DATA":
                self._at(Point.DATA, connection)
                say("354 go on")
                self._take(connection, lines, recipient)
                say("250 kept")
                self._at(Point.REPLIED, connection)
                continue
            if verb in Point.__members__:
                self._at(Point[verb], connection)
            if verb == "EHLO":
                say("250-sink\r\n250 PIPELINING")
                continue
            if verb == "RCPT":
                recipient = line.decode().partition("<")[2].rstrip().rstrip(">")
            say("221 bye" if verb == "QUIT" else "250 yes")

    def _take(self, connection: socket.socket, lines: BinaryIO, recipient: str) -> None:
        content = b""
        while (line := lines.readline()) != b".\r\n":
            if not line:
                raise _Cut
            content += line
            if line == b"\r\n" and content.count(b"\r\n\r\n") == 1:  # the headers are through
                self._at(Point.CONTENT, connection)
        self._at(Point.DOT, connection)
        named = re.search(rb"(?im)^Message-ID:\s*(\S+)\s*$", content)
        assert named, "a mail without Message-ID"
        self.mails.append(Mail(recipient, named[1].decode()))
        self._at(Point.KEPT, connection)
