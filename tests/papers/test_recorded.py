"""Saved answers served on loopback, as the demo and a developer have them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from papers.sources import Refused
from papers.sources.recorded import Recorded, Saved, saved_in
from tests.sources_server import asking


def test_the_answer_that_says_most_of_a_request_is_given() -> None:
    answers = [
        Saved("/oai?verb=ListRecords", b"any"),
        Saved("https://oaipmh.arxiv.org/oai?set=cs%3Acs%3ALG&verb=ListRecords", b"one set"),
        Saved("/oai?verb=ListRecords&set=math:math:AG", b"first"),
        Saved("/oai?verb=ListRecords&set=math:math:AG", b"then"),
    ]
    with Recorded(answers) as server:
        client = asking()

        def told(**params: str) -> bytes:
            return client.get(f"{server.url}/oai", {"verb": "ListRecords", **params}).content

        assert told(set="stat:stat:ML") == b"any"
        assert told(set="cs:cs:LG", since="2026-11-20") == b"one set"
        assert server.unused == ["/oai?verb=ListRecords&set=math:math:AG"] * 2
        assert [told(set="math:math:AG") for _ in range(3)] == [b"first", b"then", b"then"]
        assert server.unused == []
        with pytest.raises(Refused, match="404"):
            client.get(f"{server.url}/oai", {"verb": "Identify"})
    assert [asked.path for asked in server.asked] == ["/oai"] * 6


def test_a_folder_of_saved_answers_is_served_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("papers")
    (tmp_path / "day.json").write_text(
        json.dumps({"url": "https://huggingface.co/api/daily_papers", "body_file": "list.txt"})
    )
    (tmp_path / "error.json").write_text(
        json.dumps({"url": "/api/daily_papers?date=x", "body": "no", "status_code": 400})
    )
    command = [sys.executable, "-m", "papers.sources.recorded", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            url = server.stdout.readline().split(" at ")[1].split(",")[0]
            assert asking().get(f"{url}/api/daily_papers").content == b"papers"
            with pytest.raises(Refused):
                asking().get(f"{url}/api/daily_papers", {"date": "x"})
        finally:
            server.terminate()


@pytest.mark.parametrize(
    "content", ["[]", "{", "3", '{"url": "/"}', '{"url": "/", "body_file": "absent"}']
)
def test_a_file_that_is_no_saved_answer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(ValueError, match=r"other\.json is no saved answer"):
        saved_in(tmp_path)
