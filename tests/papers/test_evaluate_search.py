"""The evaluation of search: on papers of its own, by hand-computed ranks, and on real inputs."""

from __future__ import annotations

import json
import random
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from papers import search
from papers.models import Paper, SearchText, SearchWord
from papers.search_evaluation import mistyped
from tests.factories import make_paper
from tests.papers.tiny_encoder import write_encoder

pytestmark = pytest.mark.django_db


def written(folder: Path, *papers: dict[str, object]) -> Path:
    path = folder / "papers.jsonl"
    path.write_text("".join(json.dumps(paper) + "\n" for paper in papers), encoding="utf-8")
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return written(
        tmp_path,
        {"title": "Dark matter", "abstract": "Of the galaxy.", "keywords": ["galaxy", "matter"]},
        {"title": "Sparse graph", "abstract": "Attention.", "keywords": ["attention", "graph"]},
        {"title": "The cat", "abstract": "It sat on paper.", "keywords": ["unheard", "of"]},
    )


def run(path: Path, *options: str) -> str:
    out = StringIO()
    call_command("evaluate_search", str(path), *options, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_keywords_find_their_papers_and_are_not_searched_themselves(
    three: Path, tmp_path: Path, settings: Settings
) -> None:
    settings.ENCODER_DIR = tmp_path / "none"
    figures = tmp_path / "figures.json"
    text = run(three, "--json", str(figures))
    assert "3 papers of 3 (seed 1), encoder none" in text
    report = json.loads(figures.read_text())
    first = report["figures"]["first keyword"]
    assert set(first) == {"TF-IDF", "words", "search"}
    for way in first.values():
        assert way["found"]["mean"] == pytest.approx(2 / 3)
        assert way["reciprocal_rank"]["mean"] == pytest.approx(2 / 3)
        assert way["over_found"]["mean"] == 0
    assert report["typos"]["title"][1] == 1


def test_with_an_encoder_all_ways_are_compared_and_vectors_are_kept(
    three: Path, tmp_path: Path, settings: Settings
) -> None:
    settings.ENCODER_DIR = write_encoder(tmp_path / "encoder")
    settings.VAR_DIR = tmp_path / "var"
    first, second = run(three), run(three, "--sample", "2")
    for way in ("TF-IDF", "words", "meaning", "plain fusion", "search"):
        assert f"\n  {way} " in first
    assert "2 papers of 3" in second
    assert len(list((tmp_path / "var" / "vectors").iterdir())) == 1


def test_the_papers_of_the_installation_stay_as_they_are_and_take_no_part(
    three: Path, tmp_path: Path, settings: Settings
) -> None:
    settings.ENCODER_DIR = tmp_path / "none"
    paper = make_paper("Galaxy galaxy attention")
    search.count_words()
    before = list(SearchWord.objects.order_by("word").values_list())
    assert "3 papers of 3" in run(three)
    assert list(Paper.objects.all()) == [paper]
    assert SearchText.objects.count() == 1
    assert list(SearchWord.objects.order_by("word").values_list()) == before
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_class WHERE relpersistence = 't'")
        assert cursor.fetchone() == (0,)


def test_the_halves_are_disjoint_and_complete(
    three: Path, tmp_path: Path, settings: Settings
) -> None:
    settings.ENCODER_DIR = tmp_path / "none"
    assert "1 papers of 3" in run(three, "--half", "a")
    assert "2 papers of 3" in run(three, "--half", "b")


def test_what_cannot_be_measured_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="There is no"):
        run(tmp_path / "absent")
    with pytest.raises(CommandError, match="keywords"):
        run(written(tmp_path, {"title": "A", "abstract": "B"}))


def test_a_typo_is_one_slip_in_one_word() -> None:
    chance = random.Random(0)
    for _ in range(200):
        text = mistyped("sparse graph of attention", chance)
        words = zip(text.split(), ["sparse", "graph", "of", "attention"], strict=True)
        assert sum(search.slips(typed, word) for typed, word in words) <= 1
    assert mistyped("a to be", chance) == "a to be"
