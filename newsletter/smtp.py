"""Django's SMTP backend, which also tells how far a conversation came before it broke, gives each
mail the return path that its bounce will name, and believes no server that talks without an end.

And the dialogue of one message without waiting, for a worker that holds several at once.
"""

from __future__ import annotations

import math
import re
import smtplib
import ssl
import time
import uuid
from collections.abc import Generator
from contextlib import suppress
from functools import lru_cache
from selectors import EVENT_READ, EVENT_WRITE
from typing import NamedTuple, TypeVar

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend
from django.core.mail.message import sanitize_address

from newsletter import addresses
from newsletter.mime import PreparedMessage

# The header by which a mail server knows a repeat of a mail that it has.
IDEMPOTENCY_HEADERS = {"smtp.resend.com": "Resend-Idempotency-Key"}

# What a dialogue waits for: its socket to be read or written.
Dialogue = Generator[int, None, None]
Reply = tuple[int, bytes]

# An address that Django's sanitize_address leaves as it is.
PLAIN = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


class TellingSMTP(smtplib.SMTP):
    """Notes how far a dialogue came: the same error is raised for a drop at MAIL FROM and for one
    after the final dot."""

    content_may_have_left = False
    takes_another = False  # its last dialogue was brought to an end

    def getreply(self) -> Reply:
        """As smtplib's, which would hear any number of lines, for as long as one comes in time."""
        try:
            return _waited_for(_Line(self).hear())
        except smtplib.SMTPServerDisconnected:
            self.close()
            raise


class TellingSMTPOverTLS(TellingSMTP, smtplib.SMTP_SSL):
    pass


class Told(NamedTuple):
    """A message as it is told: its commands, and its content with the final dot."""

    sender: str
    recipient: str
    mail: bytes
    rcpt: bytes
    content: bytes


LONGEST_LINE = 8192
MOST_LINES = 100  # of one reply
CLOSING = 421  # the server's last word on this connection


def tell(connection: TellingSMTP, told: Told) -> Dialogue:
    """Tell one message over an open connection: as smtplib does it, but all commands at once where
    the server takes them so (RFC 2920). Waits for nothing where the socket does not block.

    Raises:
        SMTPSenderRefused, SMTPRecipientsRefused, SMTPDataError: it was not accepted.
        SMTPException: the dialogue broke; of what has left with the final dot nothing is known.
    """
    connection.content_may_have_left = connection.takes_another = False
    line = _Line(connection)
    commands = (told.mail, told.rcpt, b"DATA\r\n")
    at_once = connection.has_extn("pipelining")
    if at_once:
        yield from line.say(b"".join(commands))
    for command in commands:
        if not at_once:
            yield from line.say(command)
        code, words = yield from line.hear()
        if command is told.mail and code != 250:
            raise smtplib.SMTPSenderRefused(code, words, told.sender)
        if command is told.rcpt and code not in (250, 251):
            if _refuses(code) and code != CLOSING:
                with suppress(OSError, smtplib.SMTPException):  # what was refused stays refused
                    yield from _take_back(line, data_was_said=at_once)
                    connection.takes_another = True
            raise smtplib.SMTPRecipientsRefused({told.recipient: (code, words)})
    if code != 354:
        raise smtplib.SMTPDataError(code, words)
    connection.content_may_have_left = True
    yield from line.say(told.content)
    code, words = yield from line.hear()
    if _refuses(code):
        raise smtplib.SMTPDataError(code, words)
    if not 200 <= code <= 299:
        raise smtplib.SMTPException(f"neither accepted nor refused: {code} {words!r}")
    connection.takes_another = True


def _take_back(line: _Line, *, data_was_said: bool) -> Dialogue:
    """End what was begun for a recipient that was refused: the connection is good for another."""
    if data_was_said:
        code, _ = yield from line.hear()
        if code == 354:
            yield from line.say(b".\r\n")
            yield from line.hear()  # some error: what is for nobody is not accepted
    yield from line.say(b"RSET\r\n")
    code, words = yield from line.hear()
    if code != 250:
        raise smtplib.SMTPResponseException(code, words)


def _refuses(code: int) -> bool:
    return 400 <= code <= 599


Heard = TypeVar("Heard")


def _waited_for(dialogue: Generator[int, None, Heard]) -> Heard:
    """What a dialogue comes to over a socket that blocks, where it never asks to wait."""
    while True:
        try:
            next(dialogue)
        except StopIteration as end:
            heard: Heard = end.value
            return heard


