"""One box: words and meaning fused, filters, identifiers, and typos that still find."""

from __future__ import annotations

import pytest

from papers.search import count_words, search
from tests.factories import make_paper


def titles(query: str, **options: object) -> list[str]:
    return [paper.title for paper in search(query, **options).papers]  # type: ignore[arg-type]


@pytest.mark.django_db
def test_a_paper_is_found_by_any_word_of_its_title_and_abstract() -> None:
    make_paper("Sparse graphs", abstract="We study magnets.")
    make_paper("Dense galaxies", abstract="Nothing about the other.")
    assert titles("graph") == titles("magnet") == ["Sparse graphs"]
    assert set(titles("graphs galaxy")) == {"Sparse graphs", "Dense galaxies"}


@pytest.mark.django_db
def test_a_typo_still_finds_and_says_how_it_was_understood() -> None:
    make_paper("Attention over transformers")
    count_words()
    found = search("atention")
    assert found.corrected == "attention"
    assert [paper.title for paper in found.papers] == ["Attention over transformers"]
