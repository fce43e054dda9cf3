"""How close papers are to libraries: each step of the ranking, and what must hold for any texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from newsletter.recommender import ranking
from newsletter.recommender.profiles import SparseView
from newsletter.recommender.ranking import (
    COREAD_MOST,
    HALF,
    NEAR_WEIGHT,
    PUSH,
    Affinity,
    Ranker,
    Views,
    Whitening,
    chance,
    coreading,
    relevance,
    sizes,
)

Floats = NDArray[np.float32]
SUBJECTS = {
    "video": "video diffusion frame clip motion",
    "robot": "robot gripper grasp manipulation arm",
    "star": "galaxy star dwarf halo telescope",
    "code": "lattice cipher key proof signature",
}
WORDS = {name: words.split() for name, words in SUBJECTS.items()}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def unit(rows: NDArray[np.floating]) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), dtype=np.float32)


def texts_on(subject: str, number: int, seed: int = 0) -> list[str]:
    """Texts of three words of their subject and one common one."""
    draw = rng(seed)
    return [" ".join([*draw.choice(WORDS[subject], 3), "method"]) for _ in range(number)]


def an_archive(each: int = 30) -> list[str]:
    return [text for seed, name in enumerate(WORDS) for text in texts_on(name, each, seed)]


def views_of(view: SparseView, texts: Sequence[str], dense: Floats | None = None) -> Views:
    if dense is None:
        dense = np.zeros((len(texts), 0), dtype=np.float32)
    return Views(view.transform(texts), dense)


def fitted(archive: Sequence[str]) -> tuple[SparseView, Ranker]:
    view = SparseView().fit(archive)
    return view, Ranker().fit(views_of(view, archive))


def weights(*libraries: dict[int, float], papers: int) -> csr_matrix:
    matrix = np.zeros((len(libraries), papers), dtype=np.float32)
    for row, library in enumerate(libraries):
        for paper, weight in library.items():
            matrix[row, paper] = weight
    return csr_matrix(matrix)


# --- Whitening ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("papers", "dimensions"), [(40, 6), (4, 9)])
def test_whitening_is_the_ridge_solution_where_all_directions_are_known(
    papers: int, dimensions: int
) -> None:
    draw = rng()
    archive = unit(draw.normal(loc=0.5, size=(papers, dimensions)))
    rows = unit(draw.normal(size=(5, dimensions)))
    ridge = 3.0
    whitening = Whitening(ridge, dimensions).fit(archive)
    share = whitening.project(rows)
    damped = rows @ rows.T - (share * whitening.damping_) @ share.T
    exact = rows @ np.linalg.inv(archive.T @ archive + ridge * np.eye(dimensions)) @ rows.T
    np.testing.assert_allclose(damped, ridge * exact, atol=1e-5)


def test_the_directions_are_orthonormal_and_the_strongest_loses_most() -> None:
    view = SparseView().fit(an_archive())
    whitening = Whitening(ranking.SPARSE_RIDGE, 8).fit(view.transform(an_archive()))
    np.testing.assert_allclose(
        whitening.components_ @ whitening.components_.T, np.eye(8), atol=1e-5
    )
    assert whitening.damping_.argmax() == 0


rows_of = st.tuples(st.integers(0, 9), st.integers(1, 7)).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(-1, 1, width=32))
)


@settings(deadline=None, max_examples=50)
@given(rows_of, st.booleans(), st.floats(0.01, 100))
def test_damping_takes_a_part_and_never_all(rows: Floats, sparse: bool, ridge: float) -> None:
    archive = unit(rows)
    whitening = Whitening(ridge, 4).fit(csr_matrix(archive) if sparse else archive)
    assert np.all((whitening.damping_ >= 0) & (whitening.damping_ < 1))
    assert np.isfinite(whitening.components_).all()
    assert whitening.components_.shape[1] == rows.shape[1]


@pytest.mark.parametrize("archive", [[], ["", ""], ["robot"], ["robot", "robot"]])
def test_an_archive_that_says_nothing_is_fitted_all_the_same(archive: list[str]) -> None:
    view, ranker = fitted(archive)
    affinity = ranker.affinity(views_of(view, ["robot", ""]), views_of(view, ["robot", "star", ""]))
    assert affinity.values.shape == (2, 3 + len(ranker.background_))
    assert np.isfinite(affinity.scores(weights({0: 1}, {1: 1}, papers=2))).all()


# --- Affinity -------------------------------------------------------------------------------------


def test_papers_of_an_example_s_subject_rank_before_all_others() -> None:
    view, ranker = fitted(an_archive())
    examples = [texts_on(name, 1, 100 + n)[0] for n, name in enumerate(WORDS)]
    candidates = [text for n, name in enumerate(WORDS) for text in texts_on(name, 5, 200 + n)]
    scores = ranker.affinity(views_of(view, examples), views_of(view, candidates)).scores(
        csr_matrix(np.eye(4, dtype=np.float32))
    )
    for row in range(4):
        assert scores[row].argmax() // 5 == row
        own = scores[row, 5 * row : 5 * row + 5].mean()
        assert own > np.delete(scores[row], range(5 * row, 5 * row + 5)).mean()


def test_each_row_is_standardised() -> None:
    archive = an_archive()
    view, ranker = fitted(archive)
    examples = texts_on("video", 3, 7)
    values = ranker.affinity(views_of(view, examples), views_of(view, archive)).values
    assert np.all(np.abs(values.mean(axis=1)) < 0.3)
    assert np.all((values.std(axis=1) > 0.3) & (values.std(axis=1) < 3))


def test_what_is_common_to_the_archive_counts_little() -> None:
    view, ranker = fitted(an_archive())
    candidates = ["method", "grasp robot"]
    affinity = ranker.affinity(views_of(view, ["grasp method"]), views_of(view, candidates))
    common, own = affinity.scores(weights({0: 1}, papers=1))[0]
    assert own > common


def test_a_paper_in_the_background_says_nothing_of_chance_for_itself() -> None:
    archive = an_archive()
    view, ranker = fitted(archive)
    example = views_of(view, [archive[0]])
    values = ranker.affinity(example, views_of(view, [archive[1]])).values[0, 1:]
    alike = np.asarray((example.sparse @ ranker.background_.sparse.T).toarray())[0] >= ranking.SELF
    assert alike.any()
    assert np.all(values[alike] == 0)


def test_words_that_say_just_what_a_paper_says_are_close_to_it() -> None:
    """A reader's words are not the paper: one that has but a title may be the same to the word."""
    view, ranker = fitted(an_archive())
    wish, candidates = views_of(view, ["grasp robot"]), views_of(view, ["grasp robot", "robot arm"])
    library = weights({0: 1}, papers=1)
    same, near = ranker.affinity(wish, candidates, texts=True).scores(library)[0]
    assert same > near > 0
    known, _ = ranker.affinity(wish, candidates).scores(library)[0]
    assert known < near


