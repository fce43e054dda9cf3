"""Who holds a lock of a session, and what becomes of it."""

from __future__ import annotations

import pytest
from django.db import connection, connections

from papers.locks import Lock, try_lock

pytestmark = pytest.mark.django_db


def test_a_lock_has_one_holder_and_is_given_back() -> None:
    other = connections.create_connection("default")

    def is_free(number: int) -> bool:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [Lock.SEND, number])
            (got,) = cursor.fetchone()
            if got:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [Lock.SEND, number])
        return bool(got)

    try:
        with try_lock(Lock.SEND, 1) as got:
            assert got
            assert not is_free(1)
            assert is_free(2)
        assert is_free(1)
    finally:
        other.close()


def test_a_holder_whose_machine_is_gone_is_noticed_soon() -> None:
    with try_lock(Lock.ENCODE), connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(setting::int) FROM pg_settings WHERE name LIKE 'tcp_keepalives_%%'"
        )
        (seconds,) = cursor.fetchone()
        # Sixty of silence, and three questions without an answer.
        assert seconds == 60 + 10 + 3
