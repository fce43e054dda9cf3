"""Two papers that turn out to be one: whatever pointed at the one that goes points at the other.

Rows are found by their foreign keys, whosever they are. Who keeps ids of papers otherwise is told
by the signal `joined`. The words of the paper that stays are merged in papers/ingest.py.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any

from django.db import connection
from django.db.models import Exists, ForeignKey, Model, OuterRef, Q
from django.dispatch import Signal
from django.utils import timezone

from papers.models import (
    CurationRecord,
    Edition,
    EditionPaper,
    Embedding,
    Paper,
    PaperAlias,
    SearchText,
    Source,
    SourceRecord,
)

log = logging.getLogger(__name__)

# Sent within the transaction, when all rows are moved: `kept` is the paper that stays, `gone` the
# id of the one that is no more.
joined = Signal()

NAMED = "SELECT 1 FROM papers_paper WHERE id = %s FOR KEY SHARE"  # which Django does not know
WRITTEN = "SELECT 1 FROM papers_paper WHERE id = %s FOR NO KEY UPDATE"
MOST_NAMED = 120  # characters of a title in a record
# Made anew of the paper that stays, or merged with its own.
NOT_MOVED = {Embedding, SearchText, SourceRecord}


def lock_editions(papers: Collection[int]) -> None:
    """The open editions and those that carry one of these papers, until the end of the transaction.

    To be called before a paper is locked: who curates or freezes locks the edition first.
    """
    carry = EditionPaper.objects.filter(paper__in=papers).values("edition")
    touched = Edition.objects.filter(Q(state=Edition.State.OPEN) | Q(pk__in=carry))
    list(touched.select_for_update().order_by("day"))


def lock_paper(paper: Paper, *, to_write: bool = False) -> Paper:
    """The paper, or the one it has turned out to be; none joins it until the transaction ends.

    To be called before a row that names it is locked or written, as a join does. It is the lock
    that a foreign key asks for at the end of the transaction, which waits for no harvest that
    writes the paper.

    Args:
        to_write: the paper itself too. Its lock is asked for at once: a harvest that joins the
            paper, and who has the lesser lock and asks for the greater one, would wait for ever.

    Raises:
        Paper.DoesNotExist: it was deleted, and joined with none.
    """
    pk = paper.pk
    while True:
        with connection.cursor() as cursor:
            cursor.execute(WRITTEN if to_write else NAMED, [pk])
            if cursor.fetchone():
                return paper if pk == paper.pk else Paper.objects.get(pk=pk)
        old = PaperAlias.objects.filter(old_id=pk).first()
        if old is None:
            raise Paper.DoesNotExist(f"Paper {pk} is gone.")
        pk = old.paper_id


def absorb(kept: Paper, gone: Paper) -> None:
    """Delete `gone`, and let everything that named it name `kept`; within a transaction.

    The columns of `kept` are the caller's to write.
    """
    both = [kept.pk, gone.pk]
    lock_editions(both)
    list(Paper.objects.select_for_update().filter(pk__in=both).order_by("pk"))
    _join_candidacies(kept, gone)
    _drop_votes(kept, gone)
    for relation in Paper._meta.related_objects:
        if not (relation.many_to_many or relation.related_model in NOT_MOVED):
            _point(relation.related_model, relation.field, kept, gone)
    PaperAlias.objects.create(old_id=gone.pk, uuid=gone.uuid, paper=kept)
    joined.send(Paper, kept=kept, gone=gone.pk)
    Paper.objects.filter(pk=gone.pk).delete()
    log.info("papers %s and %s are one: %s stays", gone.pk, kept.pk, kept.pk)


def _point(model: Any, field: Any, kept: Paper, gone: Paper) -> None:
    """A row that would be there twice stays behind, and goes with its paper."""
    rows = model._base_manager.filter(**{field.name: gone})
    for others in _unique_with(model, field):
        same = {name: OuterRef(name) for name in others}
        rows = rows.exclude(Exists(model._base_manager.filter(**{field.name: kept}, **same)))
    rows.update(**{field.name: kept})


def _unique_with(model: type[Model], field: ForeignKey[Any, Any]) -> Iterator[list[str]]:
    """Of each unique constraint that the field is part of, the other fields."""
    if field.unique:
        yield []
    for constraint in model._meta.total_unique_constraints:
        if field.name in constraint.fields:
            yield [name for name in constraint.fields if name != field.name]


def _drop_votes(kept: Paper, gone: Paper) -> None:
    """Of two counts of votes here the higher one stays, until they are counted together: as one
    line, the two would show a fall that never was."""
    told = [paper.signals.filter(source=Source.PAPERROUND) for paper in (gone, kept)]
    newest = [rows.order_by("-observed_at").first() for rows in told]
    counts = [row.value if row else 0 for row in newest]
    told[counts.index(min(counts))].delete()


def _join_candidacies(kept: Paper, gone: Paper) -> None:
    """Of two on one list stays the one that stands first on the day's page, with both notes."""
    found: dict[int, list[EditionPaper]] = {}
    for row in EditionPaper.objects.filter(paper__in=[kept, gone]).select_related("paper"):
        found.setdefault(row.edition_id, []).append(row)
    changed = {day: rows for day, rows in found.items() if any(row.paper == gone for row in rows)}
    for rows in changed.values():
        first, *others = sorted(rows, key=_place)
        EditionPaper.objects.filter(pk__in=[row.pk for row in others]).delete()
        notes = dict.fromkeys(row.note for row in (first, *others) if row.note)
        first.paper, first.note = kept, "\n\n".join(notes)
        first.save(update_fields=["paper", "note"])
    Edition.objects.filter(pk__in=changed).update(changed_at=timezone.now())
    what = f"Joined “{gone.title:.{MOST_NAMED}}” with “{kept.title:.{MOST_NAMED}}”: one paper."
    CurationRecord.objects.bulk_create(
        CurationRecord(edition_id=edition, what=what) for edition in changed
    )


def _place(row: EditionPaper) -> tuple[bool, bool, bool, int, float, int]:
    """As on the day's page; what is hidden comes last: the other one was shown."""
    return (
        row.curation == EditionPaper.Curation.HIDDEN,
        row.curation != EditionPaper.Curation.PINNED,
        row.position is None,
        row.position or 0,
        -row.trend,
        row.pk,
    )