def test_nearness_counts_more_than_in_proportion() -> None:
    view, ranker = fitted(an_archive())
    library, candidates = views_of(view, texts_on("robot", 2)), views_of(view, an_archive(3))
    columns = ranker._columns(candidates.then(ranker.background_))
    plain = ranker._close(library, columns)
    near = ranker.affinity(library, candidates).values
    np.testing.assert_allclose(
        near, plain + NEAR_WEIGHT * np.maximum(plain, 0) ** 2, atol=1e-5, rtol=1e-5
    )
    assert (near >= plain - 1e-6).all()


def test_papers_without_a_dense_vector_are_neutral() -> None:
    """Those that have one gain or lose by it; the others neither."""
    archive = an_archive()
    view = SparseView().fit(archive)
    draw = rng(3)
    directions = unit(draw.normal(size=(4, 16)))
    dense = unit(np.repeat(directions, 30, axis=0) + 0.05 * draw.normal(size=(120, 16)))
    ranker = Ranker().fit(views_of(view, archive, dense))
    # Of texts that say nothing, so that the dense view alone decides.
    given = np.concatenate([directions[:2], np.zeros((1, 16), dtype=np.float32)])
    candidates = views_of(view, ["", "", ""], given)
    values = ranker.affinity(views_of(view, [""], directions[:1]), candidates).values[0]
    assert values[0] > values[2] > values[1]
    assert abs(values[2]) < 0.5
    without = ranker.affinity(views_of(view, ["robot grasp"], given[2:]), candidates).values
    assert np.isfinite(without).all()
    assert np.ptp(without[0, :3]) < 1e-5


