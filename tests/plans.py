"""What a question costs as PostgreSQL answers it: its rows, and not its time, which differs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext


def analyse(*models: Any) -> None:
    """Let PostgreSQL count these tables' rows now, as it does by itself from time to time."""
    with connection.cursor() as cursor:
        # A table of a test is small enough to be read from end to end, or not, by what earlier
        # tests left in its files.
        cursor.execute("SET LOCAL enable_seqscan = off")
        for model in models:
            cursor.execute(f"ANALYZE {connection.ops.quote_name(model._meta.db_table)}")


def rows_touched(rows: QuerySet[Any, Any]) -> int:
    """How many rows are looked at, at all steps together, to answer `rows`."""
    (plan,) = json.loads(rows.explain(format="json", analyze=True))
    return _touched(plan["Plan"])


@contextmanager
def counted(most: int) -> Iterator[None]:
    """The questions asked within look at so many rows at most, all together."""
    with CaptureQueriesContext(connection) as asked:
        yield
    read = [query["sql"] for query in asked if query["sql"].startswith(("SELECT", "DELETE"))]
    touched = {}
    with connection.cursor() as cursor:
        for sql in read:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
            ((plan,),) = cursor.fetchone()
            touched[sql] = _touched(plan["Plan"])
    assert sum(touched.values()) <= most, max(touched.items(), key=lambda one: one[1])


def _touched(step: dict[str, Any]) -> int:
    each = step["Actual Rows"] + sum(
        count for name, count in step.items() if name.startswith("Rows Removed by")
    )
    own: int = round(each * step["Actual Loops"])
    return own + sum(_touched(below) for below in step.get("Plans", []))
