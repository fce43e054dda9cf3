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

from anymail.backends.base_requests import AnymailRequestsBackend
from anymail.exceptions import (
    AnymailAPIError,
    AnymailError,
    AnymailInvalidAddress,
    AnymailRecipientsRefused,
    AnymailSerializationError,
    AnymailUnsupportedFeature,
)
from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.module_loading import import_string
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from newsletter import bounces, http_api
from newsletter.bounces import Class
from newsletter.smtp import (
    CLOSING,
    Dialogue,
    SmtpBackend,
    Told,
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
ACCEPTED = {"sent", "queued"}  # Anymail's words
# What an API says to every mail of ours: the key, the account, and the address that is asked.
OURS = (401, 402, 403, 404, 405)
FOR_NOW = (408, 409, 425, 429)
# Replies to RCPT TO that no server gives for its recipient's sake: we did not log in.
NOT_LOGGED_IN = (530, 535)
# Replies to MAIL FROM that are not about its address: commands out of order, and no room.
NOT_OF_ADDRESS = (503, 552)


class Refused(Exception):
    """The mail server said no. `for_good`: asking again would not help; `cause`: of what it was
    told to be the fault; `of_sender`: it is us whom one reader's server will not have, or, where
    more say so, the only server."""

    def __init__(
        self,
        message: str,
        *,
        for_good: bool,
        cause: Class = Class.NONE,
        of_sender: bool = False,
    ) -> None:
        super().__init__(bounces.clean(message))
        self.for_good = for_good and cause is not Class.SENDER
        self.cause = cause
        self.of_sender = of_sender


class OutcomeUnknown(Exception):
    """The mail may or may not have been accepted."""

    def __init__(self, message: str) -> None:
        super().__init__(bounces.clean(message))


class NoServer(Exception):
    """No connection to the mail server is to be had. `cause`: Class.SENDER, where it is there and
    does not let us in."""

    def __init__(self, message: str, *, cause: Class = Class.NONE) -> None:
        super().__init__(bounces.clean(message))
        self.cause = cause


def connection() -> BaseEmailBackend:
    """One of the backend that is set, not open yet."""
    kind: type[BaseEmailBackend] = import_string(settings.EMAIL_BACKEND)
    return (http_api.telling(kind) if issubclass(kind, AnymailRequestsBackend) else kind)()


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
    status = getattr(message, "anymail_status", None)
    # Of an error that names no recipient it knows, Anymail says that it knows nothing.
    if not accepted or (status and status.status and not ACCEPTED & status.status):
        raise OutcomeUnknown("the mail backend did not say that it accepted the message")
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
    words = f"the server hung up, and then: {_words(failed)}"
    return Refused(words, for_good=False, cause=_cause_at_opening(failed))


def may_have_left(server: BaseEmailBackend) -> bool:
    """Whether the message in hand may have reached the server when its connection broke."""
    return bool(getattr(server, "content_may_have_left", True))


def close(server: BaseEmailBackend) -> None:
    """Leave no half-spoken conversation to the next message: it opens a connection of its own."""
    try:
        server.close()
    except (OSError, smtplib.SMTPException):
        log.debug("closing a broken connection failed", exc_info=True)


# --- What an error says ---------------------------------------------------------------------------


def _fate(error: Exception, *, unknown: bool) -> Exception:
    """What an error says about the message in hand: Refused or OutcomeUnknown; what no provider
    is known to raise is itself, if it may have left.

    Args:
        unknown: whether the message may have reached the server, if the connection broke.
    """
    if isinstance(error, AnymailAPIError):
        return _fate_by_api(error, unknown=unknown)
    if isinstance(error, NEVER_ACCEPTED):
        return Refused(str(error), for_good=True)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        [(code, said), *_] = error.recipients.values()
        return _fate_of_recipient(code, said)
    if isinstance(error, smtplib.SMTPResponseException):
        code, answer = error.smtp_code, error.smtp_error
        if isinstance(error, smtplib.SMTPSenderRefused):
            return _fate_of_sender(code, answer)
        if _knows_it(_text(answer)):
            return OutcomeUnknown(f"the server knows this mail: {_reply(code, answer)}")
        words = f"the mail was refused: {_reply(code, answer)}"
        return Refused(words, for_good=code >= 500, cause=_cause(code, answer, "end of data"))
    broke = isinstance(error, OSError)
    words = f"{'the connection broke' if broke else 'it could not be sent'}: {_words(error)}"
    if not unknown:
        return Refused(words, for_good=False)
    return OutcomeUnknown(words) if broke else error


def _fate_of_sender(code: int, said: bytes | str) -> Refused:
    """Of what a server said to our return path: before it knew whom the mail is for, so it is
    never the reader's fault, and a later try may find it mended."""
    ours = code >= 500 and code not in NOT_OF_ADDRESS
    ours = ours or _cause(code, said) is Class.SENDER
    words = f"our sender was refused: {_reply(code, said)}"
    return Refused(words, for_good=False, cause=Class.SENDER if ours else Class.NONE)


def _fate_of_recipient(code: int, said: bytes | str) -> Refused:
    """Of what a server said to the reader's address.

    Many only say here what they think of the sender, and some repeat what the reader's own server
    told them: one domain's words must not stop the mail to all the others. What they say of the
    sender is tried again; where it is said of many, that stops a run.
    """
    words = f"the recipient was refused: {_reply(code, said)}"
    cause = _cause(code, said, "rcpt to")
    of_sender = cause in (Class.SENDER, Class.POLICY) and bounces.is_of_sender(_text(said))
    if of_sender and code not in NOT_LOGGED_IN:
        return Refused(words, for_good=False, cause=Class.POLICY, of_sender=True)
    return Refused(words, for_good=code >= 500, cause=cause)


def _hung_up(error: Exception) -> bool:
    """Whether the server closed the connection, or says that it does."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return any(code == CLOSING for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code == CLOSING
    return isinstance(error, smtplib.SMTPServerDisconnected)


def _cause(code: int, said: bytes | str, step: str = "") -> Class:
    text = _text(said)
    return bounces.classify(code, "", f"{text} (in reply to {step})" if step else text)


def _cause_at_opening(error: Exception) -> Class:
    """4xx at a login is a server that cannot look the password up now."""
    refused = isinstance(error, smtplib.SMTPAuthenticationError) and error.smtp_code >= 500
    return Class.SENDER if refused else Class.NONE


def _fate_by_api(error: AnymailAPIError, *, unknown: bool) -> Refused | OutcomeUnknown:
    """What a provider's API error says about the message."""
    status = getattr(error, "status_code", None)
    if status is None:
        if unknown and not any(isinstance(one, NO_CONNECTION) for one in _chain(error)):
            return OutcomeUnknown(f"the provider's API did not answer: {_words(error)}")
        return Refused(f"the provider's API was not reached: {_words(error)}", for_good=False)
    if not 400 <= status < 500:
        return OutcomeUnknown(str(error))
    answer = str(getattr(error.response, "text", "") or error)
    if _knows_it(answer):
        return OutcomeUnknown(f"the provider knows this mail: {error}")
    if status in OURS or bounces.is_of_account(answer):
        return Refused(str(error), for_good=False, cause=Class.SENDER)
    return Refused(str(error), for_good=status not in FOR_NOW)  # the rest comes as an event


def _knows_it(answer: str) -> bool:
    """Whether a mail is refused for its key: an earlier try of it was taken, or is about to be."""
    return "idempoten" in answer.lower()


def _text(said: bytes | str) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said


def _reply(code: int, said: bytes | str) -> str:
    return f"{code} {_text(said)}"


def _words(error: BaseException) -> str:
    """What an operator can read of an error: a reply, or what it came from."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"user name and password were refused: {_reply(error.smtp_code, error.smtp_error)}"
    if isinstance(error, smtplib.SMTPResponseException):
        return _reply(error.smtp_code, error.smtp_error)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(_reply(code, said) for code, said in error.recipients.values())
    *_, first = _chain(error) if isinstance(error, AnymailError) else (error,)
    return str(first) or type(first).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
                raise NoServer(_words(error), cause=_cause_at_opening(error)) from error
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
    servers: list[BaseEmailBackend] = [connection() for _ in range(count)]
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
