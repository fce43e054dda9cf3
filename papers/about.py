"""What a paper's own page says of it besides its text, and who says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from papers.boards import Count, counts_by_source
from papers.growth import Observation, Plot, plot, shown_at
from papers.models import Edition, EditionPaper, Paper, Signal, Source
from papers.search import TookTooLong, similar

MOST_SIMILAR = 6
MOST_AUTHORS = 20  # above the abstract; some papers have thousands, named all below it
MOST_CITED = 300  # of them, for programs that cite: more no reference names
# What a source can have said, in a reader's words and their order.
FIELDS = {
    "title": "title", "authors": "authors", "abstract": "abstract", "categories": "categories",
    "versions": "versions", "comment": "comment", "journal_ref": "journal reference",
    "doi": "DOI", "licence": "licence", "summary": "summary", "keywords": "keywords",
    "code_url": "code", "project_url": "project page", "organisation": "organisation",
    "submitter": "who submitted it",
}  # fmt: skip
# What these count they have from somewhere that they do not say: no place can be named.
NOWHERE = (Source.LISTING, Source.FILE, Source.CURATOR)
LICENCES = {
    "creativecommons.org/licenses/by/": "CC BY",
    "creativecommons.org/licenses/by-sa/": "CC BY-SA",
    "creativecommons.org/licenses/by-nc-sa/": "CC BY-NC-SA",
    "creativecommons.org/licenses/by-nc-nd/": "CC BY-NC-ND",
    "creativecommons.org/licenses/by-nc/": "CC BY-NC",
    "creativecommons.org/licenses/by-nd/": "CC BY-ND",
    "creativecommons.org/publicdomain/zero/": "CC0",
    "arxiv.org/licenses/nonexclusive-distrib/": "arXiv’s licence to distribute",
}


@dataclass(frozen=True, slots=True)
class Attribution:
    """A source of what stands on the page: `said` here, "title, abstract"; `url`: its own page."""

    name: str
    said: str
    url: str = ""
    terms: str = ""
    seen_on: date | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What a source counted; `url`: its own page of the paper, where people comment."""

    counts: Sequence[Count]
    url: str


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    on: date | None
    url: str


@dataclass(frozen=True, slots=True)
class About:
    """authors: those above the abstract, others: how many more there are; cited: those told to
    programs that cite."""

    authors: Sequence[str]
    others: int
    cited: Sequence[str]
    counts: Sequence[Counted]
    plots: Sequence[Plot]
    sources: Sequence[Attribution]
    versions: Sequence[Version]
    licence: str
    editions: QuerySet[Edition]
    similar: Sequence[Paper]


def about(paper: Paper) -> About:
    shown = paper.candidacies.exclude(curation=EditionPaper.Curation.HIDDEN)
    observed = _observed(paper)
    plots = [plot(counter, by_source) for counter, by_source in observed.items()]
    return About(
        authors=paper.authors[:MOST_AUTHORS],
        others=len(paper.authors[MOST_AUTHORS:]),
        cited=paper.authors[:MOST_CITED],
        counts=[
            Counted(told, _place(told[0].source, paper)[0])
            for told in _not_repeated(counts_by_source(paper.pk))
        ],
        plots=[drawn for drawn in plots if drawn is not None],
        sources=_attributions(paper, observed),
        versions=_versions(paper),
        licence=licence_name(paper.licence),
        editions=Edition.objects.filter(state=Edition.State.FROZEN, candidates__in=shown),
        similar=_similar(paper),
    )


def _not_repeated(by_source: Sequence[Sequence[Count]]) -> list[Sequence[Count]]:
    """Those of places first, then of the others what no source before them says."""
    found: list[Sequence[Count]] = []
    for counts in sorted(by_source, key=lambda counts: counts[0].source in NOWHERE):
        said = {(count.counter, count.value) for count in counts}
        before = ({(count.counter, count.value) for count in other} for other in found)
        if counts[0].source not in NOWHERE or not any(said <= other for other in before):
            found.append(counts)
    return found


def _similar(paper: Paper) -> list[Paper]:
    """A page is there without them, where the database has no time to find them."""
    try:
        return similar(paper, MOST_SIMILAR)
    except TookTooLong:
        return []


def licence_name(address: str) -> str:
    """ "CC BY 4.0" for its address; of one not known here, the address."""
    scheme, _, bare = address.partition("://")
    for start, name in LICENCES.items():
        if scheme in ("http", "https") and bare.startswith(start):
            number = bare.removeprefix(start).split("/")[0] if name.startswith("CC") else ""
            return f"{name} {number}".strip()
    return address


def _observed(paper: Paper) -> dict[str, dict[str, list[Observation]]]:
    """By counter and by source's name, in the order of time."""
    found: dict[str, dict[str, list[Observation]]] = {name: {} for name in Signal.Counter.values}
    now = timezone.now()
    signals = paper.signals.order_by("observed_at")
    for counter, source, at, value in signals.values_list(
        "counter", "source", "observed_at", "value"
    ):
        found[counter].setdefault(source_name(source), []).append((shown_at(at, now), value))
    return found


def source_name(source: str) -> str:
    return dict(Source.choices).get(source, source)


def _attributions(
    paper: Paper, observed: dict[str, dict[str, list[Observation]]]
) -> list[Attribution]:
    records = {record.source: record for record in paper.source_records.all()}
    found = []
    for source in dict.fromkeys([*paper.sources, *records]):
        record: dict[str, Any] = records[source].record if source in records else {}
        said = [name for field, name in FIELDS.items() if record.get(field)]
        if paper.summary_source == source and "summary" not in said:
            said.append("summary")
        said += [
            counter for counter, by_source in observed.items() if source_name(source) in by_source
        ]
        url, terms = _place(source, paper)
        seen_on = records[source].seen_at.date() if source in records else None
        found.append(Attribution(source_name(source), ", ".join(said), url, terms, seen_on))
    return found


def _place(source: str, paper: Paper) -> tuple[str, str]:
    """Where a paper stands at a source, and on what terms the source gives what it knows of it."""
    if source == Source.ARXIV and paper.arxiv_id:
        return (
            f"https://arxiv.org/abs/{paper.arxiv_id}",
            "metadata in the public domain, CC0",
        )
    if source == Source.HUGGING_FACE and paper.arxiv_id:
        return f"https://huggingface.co/papers/{paper.arxiv_id}", ""
    return "", ""


def _versions(paper: Paper) -> list[Version]:
    found = []
    for version in paper.versions:
        number = version["number"]
        on = date.fromisoformat(version["on"]) if version.get("on") else None
        url = f"https://arxiv.org/abs/{paper.arxiv_id}v{number}" if paper.arxiv_id else ""
        found.append(Version(number, on, url))
    return found
