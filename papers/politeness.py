"""One request at a time to each host, of all processes on all machines, with a gap between two.

The turn of a host is its row's `free_at`: who finds it passed moves it a lease ahead, asks, and
then moves it back to where the next one may ask. That is two short statements, with no transaction
and no session's lock held between them: the one may not be open around network I/O, and the other
is lost, or kept for ever, behind a connection pooler. A process that is killed keeps others waiting
for no longer than the lease. The clock is the database's, so machines need not agree on the time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction

from papers.sources import Busy, SourceError
from papers.sources.client import TIMEOUT

# Seconds from the end of one request to the start of the next. arXiv asks for one request in three
# seconds over one connection, of all its hosts together (info.arxiv.org/help/api/tou.html); the hub
# allows 500 in five minutes. The machine itself, where a demo or a mirror may listen, needs none.
GAPS = {"arxiv.org": 3.0, "huggingface.co": 0.6, "127.0.0.1": 0.0, "localhost": 0.0}
GAP = 3.0  # of a host that nobody has told about
LEASE = TIMEOUT + 30.0  # longer than any request may take
POLL = 0.2


class NotYet(Busy):
    """Another process has the turn, or the host asked for patience: nothing was sent."""


def family(host: str) -> str:
    """What of hosts counts as one: all of arXiv's do, whatever their name and port."""
    bare = host.partition(":")[0]
    for known in GAPS:
        if bare == known or bare.endswith(f".{known}"):
            return known
    return host[:253]


@contextmanager
def turn(host: str, *, patience: float) -> Iterator[None]:
    """Wait for the turn to ask `host`, at most `patience` seconds, and hold it meanwhile.

    What the host asks for in a Retry-After is kept by everybody.

    Raises:
        NotYet: the turn did not come; `retry_after` says when it may.
        RuntimeError: a transaction is open.
    """
    name = family(host)
    lease = _wait(name, patience)
    wait = GAPS.get(name, GAP)
    try:
        yield
    except SourceError as error:
        wait = max(wait, error.retry_after or 0.0)
        raise
    finally:
        _give_back(name, lease, wait)


def rest(host: str, seconds: float) -> None:
    """Let nobody ask `host` for so long: its allowance is used up."""
    _run(
        "UPDATE papers_sourcehost SET free_at = GREATEST(free_at, clock_timestamp() + %s)"
        " WHERE name = %s RETURNING free_at",
        [timedelta(seconds=seconds), family(host)],
    )


def _wait(name: str, patience: float) -> datetime:
    """The end of the lease, which is also the sign that the turn is ours."""
    ends = time.monotonic() + patience
    while (lease := _take(name)) is None:
        left = _run(
            "SELECT EXTRACT(EPOCH FROM free_at - clock_timestamp()) FROM papers_sourcehost"
            " WHERE name = %s",
            [name],
        )
        seconds = max(float(left or 0.0), 0.0)
        remaining = ends - time.monotonic()
        # Longer than a lease is what the host asked for, and will not be less in a moment.
        if remaining <= 0 or seconds > max(remaining, LEASE):
            raise NotYet(
                f"{name} is busy: another request is under way, or it asked for patience; "
                f"try again in {_in_words(seconds)}",
                retry_after=seconds,
            )
        time.sleep(min(max(seconds, 0.01), POLL, remaining))
    return lease


def _take(name: str) -> datetime | None:
    lease: datetime | None = _run(
        "INSERT INTO papers_sourcehost (name, free_at) VALUES (%s, clock_timestamp() + %s)"
        " ON CONFLICT (name) DO UPDATE SET free_at = EXCLUDED.free_at"
        " WHERE papers_sourcehost.free_at <= clock_timestamp() RETURNING free_at",
        [name, timedelta(seconds=LEASE)],
    )
    return lease


def _give_back(name: str, lease: datetime, wait: float) -> None:
    _run(
        "UPDATE papers_sourcehost SET free_at = clock_timestamp() + %s"
        " WHERE name = %s AND free_at = %s RETURNING free_at",
        [timedelta(seconds=wait), name, lease],
    )


def _run(statement: str, values: Sequence[Any]) -> Any:
    # durable: refuses to run within a transaction, which would be open while the host is asked.
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(statement, values)
        row = cursor.fetchone()
    return row[0] if row else None


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(seconds, 1):.0f} seconds"
