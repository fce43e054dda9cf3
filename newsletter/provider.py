"""Giving messages to the provider, over one connection or over several at once, and what its
answers say.

A message has one of three fates: accepted, refused, or unknown. Nothing here touches the ledger.
"""

from __future__ import annotations

import logging
import math
import smtplib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from selectors import DefaultSelector
from socket import socket
from typing import Any, Generic, TypeVar

from anymail.exceptions import (
    AnymailAPIError,
    AnymailError,
    AnymailInvalidAddress,
    AnymailRecipientsRefused,
    AnymailSerializationError,
    AnymailUnsupportedFeature,
)
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from newsletter import bounces
from newsletter.bounces import Class
from newsletter.smtp import (
    CLOSING,
    Dialogue,
    SmtpBackend,
    Told,
    may_have_left,
    prepared,
    tell,
    written,
)

log = logging.getLogger(__name__)

NEVER_ACCEPTED = (
    AnymailInvalidAddress,
    AnymailRecipientsRefused,
    AnymailSerializationError,
    AnymailUnsupportedFeature,
)
NO_CONNECTION = (NewConnectionError, ConnectTimeoutError)


class Refused(Exception):
    """The mail server said no. `for_good`: asking again would not help; `cause`: of what it was
    told to be the fault."""

    def __init__(self, message: str, *, for_good: bool, cause: Class = Class.NONE) -> None:
        super().__init__(message)
        self.for_good = for_good and cause is not Class.SENDER
        self.cause = cause


class OutcomeUnknown(Exception):
    """The mail may or may not have been accepted."""


class NoServer(Exception):
    """No connection to the mail server is to be had."""


# --- One message ----------------------------------------------------------------------------------


def hand_over(message: EmailMessage, server: BaseEmailBackend) -> str:
    """Give one message to the provider; returns the provider's id for it, "" if it names none.

    Raises:
        Refused: it was definitely not accepted.
        OutcomeUnknown: it may have been.
    """
    message.connection = server
    try:
        accepted = _send(message, server)
    except Exception as error:
        fate = _fate(error, unknown=may_have_left(server))
        if fate is error:
            raise
        if not isinstance(error, AnymailError):
            close(server)
        raise fate from error
    if not accepted:
        raise OutcomeUnknown("the mail backend did not say that it accepted the message")
    status = getattr(message, "anymail_status", None)
    return str(getattr(status, "message_id", "") or "")


def _send(message: EmailMessage, server: BaseEmailBackend) -> int | None:
    """Send, and where the server hung up before it was told the message, once more.

    Many servers take so many messages on a connection and then close it.
    """
    try:
        return server.send_messages([message])
    except smtplib.SMTPException as error:
        if may_have_left(server) or not _hung_up(error):
            raise
        close(server)
        if failed := _opening(server):
            raise _not_again(failed) from failed
        return server.send_messages([message])


def _not_again(failed: Exception) -> Refused:
    return Refused(f"the server hung up: {failed}", for_good=False)


def close(server: BaseEmailBackend) -> None:
    """Leave no half-spoken conversation to the next message: it opens a connection of its own."""
    try:
        server.close()
    except (OSError, smtplib.SMTPException):
        log.debug("closing a broken connection failed", exc_info=True)


# --- What an error says ---------------------------------------------------------------------------


def _fate(error: Exception, *, unknown: bool) -> Exception:
    """What an error says about the message in hand: Refused or OutcomeUnknown; what no provider
    is known to raise is itself.

    Args:
        unknown: whether the message may have reached the server, if the connection broke.
    """
    if isinstance(error, AnymailAPIError):
        return _fate_by_api(error)
    if isinstance(error, NEVER_ACCEPTED):
        return Refused(str(error), for_good=True)
    if not isinstance(error, smtplib.SMTPException | OSError):
        return error
    if isinstance(error, smtplib.SMTPSenderRefused):
        # The sender's fault and not the reader's: a later try may find it mended.
        cause = _cause(error.smtp_code, error.smtp_error)
        cause = cause if cause is Class.SENDER else Class.NONE
        return Refused(str(error), for_good=False, cause=cause)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        [(code, said), *_] = error.recipients.values()
        return Refused(str(error), for_good=code >= 500, cause=_cause(code, said, "rcpt to"))
    if isinstance(error, smtplib.SMTPResponseException):
        code, words = error.smtp_code, error.smtp_error
        return Refused(str(error), for_good=code >= 500, cause=_cause(code, words, "end of data"))
    broke = f"the dialogue broke: {error!r}"
    return OutcomeUnknown(broke) if unknown else Refused(broke, for_good=False)


