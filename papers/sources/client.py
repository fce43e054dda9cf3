"""One polite request at a time: asks a source's server, and takes only a whole answer.

A server may be slow, cut off, hostile or someone else (a login page, a captcha, a proxy). So an
answer is bounded in bytes, packed and unpacked, and in time; it is followed to no other host; and
whatever goes wrong becomes a `SourceError` that says whether asking again is of use.
"""

from __future__ import annotations

import re
import socket
import threading
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

from papers.sources import (
    BadAnswer,
    Busy,
    Refused,
    ServerFailed,
    SourceError,
    Unreachable,
    Validator,
)

SILENCE = 30.0  # seconds without a byte until a server is given up
TIMEOUT = 120.0  # seconds for a whole answer
MAX_ANSWER = 16_000_000  # bytes, unpacked; a page of arXiv has 2 to 5 million
MAX_REDIRECTS = 3
MAX_WAIT = 86_400.0  # no server makes us wait for longer than a day
CHUNK = 1 << 16
CLOCK_SKEW = timedelta(days=1)
MAX_VALIDATOR = 1000  # characters

# What also asks for patience: the request took too long to arrive, or came too early.
BUSY = {408, 425, 429, 503}


class Validators(Protocol):
    """Where the caller keeps what servers called their answers, by address."""

    def get(self, url: str) -> tuple[str, str]:
        """ETag and Last-Modified of the answer that was kept; "" where there is none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, unpacked. `at` is when it was given, `wait` as in `Page`."""

    at: datetime
    content: bytes = b""
    status: int = 200
    unchanged: bool = False
    wait: float = 0.0
    next_url: str = ""  # Link: …; rel="next"
    validator: Validator | None = None


