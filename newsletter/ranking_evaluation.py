"""Measure our ranking on libraries from files: files -> arrays -> a comparison. No Django."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from newsletter import encoded_files
from newsletter.encoded_files import Say
from newsletter.libraries import (
    Libraries,
    LibrariesError,
    Papers,
    Text,
    read_ids,
    read_libraries,
    read_papers,
)
from newsletter.recommender import evaluation
from newsletter.recommender.evaluation import (
    Progress,
    Report,
    Submissions,
    SubmissionsReport,
    silent,
)
from newsletter.recommender.peers import Indices, Recipe, Task
from newsletter.recommender.profiles import SparseView, author_key
from papers.encoders import Encoder, EncoderMissing
from papers.sources import BadRecord, PaperRecord
from papers.sources import files as paper_files

SEED = 0
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
KNOWN_SHARE = 0.8  # of the papers, where no file names the new ones
Half = Literal["a", "b"]
Halves = get_args(Half)


@dataclass(frozen=True)
class Files:
    """encoder: a folder, None to leave the dense view out. cache: where vectors are kept.
    say: told of progress."""

    encoder: Path | None
    cache: Path
    say: Say

    def dense(self, texts: Sequence[Text]) -> NDArray[np.float32] | None:
        """(n, d) float32 vectors of n texts; None where there is no encoder, or no sentence."""
        if self.encoder is None or not any(text.ordered for text in texts):
            return None
        try:
            encoder = Encoder(self.encoder)
        except EncoderMissing as error:
            self.say(f"Without the dense view: {error}")
            return None
        return encoded_files.encode(encoder, texts, self.cache, self.say)


@dataclass(frozen=True)
class Comparison:
    """notes: what was compared, in sentences. counts: the same as numbers."""

    report: Report
    notes: list[str]
    counts: dict[str, int]


def libraries(
    papers_path: Path,
    libraries_path: Path,
    files: Files,
    *,
    new_papers: Path | None = None,
    split_time: bool = False,
    min_known: int = 5,
    sample: int | None = None,
    half: Half | None = None,
    rankers: Sequence[str] | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compare rankers on the libraries of a file; see the command's help.

    Raises:
        LibrariesError: a file cannot be used, nothing is left to compare, or a name is unknown.
        OSError: a file cannot be opened.
    """
    if min_known < 1 or (sample is not None and sample < 1):
        raise LibrariesError("--min-known and --readers must be at least 1")
    papers = read_papers(papers_path)
    read = read_libraries(libraries_path, papers)
    notes = []
    if new_papers:
        is_new, unlisted = _named(papers, new_papers)
        if unlisted:
            notes.append(f"{unlisted} ids of {new_papers} name no paper, and are ignored.")
    elif split_time:
        is_new = _latest(papers)
    else:
        is_new = _by_chance(papers)
        notes.append("New papers: a fifth by chance, of seed 0.")
    if not is_new.any() or is_new.all():
        raise LibrariesError("There must be both new papers and known ones; check the option.")
    histories, relevant = _split(papers, read, is_new, by_time=split_time)
    enough = np.array(
        [len(k) >= min_known and len(n) >= 1 for k, n in zip(histories, relevant, strict=True)]
    )
    compared = _chosen(np.flatnonzero(enough), half, sample)
    if not len(compared):
        raise LibrariesError(
            f"No reader has at least {min_known} known papers and 1 new one. See --min-known."
        )
    counts = {
        "papers": len(papers),
        "known_papers": int((~is_new).sum()),
        "new_papers": int(is_new.sum()),
        "libraries": len(histories),
        "unknown_rows": read.unknown,
        "readers": len(compared),
    }
    unknown = ""
    if read.unknown:
        unknown = f" ({read.unknown:,} rows name other papers, and are ignored)"
    notes = [
        f"{len(papers):,} papers, {counts['known_papers']:,} known and {counts['new_papers']:,} "
        f"new; {len(histories):,} libraries{unknown}.",
        f"Compared on {len(compared):,} of {int(enough.sum()):,} readers with at least {min_known} "
        "known papers and 1 new one." + (f" Half {half}." if half else ""),
        *notes,
    ]
    task = _task(papers, is_new, histories, relevant, compared, files)
    chosen = _recipes(rankers, task.encoded)
    return Comparison(evaluation.compare(chosen, task, progress), notes, counts)


def _named(papers: Papers, path: Path) -> tuple[NDArray[np.bool_], int]:
    named = read_ids(path)
    is_new = np.array([paper in named for paper in papers.ids])
    return is_new, len(named) - int(is_new.sum())


