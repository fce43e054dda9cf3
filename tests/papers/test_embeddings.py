"""Papers get vectors behind everything else, and keep them while the model changes."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from django.core import checks
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.db.migrations.state import ProjectState
from django.utils import timezone
from numpy.typing import NDArray
from pytest_django import Settings

from papers import embeddings, tasks
from papers.embeddings import LOCK, encode_pending, index_name, pending, serving_encoder, vectors_of
from papers.encoders import Encoder, EncoderBroken, EncoderMissing, identity_of, passage
from papers.ingest import ingest
from papers.models import Embedding, Paper
from papers.sources import PaperRecord
from tests.factories import make_paper
from tests.papers.tiny_encoder import write_encoder


@pytest.fixture
def first(db: None, tmp_path: Path, settings: Settings) -> str:
    """The identity of the encoder in ENCODER_DIR."""
    with connection.cursor() as cursor:
        # An index cannot be made while rows of the same transaction wait for their checks.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    settings.ENCODER_DIR = write_encoder(tmp_path / "encoder")
    return identity_of(settings.ENCODER_DIR / "model.onnx")


def put_another(settings: Settings, *, seed: int = 1, dimension: int = 12) -> str:
    """Put another encoder in place of the one in ENCODER_DIR; returns its identity."""
    write_encoder(settings.ENCODER_DIR, seed=seed, dimension=dimension)
    return identity_of(settings.ENCODER_DIR / "model.onnx")


def make_papers(number: int) -> list[Paper]:
    """The newest first."""
    today = timezone.now().date()
    return [
        make_paper(f"Sparse graph {n}", listing_day=today - timedelta(days=n))
        for n in range(number)
    ]


def encoded(identity: str) -> set[int]:
    return set(Embedding.objects.filter(encoder=identity).values_list("paper", flat=True))


def index_names() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname FROM pg_indexes WHERE starts_with(indexname, 'embedding_h')"
        )
        return sorted(name for (name,) in cursor.fetchall())


@contextmanager
def another_worker() -> Iterator[None]:
    """One that is encoding, on a connection of its own."""
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        yield
        with other.cursor() as cursor:  # the server is in no hurry to notice a closed connection
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
    finally:
        other.close()


# --- Encoding -------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_each_paper_gets_the_vector_of_its_title_and_abstract(first: str) -> None:
    paper = make_paper("Dark matter", abstract="of the galaxy")
    assert str(encode_pending()) == "1 encoded, 0 to go"
    vectors, present = vectors_of([paper.pk])
    expected = embeddings.encoder().encode([passage("Dark matter", "of the galaxy")])
    assert present.all()
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)


@pytest.mark.django_db
def test_the_newest_papers_come_first(first: str) -> None:
    papers = make_papers(5)
    assert str(encode_pending(limit=2)) == "2 encoded, 3 to go"
    assert encoded(first) == {paper.pk for paper in papers[:2]}
    assert str(encode_pending()) == "3 encoded, 0 to go"
    assert str(encode_pending()) == "0 encoded, 0 to go"


@pytest.mark.django_db
def test_no_batch_begins_after_the_time_is_up(first: str) -> None:
    make_papers(3)
    assert str(encode_pending(seconds=0)) == "0 encoded, 3 to go"


@pytest.mark.django_db(transaction=True)
def test_what_is_encoded_stays_when_the_worker_ends_in_the_middle(
    first: str, settings: Settings
) -> None:
    settings.ENCODE_BATCH_SIZE = 2
    papers = make_papers(6)

    def die_after_the_second(progress: embeddings.Progress) -> None:
        if progress.encoded == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_pending(progress=die_after_the_second)
    assert encoded(first) == {paper.pk for paper in papers[:4]}
    assert not encode_pending().busy  # and its lock is not held any more
    assert encoded(first) == {paper.pk for paper in papers}


@pytest.mark.django_db
def test_a_second_worker_returns_at_once(first: str) -> None:
    make_papers(2)
    with another_worker():
        assert encode_pending().busy
        with pytest.raises(CommandError, match="another process is encoding already"):
            call_command("encode_papers")
        tasks.encode_pending()
    assert encoded(first) == set()
    assert encode_pending().encoded == 2


@pytest.mark.django_db
def test_a_paper_whose_text_changed_is_encoded_again(first: str) -> None:
    paper, other = make_papers(2)
    encode_pending()
    (before,), _ = vectors_of([paper.pk])
    Paper.objects.filter(pk=other.pk).update(keywords=["graphs"])
    Paper.objects.filter(pk=paper.pk).update(abstract="Dark matter of the galaxy.")
    assert [paper.pk for paper in pending(first)] == [paper.pk]
    (meanwhile,), _ = vectors_of([paper.pk])
    np.testing.assert_array_equal(meanwhile, before)
    assert str(encode_pending()) == "1 encoded, 0 to go"
    (after,), _ = vectors_of([paper.pk])
    assert not np.allclose(after, before)
    assert Embedding.objects.count() == 2


@pytest.mark.django_db
def test_an_import_that_lengthens_an_abstract_makes_it_wait_again(first: str) -> None:
    record = PaperRecord(source="file", title="Dark matter", abstract="of the galaxy", place="a:1")
    longer = PaperRecord(
        source="file", title="Dark matter", abstract="of the sparse galaxy", place="b:1"
    )
    for stated in (record, record, longer):
        ingest([stated], source="a test", now=timezone.now())
        expected = 0 if stated is record and Embedding.objects.exists() else 1
        assert encode_pending().encoded == expected


@pytest.mark.django_db
def test_a_paper_without_words_is_tried_once_and_has_no_vector(first: str) -> None:
    wordless, paper = make_paper(" ", abstract=" "), make_paper()
    assert encode_pending().encoded == 2
    assert encode_pending().encoded == 0
    vectors, present = vectors_of([wordless.pk, paper.pk])
    assert present.tolist() == [False, True]
    assert not vectors[0].any()


class _Deleting(Encoder):
    """While it works, a paper is deleted."""

    def encode(self, texts: object) -> NDArray[np.float32]:
        Paper.objects.order_by("pk")[:1].get().delete()
        return super().encode(texts)  # type: ignore[arg-type]


@pytest.mark.django_db(transaction=True)
def test_a_paper_deleted_meanwhile_only_puts_its_batch_off(first: str, settings: Settings) -> None:
    papers = make_papers(3)
    encoder = _Deleting(settings.ENCODER_DIR)
    assert embeddings._encode(encoder, [paper.pk for paper in papers]) == 0
    assert encode_pending().encoded == 2
    assert len(encoded(first)) == 2


@pytest.mark.django_db
def test_the_command_tells_how_far_it_is(
    first: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.ENCODE_BATCH_SIZE = 2
    make_papers(3)
    call_command("encode_papers")
    assert capsys.readouterr().out.splitlines() == [
        "  2 encoded, 1 to go …",
        "  3 encoded, 0 to go …",
        "3 encoded, 0 to go",
    ]


@pytest.mark.django_db
def test_without_an_encoder_the_task_is_quiet_and_the_command_says_what_to_do(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings.ENCODER_DIR = tmp_path / "none"
    make_papers(1)
    with pytest.raises(EncoderMissing):
        encode_pending()
    with pytest.raises(CommandError, match=r"Run `manage\.py fetch_encoder`"):
        call_command("encode_papers")
    tasks.encode_pending()
    assert not caplog.records


@pytest.mark.django_db
def test_with_a_broken_encoder_the_task_logs_one_line(
    first: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    (settings.ENCODER_DIR / "model.onnx").write_bytes(b"\x08broken")
    make_papers(1)
    tasks.encode_pending()
    assert ["is not an ONNX model" in record.message for record in caplog.records] == [True]
    write_encoder(settings.ENCODER_DIR)
    tasks.encode_pending()  # the same process sees that it was repaired
    assert len(encoded(first)) == 1


# --- Another model --------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_old_vectors_serve_until_the_new_ones_cover_everything(
    first: str, settings: Settings
) -> None:
    papers = make_papers(4)
    ids = [paper.pk for paper in papers]
    encode_pending()
    second = put_another(settings)
    assert serving_encoder() == first

    encode_pending(limit=3)
    assert serving_encoder() == first
    assert vectors_of(ids)[0].shape == (4, 8)
    assert index_names() == sorted([index_name(first), index_name(second)])

    encode_pending()
    assert serving_encoder() == second
    vectors, present = vectors_of(ids)
    assert vectors.shape == (4, 12)
    assert present.all()
    assert encoded(first) == set()
    assert index_names() == [index_name(second)]


@pytest.mark.django_db
def test_the_new_encoder_serves_once_it_covers_nearly_all(first: str, settings: Settings) -> None:
    papers = make_papers(200)
    encode_pending()
    second = put_another(settings)
    encode_pending(limit=197)
    assert serving_encoder() == first
    encode_pending(limit=1)
    assert serving_encoder() == second
    assert len(encoded(first)) == len(papers)  # kept until the new one has covered the last


@pytest.mark.django_db
def test_vectors_serve_though_their_model_is_gone(first: str, settings: Settings) -> None:
    make_papers(2)
    encode_pending()
    for path in settings.ENCODER_DIR.iterdir():
        path.unlink()
    assert serving_encoder() == first


@pytest.mark.django_db
def test_back_to_the_old_model_before_the_new_one_is_done(first: str, settings: Settings) -> None:
    make_papers(3)
    encode_pending()
    second = put_another(settings)
    encode_pending(limit=1)
    write_encoder(settings.ENCODER_DIR)
    assert str(encode_pending()) == "0 encoded, 0 to go"
    assert serving_encoder() == first
    assert encoded(second) == set()
    assert index_names() == [index_name(first)]


@pytest.mark.django_db(transaction=True)
def test_two_at_once_make_one_index(first: str, settings: Settings) -> None:
    encoder = Encoder(settings.ENCODER_DIR)
    errors: list[Exception] = []

    def make() -> None:
        try:
            embeddings.ensure_index(encoder)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert index_names() == [index_name(first)]
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {index_name(first)}")


@pytest.mark.django_db
def test_a_search_among_one_encoders_vectors_uses_its_index(first: str, settings: Settings) -> None:
    make_papers(10)
    encode_pending()
    (vector,) = embeddings.encoder().encode(["sparse graph"])
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
        cursor.execute(
            "EXPLAIN SELECT paper_id FROM papers_embedding WHERE encoder = %s "
            "ORDER BY (vector::vector(8)) <=> %s::vector LIMIT 3",
            [first, str(vector.tolist())],
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert index_name(first) in plan


# --- Reading --------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_vectors_come_in_the_order_asked_for(first: str) -> None:
    papers = make_papers(5)
    encode_pending(limit=4)
    ids = [papers[2].pk, 999_999, papers[0].pk, papers[4].pk, papers[2].pk, -1]
    vectors, present = vectors_of(ids)
    assert present.tolist() == [True, False, True, False, True, False]
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), present, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[4])
    np.testing.assert_array_equal(vectors[2], vectors_of([papers[0].pk])[0][0])


@pytest.mark.django_db
def test_vectors_are_read_on_a_development_machine_too(first: str, settings: Settings) -> None:
    (paper,) = make_papers(1)
    encode_pending()
    settings.DEBUG = True  # Django then wraps each cursor
    assert vectors_of([paper.pk])[1].all()


@pytest.mark.django_db
def test_without_any_vector_there_are_rows_of_no_width(settings: Settings, tmp_path: Path) -> None:
    settings.ENCODER_DIR = tmp_path
    vectors, present = vectors_of([make_paper().pk])
    assert serving_encoder() is None
    assert vectors.shape == (1, 0)
    assert not present.any()
    assert vectors_of([])[0].shape == (0, 0)


@pytest.mark.django_db
def test_a_deleted_paper_takes_its_vector_along(first: str) -> None:
    paper = make_paper()
    encode_pending()
    paper.delete()
    assert not Embedding.objects.exists()


# --- What an installation is told -----------------------------------------------------------------


def ids_of(messages: list[checks.CheckMessage]) -> list[str | None]:
    return [message.id for message in messages if (message.id or "").startswith("papers.")]


def test_no_encoder_is_told_and_is_no_warning(settings: Settings, tmp_path: Path) -> None:
    settings.ENCODER_DIR = tmp_path / "none"
    found = checks.run_checks(include_deployment_checks=True)
    (message,) = [one for one in found if one.id == "papers.I001"]
    assert message.level == checks.INFO
    assert message.hint == "`manage.py fetch_encoder` brings one."
    assert ids_of(found) == ["papers.I001"]
    assert ids_of(checks.run_checks()) == []  # not before every command


def test_half_an_encoder_is_a_warning(settings: Settings, tmp_path: Path) -> None:
    settings.ENCODER_DIR = write_encoder(tmp_path)
    assert ids_of(checks.run_checks(include_deployment_checks=True)) == []
    (tmp_path / "tokenizer.json").unlink()
    assert ids_of(checks.run_checks(include_deployment_checks=True)) == ["papers.W001"]


def test_a_broken_encoder_is_a_warning_once(settings: Settings, tmp_path: Path) -> None:
    settings.ENCODER_DIR = write_encoder(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"\x08broken")
    assert ids_of(checks.run_checks()) == []  # a glance does not see it
    assert ids_of(checks.run_checks(include_deployment_checks=True)) == ["papers.W001"]
    (tmp_path / "model.onnx").write_bytes(b"<html>")
    assert ids_of(checks.run_checks(include_deployment_checks=True)) == ["papers.W001"]
    with pytest.raises(EncoderBroken):
        Encoder(tmp_path)


def test_the_migration_needs_no_rights_where_the_extension_is(db: None) -> None:
    _extend_as_a_plain_role()


def test_the_migration_says_what_a_superuser_has_to_run(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP EXTENSION vector CASCADE")
    with pytest.raises(CommandError, match=r"run `CREATE EXTENSION vector;` in the database test_"):
        _extend_as_a_plain_role()


def _extend_as_a_plain_role() -> None:
    """Inside a transaction that is rolled back: the role goes with it."""
    migration = importlib.import_module("papers.migrations.0002_embedding")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE ROLE plain_role; SET LOCAL ROLE plain_role")
        with connection.schema_editor(atomic=False) as editor:
            migration.VectorExtension().database_forwards(
                "papers", editor, ProjectState(), ProjectState()
            )
        cursor.execute("RESET ROLE")
