"""A sentence encoder of a few hundred bytes: one vector a word, looked up in a table.

It is a real ONNX model and a real tokenizer. The model file is written by hand as the protocol
buffer it is (onnx.proto has the numbers of the fields), which is shorter than a dependency.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel

WORDS = [
    *("a", "attention", "cat", "dark", "galaxy", "graph", "kitten", "matter", "of", "on"),
    *("over", "paper", "quark", "sat", "sparse", "the"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = [*SPECIAL, *WORDS]
FLOAT, INT64 = 1, 7


def write_encoder(
    folder: Path,
    *,
    dimension: int = 8,
    seed: int = 0,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
    pooled: bool = False,
    spoilt: str = "",
) -> Path:
    """Put model.onnx and tokenizer.json there. Another seed is another encoder.

    pooled: the output has no axis of tokens. spoilt: this word's vector is NaN.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = np.random.default_rng(seed).normal(size=(len(VOCABULARY), dimension)).astype("<f4")
    # The special ones say little, so that texts differ by their words.
    table[: len(SPECIAL)] *= 0.01
    if spoilt:
        table[VOCABULARY.index(spoilt)] = np.nan
    (folder / "model.onnx").write_bytes(_model(table, inputs, pooled))
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY)}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _model(table: np.ndarray, inputs: tuple[str, ...], pooled: bool) -> bytes:
    axes: list[str | int] = ["texts", "tokens"]
    output: list[str | int] = ["texts", "tokens", table.shape[1]]
    nodes = [_node("Gather", ["table", "input_ids"], "states")]
    if pooled:
        nodes.append(_node("ReduceMax", ["states"], "pooled"))
        output = [1, 1]
    name = "pooled" if pooled else "states"
    graph = (
        b"".join(_field(1, node) for node in nodes)
        + _field(2, b"tiny")
        + _field(5, _tensor("table", table))
        + b"".join(_field(11, _value(item, INT64, axes)) for item in inputs)
        + _field(12, _value(name, FLOAT, output))
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, 13))


def _node(kind: str, inputs: list[str], output: str) -> bytes:
    given = b"".join(_field(1, item.encode()) for item in inputs)
    return given + _field(2, output.encode()) + _field(4, kind.encode())


def _tensor(name: str, values: np.ndarray) -> bytes:
    sizes = b"".join(_field(1, size) for size in values.shape)
    return sizes + _field(2, FLOAT) + _field(8, name.encode()) + _field(9, values.tobytes())


def _value(name: str, kind: int, axes: list[str | int]) -> bytes:
    shape = b"".join(
        _field(1, _field(1, axis) if isinstance(axis, int) else _field(2, axis.encode()))
        for axis in axes
    )
    tensor = _field(1, kind) + _field(2, shape)
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)
