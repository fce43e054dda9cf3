"""Ranking models: fitted on a schedule, kept as arrays, and the same again when loaded."""

from __future__ import annotations

import io
from datetime import timedelta

import numpy as np
import pytest
from django.db import connections
from django.utils import timezone
from numpy.typing import NDArray
from pytest_django import Settings

from newsletter import candidates, learning
from newsletter.learning import current, fit, fit_due
from newsletter.models import Delivery, Feedback, RankingModel, Subscriber
from newsletter.picks import plan_everybody
from newsletter.recommender.profiles import SparseView
from newsletter.recommender.ranking import Floats, Ranker, Views
from papers.models import Embedding, Paper
from tests.factories import make_frozen_edition, make_interest, make_paper, make_subscriber

pytestmark = pytest.mark.django_db

ONE, OTHER = "a" * 64, "b" * 64
TITLES = [
    f"{subject} {kind}"
    for subject in ("Video diffusion", "Robot manipulation", "Dark matter", "Lattice cryptography")
    for kind in ("transformers", "in the wild", "from few samples", "revisited", "at scale")
]


def make_papers() -> list[Paper]:
    return [make_paper(title) for title in TITLES]


def put_vectors(papers: list[Paper], encoder: str = ONE, dimension: int = 8) -> Floats:
    """Vectors of four subjects, five papers each."""
    draw = np.random.default_rng(0)
    directions = np.repeat(draw.normal(size=(4, dimension)), 5, axis=0)[: len(papers)]
    vectors = directions + 0.1 * draw.normal(size=directions.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    Embedding.objects.bulk_create(
        Embedding(paper=paper, encoder=encoder, vector=vector, text_digest=paper.text_digest)
        for paper, vector in zip(papers, vectors.tolist(), strict=True)
    )
    return np.asarray(vectors, dtype=np.float32)


def ids_of(papers: list[Paper]) -> NDArray[np.int64]:
    return np.array([paper.pk for paper in papers], dtype=np.int64)


def the_coread(papers: list[Paper]) -> set[frozenset[int]]:
    """Which of the papers the newest model knows as read together, by their places."""
    fitted = current()
    places = {paper.pk: place for place, paper in enumerate(papers)}
    rows, columns = fitted.coread.nonzero()
    ids = fitted.coread_ids.tolist()
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {frozenset(places[ids[place]] for place in pair) for pair in pairs}


# --- A version ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoded", [False, True])
def test_what_is_loaded_ranks_as_what_was_fitted(encoded: bool) -> None:
    papers = make_papers()
    vectors = np.zeros((20, 0), dtype=np.float32)
    if encoded:
        vectors = put_vectors(papers)
    model = fit()
    loaded = current()
    assert loaded.pk == model.pk
    assert loaded.encoder == (ONE if encoded else None)
    views, ids = loaded.views_of(ids_of(papers))
    assert ids.tolist() == ids_of(papers).tolist()
    np.testing.assert_allclose(views.dense, vectors, atol=1e-6)

    texts = [paper.text for paper in papers]
    view = SparseView().fit(texts)
    assert (views.sparse != view.transform(texts)).nnz == 0
    same = Views(view.transform(texts), vectors)
    # In the order of learning.fit, the newest first.
    ranker = Ranker().fit(same.of(np.arange(20)[::-1]))
    before = ranker.affinity(same.of(slice(0, 5)), same).values
    after = loaded.ranker.affinity(views.of(slice(0, 5)), views).values
    assert before.shape == after.shape
    np.testing.assert_allclose(before, after, atol=0.02)  # directions are kept as halves


def test_a_version_holds_arrays_and_nothing_that_runs_code() -> None:
    make_papers()
    model = fit()
    with np.load(io.BytesIO(RankingModel.objects.get().arrays), allow_pickle=False) as arrays:
        for name in arrays.files:
            assert arrays[name].dtype.kind in "fiu", name
    assert model.papers == 20
    assert model.parameters["terms"] > 0
    assert model.name == f"{model.fitted_at:%Y-%m-%d}.{model.pk}"


def test_a_file_with_a_pickle_in_it_is_refused() -> None:
    file = io.BytesIO()
    np.savez(file, terms=np.array([{"runs": "code"}], dtype=object))
    model = RankingModel.objects.create(name="evil", arrays=file.getvalue())
    with pytest.raises(ValueError, match="allow_pickle"):
        learning.load(model.pk)


def test_it_holds_nothing_of_a_single_reader() -> None:
    papers = make_papers()
    reader = make_subscriber("alice@example.org", interests=("very private words",))
    make_interest(reader, "examples", example_ids=[papers[0].pk])
    fit()
    with np.load(io.BytesIO(RankingModel.objects.get().arrays)) as arrays:
        assert b"private" not in arrays["terms"].tobytes()
        assert arrays["coread_ids"].size == 0


def test_without_papers_there_is_a_model_all_the_same() -> None:
    assert current().coread_ids.size == 0
    assert RankingModel.objects.get().papers == 0


def test_the_first_plan_fits_the_first_model_and_deliveries_name_theirs() -> None:
    edition = make_frozen_edition(*make_papers())
    make_subscriber()
    plan_everybody(edition, timezone.now())
    first = RankingModel.objects.get()
    assert Delivery.objects.get().ranking_model == first
    second = fit()
    bob = make_subscriber("bob@example.org")
    plan_everybody(edition, timezone.now())
    assert Delivery.objects.get(subscriber=bob).ranking_model == second
    assert Delivery.objects.exclude(subscriber=bob).get().ranking_model == first


def test_old_versions_lose_their_arrays_and_stay_as_a_record() -> None:
    make_papers()
    models = [fit() for _ in range(learning.KEPT + 2)]
    kept = set(RankingModel.objects.exclude(arrays=b"").values_list("pk", flat=True))
    assert kept == {model.pk for model in models[-learning.KEPT :]}
    assert RankingModel.objects.count() == len(models)
    assert current().pk == models[-1].pk


# --- When -----------------------------------------------------------------------------------------


def test_a_model_is_fitted_again_when_it_has_grown_old(settings: Settings) -> None:
    settings.RANKING_REFIT_HOURS = 24
    make_papers()
    first = fit_due(timezone.now())
    assert first is not None
    first.refresh_from_db()
    assert fit_due(first.fitted_at + timedelta(hours=23)) is None
    second = fit_due(first.fitted_at + timedelta(hours=24))
    assert second is not None
    assert second.pk != first.pk


def test_without_papers_nothing_is_due() -> None:
    assert fit_due(timezone.now()) is None
    assert not RankingModel.objects.exists()


def test_another_encoder_makes_a_new_model_due_at_once() -> None:
    papers = make_papers()
    assert fit_due(timezone.now()) is not None
    put_vectors(papers)
    assert fit_due(timezone.now()) is not None
    assert current().encoder == ONE
    assert fit_due(timezone.now()) is None
    Embedding.objects.all().delete()
    put_vectors(papers, OTHER, dimension=5)
    assert current().encoder == ONE
    views, _ = current().views_of(ids_of(papers))
    assert views.dense.shape == (20, 8), "the old model goes on without vectors"
    assert not views.dense.any()
    assert fit_due(timezone.now()) is not None
    assert current().encoder == OTHER


def test_of_two_processes_one_fits() -> None:
    make_papers()
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [learning.LOCK])
            assert fit_due(timezone.now()) is None
            cursor.execute("SELECT pg_advisory_unlock(%s)", [learning.LOCK])
            assert fit_due(timezone.now()) is not None
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [learning.LOCK])
            assert cursor.fetchone() == (True,), "it was given back"
    finally:
        other.close()