class _Line:
    """The two directions of a dialogue, over a socket that need not block.

    What is said must have left, and what is heard be whole, within the connection's timeout: each
    byte may come in time, and a session still be held for ever.
    """

    def __init__(self, connection: smtplib.SMTP) -> None:
        if connection.sock is None:
            raise smtplib.SMTPServerDisconnected("The connection is closed")
        self._connection = connection.sock
        timeout = connection.timeout  # no number where none is set
        self._timeout = timeout if isinstance(timeout, int | float) else math.inf
        self._until = math.inf
        self._heard = b""

    def say(self, words: bytes) -> Dialogue:
        self._until = time.monotonic() + self._timeout
        rest = memoryview(words)
        while rest:
            try:
                rest = rest[self._connection.send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._check_time()
                yield EVENT_WRITE
            except ssl.SSLWantReadError:
                self._check_time()
                yield EVENT_READ
            except OSError as error:
                raise smtplib.SMTPServerDisconnected(f"Connection lost: {error}") from error
            else:
                if rest:
                    self._check_time()

    def hear(self) -> Generator[int, None, Reply]:
        """A whole reply: its code, and its words."""
        self._until = time.monotonic() + self._timeout
        words: list[bytes] = []
        while len(words) < MOST_LINES:
            while (end := self._heard.find(b"\n")) < 0:
                if words or self._heard:
                    self._check_time()
                yield from self._hear_more()
            line, self._heard = self._heard[:end], self._heard[end + 1 :]
            words.append(line[4:].strip())
            if line[3:4] != b"-":
                code = int(line[:3]) if line[:3].isdigit() else -1
                return code, b"\n".join(words)
        raise smtplib.SMTPServerDisconnected("A reply without an end")

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            raise smtplib.SMTPServerDisconnected("The server is too slow")

    def _hear_more(self) -> Dialogue:
        if len(self._heard) > LONGEST_LINE:
            raise smtplib.SMTPServerDisconnected("A line without an end")  # and so no reply
        try:
            heard = self._connection.recv(LONGEST_LINE)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._check_time()
            yield EVENT_READ
        except ssl.SSLWantWriteError:
            self._check_time()
            yield EVENT_WRITE
        except OSError as error:
            raise smtplib.SMTPServerDisconnected(f"Connection lost: {error}") from error
        else:
            if not heard:
                raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
            self._heard += heard


class SmtpBackend(EmailBackend):
    @property
    def content_may_have_left(self) -> bool:
        return bool(getattr(self.connection, "content_may_have_left", True))

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return TellingSMTPOverTLS if self.use_ssl else TellingSMTP

    def open(self) -> bool | None:
        """As Django's, and with the greeting: what the server can do is known from here on."""
        is_new = super().open()
        if is_new and self.connection is not None:
            try:
                self.connection.ehlo_or_helo_if_needed()
            except (OSError, smtplib.SMTPException):
                self.hang_up()
                raise
        return is_new

    def _send(self, email_message: EmailMessage) -> bool:
        connection = self.connection
        assert isinstance(connection, TellingSMTP)  # noqa: S101  (see open)
        sender, *recipients = _envelope(email_message)
        if not recipients:
            return False
        if len(recipients) == 1:
            _waited_for(tell(connection, prepared(email_message)))
            return True
        connection.content_may_have_left = True  # to some of them, whatever is said of others
        sender = return_path_of(email_message) or sender
        connection.sendmail(sender, recipients, written(email_message))
        return True

    def hang_up(self) -> None:
        """Close the connection without a word: in the middle of a dialogue, no word would be
        understood."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def prepared(message: EmailMessage) -> Told:
    """A message to one recipient, as it will be told.

    Raises:
        ValueError: it cannot be written as a mail, or its address not as a command.
    """
    sender, recipient = _envelope(message)
    sender = return_path_of(message) or sender
    content = written(message)
    if (name := IDEMPOTENCY_HEADERS.get(settings.EMAIL_HOST)) and (key := delivery_of(message)):
        content = f"{name}: {key}\r\n".encode() + content
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    return Told(
        sender,
        recipient,
        _command("MAIL FROM:", sender),
        _command("RCPT TO:", recipient),
        content + b".\r\n",
    )


def _envelope(message: EmailMessage) -> list[str]:
    """The sender's address, and the recipients'."""
    encoding = message.encoding or settings.DEFAULT_CHARSET
    return [
        address if PLAIN.fullmatch(address) else _sanitized(address, str(encoding))
        for address in (message.from_email, *message.recipients())
    ]


def _command(verb: str, address: str) -> bytes:
    if PLAIN.fullmatch(address):
        return f"{verb}<{address}>\r\n".encode("ascii")
    return _unusual_command(verb, address)


@lru_cache(maxsize=64)
def _unusual_command(verb: str, address: str) -> bytes:
    words = f"{verb}{smtplib.quoteaddr(address)}"
    if not words.isprintable():
        raise ValueError("an address holds what no command of SMTP can")
    return f"{words}\r\n".encode("ascii")


def written(message: EmailMessage) -> bytes:
    """A message as it goes over the wire, but for the doubling of dots."""
    if isinstance(message, PreparedMessage):
        return message.written()
    return bytes(message.message().as_bytes(linesep="\r\n"))  # type: ignore[call-arg]


@lru_cache(maxsize=64)
def _sanitized(address: str, encoding: str) -> str:
    return str(sanitize_address(address, encoding))


def return_path_of(message: EmailMessage) -> str:
    """The envelope sender of a message; "": its From, as there is no address for bounces."""
    if not settings.BOUNCE_ADDRESS:
        return ""
    named = delivery_of(message)
    return addresses.return_path(uuid.UUID(named)) if named else str(settings.BOUNCE_ADDRESS)


def delivery_of(message: EmailMessage) -> str:
    """The uuid of the delivery that a message is the mail of, "" if of none."""
    return str((getattr(message, "metadata", None) or {}).get("delivery", ""))
