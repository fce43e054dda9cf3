"""Saved answers of the sources, served on loopback: for tests, the demo and whoever develops.

    python -m papers.sources.recorded FOLDER --port 8900

Each `*.json` of the folder is one answer: its `url`, of which only path and query count, and its
`body`, or the name of a `body_file` beside it; `status_code` and `headers` where they are not 200
and none. A request is given the answer of its path whose query parameters it all has, most of them
first; of several with equal claims, one after the other, and the last from then on.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

Behaviour = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True, slots=True)
class Saved:
    """An answer; instead of a body, something that writes to the connection itself."""

    url: str
    body: bytes | Behaviour = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.url).path)

    @property
    def params(self) -> set[tuple[str, str]]:
        return set(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came."""

    path: str
    params: dict[str, str]
    headers: dict[str, str]
    at: datetime


class Recorded:
    """A server of saved answers, within `with`; `url` is its address, `asked` what it was asked."""

    def __init__(self, answers: Iterable[Saved], port: int = 0) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self._used: set[int] = set()  # by place in the list
        self._lock = threading.Lock()
        recorded = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                recorded._answer(self)

            def log_message(self, *args: object) -> None:
                """Nothing: `asked` is the log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self) -> None:
        self._thread.join()

    @property
    def unused(self) -> list[str]:
        return [saved.url for place, saved in enumerate(self.answers) if place not in self._used]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        params = parse_qsl(parts.query, keep_blank_values=True)
        with self._lock:
            now = datetime.now(UTC)
            path = unquote(parts.path)
            self.asked.append(Asked(path, dict(params), dict(request.headers), now))
            saved = self._chosen(path, set(params))
        if callable(saved.body):
            request.close_connection = True
            saved.body(request)
            return
        status = 304 if _is_known(saved, request) else saved.status
        body = b"" if status == 304 else saved.body
        request.send_response_only(status)
        for name, value in {"Date": formatdate(usegmt=True), **saved.headers}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _chosen(self, path: str, params: set[tuple[str, str]]) -> Saved:
        fitting = [
            (len(saved.params), place)
            for place, saved in enumerate(self.answers)
            if saved.path == path and saved.params <= params
        ]
        if not fitting:
            return Saved(path, b"nothing is saved for this\n", 404)
        most = max(fitting)[0]
        places = [place for count, place in fitting if count == most]
        place = next((place for place in places if place not in self._used), places[-1])
        self._used.add(place)
        return self.answers[place]


def _is_known(saved: Saved, request: BaseHTTPRequestHandler) -> bool:
    if known := request.headers.get("If-None-Match"):
        return saved.headers.get("ETag") in [tag.strip() for tag in known.split(",")]
    since, changed = request.headers.get("If-Modified-Since"), saved.headers.get("Last-Modified")
    try:
        return bool(
            since and changed and parsedate_to_datetime(changed) <= parsedate_to_datetime(since)
        )
    except ValueError:
        return False


def saved_in(folder: Path) -> list[Saved]:
    """The answers of a folder, by the names of their files.

    Raises:
        ValueError: one of them is not such an answer, and which.
    """
    answers = []
    for path in sorted(folder.glob("*.json")):
        try:
            told = json.loads(path.read_text())
            body = told["body"].encode() if "body" in told else None
            answers.append(
                Saved(
                    told["url"],
                    (folder / told["body_file"]).read_bytes() if body is None else body,
                    told.get("status_code", 200),
                    told.get("headers", {}),
                )
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no saved answer: {error!r}") from None
    return answers


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Serve saved answers on loopback.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8900)
    options = parser.parse_args(arguments)
    with Recorded(saved_in(options.folder), options.port) as server:
        sys.stdout.write(f"{len(server.answers)} saved answers at {server.url}, Ctrl+C ends it.\n")
        sys.stdout.flush()
        try:
            server.wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
