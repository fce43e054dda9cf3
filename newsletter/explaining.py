"""Why a delivery holds what it holds, and why it does not hold another paper.

The first is read from the ledger that was kept when it was planned. The second is computed anew, as
of that moment; what has changed since is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
from django.core.exceptions import ObjectDoesNotExist

from newsletter.batch import SHOWN, Batch
from newsletter.candidates import today
from newsletter.mail import quoted, reason_text, titles_named_by
from newsletter.models import Delivery, Feedback, Interest
from newsletter.recommender import ranking, selection
from newsletter.recommender.selection import Section, Selections
from papers.models import Edition, EditionPaper, Paper
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi

DEVIATIONS = "deviations from chance"
PARTS = ("words", "categories", "authors", "examples")
MEANINGS = {
    "relevance": f"for the reader from {ranking.THRESHOLD:.2f} on",
    "trend": f"{selection.NEUTRAL_TREND} is neutral",
    "score": "both, blended as the reader asks",
}
FITTING = (Section.LEAD, Section.FOR_YOU)
LONGEST_ID = 18  # digits that a bigint surely holds


class NotFound(LookupError):
    """No such delivery or paper; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class Picked:
    """One pick of a delivery, as its ledger has it. terms: Delivery.TERMS by their names."""

    place: int
    paper_id: int
    title: str
    section: str
    interest: str
    reason: str
    key_sentence: str
    terms: dict[str, float]
    trend_terms: dict[str, dict[str, Any]]
    hidden: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    delivery: Delivery
    ranking_model: str
    picks: list[Picked]

    def lines(self) -> Iterator[str]:
        delivery = self.delivery
        yield f"Delivery {delivery.uuid} of {delivery.edition.day}: {delivery.get_state_display()}"
        model = self.ranking_model or "none"
        yield f"Planned {delivery.planned_at:%Y-%m-%d %H:%M} UTC by the ranking model {model}"
        if delivery.skip_reason:
            yield f"Skipped: {delivery.skip_reason}"
        for pick in self.picks:
            yield ""
            yield f"{pick.place}. {pick.title}{' (hidden since)' if pick.hidden else ''}"
            yield f"   {pick.section} · interest: {pick.interest or 'none'}"
            yield f"   {pick.reason}"
            if pick.key_sentence:
                yield f"   “{pick.key_sentence}”"
            parts = ", ".join(f"{name} {pick.terms[name]:+.2f}" for name in PARTS)
            yield f"   {parts} {DEVIATIONS}"
            yield "   " + ", ".join(
                f"{name} {pick.terms[name]:.2f} ({meaning})" for name, meaning in MEANINGS.items()
            )
            for counter, terms in pick.trend_terms.items():
                values = ", ".join(
                    f"{name} {'unknown' if value is None else value}"
                    for name, value in terms.items()
                )
                yield f"   {counter}: {values}"

    def as_json(self) -> dict[str, Any]:
        delivery = self.delivery
        return {
            "delivery": str(delivery.uuid),
            "edition": str(delivery.edition.day),
            "state": delivery.state,
            "skip_reason": delivery.skip_reason,
            "planned_at": delivery.planned_at.isoformat(),
            "ranking_model": self.ranking_model,
            "picks": [
                {name: getattr(pick, name) for name in Picked.__slots__} for pick in self.picks
            ],
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """Why a paper is or is not in a delivery.

    verdict: one word of it. changed: why planning again may differ from what was planned.
    """

    paper: Paper
    verdict: str
    sentence: str
    changed: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield f"“{self.paper.title}”"
        yield self.sentence
        yield from (f"Note: {note}" for note in self.changed)

    def as_json(self) -> dict[str, Any]:
        return {
            "paper": self.paper.pk,
            "title": self.paper.title,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "changed": self.changed,
        }


# --- Finding what is asked for --------------------------------------------------------------------


def find_delivery(text: str) -> Delivery:
    """The delivery of this UUID or primary key.

    Raises:
        NotFound: there is none.
    """
    with suppress(ValueError, ObjectDoesNotExist):
        rows = Delivery.objects.select_related("edition", "subscriber", "ranking_model")
        return rows.get(pk=number) if (number := _number(text)) else rows.get(uuid=UUID(text))
    raise NotFound(f"No delivery has the UUID or number “{text}”.")


def find_paper(text: str) -> Paper:
    """The paper of this primary key, UUID, arXiv id or DOI.

    Raises:
        NotFound: there is none.
    """
    text = text.strip()
    wanted: dict[str, object] = {}
    if number := _number(text):
        wanted["pk"] = number
    for name, read in (("uuid", UUID), ("arxiv_id", normalise_arxiv_id), ("doi", normalise_doi)):
        with suppress(ValueError):
            wanted.setdefault(name, read(text))
    for name, value in wanted.items():
        old = {"pk": "aliases__old_id", "uuid": "aliases__uuid"}.get(name, name)
        for looked_at in (name, old):
            if paper := Paper.objects.filter(**{looked_at: value}).first():
                return paper
    raise NotFound(f"No paper has the number, UUID, arXiv id or DOI “{text}”.")


def _number(text: str) -> int:
    """The primary key that `text` is; 0 if it is none."""
    plain = text.isascii() and text.isdigit() and len(text) <= LONGEST_ID
    return int(text) if plain else 0


# --- The ledger -----------------------------------------------------------------------------------


def explain(delivery: Delivery) -> Explanation:
    """Every pick of a delivery with what it was picked for; those hidden since too."""
    Delivery.follow([delivery])
    ids = delivery.paper_ids
    papers = Paper.objects.in_bulk(ids)
    candidates = delivery.candidates()
    titles = titles_named_by(delivery)
    names = dict(
        Interest.objects.filter(subscriber=delivery.subscriber_id).values_list("pk", "name")
    )
    picks = []
    width = len(Delivery.TERMS)
    for place, pk in enumerate(ids):
        paper, row = papers.get(pk), candidates.get(pk)
        interest = delivery.interest_ids[place]
        key, _ = quoted(paper.abstract if paper else "", delivery.sentences[place])
        values = delivery.terms[place * width : (place + 1) * width]
        picks.append(
            Picked(
                place=place + 1,
                paper_id=pk,
                title=paper.title if paper else f"Paper {pk}, deleted since",
                section=str(Delivery.Section(delivery.sections[place]).label),
                interest=names.get(interest, "one removed since") if interest else "",
                reason=reason_text(
                    Delivery.Reason(delivery.reasons[place]), delivery.reason_details[place], titles
                ),
                key_sentence=key,
                terms=dict(zip(Delivery.TERMS, values, strict=True)),
                trend_terms=row.trend_terms if row else {},
                hidden=row is not None and row.curation == EditionPaper.Curation.HIDDEN,
            )
        )
    model = delivery.ranking_model
    return Explanation(delivery, model.name if model else "", picks)


# --- Why not --------------------------------------------------------------------------------------


def why_not(delivery: Delivery, paper: Paper) -> Answer:
    """Why a paper is not in a delivery, or why it is."""
    Delivery.follow([delivery])
    rows = list(EditionPaper.objects.filter(edition__in=delivery.editions(), paper=paper))
    hidden = any(row.curation == EditionPaper.Curation.HIDDEN for row in rows)
    if paper.pk in delivery.paper_ids:
        place = delivery.paper_ids.index(paper.pk)
        reason = reason_text(
            Delivery.Reason(delivery.reasons[place]),
            delivery.reason_details[place],
            titles_named_by(delivery),
        )
        done = "hidden" if hidden else "withdrawn" if paper.withdrawn_on else ""
        since = f" It was {done} since, and leaves no more." if done else ""
        return Answer(paper, "picked", f"It is in place {place + 1}: {reason}.{since}")
    if not rows:
        return Answer(paper, "elsewhere", _elsewhere(delivery, paper))
    if hidden:
        return Answer(paper, "hidden", "The curators have hidden it.")
    if paper.withdrawn_on is not None:
        return Answer(paper, "withdrawn", f"Its source withdrew it on {paper.withdrawn_on}.")
    if delivery.edition.state == Edition.State.EMPTY and delivery.editions_from is None:
        return Answer(paper, "empty", f"The edition is empty. {delivery.edition.reason}")
    return _Again(delivery, paper).answer()


def _elsewhere(delivery: Delivery, paper: Paper) -> str:
    day = delivery.edition.day
    carried = [edition.day for edition in paper.editions.settled().order_by("day")]
    if carried:
        return f"It is not in the edition of {day}, but in that of {carried[0]}."
    if paper.listing_day > day:
        return f"It is not in the edition of {day}: it was listed later, on {paper.listing_day}."
    return f"It is not in the edition of {day}, nor in any other that is frozen."


class _Again:
    """The plan of one delivery, made again to see what became of one paper."""

    def __init__(self, delivery: Delivery, paper: Paper) -> None:
        self.delivery = delivery
        self.paper = paper
        subscriber = delivery.subscriber
        frozen = delivery.editions().filter(state=Edition.State.FROZEN).order_by("-day")
        day = today(*frozen)
        self.batch = Batch(day, delivery.edition, [subscriber], delivery.planned_at)
        self.chosen: Selections = self.batch.choose()
        self.column = day.pool.paper_ids.tolist().index(paper.pk)
        self.trend = float(day.papers.trend[self.column])

    def answer(self) -> Answer:
        for verdict, sentence in (self._ruled_out(), self._not_chosen()):
            if sentence:
                return Answer(self.paper, verdict, sentence, list(self._changed()))
        raise AssertionError("every paper has its reason")

    def _changed(self) -> Iterator[str]:
        """What makes this plan another one than the one that was made."""
        delivery, model = self.delivery, self.batch.today.fitted.pk
        if delivery.ranking_model_id not in (None, model):
            yield "Another ranking model serves by now; this is computed with the new one."
        later = Feedback.objects.filter(
            subscriber=delivery.subscriber_id, at__gt=delivery.planned_at
        )
        if given := later.count():
            yield f"{given} judgements that the reader gave since then count here."
        again = self.batch.today.pool.paper_ids[self.chosen.paper].tolist()
        if again != delivery.paper_ids:
            yield (
                "Planned again now, this delivery would hold other papers: the reader's settings "
                "or feedback, the edition or the model have changed since."
            )

    def _ruled_out(self) -> tuple[str, str]:
        delivery, pair = self.delivery, (0, self.column)
        feedback = Feedback.objects.filter(subscriber=delivery.subscriber_id, paper=self.paper)
        if pair in self.batch.known:
            shown = Delivery.objects.filter(
                subscriber=delivery.subscriber_id,
                paper_ids__overlap=self.paper.ids,
                state__in=SHOWN,
            )
            if earlier := shown.select_related("edition").order_by("planned_at").first():
                when = "before" if earlier.planned_at <= delivery.planned_at else "since"
                return "shown", (
                    f"The reader was shown it {when}, in the delivery {earlier.uuid} of "
                    f"{earlier.edition.day}."
                )
            if judged := feedback.order_by("at").first():
                when = "before" if judged.at <= delivery.planned_at else "since"
                label = Feedback.Kind(judged.kind).label
                return "judged", f"The reader judged it {when}: “{label}”, {judged.at:%Y-%m-%d}."
            return "example", "The reader gave it as an example, and knows it."
        if pair in self.batch.muted:
            return "muted", f"The reader has muted “{self.batch.muted[pair]}”."
        return "", ""

    def _not_chosen(self) -> tuple[str, str]:
        picks = self.chosen.paper.tolist()
        if self.column in picks:
            place = picks.index(self.column) + 1
            return "changed", f"It was not picked then, but would be now, in place {place}."
        if not len(self.batch.telling):
            if alike := self._folded():
                return "folded", alike
            return self._outranked_by_trend("The reader's interests say nothing, so trend decides.")
        score, fits, said = self._relevance()
        if self.column in self.batch.today.papers.pinned:
            return "no place", f"It is pinned, but other papers have all the places. {said}"
        if (0, self.column) in self.batch.musts:
            if alike := self._folded():
                return "folded", f"It is a must-read. {alike}"
            return "no place", "It is a must-read, but pins and must-reads have all the places."
        if not fits:
            if self._trends() and self.chosen.section.tolist().count(Section.TRENDING):
                if alike := self._folded():
                    return "folded", f"{said} It is trending. {alike}"
                return self._outranked_by_trend(said)
            return "below", said
        if alike := self._folded():
            return "folded", f"{said} {alike}"
        last = np.flatnonzero(np.isin(self.chosen.section, FITTING))
        if not len(last):
            return "no place", f"{said} Pins and must-reads have all the places."
        lowest = float(self.chosen.score[last].min())
        return "outranked", (
            f"{said} It was outranked: its score is {score:.2f}, that of the last pick for the "
            f"reader {lowest:.2f}. {self._likeness()}"
        )

    def _relevance(self) -> tuple[float, bool, str]:
        """Its score for the reader, whether it is above the threshold, and both in words."""
        batch, telling = self.batch, self.batch.telling
        values = batch.relevance[telling, self.column]
        best = telling[[int(values.argmax())]]
        relevance = float(values.max())
        parts = batch.parts(best, np.array([self.column]))[0].tolist()
        terms = ", ".join(f"{name} {value:+.2f}" for name, value in zip(PARTS, parts, strict=True))
        fits = relevance >= ranking.THRESHOLD
        word = "reaches" if fits else "is below"
        name = batch.interests[int(best[0])].name
        weight = float(selection.trend_weight(batch.readers.popularity)[0])
        return (
            (1 - weight) * relevance + weight * self.trend,
            fits,
            f"Its relevance for “{name}”, the nearest interest, {word} the threshold: "
            f"{relevance:.3f} {'≥' if fits else '<'} {ranking.THRESHOLD:.3f} "
            f"({terms} {DEVIATIONS}).",
        )

    def _trends(self) -> bool:
        """Whether it may stand among the trending papers."""
        fields = self.batch.readers.fields[0]
        in_field = not fields.any() or bool(
            (fields & self.batch.today.papers.fields[self.column]).any()
        )
        return in_field and self.trend > selection.NEUTRAL_TREND

    def _outranked_by_trend(self, said: str) -> tuple[str, str]:
        section = self.chosen.section
        lead = (section == Section.LEAD) & (self.chosen.interest < 0)
        trending = np.flatnonzero((section == Section.TRENDING) | lead)
        if not len(trending):
            return "no place", f"{said} There is no place for a trending paper."
        lowest = float(self.chosen.trend[trending].min())
        return "outranked", (
            f"{said} It was outranked: its trend is {self.trend:.2f}, that of the last trending "
            f"pick {lowest:.2f}. {self._likeness()}"
        )

    def _nearest(self) -> tuple[float, str]:
        """The pick that it resembles most, and how much."""
        picks = self.chosen.paper
        if not len(picks):
            return 0.0, ""
        alike = self.batch.today.papers.similarity[self.column, picks]
        nearest = self.batch.today.pool.paper_ids[picks[int(alike.argmax())]]
        return float(alike.max()), Paper.objects.get(pk=nearest).title

    def _folded(self) -> str:
        alike, title = self._nearest()
        if alike < selection.DUPLICATE:
            return ""
        return f"It was folded as a near-duplicate of the pick “{title}” (similarity {alike:.2f})."

    def _likeness(self) -> str:
        alike, title = self._nearest()
        return (
            f"Likeness to what is in the mail counts against it (most to “{title}”, {alike:.2f}), "
            "and each interest has its share of the places."
        )