def _hung_up(error: Exception) -> bool:
    """Whether the server closed the connection, or says that it does."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return any(code == CLOSING for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code == CLOSING
    return isinstance(error, smtplib.SMTPServerDisconnected)


def _cause(code: int, said: bytes | str, step: str = "") -> Class:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return bounces.classify(code, "", f"{text} (in reply to {step})" if step else text)


def _fate_by_api(error: AnymailAPIError) -> Refused | OutcomeUnknown:
    """What a provider's API error says about the message."""
    status = getattr(error, "status_code", None)
    if status in (401, 403):
        return Refused(str(error), for_good=False, cause=Class.SENDER)  # our key
    if status == 429 or _never_connected(error):
        return Refused(str(error), for_good=False)  # our rate, or their door
    if status is not None and 400 <= status < 500:
        told = bounces.classify(status, "", str(error))
        ours = told if told is Class.SENDER else Class.NONE  # the rest comes as an event
        return Refused(str(error), for_good=True, cause=ours)
    return OutcomeUnknown(str(error))


def _never_connected(error: BaseException | None) -> bool:
    """Whether a request failed before it had a connection to send anything over."""
    while error is not None:
        reason = getattr(error.args[0], "reason", None) if error.args else None
        if isinstance(error, NO_CONNECTION) or isinstance(reason, NO_CONNECTION):
            return True
        error = error.__cause__ or error.__context__
    return False


# --- Several at once ------------------------------------------------------------------------------

# Seconds that the first answer waits for those of other sessions: what is settled in one statement
# costs the database little more than one of them. No reader and no server notices.
TOGETHER = 0.002

Letter = TypeVar("Letter")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a letter: accepted, with the provider's id for it if it names one; or an
    error, which is Refused, OutcomeUnknown or whatever a provider's code may raise."""

    provider_id: str = ""
    error: Exception | None = None


class Sessions(ABC, Generic[Letter]):
    """The connections of one worker to the provider, and what is being told over them.

    A letter is whatever the caller knows a message by; it comes back with its answer.
    """

    def __init__(self, servers: list[BaseEmailBackend]) -> None:
        self._servers = servers
        self._free = deque(servers)

    @property
    @abstractmethod
    def are_talking(self) -> bool: ...

    @abstractmethod
    def prepared(self, message: EmailMessage) -> Any:
        """A message as `begin` takes it; raises what shows that it cannot be written as a mail."""

    @abstractmethod
    def begin(self, server: BaseEmailBackend, letter: Letter, prepared: Any) -> None:
        """Tell a message to a server that was taken; it is free again when the answer is here."""

    @abstractmethod
    def answers(self) -> list[tuple[Letter, Answer]]:
        """Those that have come. Waits for one, or for what may take a while to begin anew."""

    def take(self, most: int) -> list[BaseEmailBackend]:
        """Free servers, their connections open; those that are to be opened are so together.

        Raises:
            NoServer: none can be opened any more.
        """
        taken = [self._free.popleft() for _ in range(min(most, len(self._free)))]
        for server, error in _open_all(taken).items():
            log.error("no connection to the mail server: %s", type(error).__name__)
            close(server)
            taken.remove(server)
            self._servers.remove(server)  # the others go on, if there are any
            if not self._servers:
                raise NoServer(str(error)) from error
        return taken

    def give_back(self, server: BaseEmailBackend) -> None:
        self._free.append(server)

    def close(self) -> None:
        for server in self._servers:
            close(server)


def _open_all(servers: Sequence[BaseEmailBackend]) -> dict[BaseEmailBackend, Exception]:
    """Open those connections that do not stand, together: many take no longer than one that fails.
    Returns what they failed for."""
    closed = [server for server in servers if getattr(server, "connection", True) is None]
    if len(closed) > 1:
        with ThreadPoolExecutor(len(closed)) as pool:
            errors = dict(zip(closed, pool.map(_opening, closed), strict=True))
    else:
        errors = {server: _opening(server) for server in servers}
    return {server: error for server, error in errors.items() if error}


def _opening(server: BaseEmailBackend) -> Exception | None:
    """Open a connection, if it does not stand; returns what it failed for."""
    try:
        server.open()
    except (OSError, smtplib.SMTPException) as error:
        return error
    return None


@contextmanager
def sessions(count: int) -> Iterator[Sessions[Any]]:
    """Of the backend that is set; one thread tells all of them where it is SMTP."""
    servers: list[BaseEmailBackend] = [get_connection() for _ in range(count)]
    if all(isinstance(server, SmtpBackend) for server in servers):
        smtp = SmtpSessions[Any](servers)
        try:
            yield smtp
        finally:
            smtp.close()
        return
    with ThreadPoolExecutor(count) as executor:
        threads = ThreadSessions[Any](servers, executor)
        try:
            yield threads
        finally:
            threads.close()


class ThreadSessions(Sessions[Letter]):
    """Of any backend, each in a thread of its own."""

    def __init__(self, servers: list[BaseEmailBackend], executor: Executor) -> None:
        super().__init__(servers)
        self._executor = executor
        self._talking: dict[Future[str], tuple[Letter, BaseEmailBackend]] = {}

    @property
    def are_talking(self) -> bool:
        return bool(self._talking)

    def prepared(self, message: EmailMessage) -> EmailMessage:
        written(message)
        return message

    def begin(self, server: BaseEmailBackend, letter: Letter, prepared: EmailMessage) -> None:
        self._talking[self._executor.submit(hand_over, prepared, server)] = letter, server

    def answers(self) -> list[tuple[Letter, Answer]]:
        answers = []
        for future in wait(self._talking, return_when=FIRST_COMPLETED).done:
            letter, server = self._talking.pop(future)
            self.give_back(server)
            try:
                answers.append((letter, Answer(future.result())))
            except Exception as error:
                answers.append((letter, Answer(error=error)))
        return answers


