"""manage.py rank_papers: profiles and candidates from files, scores into a file."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from newsletter import encoded_files, ranking_files
from newsletter.libraries import Text, replaced
from papers.encoders import Encoder
from tests.papers.tiny_encoder import write_encoder

PROJECT = Path(__file__).resolve().parents[2]
PAPERS: list[dict[str, Any]] = [
    {"id": 1, "title": "Dark matter over a galaxy", "abstract": None},
    {"id": "2", "title": None, "abstract": "Sparse attention."},
    {"id": 3, "title": "Attention on a graph", "abstract": "Sparse attention of graphs."},
    {"id": "x", "title": "The dark galaxy", "abstract": "Matter on a galaxy."},
    {"id": "empty", "title": None, "abstract": None},
]


@pytest.fixture(autouse=True)
def folders(settings: Settings, tmp_path: Path) -> None:
    settings.ENCODER_DIR = tmp_path / "no encoder"
    settings.VAR_DIR = tmp_path / "var"


def write(path: Path, *lines: object) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def ranked(
    folder: Path, *readers: object, papers: list[dict[str, Any]] | None = None
) -> tuple[list[dict[str, Any]], str]:
    """The lines written for `readers`, and what was said meanwhile."""
    errors = StringIO()
    out = folder / "scores.jsonl"
    call_command(
        "rank_papers",
        papers=write(folder / "papers.jsonl", *(papers or PAPERS)),
        readers=write(folder / "readers.jsonl", *readers),
        out=out,
        stdout=StringIO(),
        stderr=errors,
    )
    lines = out.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], errors.getvalue()


def reader(name: object, liked: list[object], candidates: list[object], **rest: object) -> object:
    return {"reader": name, "liked": liked, "disliked": [], "candidates": candidates, **rest}


def test_what_is_close_to_a_liked_paper_scores_more(tmp_path: Path) -> None:
    (sky, graphs), _ = ranked(
        tmp_path, reader("sky", [1], ["2", 3, "x"]), reader(7, ["2"], [1, 3, "x"])
    )
    assert sky["reader"] == "sky"
    assert sky["scores"]["x"] > max(sky["scores"]["2"], sky["scores"]["3"])
    assert graphs["reader"] == 7
    assert graphs["scores"]["3"] > max(graphs["scores"]["1"], graphs["scores"]["x"])


def test_identifiers_are_compared_as_text(tmp_path: Path) -> None:
    (as_text, as_numbers), errors = ranked(
        tmp_path, reader(1, ["1"], ["3", "x"]), reader(2, [1.0], [3, "x"])
    )
    assert as_text["scores"] == as_numbers["scores"]
    assert list(as_text["scores"]) == ["3", "x"]
    assert "no such paper" not in errors


def test_every_score_is_a_number_even_of_a_paper_without_a_text(tmp_path: Path) -> None:
    lines, _ = ranked(
        tmp_path, reader(1, [1, "empty"], ["empty", "x", 1]), reader(2, ["empty"], [3])
    )
    values = [value for line in lines for value in line["scores"].values()]
    assert len(values) == 4
    assert all(math.isfinite(value) for value in values)


def test_candidates_count_once_and_lists_may_be_missing(tmp_path: Path) -> None:
    lines, _ = ranked(tmp_path, reader(1, [1], ["x", 3, "x"]), {"reader": 1})
    assert [list(line["scores"]) for line in lines] == [["x", "3"], []]


def test_unknown_papers_are_named_and_skipped(tmp_path: Path) -> None:
    (line,), errors = ranked(
        tmp_path, reader(1, [1, "gone"], ["x", "lost"], disliked=[f"d{i}" for i in range(7)])
    )
    assert list(line["scores"]) == ["x"]
    assert "liked: no such paper, skipped: gone" in errors
    assert "candidates: no such paper, skipped: lost" in errors
    assert "disliked: no such paper, skipped: d0, d1, d2, d3, d4 and 2 more" in errors


def test_a_reader_without_a_known_paper_has_zeros(tmp_path: Path) -> None:
    (nobody, other), errors = ranked(
        tmp_path, reader("nobody", ["gone"], [3, "x"]), reader("other", [1], [3, "x"])
    )
    assert nobody["scores"] == {"3": 0, "x": 0}
    assert any(other["scores"].values())
    assert "by 1 of 2 readers" in errors


def test_dislikes_push_away_what_is_close_to_them(tmp_path: Path) -> None:
    lines, _ = ranked(
        tmp_path,
        reader("likes both", [1, "2"], [3, "x"]),
        reader("likes one", [1], [3, "x"]),
        reader("pushes", [1], [3, "x"], disliked=["2"]),
        reader("likes none", [], [3, "x"], disliked=["2"]),
        reader("says nothing of one", [1, "2"], [3, "x"], disliked=["2"]),
    )
    found = {line["reader"]: line["scores"] for line in lines}
    gap = {name: scores["x"] - scores["3"] for name, scores in found.items()}
    assert gap["pushes"] > gap["likes both"]
    assert found["pushes"]["3"] < found["likes one"]["3"]
    assert gap["likes none"] > 0
    assert found["says nothing of one"] == found["likes one"]


def test_unordered_words_are_ranked_too(tmp_path: Path) -> None:
    papers = [
        {"id": i, "text": text}
        for i, text in enumerate(["dark galaxy", "sparse graph", "galaxy dark dark", "graph", ""])
    ]
    (line,), _ = ranked(tmp_path, reader(1, [0], [1, 2, 3, 4]), papers=papers)
    assert max(line["scores"], key=line["scores"].__getitem__) == "2"


def test_readers_in_blocks_score_nearly_as_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = [reader(i, [1 + i % 3], ["x", 2, 3]) for i in range(4)]
    at_once, _ = ranked(tmp_path, *readers)
    monkeypatch.setattr(ranking_files, "MOST_CELLS", 1)
    one_by_one, errors = ranked(tmp_path, *readers)
    assert "ranked for 3 of 4 readers" in errors
    for one, other in zip(at_once, one_by_one, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-3)


def test_many_readers_teach_co_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = [reader("alone", [1], [3, "x"]), *(reader(i, [1, 2], [3, "x"]) for i in range(4))]
    (without, *_), _ = ranked(tmp_path, *readers)
    monkeypatch.setattr(ranking_files, "LEAST_READERS", 4)
    (joined, *_), _ = ranked(tmp_path, *readers)
    # Those who like 1 like 2, which is close to 3.
    assert (
        joined["scores"]["3"] - joined["scores"]["x"]
        > without["scores"]["3"] - without["scores"]["x"]
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "line 2: no JSON"),
        ({"reader": 1, "liked": 3}, "line 2: liked must be a list"),
        ({"reader": 1, "candidates": [[1]]}, "line 2: each of candidates must be a number or a"),
        ({"liked": [1]}, "line 2: reader must be a number or a string"),
    ],
)
def test_bad_profiles_are_refused_with_their_line(
    tmp_path: Path, line: object, message: str
) -> None:
    with pytest.raises(CommandError, match=f"readers.jsonl, {message}"):
        ranked(tmp_path, reader(1, [1], [2]), line)


def test_an_error_leaves_the_former_scores_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = ranked(tmp_path, reader(1, [1], ["x"]))

    def stop(*args: object) -> object:
        yield [0.0]
        raise OSError("the disk is full")

    monkeypatch.setattr(ranking_files, "_scores", stop)
    with pytest.raises(CommandError, match="the disk is full"):
        ranked(tmp_path, reader(1, [1], ["x"]), reader(2, [1], ["x"]))
    (left,) = (tmp_path / "scores.jsonl").read_text().splitlines()
    assert json.loads(left) == before[0]
    assert not list(tmp_path.glob(".scores*"))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"There is no folder .*absent"):
        call_command(
            "rank_papers",
            papers=write(tmp_path / "p", *PAPERS),
            readers=write(tmp_path / "r", reader(1, [1], [2])),
            out=tmp_path / "absent" / "s",
            stderr=StringIO(),
        )


def test_a_replaced_file_has_the_usual_mode(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with replaced(path) as new:
        new.write_text("whole")
    usual = tmp_path / "usual"
    usual.touch()
    assert path.stat().st_mode == usual.stat().st_mode


# -- The dense view --------------------------------------------------------------------------------


def test_an_encoder_is_used_and_asked_once_for_a_text(tmp_path: Path, settings: Settings) -> None:
    profile = reader(1, [1], ["2", 3, "x", "empty"])
    (sparse,), errors = ranked(tmp_path, profile)
    assert "Without the dense view" in errors
    write_encoder(settings.ENCODER_DIR)
    (dense,), errors = ranked(tmp_path, profile)
    assert "encoded 4 of 4 texts" in errors
    assert dense["scores"] != sparse["scores"]
    (again,), errors = ranked(tmp_path, profile)
    assert "encoded" not in errors
    assert again == dense


def test_a_broken_encoder_is_an_error_and_no_encoder_is_a_choice(
    tmp_path: Path, settings: Settings
) -> None:
    write_encoder(settings.ENCODER_DIR)
    (settings.ENCODER_DIR / "model.onnx").write_bytes(b"<html>")
    with pytest.raises(CommandError, match="not an ONNX model"):
        ranked(tmp_path, reader(1, [1], ["x"]))
    call_command(
        *("rank_papers", "--no-encoder"),
        papers=tmp_path / "papers.jsonl",
        readers=tmp_path / "readers.jsonl",
        out=tmp_path / "scores.jsonl",
        stdout=StringIO(),
        stderr=StringIO(),
    )


def test_vectors_are_kept_by_encoder_and_text(tmp_path: Path) -> None:
    one, other = (Encoder(write_encoder(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    said: list[str] = []
    texts = [Text("The cat"), Text(words="cat"), Text(), Text("The cat")]
    vectors = encoded_files.encode(one, texts, tmp_path, said.append)
    np.testing.assert_array_equal(vectors, one.encode(["The cat", "", "", "The cat"]))
    encoded_files.encode(other, texts, tmp_path, said.append)
    encoded_files.encode(one, [*texts, Text("A graph")], tmp_path, said.append)
    assert [sentence.split(",")[0] for sentence in said] == ["encoded 1 of 1 texts"] * 3
    assert {path.stem for path in tmp_path.glob("*.npz")} == {one.identity, other.identity}


def test_a_cache_that_does_not_work_costs_only_time(tmp_path: Path) -> None:
    encoder = Encoder(write_encoder(tmp_path / "encoder"))
    folder = tmp_path / "cache"
    folder.write_text("a file where the folder should be")
    said: list[str] = []
    vectors = encoded_files.encode(encoder, [Text("The cat")], folder, said.append)
    assert vectors.any()
    assert "cannot be written" in said[-1]
    folder.unlink()
    folder.mkdir()
    for damaged in (b"", b"no zip", b"PK\x03\x04 damaged"):
        (folder / f"{encoder.identity}.npz").write_bytes(damaged)
        again = encoded_files.encode(encoder, [Text("The cat")], folder, said.append)
        np.testing.assert_array_equal(again, vectors)
    np.savez(folder / f"{encoder.identity}.npz", keys=np.zeros(3), vectors=np.zeros(3))
    said.clear()
    encoded_files.encode(encoder, [Text("The cat")], folder, said.append)
    assert "no cache of vectors" in said[0]


def test_the_cache_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_files, "MOST_KEPT", 2)
    encoder = Encoder(write_encoder(tmp_path / "encoder"))
    said: list[str] = []
    texts = [Text("cat"), Text("graph"), Text("galaxy")]
    encoded_files.encode(encoder, texts, tmp_path, said.append)
    said.clear()
    encoded_files.encode(encoder, texts[1:], tmp_path, said.append)
    assert not said
    encoded_files.encode(encoder, texts[:1], tmp_path, said.append)
    assert said


# -- Without servers -------------------------------------------------------------------------------


def test_from_the_command_line_it_needs_no_server(tmp_path: Path) -> None:
    """In a copy of nothing but the way in: private servers would be started under its var/."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DATABASE_URL", "REDIS_URL", "DEBUG", "SECRET_KEY")
    }
    # An import that fails stands for servers that cannot be had.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['config.private_servers'] = None\n"
    )
    out = tmp_path / "s.jsonl"
    done = subprocess.run(
        [
            *(sys.executable, "manage.py", "rank_papers", "--no-encoder", "--out", str(out)),
            *("--papers", str(write(tmp_path / "p.jsonl", *PAPERS))),
            *("--readers", str(write(tmp_path / "r.jsonl", reader(1, [1], ["x", 3])))),
        ],
        cwd=PROJECT,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"2 scores for 1 readers in {out}\n"
    assert json.loads(out.read_text())["scores"].keys() == {"x", "3"}
