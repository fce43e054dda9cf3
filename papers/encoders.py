"""The dense view of a text: texts -> unit vectors, by a sentence encoder in a local folder.

    EncoderError
    ├── EncoderMissing    the folder holds no model or no tokenizer
    └── EncoderBroken     what it holds is no sentence encoder

An encoder is two files: `model.onnx`, whose output is one vector a token, and the `tokenizer.json`
that belongs to it (all-MiniLM-L6-v2 is one). Nothing is fetched here.

onnxruntime keeps threads, and both libraries misbehave in a process that forks after it has used
them: open an Encoder in the process that uses it, not before Celery's fork.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
FILES = (MODEL, TOKENIZER)

# The limit all-MiniLM-L6-v2 is published with. Six of ten papers of Hugging Face's list are longer
# and lose the end of their abstract.
MAX_TOKENS = 256
# The tokenizer reads the whole text before it cuts, and nothing bounds an abstract. 256 tokens end
# long before this many characters.
MAX_CHARACTERS = 20_000
SMALLEST = 1e-12  # a mean shorter than this points nowhere


class EncoderError(Exception):
    """There is no encoder to work with; the message says why and what to do."""


class EncoderMissing(EncoderError):
    """The folder does not exist, or lacks a file."""


class EncoderBroken(EncoderError):
    """A file is not what its name says, or does not fit the other one."""


def passage(title: str, abstract: str) -> str:
    """The text of a paper as an encoder reads it: the title first, since a long end is cut."""
    title, abstract = " ".join(title.split()), " ".join(abstract.split())
    if title and abstract:
        return f"{title}{'' if title[-1] in '.?!' else '.'} {abstract}"
    return title or abstract


def encodable(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,): which rows say something; the others are the zeros of a text without words."""
    return np.asarray(vectors.any(axis=1), dtype=np.bool_)


