"""The views of papers that come from files, with their dense vectors kept in a cache. No Django.

An encoder reads some ten abstracts a second and core, so a second run over the same papers should
not ask it again. The cache is one file an encoder, named by its sha256: at most MOST_KEPT vectors
by the digest of their text, the newest. It may be deleted at any time, and a cache that cannot
be read or written costs time only.
"""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newsletter.libraries import Text, replaced
from newsletter.recommender.profiles import SparseView
from newsletter.recommender.ranking import Views
from papers.encoders import Encoder, passage

MOST_KEPT = 100_000  # vectors: 150 MB at 384 numbers each
BATCH = 64  # texts between two reports of progress
SAVED_EVERY = 60  # seconds; an interrupted run loses no more

Say = Callable[[str], None]


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def views(view: SparseView, texts: Sequence[Text], dense: NDArray[np.float32] | None) -> Views:
    """Texts as a fitted sparse view and an encoder see them; dense: (n, d), None without one."""
    if dense is None:
        dense = np.zeros((len(texts), 0), dtype=np.float32)
    return Views(view.transform([str(text) for text in texts]), dense)


def encode(
    encoder: Encoder, texts: Sequence[Text], folder: Path, say: Say, needed: Sequence[int] = ()
) -> NDArray[np.float32]:
    """(n, d) float32 unit rows of n texts; zeros for unordered words, which are no sentences.

    Args:
        folder: of the cache.
        say: told of progress, and of a cache that does not work.
        needed: the places of the texts to encode; all of them where it is empty.
    """
    places = [i for i in (needed or range(len(texts))) if texts[i].ordered]
    passages = {i: passage(texts[i].title, texts[i].abstract) for i in places}
    keys = {i: hashlib.sha256(passages[i].encode("utf-8", "replace")).digest() for i in places}
    path = folder / f"{encoder.identity}.npz"
    kept = _read(path, encoder.dimension, say)
    missing = list({keys[i]: passages[i] for i in places if keys[i] not in kept}.items())
    if missing:
        _encode_missing(encoder, missing, kept, path, say)
    vectors = np.zeros((len(texts), encoder.dimension), dtype=np.float32)
    for i in places:
        vectors[i] = kept[keys[i]]
    return vectors


Kept = dict[bytes, NDArray[np.float32]]  # digest -> vector, the newest at the end


def _encode_missing(
    encoder: Encoder, missing: list[tuple[bytes, str]], kept: Kept, path: Path, say: Say
) -> None:
    started = saved = time.monotonic()
    # A session may be used by several threads at once, and works without the interpreter's lock.
    with ThreadPoolExecutor(cores()) as threads:
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            rows = threads.map(lambda item: encoder.encode([item[1]])[0], batch)
            kept.update(zip((key for key, _ in batch), rows, strict=True))
            done, now = start + len(batch), time.monotonic()
            left = (now - started) / done * (len(missing) - done)
            say(f"encoded {done} of {len(missing)} texts, {left:.0f} s left")
            if now - saved > SAVED_EVERY or done == len(missing):
                _write(path, kept, say)
                saved = now


def _read(path: Path, dimension: int, say: Say) -> Kept:
    try:
        # numpy leaves a file that it opened itself open where it is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            keys, vectors = stored["keys"], stored["vectors"]
        usable = (
            (keys.dtype, keys.shape) == (np.uint8, (len(vectors), 32))
            and (vectors.dtype, vectors.shape) == (np.float32, (len(keys), dimension))
            and bool(np.isfinite(vectors).all())
        )
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        say(f"{path} cannot be read ({error}): encoding anew")
        return {}
    if not usable:
        say(f"{path} is no cache of vectors: encoding anew")
        return {}
    return {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}


def _write(path: Path, kept: Kept, say: Say) -> None:
    chosen = list(kept.items())[-MOST_KEPT:]
    keys = np.frombuffer(b"".join(key for key, _ in chosen), dtype=np.uint8).reshape(-1, 32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as new, new.open("wb") as file:
            np.savez(file, keys=keys, vectors=np.stack([vector for _, vector in chosen]))
    except OSError as error:
        say(f"{path} cannot be written ({error.strerror}): the next run encodes again")
