"""Papers as people name them: what is recognised, and what is given back as unknown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter import references
from tests.factories import make_paper

BIBTEX = r"""
@comment{jabref-meta: databaseType:bibtex;}
@string{neurips = "Advances in Neural Information Processing Systems"}
@article{vaswani2017,
  title   = {Attention Is {All} You Need},
  author  = {Vaswani, Ashish and others},
  journal = {arXiv preprint arXiv:1706.03762},
  year    = {2017},
}
@inproceedings{doe2020, title="A {DOI} of its own", doi = "10.1000/AB\_C(20)30183-5", year=2020}
@misc{eprint, title={An eprint}, eprint={2505.24864v2}, archivePrefix={arXiv}}
@misc{linked, title={A link}, howpublished = {\url{https://arxiv.org/abs/2401.00001}}}
@book{titled,
  booktitle = {Not this},
  title = {G{\"o}del's
           proof}
}
@misc{empty}
"""
RIS = """TY  - JOUR
TI  - Sparse experts
AU  - Alvarez, Ada
DO  - 10.1000/182
UR  - https://doi.org/10.1000/182
ER  -

TY  - JOUR
T1  - Dense experts
UR  - http://arxiv.org/abs/2401.00002v1
ER  -
"""


def named(text: str) -> list[str]:
    """The first identifier of each reference, else its title."""
    return [
        str(next(iter((*ref.arxiv_ids, *ref.dois, *ref.uuids)), "") or ref.title)
        for ref in references.read(text)
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2505.24864", ["2505.24864"]),
        ("arXiv:2505.24864v3", ["2505.24864"]),
        ("arXiv: 2505.24864", ["2505.24864"]),
        ("arXiv:2505.24864v3 [cs.LG]", ["2505.24864"]),
        ("https://arxiv.org/abs/2505.24864v2", ["2505.24864"]),
        ("<https://arxiv.org/pdf/2505.24864.pdf>", ["2505.24864"]),
        ("https://huggingface.co/papers/2505.24864", ["2505.24864"]),
        ("math.GT/0211159", ["math/0211159"]),
        ("10.1000/182", ["10.1000/182"]),
        ("(doi:10.1000/182)", ["10.1000/182"]),
        ("https://doi.org/10.1000/182.", ["10.1000/182"]),
        ("10.1016/S0140-6736(20)30183-5", ["10.1016/s0140-6736(20)30183-5"]),
        ("2505.24864, 2506.00001 10.1000/182;math/0211159",
         ["2505.24864", "2506.00001", "10.1000/182", "math/0211159"]),
        ("- 2505.24864", ["2505.24864"]),
        ("[12] 2505.24864", ["2505.24864"]),
        ("arXiv:2505.24864 A comment on 2401.00001", ["2505.24864"]),
        ("see https://arxiv.org/abs/2505.24864 for more", ["2505.24864"]),
        ("Attention Is All You Need", ["Attention Is All You Need"]),
        ("  \n\n\t", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_line_names_papers_in_every_usual_way(line: str, expected: list[str]) -> None:
    assert named(line) == expected


def test_bibtex_gives_each_entry_s_identifier_or_title() -> None:
    assert named(BIBTEX) == [
        "1706.03762",
        "10.1000/ab_c(20)30183-5",
        "2505.24864",
        "2401.00001",
        "Gödel's proof",
        "",
    ]
    shown = [reference.shown for reference in references.read(BIBTEX)]
    assert shown == [
        "Attention Is All You Need", "A DOI of its own", "An eprint", "A link", "Gödel's proof",
        "empty",
    ]  # fmt: skip


def test_ris_gives_each_entry_s_identifier_and_title() -> None:
    assert named(RIS) == ["10.1000/182", "2401.00002"]
    assert [ref.title for ref in references.read(RIS)] == ["Sparse experts", "Dense experts"]


@given(st.text() | st.text(alphabet='@{}"=,\\\n titledoeprn10./-TY '))
def test_whatever_is_pasted_is_read_without_an_error(text: str) -> None:
    for reference in references.read(text):
        assert len(reference.shown) <= 100


@pytest.mark.parametrize(
    "text",
    [
        "@a{\n" * 100_000,
        "@a{x, title={" + "{" * 400_000,
        "@a{x, " + "title={ " * 60_000,
        "@a{x, " + 'doi="{ ' * 60_000,
        "@a{x, " + "url = " * 60_000,
        "TY  -" + "\nDO  - 10.1/" * 30_000,
        "10.1/" * 80_000,
        "arxiv:" * 80_000,
        " \t" * 200_000,
        "((((" * 100_000,
    ],
    ids=str.split("entries braces titles quotes bare tags dois prefixes blanks brackets"),
)
def test_a_hostile_text_does_not_hold_the_page(text: str) -> None:
    references.read(text)


@pytest.mark.django_db
def test_the_known_are_found_once_in_their_order_and_the_unknown_are_said_back() -> None:
    arxiv = make_paper("By its arXiv id", arxiv_id="2505.24864")
    doi = make_paper("By its DOI", doi="10.1000/182")
    titled = make_paper("Gödel’s Proof: A Title")
    paged = make_paper("By its page")
    text = "\n".join(
        [
            "godel's proof, a title",
            "https://doi.org/10.1000/182",
            f"https://papers.example/paper/{paged.uuid}/ By its page",
            "2505.24864v2",
            "arXiv:2505.24864",
            "9901.00001",
            "Never heard of",
            "Never heard of",
        ]
    )
    found, unknown = references.look_up(references.read(text))
    assert found == [titled.pk, doi.pk, paged.pk, arxiv.pk]
    assert unknown == ["9901.00001", "Never heard of"]


@pytest.mark.django_db
def test_what_is_written_of_a_paper_is_read_as_the_same_paper() -> None:
    papers = [
        make_paper("One, about 2401.00001", arxiv_id="2505.24864"),
        make_paper("Two (10.1000/3)", doi="10.1016/s0140-6736(20)30183-5"),
        make_paper("Three\nof several lines"),
    ]
    make_paper("Not meant", arxiv_id="2401.00001")
    text = "\n".join(references.written(paper) for paper in papers)
    found, unknown = references.look_up(references.read(text))
    assert (found, unknown) == ([paper.pk for paper in papers], [])


@pytest.mark.django_db
def test_a_library_is_looked_up_in_few_queries(django_assert_max_num_queries: object) -> None:
    lines = [f"2505.{n:05} 10.1000/{n}" for n in range(400)] + [f"Title {n}" for n in range(400)]
    with django_assert_max_num_queries(4):  # type: ignore[operator]
        found, unknown = references.look_up(references.read("\n".join(lines)))
    assert (found, len(unknown)) == ([], 1_200)