# --- What is read together ------------------------------------------------------------------------


def test_what_is_read_together_is_learned_from_examples_and_liked_papers() -> None:
    papers = make_papers()
    reader = make_subscriber()
    examples = make_interest(reader, "examples", example_ids=[papers[0].pk, papers[1].pk])
    liked = make_interest(reader, "liked", words="liked")
    for paper, kind in zip(papers[2:6], ("more", "save", "less", "click"), strict=True):
        Feedback.objects.create(subscriber=reader, interest=liked, paper=paper, kind=kind)
    Feedback.objects.create(subscriber=reader, interest=examples, paper=papers[7], kind="save")
    fit()
    assert the_coread(papers) == {
        frozenset(pair) for pair in [(0, 1), (0, 7), (1, 7), (2, 3)]
    }  # fmt: skip


@pytest.mark.parametrize("state", ["paused", "unsubscribed", "pending"])
def test_who_gets_no_mail_teaches_nothing(state: str) -> None:
    papers = make_papers()
    reader = make_subscriber(state=Subscriber.State(state))
    make_interest(reader, "examples", example_ids=[paper.pk for paper in papers[:3]])
    fit()
    assert the_coread(papers) == set()
    assert candidates._everybodys().size == 0


def test_papers_that_are_gone_are_passed_over() -> None:
    papers = make_papers()
    reader = make_subscriber()
    make_interest(reader, "examples", example_ids=[p.pk for p in papers[:3]] + [10**15])
    edition = make_frozen_edition(*papers[4:])
    fit()
    papers[0].delete()
    day = candidates.today(edition)
    assert day.library.ids.tolist() == [papers[1].pk, papers[2].pk]
    assert np.isfinite(day.library.affinity.values).all()
    plan_everybody(edition, timezone.now())
    assert Delivery.objects.get().paper_ids


