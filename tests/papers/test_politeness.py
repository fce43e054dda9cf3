"""One request at a time to a host, with a gap, whoever asks: real processes and a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler
from itertools import pairwise

import pytest
from django.conf import settings
from django.db import transaction

from papers import politeness
from papers.models import SourceHost
from papers.politeness import NotYet, family, turn
from papers.sources import Busy
from papers.sources.recorded import Recorded, Saved

pytestmark = pytest.mark.django_db(transaction=True)

GAP = 0.3
TOOK = 0.2  # that the server takes for an answer

ASKS = f"""
import django; django.setup()
import sys
from functools import partial
from papers import politeness
from papers.sources.client import Client
politeness.GAPS["127.0.0.1"] = {GAP}
client = Client(user_agent="Paperround", turn=partial(politeness.turn, patience=30))
for n in range(int(sys.argv[2])):
    client.get(sys.argv[1])
"""


def slowly(request: BaseHTTPRequestHandler) -> None:
    time.sleep(TOOK)
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def asking(url: str, times: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process that asks `url`."""
    command = [sys.executable, "-c", ASKS, url, str(times)]
    return subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment)


@pytest.fixture
def gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(politeness.GAPS, "127.0.0.1", GAP)


def test_two_processes_ask_one_after_the_other_and_leave_the_gap(
    environment: dict[str, str],
) -> None:
    with Recorded([Saved("/slow", slowly)]) as server:
        children = [asking(f"{server.url}/slow", 3, environment) for _ in range(2)]
        assert [child.wait(30) for child in children] == [0, 0]
        starts = [asked.at for asked in server.asked]
    assert len(starts) == 6
    least = min(later - earlier for earlier, later in pairwise(starts))
    # From the end of one to the start of the next.
    assert least >= timedelta(seconds=TOOK + GAP - 0.02)


def test_a_process_that_is_killed_keeps_the_others_waiting_for_a_lease_only(
    environment: dict[str, str],
) -> None:
    def hang(request: BaseHTTPRequestHandler) -> None:
        time.sleep(3)

    with Recorded([Saved("/hang", hang)]) as server:
        child = asking(f"{server.url}/hang", 1, environment)
        while not server.asked:
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
    busy = r"another request is under way.* try again in 2 minutes"
    with pytest.raises(NotYet, match=busy), turn("127.0.0.1", patience=0.3):
        pass
    # Time passes: it is the row alone that knows of the dead.
    SourceHost.objects.update(free_at=datetime.now().astimezone() + timedelta(seconds=0.3))
    with turn("127.0.0.1", patience=2):
        pass


def test_what_a_host_asks_for_is_kept_by_everybody() -> None:
    with pytest.raises(Busy), turn("export.arxiv.org", patience=1):
        raise Busy("patience", retry_after=600)
    asked = time.monotonic()
    with pytest.raises(NotYet) as caught, turn("oaipmh.arxiv.org", patience=100):
        pass
    assert time.monotonic() - asked < 1  # nobody waits that long with a worker in hand
    assert caught.value.retry_after == pytest.approx(600, abs=2)
    with turn("huggingface.co", patience=1):  # another host knows nothing of it
        pass


def test_an_allowance_that_is_used_up_is_waited_for(gap: None) -> None:
    with turn("127.0.0.1:8000", patience=1):
        pass
    politeness.rest("127.0.0.1:8000", 0.8)
    began = time.monotonic()
    with turn("127.0.0.1:8001", patience=2):
        assert time.monotonic() - began >= 0.7


def test_the_turn_is_given_back_after_an_error() -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), turn("127.0.0.1", patience=0.1):
            1 / 0  # noqa: B018


def test_who_was_slower_than_its_lease_takes_nothing_from_the_next() -> None:
    with turn("127.0.0.1", patience=0):
        SourceHost.objects.update(free_at=datetime.now().astimezone())
        lease = politeness._take("127.0.0.1")
    assert SourceHost.objects.get().free_at == lease


def test_nobody_asks_within_a_transaction() -> None:
    with transaction.atomic(), pytest.raises(RuntimeError), turn("127.0.0.1", patience=0):
        pass


def test_all_hosts_of_arxiv_are_one() -> None:
    assert family("oaipmh.arxiv.org") == family("export.arxiv.org:443") == "arxiv.org"
    assert family("notarxiv.org") == "notarxiv.org"
    assert family("mirror.example:8080") == "mirror.example:8080"
    assert politeness.GAPS["arxiv.org"] >= 3
    assert politeness.GAPS["huggingface.co"] >= 300 / 500
