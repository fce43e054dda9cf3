"""Nobody is lost or doubled, whatever dies when; and docs/crash-matrix.md says what is true."""

from __future__ import annotations

from pathlib import Path

from tests.crash import matrix


def test_whatever_dies_nobody_is_lost_or_doubled_and_the_matrix_in_docs_is_true(
    tmp_path: Path,
) -> None:
    rows = matrix.sweep(tmp_path)
    assert [row.cells() for row in rows if row.is_wrong] == []
    assert matrix.markdown(rows) in matrix.PAGE.read_text(), (
        "`python -m tests.crash --write` writes docs/crash-matrix.md anew"
    )