def test_a_paper_counted_twice_in_a_library_is_one() -> None:
    papers = make_papers()
    make_interest(make_subscriber(), "twice", example_ids=[papers[0].pk] * 2)
    fit()
    assert current().coread_ids.size == 0


def test_only_the_papers_of_the_most_readers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "MOST_COREAD", 2)
    papers = make_papers()
    for n, places in enumerate([(0, 1, 2), (1, 2), (2, 3)]):
        reader = make_subscriber(f"r{n}@example.org")
        make_interest(reader, "examples", example_ids=[papers[place].pk for place in places])
    fit()
    assert current().coread_ids.tolist() == [papers[1].pk, papers[2].pk]
    assert the_coread(papers) == {frozenset((1, 2))}


def test_readers_of_similar_interests_help_each_other() -> None:
    """Who gave one of two papers as an example hears of what is like the other one."""
    papers = make_papers()
    for n in range(5):
        reader = make_subscriber(f"r{n}@example.org")
        make_interest(reader, "both", example_ids=[papers[0].pk, papers[5].pk])
    alice = make_subscriber("alice@example.org")
    make_interest(alice, "video", example_ids=[papers[0].pk])
    new = make_paper("Robot manipulation with video")
    other = make_paper("Lattice cryptography and keys")
    edition = make_frozen_edition(new, other, *papers[10:15])
    fit()
    day = candidates.today(edition)
    row = day.library.affinity.values[day.library.rows(ids_of([papers[0]]))[0]]
    places = day.pool.paper_ids.tolist()
    assert row[places.index(new.pk)] > row[places.index(other.pk)]
    with_help = row[places.index(new.pk)] - row[places.index(other.pk)]
    alone = day.fitted.ranker.affinity(
        day.fitted.views_of(ids_of([papers[0]]))[0], day.views
    ).values[0]
    assert with_help > alone[places.index(new.pk)] - alone[places.index(other.pk)]


def test_twice_as_many_vectors_are_a_reason_to_fit_again() -> None:
    papers = make_papers()
    put_vectors(papers[:6])
    fit()
    assert fit_due(timezone.now()) is None
    put_vectors(papers[6:])
    refitted = fit_due(timezone.now())
    assert refitted is not None
    assert refitted.parameters["encoded"] == 20