def _latest(papers: Papers) -> NDArray[np.bool_]:
    """New are the papers of the time at place int(0.8 n) of the sorted times, or later."""
    times = []
    for paper, moment in zip(papers.ids, papers.times, strict=True):
        if moment is None:
            raise LibrariesError(
                f"{papers.path}: paper {paper} has no first_posted_at, which --split-time needs"
            )
        times.append(moment)
    cut = sorted(times)[int(KNOWN_SHARE * len(times))]
    return np.array([moment >= cut for moment in times])


def _by_chance(papers: Papers) -> NDArray[np.bool_]:
    is_new = np.zeros(len(papers), dtype=np.bool_)
    order = np.random.default_rng(SEED).permutation(len(papers))
    is_new[order[int(KNOWN_SHARE * len(papers)) :]] = True
    return is_new


def _split(
    papers: Papers, read: Libraries, is_new: NDArray[np.bool_], *, by_time: bool
) -> tuple[list[Indices], list[Indices]]:
    """Of each reader, places among the known papers, the newest first, and among the new ones."""
    place = np.where(is_new, np.cumsum(is_new), np.cumsum(~is_new)) - 1
    histories, relevant = [], []
    for library in read.papers.values():
        rows = np.array(library, dtype=np.intp)
        known = rows[~is_new[rows]]
        if by_time:
            # When a reader saved a paper is unknown; the next best is when it was posted.
            newest = sorted(
                known.tolist(), key=lambda row: papers.times[row] or _LONG_AGO, reverse=True
            )
            known = np.array(newest, dtype=np.intp)
        histories.append(place[known].astype(np.intp))
        relevant.append(place[rows[is_new[rows]]].astype(np.intp))
    return histories, relevant


def _chosen(readers: Indices, half: Half | None, sample: int | None) -> Indices:
    if half:
        first = np.random.default_rng(SEED).permutation(len(readers)) < len(readers) // 2
        readers = readers[first if half == "a" else ~first]
    if sample is not None and sample < len(readers):
        readers = np.sort(np.random.default_rng(SEED).choice(readers, sample, replace=False))
    return readers


def _task(
    papers: Papers,
    is_new: NDArray[np.bool_],
    histories: list[Indices],
    relevant: list[Indices],
    compared: Indices,
    files: Files,
) -> Task:
    known, new = ([papers.texts[i] for i in np.flatnonzero(chosen)] for chosen in (~is_new, is_new))
    dense = files.dense(papers.texts)
    view = SparseView(pairs=papers.ordered).fit([str(text) for text in known])
    return Task(
        known_texts=[str(text) for text in known],
        new_texts=[str(text) for text in new],
        ordered=papers.ordered,
        known=encoded_files.views(view, known, None if dense is None else dense[~is_new]),
        new=encoded_files.views(view, new, None if dense is None else dense[is_new]),
        histories=histories,
        relevant=relevant,
        compared=compared,
    )


def _recipes(names: Sequence[str] | None, encoded: bool) -> list[Recipe]:
    known = {recipe.name: recipe for recipe in evaluation.recipes(encoded)}
    if names is None:
        return list(known.values())
    wanted = list(dict.fromkeys(name.strip() for name in names))
    if unknown := [name for name in wanted if name not in known]:
        raise LibrariesError(
            f"No ranker {', '.join(unknown)}. There are: {', '.join(known)}."
            + ("" if encoded else " (Dense ones need an encoder and texts with an order.)")
        )
    return [known[name] for name in wanted]


def submitters(folder: Path, files: Files) -> SubmissionsReport:
    """Measure on saved days of Hugging Face Daily Papers; see `evaluation.judge_submissions`.

    Raises:
        LibrariesError: no paper can be read, or nobody submitted on enough days.
    """
    found: dict[str, PaperRecord] = {}
    for record in paper_files.read([folder]):
        if isinstance(record, BadRecord):
            files.say(f"skipped: {record.place}: {record.reason}")
        elif record.arxiv_id and record.listed_on:
            found.setdefault(record.arxiv_id, record)  # a paper is new on one day
    if not found:
        raise LibrariesError(f"{folder}: there is no paper with a day in it")
    papers = list(found.values())
    texts = [Text(paper.title, paper.abstract) for paper in papers]
    view = SparseView().fit([str(text) for text in texts])
    report = evaluation.judge_submissions(
        Submissions(
            views=encoded_files.views(view, texts, files.dense(texts)),
            days=np.array([paper.listed_on.toordinal() for paper in papers if paper.listed_on]),
            submitters=[paper.submitter for paper in papers],
            authors=[frozenset(map(author_key, paper.authors)) - {""} for paper in papers],
        )
    )
    if report is None:
        raise LibrariesError(
            f"{folder}: nobody submitted on {evaluation.LEAST_DAYS} days; there is nothing to rank"
        )
    return report
