"""Score candidates for profiles that come from files, by the code that ranks an edition. No Django.

Per profile: a liked paper counts 1, a disliked one -1; one that is both counts nothing. With no
known liked or disliked paper, every candidate scores 0; with disliked ones alone, what is close to
them scores less than the rest. The numbers are deviations from chance within the archive,
and compare only within one profile.

The vocabulary and the ranker are learned from all papers of the file. Where at least LEAST_READERS
profiles like two papers or more, their liked lists teach co-reading, as everybody's libraries do in
production.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from newsletter import encoded_files
from newsletter.encoded_files import Say
from newsletter.libraries import Papers, Profile, read_papers, read_profiles, replaced
from newsletter.recommender.profiles import SparseView
from newsletter.recommender.ranking import BACKGROUND, Ranker, Views, coreading
from papers.encoders import Encoder, EncoderMissing

LEAST_READERS = 100  # with two liked papers; fewer teach next to nothing about one another
MOST_CELLS = 60_000_000  # of one affinity; it takes 240 MB, and some four times that to make
ENCODED = 2_000  # papers at least, where there are as many: what is usual is learned from them
SEED = 0


@dataclass(frozen=True)
class Ranked:
    """What was done: unknown ids by the list they stood in, with some of them to show."""

    readers: int
    scores: int
    unknown: dict[str, list[str]]
    without_profile: int  # readers of whom no liked or disliked paper is known


def rank(
    papers_path: Path,
    profiles_path: Path,
    out: Path,
    *,
    encoder: Path | None,
    cache: Path,
    say: Say,
) -> Ranked:
    """Read papers and profiles, and write {"reader", "scores": {id: number}}, a line a profile.

    Args:
        encoder: its folder, None to leave the dense view out; it is left out, and said so, where
            the folder holds none.
        cache: folder of the vectors kept from run to run.
        say: told of progress.

    Raises:
        LibrariesError: a file cannot be used.
        EncoderBroken: the folder holds files that are no encoder.
        OSError: a file cannot be opened or written.
    """
    papers = read_papers(papers_path)
    profiles = read_profiles(profiles_path)
    if not out.parent.is_dir():
        raise NotADirectoryError(f"There is no folder {out.parent} to write {out.name} in")
    places = [_places(profile, papers) for profile in profiles]
    say(f"{len(papers)} papers, {len(profiles)} readers")
    views = _views(papers, places, encoder, cache, say)
    ranker = Ranker().fit(views)
    together = _coreading(places, len(papers))
    written = 0
    with replaced(out) as new, new.open("w", encoding="utf-8") as file:
        for block in _blocks(places, together):
            found = _scores(places[block], views, ranker, together)
            for profile, place, values in zip(profiles[block], places[block], found, strict=True):
                ids = [papers.ids[i] for i in place.candidates]
                line = {"reader": profile.reader, "scores": dict(zip(ids, values, strict=True))}
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
                written += len(ids)
            say(f"ranked for {min(block.stop, len(profiles))} of {len(profiles)} readers")
    return Ranked(
        readers=len(profiles),
        scores=written,
        unknown=_unknown(profiles, papers),
        without_profile=sum(not (place.liked or place.disliked) for place in places),
    )


@dataclass(frozen=True, slots=True)
class _Places:
    """A profile as places in the archive."""

    liked: list[int]
    disliked: list[int]
    candidates: list[int]


def _places(profile: Profile, papers: Papers) -> _Places:
    liked, disliked, candidates = (
        [papers.places[paper] for paper in listed if paper in papers.places]
        for listed in (profile.liked, profile.disliked, profile.candidates)
    )
    both = set(liked) & set(disliked)
    return _Places(
        [i for i in liked if i not in both], [i for i in disliked if i not in both], candidates
    )


def _unknown(profiles: Sequence[Profile], papers: Papers) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {"liked": {}, "disliked": {}, "candidates": {}}
    for profile in profiles:
        for name, ids in found.items():
            ids.update(dict.fromkeys(i for i in getattr(profile, name) if i not in papers.places))
    return {name: list(ids) for name, ids in found.items() if ids}


def _views(
    papers: Papers, places: Sequence[_Places], folder: Path | None, cache: Path, say: Say
) -> Views:
    view = SparseView(pairs=papers.ordered).fit([str(text) for text in papers.texts])
    dense = None
    if folder is not None and any(text.ordered for text in papers.texts):
        try:
            encoder = Encoder(folder)
        except EncoderMissing as error:
            say(f"Without the dense view: {error}")
        else:
            needed = _needed(len(papers), places)
            dense = encoded_files.encode(encoder, papers.texts, cache, say, needed)
    return encoded_files.views(view, papers.texts, dense)


def _needed(n: int, places: Sequence[_Places]) -> list[int]:
    """The papers that profiles name, and some others by chance if those are few."""
    named = {i for place in places for i in (*place.liked, *place.disliked, *place.candidates)}
    others = [i for i in np.random.default_rng(SEED).permutation(n).tolist() if i not in named]
    return sorted([*named, *others[: max(ENCODED - len(named), 0)]])


def _coreading(places: Sequence[_Places], n: int) -> csr_matrix | None:
    libraries = [place.liked for place in places if len(place.liked) > 1]
    if len(libraries) < LEAST_READERS:
        return None
    return coreading(_matrix(libraries, n))


def _matrix(libraries: Sequence[Sequence[int]], n: int) -> csr_matrix:
    """(m, n) float32, 1 where a library holds a paper."""
    rows = np.repeat(np.arange(len(libraries)), [len(library) for library in libraries])
    columns = np.array([i for library in libraries for i in library], dtype=np.intp)
    entries = (np.ones(len(rows), dtype=np.float32), (rows, columns))
    return csr_matrix(entries, shape=(len(libraries), n), dtype=np.float32)


def _blocks(places: Sequence[_Places], together: csr_matrix | None) -> Iterator[slice]:
    """Profiles in their order, as many at a time as one affinity has room for."""
    start, rows, columns = 0, set[int](), set[int]()
    for i, place in enumerate(places):
        library = _with_companions({*place.liked, *place.disliked}, together)
        cells = len(rows | library) * (len(columns.union(place.candidates)) + BACKGROUND)
        if cells > MOST_CELLS and i > start:
            yield slice(start, i)
            start, rows, columns = i, set(), set()
        rows |= library
        columns.update(place.candidates)
    if start < len(places):
        yield slice(start, len(places))


def _with_companions(library: set[int], together: csr_matrix | None) -> set[int]:
    if together is None:
        return library
    return library.union(*(together[i].indices.tolist() for i in library))


def _scores(
    places: Sequence[_Places], views: Views, ranker: Ranker, together: csr_matrix | None
) -> Iterator[list[float]]:
    """Of each profile, the scores of its candidates in their order."""
    named = {i for place in places for i in (*place.liked, *place.disliked)}
    rows = np.array(sorted(_with_companions(named, together)), dtype=np.intp)
    columns = np.array(sorted({i for place in places for i in place.candidates}), dtype=np.intp)
    if not len(rows) or not len(columns):
        yield from ([0.0] * len(place.candidates) for place in places)
        return
    joined = None if together is None else csr_matrix(together[rows][:, rows])
    affinity = ranker.affinity(views.of(rows), views.of(columns), joined)
    for start in range(0, len(places), 256):
        block = places[start : start + 256]
        weights = _matrix([place.liked for place in block], len(views)) - _matrix(
            [place.disliked for place in block], len(views)
        )
        scores = affinity.scores(csr_matrix(weights[:, rows]))
        for place, row in zip(block, scores, strict=True):
            at = np.searchsorted(columns, place.candidates)
            yield np.nan_to_num(row[at].astype(np.float64)).tolist()
