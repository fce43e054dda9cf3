"""Where the real inputs lie; they stay outside the repository. Knows nothing of Django."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(
    os.environ.get("PAPERROUND_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
ABSENT = f"real inputs are absent: {DATA} (set PAPERROUND_DATA)"
