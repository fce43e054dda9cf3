"""Search comes to papers that are there already, and to databases where one may not do much."""

from __future__ import annotations

import importlib
from datetime import date

import pytest
from django.core.management import CommandError
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.state import ProjectState

from papers.models import Paper, SearchText
from papers.search import search
from tests.factories import make_paper


@pytest.mark.django_db(transaction=True)
def test_papers_of_before_are_found_and_the_way_back_is_open() -> None:
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    make_paper("Sparse graphs")
    make_paper("Withdrawn graphs", withdrawn_on=date(2026, 1, 1))
    try:
        MigrationExecutor(connection).migrate([("papers", "0003_sources")])
        Paper.objects.filter(title="Sparse graphs").update(abstract="Of quarks.")
        MigrationExecutor(connection).migrate([("papers", "0004_search")])
        assert [paper.title for paper in search("quarks").papers] == ["Sparse graphs"]
        assert SearchText.objects.count() == 1
        make_paper("More graphs")
        assert len(search("graphs").papers) == 2
    finally:
        MigrationExecutor(connection).migrate(newest)


@pytest.mark.django_db
def test_the_migration_needs_no_rights_where_the_extension_is() -> None:
    _extend_as_a_plain_role()


@pytest.mark.django_db
def test_the_migration_says_what_has_to_be_run() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP EXTENSION pg_trgm CASCADE")
    with pytest.raises(
        CommandError, match=r"run `CREATE EXTENSION pg_trgm;` in the database test_"
    ):
        _extend_as_a_plain_role()


@pytest.mark.django_db(transaction=True)
def test_the_migration_says_that_it_needs_utf8() -> None:
    name = f"{connection.settings_dict['NAME']}_ascii"
    other = connection.copy()
    other.settings_dict["NAME"] = name
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' "
            "TEMPLATE template0"
        )
    try:
        migration = importlib.import_module("papers.migrations.0004_search")
        with (
            other.schema_editor(atomic=False) as editor,
            pytest.raises(CommandError, match=f"{name} has the encoding SQL_ASCII"),
        ):
            migration.check_encoding(None, editor)
    finally:
        other.close()
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name}")


def _extend_as_a_plain_role() -> None:
    """Inside a transaction that is rolled back: the role goes with it."""
    migration = importlib.import_module("papers.migrations.0004_search")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE ROLE plain_searcher; SET LOCAL ROLE plain_searcher")
        with connection.schema_editor(atomic=False) as editor:
            migration.TrigramExtension().database_forwards(
                "papers", editor, ProjectState(), ProjectState()
            )
        cursor.execute("RESET ROLE")