def test_the_dense_view_finds_what_shares_no_word() -> None:
    archive = an_archive()
    view = SparseView().fit(archive)
    directions = unit(rng(1).normal(size=(4, 16)))
    dense = np.repeat(directions, 30, axis=0)
    ranker = Ranker().fit(views_of(view, archive, dense))
    affinity = ranker.affinity(
        views_of(view, ["video clip"], directions[:1]),
        views_of(view, ["cipher", "cipher"], directions[[0, 3]]),
    )
    same, other = affinity.scores(weights({0: 1}, papers=1))[0]
    assert same > other


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_no_ranking_is_ever_spoilt_by_rows_of_zeros(data: st.DataObject) -> None:
    archive = an_archive(5)
    view = SparseView().fit(archive)
    text = st.sampled_from(["", "🤖", "и", "robot grasp", "video", "the of and", archive[0]])
    vector = st.sampled_from([[0, 0, 0], [1, 0, 0], [0, -1, 0], [0.6, 0, 0.8]])

    def draw(n: int) -> Views:
        texts = data.draw(st.lists(text, min_size=n, max_size=n))
        dense = np.array(data.draw(st.lists(vector, min_size=n, max_size=n)), dtype=np.float32)
        return views_of(view, texts, dense.reshape(n, 3))

    zeros = np.zeros((len(archive), 3), dtype=np.float32)
    vectors = data.draw(st.sampled_from([zeros, unit(rng().normal(size=zeros.shape))]))
    ranker = Ranker().fit(views_of(view, archive, vectors))
    library, candidates = draw(data.draw(st.integers(0, 4))), draw(data.draw(st.integers(0, 4)))
    n = len(library)
    together = coreading(csr_matrix(np.ones((1, n), dtype=np.float32))) if n else None
    affinity = ranker.affinity(library, candidates, together)
    libraries = csr_matrix(np.vstack([np.ones((1, n)), -np.ones((1, n))]).astype(np.float32))
    scores = affinity.scores(libraries)
    assert scores.shape == (2, len(candidates))
    assert np.isfinite(affinity.values).all()
    assert np.isfinite(scores).all()
    relevant = relevance(scores)
    assert np.all((relevant >= 0) & (relevant < 1))


# --- Libraries ------------------------------------------------------------------------------------


def an_affinity(*rows: Sequence[float], candidates: int) -> Affinity:
    return Affinity(np.array(rows, dtype=np.float32), candidates)


def test_an_empty_library_scores_nothing() -> None:
    affinity = an_affinity([1, 2, 3, -1], candidates=2)
    assert affinity.scores(weights({}, papers=1)).tolist() == [[0, 0]]


def test_a_disliked_paper_pushes_near_misses_away_and_gives_to_none() -> None:
    affinity = an_affinity([2, 2, -2, 0, 0], [3, -3, 0, 0, 0], candidates=3)
    liked, both, disliked = affinity.sums(weights({0: 1}, {0: 1, 1: -1}, {1: -1}, papers=2))
    assert liked[:3].tolist() == [2, 2, -2]
    assert both[:3].tolist() == [2 - 3 * PUSH, 2, -2]
    assert disliked[:3].tolist() == [-3 * PUSH, 0, 0]


def test_newer_judgements_weigh_more() -> None:
    affinity = an_affinity([4, 0, 0, 0], [0, 4, 0, 0], candidates=2)
    new, old = affinity.scores(weights({0: 1, 1: 0.25}, papers=2))[0]
    assert new > old > 0


def test_a_size_is_what_chance_makes_of_independent_papers() -> None:
    assert sizes(weights({0: 3, 1: -4}, {}, papers=2)).tolist() == [5, 0]