class Client:
    """Asks servers, each request within `turn(host)`, where the caller's politeness lives.

    `host` has its port where that is not the scheme's own. `turn` may block, and it is entered for
    every request, redirects included; nothing else here waits or tries again.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        turn: Callable[[str], AbstractContextManager[None]],
        validators: Validators | None = None,
        timeout: float = TIMEOUT,
        silence: float = SILENCE,
        max_answer: int = MAX_ANSWER,
    ) -> None:
        self.user_agent = user_agent
        self.turn = turn
        self.validators = validators
        self.timeout = timeout
        self.silence = silence
        self.max_answer = max_answer

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        *,
        conditional: bool = False,
        also: Collection[int] = (),
        max_answer: int = MAX_ANSWER,
    ) -> Answer:
        """What the server answers with 200, or with one of the statuses in `also`.

        A `conditional` request names the answer that was kept, and may come back `unchanged`. Of
        `max_answer` and the client's own the smaller one counts.

        Raises:
            SourceError: anything else.
        """
        try:
            asked = requests.Request("GET", url, params=dict(params or {})).prepare().url or url
        except (requests.RequestException, ValueError):
            raise Refused(f"“{_shown(url)}” is not an address that can be asked") from None
        headers = {"User-Agent": self.user_agent, "Accept-Encoding": "gzip"}
        if conditional and self.validators:
            etag, last_modified = self.validators.get(asked)
            if etag:
                headers["If-None-Match"] = etag
            elif last_modified:
                headers["If-Modified-Since"] = last_modified
        here = asked
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._ask(here, headers, also, min(max_answer, self.max_answer))
            if isinstance(answer, Answer):
                name = answer.validator
                kept = name and Validator(asked, name.etag, name.last_modified)
                return replace(answer, validator=kept)
            here = _followed(here, answer)
        raise BadAnswer(f"{_shown(asked)} leads from one address to the next")

    def _ask(
        self, url: str, headers: Mapping[str, str], also: Collection[int], limit: int
    ) -> Answer | str:
        """The answer, or the address that the server sends us on to."""
        try:
            parts = urlsplit(url)
            host, secure = parts.hostname, parts.scheme == "https"
            port = parts.port
        except ValueError:
            host, secure, port = None, False, None
        if not host or parts.scheme not in ("http", "https") or parts.username is not None:
            raise Refused(f"“{_shown(url)}” is not an address that can be asked")
        name = host if port in (None, 443 if secure else 80) else f"{host}:{port}"
        with self.turn(name), requests.Session() as session:
            # A session of its own has no cookies and no connection that died meanwhile. Of the
            # environment a proxy is taken, though not to loopback, and no password of ~/.netrc.
            session.trust_env = False
            session.headers.clear()
            deadline = _Deadline()
            session.mount("http://", deadline)
            session.mount("https://", deadline)
            timer = threading.Timer(self.timeout, deadline.pass_)
            timer.daemon = True
            timer.start()
            try:
                with session.get(
                    url,
                    headers=dict(headers),
                    timeout=min(self.silence, self.timeout),
                    proxies={} if _is_loopback(host) else get_environ_proxies(url),
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    answer = self._read(
                        response,
                        url,
                        "If-None-Match" in headers or "If-Modified-Since" in headers,
                        also,
                        limit,
                    )
                if not deadline.passed:
                    return answer
            except (requests.RequestException, HTTPError, OSError, ValueError) as error:
                if not deadline.passed:
                    raise _in_words(error, url) from None
            except SourceError:
                if not deadline.passed:
                    raise
            finally:
                timer.cancel()
        raise Unreachable(f"{_shown(url)} gave no whole answer within {self.timeout:g} seconds")

    def _read(
        self,
        response: requests.Response,
        url: str,
        conditional: bool,
        also: Collection[int],
        limit: int,
    ) -> Answer | str:
        headers, status = response.headers, response.status_code
        at = _moment(headers.get("Date", ""))
        wait = rate_limited(headers, at)
        if status in (301, 302, 303, 307, 308) and headers.get("Location"):
            return str(headers["Location"])
        if status == 304 and conditional:
            return Answer(at, status=status, unchanged=True, wait=wait)
        if status != 200 and status not in also:
            raise _refusal(status, headers, url, at, wait)
        content = b"".join(self._unpacked(response, url, limit))
        etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        return Answer(
            at,
            content,
            status,
            wait=wait,
            next_url=response.links.get("next", {}).get("url", ""),
            validator=(
                Validator(url, etag, modified)
                if (etag or modified) and len(etag) + len(modified) <= MAX_VALIDATOR
                else None
            ),
        )

    def _unpacked(self, response: requests.Response, url: str, limit: int) -> Iterator[bytes]:
        """The content, each step bounded: a kilobyte may unpack to a megabyte."""
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise BadAnswer(f"{_shown(url)} answers in “{encoding[:40]}”, not asked for")
        packed = "gzip" in encoding
        unpack = zlib.decompressobj(wbits=31) if packed else None
        size = received = 0
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            received += len(chunk)
            rest = chunk
            while rest:
                if unpack is None:
                    piece, rest = rest, b""
                else:
                    if unpack.eof:  # a gzip file may be several
                        unpack = zlib.decompressobj(wbits=31)
                    try:
                        piece = unpack.decompress(rest, CHUNK)
                    except zlib.error:
                        raise BadAnswer(f"{_shown(url)} sent a broken gzip") from None
                    rest = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
                size += len(piece)
                if max(size, received) > limit:
                    megabytes = limit / 1_000_000
                    raise BadAnswer(f"{_shown(url)} sent more than {megabytes:g} MB")
                yield piece
        if unpack is not None and not unpack.eof:
            raise BadAnswer(f"{_shown(url)} sent a gzip that is cut off")


# -- Requests -----------------------------------------------------------------------------------


class _Deadline(HTTPAdapter):
    """Ends all that is going on when the time is over, be it a header that never ends.

    A timeout of a socket is for each read of it: a byte now and then keeps that away for ever.
    """

    def __init__(self) -> None:
        self.passed = False
        self._sockets: list[socket.socket] = []
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(proxy, **options)
        self._watch(manager)
        return manager

    def _watch(self, manager: PoolManager) -> None:
        opened = self._opened

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                opened(self.sock)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                opened(self.sock)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def _opened(self, connection: Any) -> None:
        self._sockets.append(connection)
        if self.passed:
            self.pass_()

    def pass_(self) -> None:
        self.passed = True
        for connection in self._sockets:
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _followed(here: str, location: str) -> str:
    """The address a server sends us on to, if it is its own and no less safe."""
    try:
        there = urljoin(here, location)
        old, new = urlsplit(here), urlsplit(there)
        same = old.hostname == new.hostname and (
            (old.scheme, _port(old)) == (new.scheme, _port(new))
            or (old.scheme, _port(old), new.scheme, _port(new)) == ("http", 80, "https", 443)
        )
    except ValueError:
        same, there = False, location
    if not same or new.username is not None:
        raise Refused(
            f"{_shown(here)} has moved to {_shown(there)}, which is not followed: "
            "set the new address if you trust it"
        )
    return there


def _port(parts: SplitResult) -> int | None:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _shown(url: str) -> str:
    """For messages and logs: without query, password or anything a terminal would act on."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, mark, rest = bare.partition("://")
    authority, slash, path = rest.partition("/")
    bare = scheme + mark + authority.rpartition("@")[2] + slash + path
    return "".join(char if char.isprintable() else "�" for char in bare)[:200]


