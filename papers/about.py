"""What a paper's own page says of it besides its text."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from papers.boards import Count, counts_of
from papers.models import Edition, EditionPaper, Paper


@dataclass(frozen=True, slots=True)
class About:
    counts: list[Count]
    editions: QuerySet[Edition]


def about(paper: Paper) -> About:
    shown = paper.candidacies.exclude(curation=EditionPaper.Curation.HIDDEN)
    return About(
        counts=counts_of([paper.pk]).get(paper.pk, []),
        editions=Edition.objects.filter(state=Edition.State.FROZEN, candidates__in=shown),
    )