@dataclass(slots=True, eq=False)
class _Talk(Generic[Letter]):
    """One message being told over one connection."""

    letter: Letter
    told: Told
    server: SmtpBackend
    socket: socket
    dialogue: Dialogue
    until: float = 0.0  # when the server's silence has been too long, by the monotonic clock
    waits_for: int = 0
    may_be_told_again: bool = True


class SmtpSessions(Sessions[Letter]):
    """Of SMTP, all told by the caller's thread: whichever server is ready is served, and none waits
    for another but while a lost connection is opened again.

    smtplib opens a connection, with all that TLS and a password take; its socket is only borrowed
    for a dialogue.
    """

    def __init__(self, servers: list[BaseEmailBackend]) -> None:
        super().__init__(servers)
        self._selector = DefaultSelector()
        self._talks: set[_Talk[Letter]] = set()
        self._again: list[_Talk[Letter]] = []
        self._answers: list[tuple[Letter, Answer]] = []

    @property
    def are_talking(self) -> bool:
        return bool(self._talks or self._again or self._answers)

    def prepared(self, message: EmailMessage) -> Told:
        return prepared(message)

    def begin(self, server: BaseEmailBackend, letter: Letter, prepared: Told) -> None:
        assert isinstance(server, SmtpBackend)  # noqa: S101  (as `sessions` made them)
        self._begin(server, letter, prepared)

    def _begin(
        self, server: SmtpBackend, letter: Letter, told: Told, *, may_be_told_again: bool = True
    ) -> None:
        connection = server.connection
        line: socket = connection.sock  # type: ignore[union-attr, assignment]
        line.settimeout(0)
        dialogue = tell(connection, told)  # type: ignore[arg-type]
        talk = _Talk(letter, told, server, line, dialogue, may_be_told_again=may_be_told_again)
        self._talks.add(talk)
        self._go_on(talk)

    def answers(self) -> list[tuple[Letter, Answer]]:
        again, self._again = self._again, []
        failed = _open_all([talk.server for talk in again])
        if failed:
            for talk in self._talks:  # it would fare no better, and all would wait for it again
                talk.may_be_told_again = False
        for talk in again:
            if talk.server in failed:
                self._end(talk, Answer(error=_not_again(failed[talk.server])))
            else:
                self._begin(talk.server, talk.letter, talk.told, may_be_told_again=False)
        while self._talks and not self._answers and not self._again:
            self._listen()
        until = time.monotonic() + TOGETHER
        while self._talks and (rest := until - time.monotonic()) > 0:
            self._listen(rest)
        answers, self._answers = self._answers, []
        return answers

    def _listen(self, most: float = math.inf) -> None:
        """Go on with the dialogues that can, as soon as there is one."""
        silence = min(talk.until for talk in self._talks) - time.monotonic()
        seconds = max(min(silence, most), 0)
        for key, _ in self._selector.select(None if seconds == math.inf else seconds):
            self._go_on(key.data)
        if silence <= most:
            for talk in [one for one in self._talks if one.until <= time.monotonic()]:
                self._go_on(talk, TimeoutError("timed out"))

    def _go_on(self, talk: _Talk[Letter], broken_by: Exception | None = None) -> None:
        try:
            waits_for = talk.dialogue.throw(broken_by) if broken_by else next(talk.dialogue)
        except StopIteration:
            self._let_go(talk)
            self._end(talk, Answer())
        except Exception as error:
            self._break(talk, error)
        else:
            timeout = talk.server.timeout
            talk.until = math.inf if timeout is None else time.monotonic() + timeout
            if not talk.waits_for:
                self._selector.register(talk.socket, waits_for, talk)
            elif waits_for != talk.waits_for:
                self._selector.modify(talk.socket, waits_for, talk)
            talk.waits_for = waits_for

    def _break(self, talk: _Talk[Letter], error: Exception) -> None:
        unknown = may_have_left(talk.server)
        self._let_go(talk)
        if _hung_up(error) and not unknown and talk.may_be_told_again:
            self._again.append(talk)
        else:
            self._end(talk, Answer(error=_fate(error, unknown=unknown)))

    def _let_go(self, talk: _Talk[Letter]) -> None:
        """A dialogue that was not brought to an end takes its connection with it."""
        if talk.waits_for:
            self._selector.unregister(talk.socket)
        self._talks.discard(talk)
        if getattr(talk.server.connection, "takes_another", False):
            talk.socket.settimeout(talk.server.timeout)
        else:
            talk.server.hang_up()

    def _end(self, talk: _Talk[Letter], answer: Answer) -> None:
        self._answers.append((talk.letter, answer))
        self.give_back(talk.server)

    def close(self) -> None:
        for talk in [*self._talks]:  # an error elsewhere ends the run: nothing more is told
            self._let_go(talk)
        self._selector.close()
        super().close()
