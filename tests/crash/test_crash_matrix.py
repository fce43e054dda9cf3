"""Nobody is lost or doubled, whatever dies when; and docs/crash-matrix.md says what is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import matrix


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[matrix.Row]:
    folder: Path = tmp_path_factory.mktemp("crash")
    return matrix.sweep(folder)


def test_whatever_dies_nobody_is_lost_or_doubled(rows: list[matrix.Row]) -> None:
    assert [row.cells() for row in rows if row.is_wrong] == []


def test_the_matrix_in_docs_is_what_the_sweep_finds(rows: list[matrix.Row]) -> None:
    assert matrix.markdown(rows) in matrix.PAGE.read_text(), (
        "`python -m tests.crash --write` writes docs/crash-matrix.md anew"
    )
