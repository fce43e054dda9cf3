"""make demo, as far as its mails: in a process and a database of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from django.conf import settings


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "demo", "--once", *options],
        cwd=settings.BASE_DIR,
        env=os.environ | {"DEBUG": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_demo_delivers_a_mail_to_each_sample_subscriber() -> None:
    done = demo()
    assert done.returncode == 0, done.stderr
    assert "Hugging Face Daily Papers: 78 read, 78 new" in done.stdout  # over the network
    assert "152 read, 74 new" in done.stdout
    assert "6 mails delivered" in done.stdout


def test_the_demo_takes_your_own_files_however_old(tmp_path: Path) -> None:
    record = '{"title": "A paper of mine", "abstract": "About it.", "listed_on": "2020-02-02"}'
    (tmp_path / "mine.jsonl").write_text(record)
    done = demo("--papers", str(tmp_path / "mine.jsonl"))
    assert done.returncode == 0, done.stderr
    assert "A paper of mine" in done.stdout
    assert "Hugging Face" not in done.stdout


def test_the_demo_says_what_is_wrong_with_a_missing_file() -> None:
    done = demo("--papers", "no-such-file")
    assert done.returncode != 0
    assert "No such file or folder: no-such-file" in done.stderr
