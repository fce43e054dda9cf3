"""One polite request at a time: asks a source's server, and takes only a whole answer.

A server may be slow, cut off, hostile or someone else (a login page, a captcha, a proxy). So an
answer is bounded in bytes, packed and unpacked, and in time; it is followed to no other host; and
whatever goes wrong becomes a `SourceError` that says whether asking again is of use.
"""

from __future__ import annotations

import logging
import math
import re
import socket
import threading
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
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
from urllib3.exceptions import HTTPError

from papers.sources import BadAnswer, Busy, Refused, ServerFailed, Unreachable, Validator

log = logging.getLogger(__name__)

SILENCE = 30.0  # seconds without a byte until a server is given up
TIMEOUT = 120.0  # seconds for a whole answer
MAX_ANSWER = 32_000_000  # bytes, unpacked; a page of arXiv has 2 to 5 million
MAX_REDIRECTS = 3
MAX_WAIT = 86_400.0  # no server makes us wait for longer than a day
CHUNK = 1 << 16
CLOCK_SKEW = timedelta(days=1)

# What also asks for patience: the request took too long to arrive, or came too early.
BUSY = {408, 425, 429, 503}


class Validators(Protocol):
    """Where the caller keeps what servers called their answers, by address."""

    def get(self, url: str) -> tuple[str, str]:
        """ETag and Last-Modified of the answer that was kept; "" where there is none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, unpacked. `at` is when it was given, `wait` as in `Page`."""

    url: str
    content: bytes = b""
    status: int = 200
    content_type: str = ""
    unchanged: bool = False
    at: datetime = datetime.min.replace(tzinfo=UTC)
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
    ) -> Answer:
        """What the server answers with 200, or with one of the statuses in `also`.

        A `conditional` request names the answer that was kept, and may come back `unchanged`.

        Raises:
            SourceError: anything else.
        """
        raise NotImplementedError
