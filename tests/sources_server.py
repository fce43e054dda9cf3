"""Servers as sources are at times: the saved answers of papers.sources.recorded, and evil ones."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

from papers.sources.client import Client
from papers.sources.recorded import Behaviour, Recorded, Saved

USER_AGENT = "Paperround/0.1 (+https://papers.example; mailto:editor@papers.example)"


class Turns:
    """Politeness that only keeps count: which hosts were asked, and how many at once."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.inside = self.most = 0

    @contextmanager
    def __call__(self, host: str) -> Iterator[None]:
        self.hosts.append(host)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            yield
        finally:
            self.inside -= 1


class Kept:
    """Validators in memory."""

    def __init__(self, known: dict[str, tuple[str, str]] | None = None) -> None:
        self.known = known or {}

    def get(self, url: str) -> tuple[str, str]:
        return self.known.get(url, ("", ""))


def asking(
    turns: Turns | None = None,
    validators: Kept | None = None,
    *,
    timeout: float = 20.0,
    silence: float = 10.0,
    max_answer: int = 5_000_000,
) -> Client:
    return Client(
        user_agent=USER_AGENT,
        turn=turns or Turns(),
        validators=validators,
        timeout=timeout,
        silence=silence,
        max_answer=max_answer,
    )


@contextmanager
def serving(*answers: Saved) -> Iterator[Recorded]:
    """Every answer must have been asked for: one that was not is a test of nothing."""
    with Recorded(answers) as server:
        yield server
        assert server.unused == []


def written(*pieces: bytes, pause: float = 0.0) -> Behaviour:
    """Sends exactly these bytes, and hangs up."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            for piece in pieces:
                request.wfile.write(piece)
                request.wfile.flush()
                time.sleep(pause)

    return behave


def dribbled(head: bytes, piece: bytes, *, pause: float = 0.05) -> Behaviour:
    """Sends a head and then a little, again and again, for as long as anybody listens."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            request.wfile.write(head)
            while True:
                request.wfile.write(piece)
                request.wfile.flush()
                time.sleep(pause)

    return behave


def silent(seconds: float) -> Behaviour:
    def behave(request: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)

    return behave


def bomb(megabytes: int) -> bytes:
    """So many megabytes of nothing, packed a thousand times smaller."""
    return gzip.compress(bytes(megabytes * 1_000_000))
