"""Rows that an earlier version wrote, after the tables have changed."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from tests.factories import make_frozen_edition

pytestmark = pytest.mark.django_db(transaction=True)

BEFORE = [("newsletter", "0001_initial")]
AFTER = [("newsletter", "0003_widen_terms")]
INSERT = """
WITH reader AS (
  INSERT INTO newsletter_subscriber
    (uuid, address, mailbox_key, name, state, time_zone, send_hour, papers_per_mail)
  SELECT gen_random_uuid(), n, '', '', 'pending', 'UTC', 7, 8 FROM generate_series(0, 2, 2) AS n
  RETURNING id, address::int AS picks
)
INSERT INTO newsletter_delivery
  (uuid, state, skip_reason, paper_ids, sections, terms, reasons, reason_details, attempts,
   provider_id, error, edition_id, subscriber_id)
SELECT gen_random_uuid(), 'planned', '', (ARRAY[5, 6])[:picks], (ARRAY[1, 2])[:picks],
  (ARRAY[.1, .2, .3, .4, .5, .6])[:picks * 3], (ARRAY[1, 2])[:picks],
  (ARRAY['', 'graphs'])[:picks], 0, '', '', %s, reader.id
FROM reader
"""


def migrate(target: list[tuple[str, str]]) -> None:
    MigrationExecutor(connection).migrate(target)


def rows(columns: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM newsletter_delivery ORDER BY cardinality(paper_ids)")
        return list(cursor.fetchall())


def test_deliveries_planned_before_get_the_new_terms() -> None:
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    try:
        migrate(BEFORE)
        with connection.cursor() as cursor:
            cursor.execute(INSERT, [make_frozen_edition().pk])
        migrate(AFTER)
        nothing, picks = rows("terms, interest_ids, sentences")
        assert nothing == ([], [], [])
        terms, interest_ids, sentences = picks
        assert terms == pytest.approx([0, 0, 0, 0, 0.1, 0.2, 0.3, 0, 0, 0, 0, 0.4, 0.5, 0.6])
        assert (interest_ids, sentences) == ([0, 0], [-1, -1])
        migrate(BEFORE)
        assert rows("terms")[1][0] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    finally:
        migrate(newest)