def find(folder: Path) -> tuple[Path, Path]:
    """The model and the tokenizer in `folder`, as far as a glance at them tells.

    Raises:
        EncoderMissing: the folder or a file is not there.
        EncoderBroken: a file is not what its name says; `Encoder` looks closer.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise EncoderMissing(
                f"There is no {name} in {folder}. Run `manage.py fetch_encoder`, or put there the "
                f"{MODEL} and {TOKENIZER} of a sentence encoder."
            )
    model, tokenizer = folder / MODEL, folder / TOKENIZER
    try:
        with model.open("rb") as file:
            # An ONNX file begins with the field of its version; an HTML page and the pointer that
            # Git LFS leaves in place of a large file do not.
            if file.read(1) != b"\x08":
                raise EncoderBroken(_no_model(model))
        if not isinstance(json.loads(tokenizer.read_bytes()), dict):
            raise EncoderBroken(_no_tokenizer(tokenizer))
    except ValueError:
        raise EncoderBroken(_no_tokenizer(tokenizer)) from None
    except OSError as error:
        raise EncoderBroken(f"{error.filename} cannot be read: {error.strerror}.") from None
    return model, tokenizer


def _no_model(path: Path) -> str:
    return f"{path} is not an ONNX model. Run `manage.py fetch_encoder` to replace it."


def _no_tokenizer(path: Path) -> str:
    return f"{path} is not a tokenizer. Run `manage.py fetch_encoder` to replace it."


def identity_of(model: Path) -> str:
    """The sha256 of the model file, hexadecimal: vectors of two identities are never compared."""
    with model.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Encoder:
    """A sentence encoder: the mean of the model's vectors of a text's tokens, of length 1.

    Args:
        folder: holds model.onnx and tokenizer.json.
        threads: of one call; 1 suits a machine whose other cores have work of their own.

    Raises:
        EncoderMissing, EncoderBroken: see there.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        self.folder = folder
        self.threads = threads
        self._model_path, tokenizer = find(folder)
        # Read once, so that the identity is that of the session though the file be replaced.
        content = self._model_path.read_bytes()
        self.identity = hashlib.sha256(content).hexdigest()  # see identity_of
        self._session = self._open_model(content)
        self._tokenizer = self._open_tokenizer(tokenizer)
        self._inputs = self._check_inputs()
        self._output = self._check_output()
        # One word through both: a model that runs, and whose vocabulary the tokenizer's ids fit.
        self.dimension = len(self._run(self._ids("paper")))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimension) float32, C-contiguous: a row of length 1 a text, in the order given.

        A text is read up to MAX_TOKENS tokens. One without any token, or whose output is not
        finite, has a row of zeros, which is close to nothing: `encodable` tells.
        """
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        # One at a time. Measured on whole abstracts and one core: 14 a second in 0.3 GB so, 13 in
        # 0.6 GB by eights and 10 in 1.8 GB by batches of 32, sorted by length and padded. And a
        # vector that no neighbour had a part in is the same in any company.
        for row, text in zip(vectors, texts, strict=True):
            if ids := self._ids(text):
                row[:] = self._run(ids)
        return vectors

    def _ids(self, text: str) -> list[int]:
        """The text's token ids, with the special ones around them; none where it has no words."""
        # A lone half of a surrogate pair is no text to the tokenizer.
        text = text[:MAX_CHARACTERS].encode("utf-8", "replace").decode()
        # Not encode_batch, which starts threads: a later fork would not survive them.
        encoding = self._tokenizer.encode(text)
        return list(encoding.ids) if 0 in encoding.special_tokens_mask else []

    def _run(self, ids: list[int]) -> NDArray[np.float32]:
        """(dimension,) of length 1, or zeros where the model's answer has no direction."""
        tokens = np.array([ids], dtype=np.int64)
        given = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.zeros_like(tokens),
        }
        try:
            (states,) = self._session.run(
                [self._output], {name: given[name] for name in self._inputs}
            )
        except Exception as error:  # onnxruntime's own, each a direct child of Exception
            raise EncoderBroken(
                f"{self._model_path} does not run: it is damaged, or the {TOKENIZER} beside it is "
                "another model's. Run `manage.py fetch_encoder` to replace both. "
                f"({_first(error)})"
            ) from error
        mean = np.asarray(states[0], dtype=np.float32).mean(axis=0)
        length = np.linalg.norm(mean)
        if not np.isfinite(length) or length < SMALLEST:
            return np.zeros_like(mean)
        return np.asarray(mean / length, dtype=np.float32)

    def _open_model(self, content: bytes) -> Any:
        import onnxruntime  # here: it takes a tenth of a second, and not before a fork

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # its warnings are about how the model was exported
        try:
            return onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # as above
            raise EncoderBroken(f"{_no_model(self._model_path)} ({_first(error)})") from error

    def _open_tokenizer(self, path: Path) -> Any:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # it raises bare Exception
            raise EncoderBroken(f"{_no_tokenizer(path)} ({_first(error)})") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return tokenizer

    def _check_inputs(self) -> list[str]:
        declared = [item.name for item in self._session.get_inputs()]
        unknown = set(declared) - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown or "input_ids" not in declared:
            raise EncoderBroken(
                f"{self._model_path} is not a sentence encoder that can be used here: it wants "
                f"{', '.join(declared) or 'nothing'}, and is given input_ids, attention_mask and "
                "token_type_ids. Take the ONNX export of a BERT-like encoder."
            )
        return declared

    def _check_output(self) -> str:
        outputs = self._session.get_outputs()
        for output in outputs:
            if len(output.shape or ()) == 3:
                return str(output.name)
        shapes = ", ".join(f"{output.name} {output.shape}" for output in outputs)
        raise EncoderBroken(
            f"{self._model_path} has no output of the shape (texts, tokens, dimension): {shapes}. "
            "Take an export whose output is last_hidden_state, not one that has pooled it already."
        )


def _first(error: Exception) -> str:
    """What a library said, as one short line."""
    return " ".join(str(error).split())[:200]