def _in_words(error: Exception, url: str) -> SourceError:
    if isinstance(error, requests.Timeout | ReadTimeoutError | TimeoutError):
        return Unreachable(f"{_shown(url)} keeps silent")
    if isinstance(error, HTTPError):  # from reading the body; before it, requests has its own
        return BadAnswer(f"{_shown(url)} broke off in the middle of its answer")
    if isinstance(error, requests.exceptions.SSLError):
        return Unreachable(f"{_shown(url)} cannot be trusted: its certificate is not accepted")
    if isinstance(error, requests.exceptions.InvalidURL):
        return Refused(f"“{_shown(url)}” is not an address that can be asked")
    return Unreachable(f"{_shown(url)} cannot be reached: {_cause(error)}")


def _cause(error: BaseException) -> str:
    """The innermost reason, without the addresses and objects that libraries wrap it in."""
    while isinstance(inner := error.__cause__ or error.__context__, OSError | HTTPError):
        error = inner
    return getattr(error, "strerror", None) or type(error).__name__


# -- What a server asks of us ---------------------------------------------------------------------


def _refusal(
    status: int, headers: Mapping[str, str], url: str, at: datetime, wait: float
) -> SourceError:
    asked_for = retry_after(headers.get("Retry-After", ""), at)
    patience = asked_for if asked_for is not None else wait or None
    if status in BUSY:
        return Busy(f"{_shown(url)} asks for patience ({status})", retry_after=patience)
    if status >= 500:
        return ServerFailed(f"{_shown(url)} failed ({status})", retry_after=patience)
    if status >= 400:
        return Refused(f"{_shown(url)} refuses ({status})", retry_after=patience)
    return BadAnswer(f"{_shown(url)} answers {status}, which is no answer")


def retry_after(value: str, now: datetime) -> float | None:
    """Seconds from a Retry-After header: a number, or the date when to come back."""
    text = value.strip()
    if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", text, re.ASCII):
        return min(float(text), MAX_WAIT)
    try:
        then = parsedate_to_datetime(text)
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        return min(max((then - now).total_seconds(), 0.0), MAX_WAIT)
    except (ValueError, TypeError, OverflowError):
        return None


def rate_limited(headers: Mapping[str, str], now: datetime) -> float:
    """Seconds until a used-up allowance is filled again; 0 while something is left of it.

    Reads `RateLimit: "api";r=0;t=55` with `RateLimit-Policy: "api";q=500;w=300` (the IETF's draft
    from its version 8 on), `RateLimit: limit=500, remaining=0, reset=55`, and the older single
    headers with or without X-, whose reset may be a moment instead of seconds.
    """
    windows = {name: values.get("w") for name, values in _limits(headers, "RateLimit-Policy")}
    waits = []
    for name, values in _limits(headers, "RateLimit"):
        if (values.get("r", values.get("remaining"))) == 0:
            fallback = windows.get(name, next(iter(windows.values()), None))
            waits.append(values.get("t", values.get("reset", fallback)))
    for prefix in ("RateLimit-", "X-RateLimit-"):
        if _number(headers.get(prefix + "Remaining", "").partition(",")[0]) == 0:
            waits.append(_number(headers.get(prefix + "Reset", "").partition(",")[0]))
    longest = max((wait for wait in waits if wait is not None), default=0.0)
    if longest > 1_000_000_000:  # a moment, in seconds since 1970
        longest -= now.timestamp()
    return min(max(longest, 0.0), MAX_WAIT)


def _limits(headers: Mapping[str, str], header: str) -> Iterator[tuple[str, dict[str, float]]]:
    """The members of a RateLimit header: their name and their numbers."""
    text = headers.get(header, "")[:2000]
    if re.match(r"\s*\w+\s*=", text):  # the older form is one member, with commas between
        text = ";" + text.replace(",", ";")
    for member in text.split(","):
        name, *parameters = member.split(";")
        values = (parameter.partition("=")[::2] for parameter in parameters)
        numbers = ((key.strip().lower(), _number(value)) for key, value in values)
        yield (
            name.strip().strip('"'),
            {key: number for key, number in numbers if number is not None},
        )


def _number(text: str) -> float | None:
    text = text.strip().strip('"')
    return float(text) if re.fullmatch(r"\d{1,12}(?:\.\d{1,9})?", text, re.ASCII) else None


def _moment(date_header: str) -> datetime:
    """When an answer was given; our own clock, where the server's is plainly wrong."""
    now = datetime.now(UTC)
    try:
        then = parsedate_to_datetime(date_header)
    except (ValueError, TypeError, OverflowError):
        return now
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    try:
        return then.astimezone(UTC) if abs(then - now) <= CLOCK_SKEW else now
    except OverflowError:
        return now
