"""`python -m tests.crash [--write]`: print the crash matrix, and keep it in docs/."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import tests.environment  # noqa: F401 - the environment of the tests, before anything reads it
from tests.crash import matrix


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = matrix.sweep(Path(folder))
    print(matrix.markdown(rows))  # noqa: T201
    cases = sum(row.cases for row in rows)
    print(f"{cases} cases, {time.monotonic() - began:.0f} s")  # noqa: T201
    if "--write" in sys.argv:
        matrix.write(rows)
    if any(row.is_wrong for row in rows):
        sys.exit("Something is wrong; see the verdicts.")


if __name__ == "__main__":
    main()
