"""PostgreSQL's advisory locks that have a number: all of them, so that no two share one.

Those of a session and those of a transaction are of one space. Locks of two numbers are of another,
but each of these is the first of them nowhere else either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, unique

from django.db import connection


@unique
class Lock(IntEnum):
    IMPORT = 7_405_001  # one import at a time writes; of a transaction
    ENCODE = 7_405_002  # one process at a time encodes; of a session
    FIT = 7_405_003  # one process at a time fits the ranking; of a session
    HARVEST = 7_405_004  # with a source: who looks whether it is being pulled; of a transaction
    COUNT_WORDS = 7_405_005  # one process at a time counts; of a transaction
    SEND = 7_405_006  # with a number below SEND_PROCESSES: who sends; of a session
    VOTE = 7_405_010  # with a paper's id: one vote at a time is counted; of a transaction


@contextmanager
def try_lock(*key: int) -> Iterator[bool]:
    """Whether this session got the lock, which it has until the end of the block.

    A process that dies gives it back at once. Of a machine that is gone, PostgreSQL would know
    after two hours, by the usual keepalives; the session that asks is looked after closer.
    """
    places = ", ".join(["%s"] * len(key))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('tcp_keepalives_idle', '60', false),"
            " set_config('tcp_keepalives_interval', '10', false),"
            " set_config('tcp_keepalives_count', '3', false)"
        )
        cursor.execute(f"SELECT pg_try_advisory_lock({places})", key)
        (got,) = cursor.fetchone()
    try:
        yield got
    finally:
        # A connection that broke has given the lock back.
        if got and connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT pg_advisory_unlock({places})", key)
