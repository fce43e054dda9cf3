"""The comparison of rankers: its figures by hand and by scikit-learn, its peers, its inputs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.metrics import ndcg_score, roc_auc_score

from newsletter.libraries import LibrariesError, Text, read_libraries, read_papers
from newsletter.recommender import evaluation, peers
from newsletter.recommender.evaluation import (
    Judged,
    Ours,
    Submissions,
    figures,
    judge,
    judge_submissions,
    report,
    resampled,
)
from newsletter.recommender.peers import LinearModel, Recipe, Similarity, Task
from newsletter.recommender.profiles import SparseView
from newsletter.recommender.ranking import Views
from papers.encoders import passage
from papers.intervals import RESAMPLES
from tests.real_inputs import ABSENT, DATA

SKY = ["galaxy", "star", "dark", "matter", "halo", "nebula"]
CELLS = ["cell", "protein", "gene", "enzyme", "tissue", "membrane"]


def views(texts: Sequence[str], dense: int = 0) -> Views:
    vectors = np.zeros((len(texts), dense), dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        row[int(not any(word in text for word in SKY)) : dense][:1] = 1
    return Views(SparseView(pairs=False).fit(list(texts)).transform(list(texts)), vectors)


def make_task(
    known: Sequence[str],
    new: Sequence[str],
    histories: Sequence[Sequence[int]],
    relevant: Sequence[Sequence[int]],
    dense: int = 0,
) -> Task:
    both = views([*known, *new], dense)
    return Task(
        known_texts=known,
        new_texts=new,
        ordered=False,
        known=both.of(slice(0, len(known))),
        new=both.of(slice(len(known), None)),
        histories=[np.array(history, dtype=np.intp) for history in histories],
        relevant=[np.array(places, dtype=np.intp) for places in relevant],
        compared=np.arange(len(histories)),
    )


def two_subjects(size: int = 12, seed: int = 1) -> tuple[list[str], list[str]]:
    """Texts of 4 of the words of one subject, in turn."""
    draw = np.random.default_rng(seed)
    known = [
        " ".join(draw.choice(SKY if i % 2 == 0 else CELLS, 4, replace=False)) for i in range(size)
    ]
    return known, known[: size // 2]


def small_task(dense: int = 0) -> Task:
    known, new = two_subjects()
    return make_task(known, new, [[0, 2, 4], [1, 3, 5]], [[0, 2, 4], [1, 3, 5]], dense)


# -- Figures ---------------------------------------------------------------------------------------


def test_figures_are_those_computed_by_hand() -> None:
    # Of 60 candidates in their order, those at places 1, 3, 12 and 60 are relevant.
    scores = -np.arange(60, dtype=np.float32)[None]
    relevant = np.zeros((1, 60), dtype=np.bool_)
    relevant[0, [0, 2, 11, 59]] = True
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4) + 1 / np.log2(5)
    wins = 56 + 55 + 47 + 0  # others behind each of the four
    found = figures(scores, relevant)
    np.testing.assert_allclose(found, [[1.5 / ideal, 2 / 4, 3 / 4, wins / (4 * 56)]])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 80), st.integers(1, 20))
def test_figures_are_those_of_scikit_learn(seed: int, candidates: int, wanted: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.permutation(candidates).astype(np.float32)[None]
    relevant = np.zeros((1, candidates), dtype=np.bool_)
    relevant[0, draw.permutation(candidates)[: min(wanted, candidates - 1)]] = True
    ndcg, _, _, auc = figures(scores, relevant)[0]
    assert ndcg == pytest.approx(ndcg_score(relevant, scores, k=10))
    assert auc == pytest.approx(roc_auc_score(relevant[0], scores[0]))


def test_in_auc_a_tie_counts_one_half() -> None:
    scores = np.array([[1, 1, 0, 2], [3, 3, 3, 3]], dtype=np.float32)
    relevant = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], dtype=np.bool_)
    np.testing.assert_allclose(evaluation.auc(scores, relevant), [0.5 / 4, 0.5])


def test_a_reader_of_all_candidates_has_the_auc_of_chance() -> None:
    found = figures(np.zeros((1, 3), dtype=np.float32), np.ones((1, 3), dtype=np.bool_))
    np.testing.assert_allclose(found, [[1, 1, 1, 0.5]])


def test_resampling_draws_readers_with_replacement() -> None:
    values = np.random.default_rng(3).normal(2, 1, (400, 2))
    means = resampled(values)
    assert means.shape == (RESAMPLES, 2)
    np.testing.assert_allclose(means.mean(axis=0), values.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(means.std(axis=0), values.std(axis=0) / 20, rtol=0.1)
    np.testing.assert_array_equal(means, resampled(values))


def test_rankers_are_compared_on_the_same_draws_of_readers() -> None:
    ours = np.random.default_rng(0).uniform(0, 1, (50, 4))
    found = report(
        [
            Judged("ours", ours, 0, 0),
            Judged("less", ours - 0.1, 0, 0),
            Judged("half", ours / 2, 0, 0),
        ]
    )
    less, half = found.paired
    difference, ratio = less.difference["ndcg@10"], half.ratio["auc"]
    # Whoever is drawn, the one is 0.1 less and the other is half: intervals without a width,
    assert [difference.mean, difference.low, difference.high] == pytest.approx([0.1] * 3)
    assert [ratio.mean, ratio.low, ratio.high] == pytest.approx([2] * 3)
    # though the figures themselves are uncertain.
    alone = found.metrics["ours"]["ndcg@10"]
    assert alone.high - alone.low > 0.1
    assert alone.low < alone.mean < alone.high


# -- Rankers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", evaluation.recipes(encoded=True), ids=lambda recipe: recipe.name)
def test_every_ranker_tells_two_subjects_apart(recipe: Recipe) -> None:
    found = judge(recipe, small_task(dense=2))
    np.testing.assert_allclose(found.figures[:, 3], 1)
    assert found.ms_per_reader >= 0


def test_the_centroid_is_the_cosine_with_the_sum() -> None:
    task = small_task()
    known, new = task.features
    expected = np.asarray(known[[0, 2, 4]].sum(axis=0)) @ new.T.toarray()
    scores = Similarity("centroid", peers.flat).prepare(task)(np.array([0]))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_zotero_arxiv_daily_weighs_newer_papers_more() -> None:
    np.testing.assert_allclose(peers.recency(10)[[0, 9]], [1, 0.5])
    known, new = two_subjects()
    task = make_task(known, new, [[0, 1], [1, 0]], [[0], [1]])
    newest_of_sky, newest_of_cells = Similarity("zotero", peers.recency).prepare(task)(np.arange(2))
    assert newest_of_sky[0] > newest_of_sky[1]
    assert newest_of_cells[1] > newest_of_cells[0]


def test_a_linear_model_learns_from_all_others_or_from_a_sample_of_them() -> None:
    seen: list[tuple[int, float]] = []

    class Spy:
        coef_ = np.zeros((1, 0))

        def fit(self, X: csr_matrix, y: np.ndarray) -> None:
            seen.append((X.shape[0], float(y.sum())))
            self.coef_ = np.zeros((1, X.shape[1]))

    task = small_task()
    LinearModel("all", lambda c: Spy(), 1.0).prepare(task)(np.array([0]))
    LinearModel("some", lambda c: Spy(), 1.0, negatives=5).prepare(task)(np.array([0]))
    assert seen == [(12, 3), (8, 3)]


def test_a_reader_of_the_whole_archive_gets_no_model_and_no_error() -> None:
    known, new = two_subjects(4)
    task = make_task(known, new, [[0, 1, 2, 3]], [[0]])
    for recipe in evaluation.recipes(encoded=False):
        assert np.isfinite(recipe.prepare(task)(np.array([0]))).all()


def test_the_peers_vocabulary_is_that_of_arxiv_sanity_lite() -> None:
    words = [f"rare{i} often{i % 20} everywhere" for i in range(200)]
    task = make_task(words, words[:1], [], [])
    # Of 200 papers, a term counts in 5 to 20 of them.
    assert task.features[0].shape == (200, 20)


def test_ours_without_a_view_does_not_see_it() -> None:
    task = small_task(dense=2)
    readers = np.arange(2)
    sparse = Ours("sparse", dense=False, coread=False).prepare(task)(readers)
    blind = Ours("sparse", coread=False).prepare(small_task())(readers)
    np.testing.assert_allclose(sparse, blind, atol=1e-5)


def test_co_reading_is_learned_from_the_libraries_of_all_readers() -> None:
    known, new = two_subjects()
    histories: list[list[int]] = [[0], *([[0, 1]] * 4)]
    task = make_task(known, new, histories, [[1]] * 5)
    (alone,) = Ours(coread=False).prepare(task)(np.array([0]))
    (joined,) = Ours().prepare(task)(np.array([0]))
    # The reader of 0 alone is brought nearer to the subject of 1, which all others read with it.
    cells, sky = [1, 3, 5], [0, 2, 4]
    assert joined[cells].mean() - joined[sky].mean() > alone[cells].mean() - alone[sky].mean()


def test_slow_recipes_in_processes_find_what_they_find_in_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, new = two_subjects()
    task = make_task(known, new, [[0, 2], [1, 3]] * 8, [[0], [1]] * 8)
    recipe = LinearModel("svm", peers.svm, 0.1)
    alone = judge(recipe, task)
    monkeypatch.setattr(evaluation, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(evaluation, "_cores", lambda: 2)
    told: list[tuple[str, int, int]] = []
    together = judge(recipe, task, lambda *progress: told.append(progress))
    np.testing.assert_array_equal(alone.figures, together.figures)
    assert told == [("svm", 8, 16), ("svm", 16, 16)]


def test_equal_scores_are_ordered_by_chance_and_not_by_the_file() -> None:
    class Nothing:
        name, slow = "nothing", False

        def prepare(self, task: Task) -> peers.Scorer:
            return lambda readers: np.zeros((len(readers), 400), dtype=np.float32)

    words = ["word"] * 400
    task = make_task(words[:1], words, [[0]], [list(range(10))])
    assert judge(Nothing(), task).figures[0, 0] < 0.5


# -- Submissions -----------------------------------------------------------------------------------


def submissions(authors: Sequence[frozenset[str]] | None = None) -> Submissions:
    """Six days of one paper about the sky, which a submits, and three about cells."""
    draw = np.random.default_rng(2)
    texts = [
        " ".join(draw.choice(SKY if i % 4 == 0 else CELLS, 4, replace=False)) for i in range(24)
    ]
    return Submissions(
        views=views(texts),
        days=np.arange(24) // 4,
        submitters=["a" if i % 4 == 0 else "b" if i == 1 else "" for i in range(24)],
        authors=authors or [frozenset()] * 24,
    )


def test_later_days_are_ranked_from_earlier_submissions() -> None:
    found = judge_submissions(submissions())
    assert found is not None
    assert (found.submitters, found.days) == (1, 5)  # b is no reader; a's first day has no history
    assert found.auc["sparse"].mean == 1
    assert found.auc["authors alone"].mean == 0.5
    assert "dense" not in found.auc


def test_authors_of_earlier_submissions_are_followed() -> None:
    authors = [frozenset({"ada"} if i in (0, 4, 21) else {str(i)}) for i in range(24)]
    found = judge_submissions(submissions(authors))
    assert found is not None
    # Day 1 is found; on day 5 another paper of hers is not a's; on the others nothing is known.
    assert found.auc["authors alone"].mean == pytest.approx((1 + 0.5 * 3 + 1 / 3) / 5)


def test_without_a_frequent_submitter_there_is_no_report() -> None:
    few = submissions()
    assert (
        judge_submissions(
            Submissions(few.views, np.zeros(24, dtype=np.int64), few.submitters, few.authors)
        )
        is None
    )


# -- Files -----------------------------------------------------------------------------------------


def write(path: Path, *lines: object) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def test_papers_are_read_from_json_lines_with_titles_and_abstracts(tmp_path: Path) -> None:
    found = read_papers(
        write(
            tmp_path / "p.jsonl",
            {"id": 1, "title": "One", "abstract": None},
            "",
            {"id": "b", "title": None, "abstract": "Two."},
            {"id": 3.0},
        )
    )
    assert found.ids == ["1", "b", "3"]
    assert found.texts == [Text("One"), Text(abstract="Two."), Text()]
    assert found.ordered


def test_words_without_an_order_make_no_pairs(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": 7, "text": "deep deep learning"}\n'))
    found = read_papers(path)
    assert not found.ordered
    assert str(found.texts[0]) == "deep deep learning"


def test_papers_are_read_from_csv_with_their_times(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.csv",
        "\ufeffid,title,abstract,first_posted_at",
        '5,"A, b","Two\nlines",2004-11-04 02:25:05',
        "6,C,,",
    )
    found = read_papers(path)
    assert found.ids == ["5", "6"]
    assert found.texts[0] == Text("A, b", "Two\nlines")
    assert [moment and moment.isoformat() for moment in found.times] == [
        "2004-11-04T02:25:05+00:00",
        None,
    ]


def test_rows_of_unknown_papers_are_counted_and_left_out(tmp_path: Path) -> None:
    papers = read_papers(
        write(tmp_path / "p.jsonl", {"id": 1, "text": "a"}, {"id": 2, "text": "b"})
    )
    path = write(tmp_path / "l.csv", "paper,reader", "2,x", "9,x", "1,x", "2,x", "9,y")
    found = read_libraries(path, papers)
    assert found.papers == {"x": [1, 0], "y": []}
    assert found.unknown == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": 1, "text": "a"}', "{oops"], "line 2: no JSON"),
        (['{"id": 1, "text": "a"}', "[1]"], "line 2: must be a JSON object"),
        (['{"id": 1, "text": "a"}', '{"id": "1", "text": "a"}'], "line 2: paper 1 is in line 1"),
        (['{"text": "a"}'], "line 1: id must be a number or a string"),
        (['{"id": true, "text": "a"}'], "line 1: id must be"),
        (['{"id": NaN, "text": "a"}'], "line 1: no JSON: NaN is no number"),
        (['{"id": 1, "title": ["a"]}'], "line 1: title must be a string or null"),
        (["id,title", "1,a,b"], "line 2: must have 2 fields"),
        (["paper,title", "1,a"], "line 1: no column id"),
        (["id,first_posted_at", "1,yesterday"], "line 2: first_posted_at “yesterday” is no time"),
        (["id,title"], "there is no paper in it"),
        ([""], "line 1: no column id"),
    ],
)
def test_what_is_wrong_with_papers_is_said_with_its_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = write(tmp_path / "papers", *lines)
    with pytest.raises(LibrariesError, match=message) as raised:
        read_papers(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (gzip.compress(b'{"id": 1, "text": "a"}' * 99, mtime=0)[:-20], "damaged"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "papers"
    path.write_bytes(content)
    with pytest.raises(LibrariesError, match=message):
        read_papers(path)


# -- The command -----------------------------------------------------------------------------------


@pytest.fixture
def made_up(tmp_path: Path) -> dict[str, Path]:
    """40 papers in the order of time, of two subjects, and readers of one subject each."""
    known, _ = two_subjects(40)
    papers = write(
        tmp_path / "papers.csv",
        "id,title,abstract,first_posted_at",
        *(f"{i},{text},,2020-01-{1 + i // 2:02} 00:00:00" for i, text in enumerate(known)),
    )
    libraries = write(
        tmp_path / "libraries.csv",
        "reader,paper",
        *(f"r{i % 6},{paper}" for i in range(6) for paper in range(i % 2, 40, 2)),
        "idle,0",
        "idle,99",
    )
    new = write(tmp_path / "new.txt", *(str(i) for i in range(36, 40)), "77")
    return {"papers": papers, "libraries": libraries, "new": new, "json": tmp_path / "out.json"}


def run(*arguments: object, **files: Path) -> tuple[str, str]:
    out, errors = StringIO(), StringIO()
    options = [item for name, path in files.items() for item in (f"--{name}", str(path))]
    call_command(
        "evaluate_ranking",
        *options,
        *(str(argument) for argument in arguments),
        "--no-encoder",
        stdout=out,
        stderr=errors,
    )
    return out.getvalue(), errors.getvalue()


def test_the_command_prints_and_writes_every_figure(made_up: dict[str, Path]) -> None:
    text, errors = run(
        *("--new-papers", made_up["new"], "--json", made_up["json"]),
        papers=made_up["papers"],
        libraries=made_up["libraries"],
    )
    written = json.loads(made_up["json"].read_text())
    names = [ranker["name"] for ranker in written["rankers"]]
    assert names == [recipe.name for recipe in evaluation.recipes(encoded=False)]
    for ranker in written["rankers"]:
        assert ranker["auc"] == pytest.approx(1)
        assert {"ndcg@10", "recall@10", "recall@50", "ms_per_reader"} <= ranker.keys()
        assert ranker["name"] in text
    assert written["readers"] == 6
    assert written["unknown_rows"] == 1
    assert "36 known and 4 new; 7 libraries (1 rows name other papers" in text
    assert "1 ids of" in text
    assert "ours: 6 readers" in errors


def test_split_by_time_new_are_the_papers_from_the_time_of_the_eightieth_percent(
    made_up: dict[str, Path],
) -> None:
    files = {name: made_up[name] for name in ("papers", "libraries")}
    text, _ = run("--split-time", "--rankers", "ours", **files)
    # The time at place 32 of 40; papers 32 and 33 share it.
    assert "32 known and 8 new" in text
    text, _ = run("--rankers", "ours", **files)
    assert "32 known and 8 new" in text
    assert "by chance" in text


def test_halves_share_no_reader_and_a_sample_is_no_larger_than_asked(
    made_up: dict[str, Path],
) -> None:
    files = {name: made_up[name] for name in ("papers", "libraries")}
    for arguments in (["--half", "a"], ["--half", "b"], ["--readers", "3"]):
        text, _ = run("--split-time", "--rankers", "tfidf centroid", *arguments, **files)
        assert "Compared on 3 of 6 readers" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name --papers and --libraries, or --submitters"),
        (["--papers", "absent", "--libraries", "absent"], "No such file.*absent"),
        (["--submitters", "x", "--readers", "3"], "--submitters has no use for --readers"),
        (["--submitters", "nowhere"], "nowhere: there is no paper with a day in it"),
        (["--papers", "PAPERS", "--libraries", "PAPERS"], "no column reader, paper"),
        (["@", "--min-known", "99"], "No reader has at least 99 known papers"),
        (["@", "--min-known", "0"], "must be at least 1"),
        (["@", "--rankers", "best"], "No ranker best. There are: ours, sparse, tfidf centroid"),
        (["@", "--new-papers", "EMPTY"], "no identifier"),
        (["@", "--new-papers", "OTHERS"], "both new papers and known ones"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    made_up: dict[str, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    names = {
        "PAPERS": str(made_up["papers"]),
        "EMPTY": str(write(tmp_path / "empty", "")),
        "OTHERS": str(write(tmp_path / "others", "x")),
    }
    if arguments[:1] == ["@"]:
        files = ["--papers", str(made_up["papers"]), "--libraries", str(made_up["libraries"])]
        arguments = files + arguments[1:]
    with pytest.raises(CommandError, match=message):
        run(*(names.get(argument, argument) for argument in arguments))


def test_split_by_time_wants_a_time_of_every_paper(made_up: dict[str, Path]) -> None:
    with made_up["papers"].open("a") as file:
        file.write("x,untimed,,\n")
    with pytest.raises(CommandError, match="paper x has no first_posted_at"):
        run("--split-time", papers=made_up["papers"], libraries=made_up["libraries"])


def test_submitters_are_read_from_saved_days(tmp_path: Path) -> None:
    given, draw = submissions(), np.random.default_rng(2)
    for day in range(6):
        entries = []
        for i in range(day * 4, day * 4 + 4):
            words = draw.choice(SKY if i % 4 == 0 else CELLS, 4, replace=False)
            paper = {"id": f"2506.{i:05}", "title": " ".join(words), "summary": "", "authors": []}
            entries.append({"paper": paper, "submittedBy": {"name": given.submitters[i]}})
        write(tmp_path / f"2025-06-{day + 1:02}.json", entries)
    text, _ = run(submitters=tmp_path)
    assert "1 submitters, 5 days of theirs ranked" in text


@pytest.mark.skipif(not DATA.exists(), reason=ABSENT)
def test_on_citeulike_the_readers_are_those_the_figures_are_about() -> None:
    folder = DATA / "libraries" / "citeulike_t"
    text, _ = run(
        *("--new-papers", folder / "new_papers.txt", "--rankers", "tfidf centroid"),
        papers=folder / "papers.jsonl.gz",
        libraries=folder / "libraries.csv",
    )
    assert "25,975 papers, 20,780 known and 5,195 new" in text
    assert "Compared on 1,901 of 1,901 readers" in text


def test_what_is_encoded_is_the_title_and_the_abstract() -> None:
    text = Text("A title", "An abstract.")
    assert passage(text.title, text.abstract) == "A title. An abstract."
    assert str(text) == "A title\nAn abstract."