def test_chance_is_told_by_what_lies_below_the_median() -> None:
    background = np.array([[-2, -1, 0, 1, 2], [-2, -1, 0, 100, 200]], dtype=np.float32)
    middle, deviation = chance(background, np.ones(2, dtype=np.float32))
    assert middle.tolist() == [0, 0]
    assert deviation == pytest.approx([np.sqrt(2.5)] * 2)


def test_chance_never_deviates_by_nothing() -> None:
    flat = np.zeros((2, 5), dtype=np.float32)
    _, deviation = chance(flat, np.array([0, 4], dtype=np.float32))
    assert deviation.tolist() == [1, 4 * ranking.LEAST_DEVIATION]
    _, deviation = chance(np.zeros((2, 0), dtype=np.float32), np.array([0, 4], dtype=np.float32))
    assert (deviation > 0).all()


def test_relevance_is_zero_at_chance_one_half_at_half_and_below_one() -> None:
    scores = np.array([-3, 0, HALF, 1e9, np.inf, np.nan, -np.inf], dtype=np.float32)
    values = relevance(scores)
    assert values[:3].tolist() == [0, 0, 0.5]
    assert values[5:].tolist() == [0, 0]
    assert np.all((values >= 0) & (values <= 1))
    assert relevance(np.array([ranking.ENOUGH], dtype=np.float32)) == pytest.approx(
        ranking.THRESHOLD
    )


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=20))
def test_relevance_keeps_the_order_of_scores(values: list[float]) -> None:
    scores = np.sort(np.array(values, dtype=np.float32))
    assert np.all(np.diff(relevance(scores)) >= 0)


# --- Co-reading -----------------------------------------------------------------------------------


def read(*libraries: Sequence[int], papers: int) -> NDArray[np.float32]:
    has = weights(*[dict.fromkeys(library, 1.0) for library in libraries], papers=papers)
    return np.asarray(coreading(has).toarray())


def test_papers_read_together_know_each_other_and_none_knows_itself() -> None:
    together = read([0, 1], [1, 2], papers=4)
    assert np.all(np.diag(together) == 0)
    assert np.array_equal(together > 0, (together > 0).T)
    assert together[0].tolist()[2:] == [0, 0]
    assert together[1, 0] > 0 < together[1, 2]


def test_a_paper_read_alone_or_by_nobody_has_no_companions() -> None:
    together = read([0], [1, 2], papers=4)
    assert not together[[0, 3]].any()


def test_a_small_library_says_more_than_a_large_one_and_a_rare_paper_more_than_a_common_one() -> (
    None
):
    together = read([0, 1], [0, 2, 3, 4, 5], papers=6)
    assert together[0, 1] > together[0, 2]
    together = read([0, 1], [0, 2], [2, 3], [2, 4], papers=5)
    assert together[0, 1] > together[0, 2]


def test_only_the_strongest_companions_are_kept() -> None:
    n = COREAD_MOST + 20
    together = read(range(n), [0, n - 1], papers=n)
    assert (np.count_nonzero(together, axis=1) <= COREAD_MOST).all()
    assert together[0].argmax() == n - 1


def test_without_libraries_there_is_nothing_to_co_read() -> None:
    assert coreading(csr_matrix((0, 0), dtype=np.float32)).shape == (0, 0)
    assert coreading(csr_matrix((0, 3), dtype=np.float32)).nnz == 0


def test_co_reading_brings_what_companions_are_close_to() -> None:
    view, ranker = fitted(an_archive())
    library = views_of(view, ["video clip", "grasp arm"])
    candidates = views_of(view, ["grasp robot", "cipher proof"])
    together = coreading(csr_matrix(np.ones((1, 2), dtype=np.float32)))
    only_video = weights({0: 1}, papers=2)
    plain = ranker.affinity(library, candidates).scores(only_video)[0]
    joined = ranker.affinity(library, candidates, together).scores(only_video)[0]
    assert joined[0] - joined[1] > plain[0] - plain[1]
