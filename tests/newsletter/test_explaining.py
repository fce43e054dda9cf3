"""The ledger of a delivery, and why a paper is not in it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from datetime import date, timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from newsletter import feedback, learning
from newsletter.explaining import NotFound, explain, find_delivery, find_paper, why_not
from newsletter.models import Delivery, Feedback, Subscriber
from newsletter.picks import plan_everybody
from papers import editions
from papers.models import Edition, Paper
from tests.factories import (
    make_delivery,
    make_frozen_edition,
    make_interest,
    make_paper,
    make_subscriber,
)

pytestmark = pytest.mark.django_db

ROBOTS = [
    "Grasp planning for a robot arm", "Tactile robot hands", "A gripper that learns",
    "Robot manipulation from video", "Mobile robot navigation",
]  # fmt: skip
OTHERS = [
    "Dark matter in dwarf galaxies", "Star formation at high redshift", "Lattice cryptography",
    "Protein folding with transformers", "Sampling bias in polls", "Indexes of databases",
    "Opinion dynamics on networks", "Turbulence near a wall",
]  # fmt: skip


def an_edition(*more: Paper) -> Edition:
    return make_frozen_edition(*[make_paper(title) for title in [*ROBOTS, *OTHERS]], *more)


def a_day_without_robots() -> Edition:
    """Of which the archive knows."""
    for title in ROBOTS:
        make_paper(title, listing_day=timezone.now().date() - timedelta(days=30))
    return make_frozen_edition(*[make_paper(title) for title in OTHERS])


def reader_of_robots(**fields: object) -> Subscriber:
    return make_subscriber(
        "robots@example.org",
        interests=("robot grasp gripper",),
        **({"papers_per_mail": 3} | fields),
    )


def planned(edition: Edition, reader: Subscriber) -> Delivery:
    plan_everybody(edition, timezone.now())
    return Delivery.objects.get(edition=edition, subscriber=reader)


def said(delivery: Delivery, paper: Paper) -> tuple[str, str]:
    answer = why_not(delivery, paper)
    return answer.verdict, answer.sentence


def the(title: str) -> Paper:
    return Paper.objects.get(title=title)


# --- The ledger -----------------------------------------------------------------------------------


def test_the_ledger_says_place_section_interest_reason_sentence_terms_and_model() -> None:
    paper = make_paper(
        "Robot hands", abstract="Nothing here. A robot can grasp with its gripper. That is all."
    )
    edition = an_edition(paper)
    edition.candidates.filter(paper=paper).update(
        trend=0.8, trend_terms={"upvotes": {"count": 41, "gained": None, "percentile": 0.9}}
    )
    delivery = planned(edition, reader_of_robots())
    explanation = explain(delivery)
    first = explanation.picks[0]
    assert (first.place, first.paper_id, first.title) == (1, paper.pk, "Robot hands")
    assert first.section == "Today’s paper for you"
    assert first.interest == "robot grasp gripper"
    assert first.reason.startswith("Matches your interest: ")
    assert first.key_sentence == "A robot can grasp with its gripper."
    assert list(first.terms) == list(Delivery.TERMS)
    assert first.trend_terms["upvotes"]["count"] == 41
    assert len(explanation.picks) == len(delivery.paper_ids)
    text = "\n".join(explanation.lines())
    assert str(delivery.uuid) in text
    assert explanation.ranking_model
    assert f"by the ranking model {explanation.ranking_model}" in text
    assert f"words {first.terms['words']:+.2f}" in text
    assert "deviations from chance" in text
    assert "upvotes: count 41, gained unknown, percentile 0.9" in text
    assert "“A robot can grasp with its gripper.”" in text


def test_the_ledger_shows_what_was_hidden_deleted_or_removed_since() -> None:
    edition = an_edition()
    reader = reader_of_robots()
    delivery = planned(edition, reader)
    hidden, deleted = delivery.paper_ids[:2]
    edition.candidates.filter(paper=hidden).update(curation="hidden")
    Paper.objects.get(pk=deleted).delete()
    reader.interests.all().delete()
    picks = explain(delivery).picks
    assert picks[0].hidden
    assert picks[0].interest == "one removed since"
    assert picks[1].title == f"Paper {deleted}, deleted since"


def test_a_skipped_delivery_says_its_reason() -> None:
    delivery = planned(a_day_without_robots(), reader_of_robots())
    text = "\n".join(explain(delivery).lines())
    assert "Skipped: " in text
    assert "ranking model none" in text


# --- Why not --------------------------------------------------------------------------------------


def test_of_a_pick_it_says_why_it_is_there() -> None:
    delivery = planned(an_edition(), reader_of_robots())
    paper = Paper.objects.get(pk=delivery.paper_ids[1])
    verdict, sentence = said(delivery, paper)
    assert verdict == "picked"
    assert sentence.startswith("It is in place 2: Matches your interest: ")


def test_a_paper_of_another_day_is_said_to_be_in_that_edition() -> None:
    day = timezone.now().date()
    other, late, nowhere = make_paper("Of yesterday"), make_paper("Late"), make_paper("Nowhere")
    make_frozen_edition(other, day=day - timedelta(days=1))
    Paper.objects.filter(pk=late.pk).update(listing_day=day + timedelta(days=2))
    late.refresh_from_db()
    delivery = planned(an_edition(), reader_of_robots())
    assert said(delivery, other) == (
        "elsewhere",
        f"It is not in the edition of {day}, but in that of {day - timedelta(days=1)}.",
    )
    assert "listed later" in said(delivery, late)[1]
    assert "nor in any other" in said(delivery, nowhere)[1]


def test_a_hidden_paper_is_said_to_be_hidden() -> None:
    edition = an_edition()
    edition.candidates.filter(paper__title=ROBOTS[0]).update(curation="hidden")
    delivery = planned(edition, reader_of_robots())
    assert said(delivery, the(ROBOTS[0])) == ("hidden", "The curators have hidden it.")


def test_a_paper_withdrawn_since_the_plan_is_said_to_be_withdrawn() -> None:
    edition = an_edition()
    delivery = planned(edition, reader_of_robots())
    picked = Paper.objects.get(pk=delivery.paper_ids[0])
    left = edition.papers.exclude(pk__in=delivery.paper_ids).first()
    assert left is not None
    for paper in (picked, left):
        paper.withdrawn_on = date(2026, 11, 20)
        paper.save()
    assert said(delivery, picked)[1].endswith("It was withdrawn since, and leaves no more.")
    assert said(delivery, left) == ("withdrawn", "Its source withdrew it on 2026-11-20.")


def test_what_was_shown_before_names_the_delivery() -> None:
    paper = the_paper = make_paper("Robot grasp gripper")
    reader = reader_of_robots()
    day = timezone.now().date()
    yesterday = make_frozen_edition(paper, day=day - timedelta(days=1))
    before = make_delivery(reader, paper, edition=yesterday)
    delivery = planned(an_edition(the_paper), reader)
    verdict, sentence = said(delivery, paper)
    assert verdict == "shown"
    assert f"shown it before, in the delivery {before.uuid} of {yesterday.day}" in sentence


def test_what_is_muted_names_the_rule() -> None:
    delivery = planned(an_edition(), reader_of_robots(muted_terms=["tactile"]))
    assert said(delivery, the(ROBOTS[1])) == ("muted", "The reader has muted “tactile”.")


def test_what_was_judged_before_names_the_judgement() -> None:
    edition, reader = an_edition(), reader_of_robots()
    feedback.give(reader, the(ROBOTS[0]), Feedback.Kind.LESS)
    verdict, sentence = said(planned(edition, reader), the(ROBOTS[0]))
    assert verdict == "judged"
    assert "judged it before: “Not interested”" in sentence


def test_an_example_is_said_to_be_known() -> None:
    edition, reader = an_edition(), reader_of_robots()
    make_interest(reader, "hands", example_ids=[the(ROBOTS[1]).pk])
    assert said(planned(edition, reader), the(ROBOTS[1]))[0] == "example"


def test_what_is_below_the_threshold_says_by_how_much_and_for_which_interest() -> None:
    delivery = planned(an_edition(), reader_of_robots())
    verdict, sentence = said(delivery, the(OTHERS[0]))
    assert verdict == "below"
    assert "“robot grasp gripper”" in sentence
    assert "is below the threshold: 0.0" in sentence
    assert "words " in sentence
    assert "examples " in sentence


def test_what_is_outranked_says_both_scores() -> None:
    kinds = ("soft silicone", "fast cheap", "heavy steel", "undersea", "orbital")
    papers = [make_paper(f"Robot grasp by a {kind} gripper") for kind in kinds]
    delivery = planned(an_edition(*papers), reader_of_robots())
    left = [paper for paper in papers if paper.pk not in delivery.paper_ids]
    verdicts = {paper.title: said(delivery, paper) for paper in left}
    outranked = [sentence for verdict, sentence in verdicts.values() if verdict == "outranked"]
    assert outranked, verdicts
    assert "its score is 0." in outranked[0]
    assert "that of the last pick for the reader 0." in outranked[0]


def test_a_near_duplicate_names_the_pick_it_was_folded_into() -> None:
    abstract = "We grasp with a robot arm and a tactile gripper, which no one did before."
    twins = [make_paper(title, abstract=abstract) for title in ("A robot arm", "Robot arms")]
    delivery = planned(an_edition(*twins), reader_of_robots(papers_per_mail=8))
    [shown] = [paper for paper in twins if paper.pk in delivery.paper_ids]
    [folded] = [paper for paper in twins if paper.pk not in delivery.paper_ids]
    verdict, sentence = said(delivery, folded)
    assert verdict == "folded"
    assert f"near-duplicate of the pick “{shown.title}” (similarity 1.00)" in sentence


def test_a_reader_without_interests_is_told_of_trends() -> None:
    edition = an_edition()
    for place, row in enumerate(edition.candidates.order_by("id")):
        edition.candidates.filter(pk=row.pk).update(trend=1 - place / 20)
    delivery = planned(edition, make_subscriber(papers_per_mail=3))
    verdict, sentence = said(delivery, the(OTHERS[-1]))
    assert verdict == "outranked"
    assert "its trend is 0.40, that of the last trending pick 0.90" in sentence


def test_pins_and_must_reads_without_a_place_are_said_so() -> None:
    edition = an_edition()
    edition.candidates.filter(paper__title__in=OTHERS[:3]).update(curation="pinned")
    editions.touch(edition)
    edition.refresh_from_db()
    reader = reader_of_robots(must_phrases=["protein", "polls", "databases"])
    delivery = planned(edition, reader)
    verdicts = {
        title: said(delivery, the(title))
        for title in OTHERS[:6]
        if the(title).pk not in delivery.paper_ids
    }
    assert {verdict for verdict, _ in verdicts.values()} == {"no place"}
    assert any("pinned" in sentence for _, sentence in verdicts.values())
    assert any("must-read" in sentence for _, sentence in verdicts.values())


def test_of_a_skipped_delivery_it_says_why_of_each_paper() -> None:
    assert said(planned(a_day_without_robots(), reader_of_robots()), the(OTHERS[0]))[0] == "below"


def test_of_an_empty_edition_it_says_that() -> None:
    paper = make_paper("Alone")
    edition = editions.open_edition(timezone.now().date())
    row = edition.candidates.get(paper=paper)
    editions.curate(row, row.Curation.HIDDEN)
    edition = editions.freeze(edition, timezone.now())
    delivery = planned(edition, reader_of_robots())
    edition.candidates.update(curation="")
    verdict, sentence = said(delivery, paper)
    assert verdict == "empty"
    assert "hidden every paper" in sentence


def test_what_has_changed_since_is_said() -> None:
    edition, reader = an_edition(), reader_of_robots()
    delivery = planned(edition, reader)
    assert why_not(delivery, the(OTHERS[0])).changed == []
    learning.fit()
    [note] = why_not(delivery, the(OTHERS[0])).changed
    assert "Another ranking model" in note
    feedback.give(
        reader, the(ROBOTS[2]), Feedback.Kind.LESS, now=timezone.now() + timedelta(hours=1)
    )
    reader.interests.update(words="dark galaxies of stars")
    answer = why_not(delivery, the(OTHERS[0]))
    assert len(answer.changed) == 3
    assert "1 judgements" in answer.changed[1]
    assert "would hold other papers" in answer.changed[2]
    assert answer.verdict == "changed"


def test_every_paper_of_an_edition_has_its_answer() -> None:
    edition = an_edition(make_paper("⸻", abstract=""))
    for n, fields in enumerate([{}, {"popularity": 100}, {"popularity": 0, "papers_per_mail": 20}]):
        make_subscriber(f"r{n}@example.org", interests=("robot grasp",), **fields)
    make_subscriber("plain@example.org")
    make_subscriber("odd@example.org", interests=("🤖",))
    plan_everybody(edition, timezone.now())
    for delivery in Delivery.objects.all():
        for paper in Paper.objects.all():
            verdict, sentence = said(delivery, paper)
            assert sentence
            assert (verdict == "picked") == (paper.pk in delivery.paper_ids)


# --- Finding --------------------------------------------------------------------------------------


def test_a_delivery_is_found_by_its_number_and_its_uuid() -> None:
    delivery = make_delivery(make_subscriber(), make_paper())
    assert find_delivery(str(delivery.pk)) == find_delivery(str(delivery.uuid)) == delivery


@pytest.mark.parametrize("text", ["", "0", "²", "9" * 30, "not-a-uuid", "-1"])
def test_what_names_nothing_is_not_found(text: str) -> None:
    with pytest.raises(NotFound, match="No delivery"):
        find_delivery(text)
    with pytest.raises(NotFound, match="No paper"):
        find_paper(text)


def test_a_paper_is_found_by_its_number_uuid_arxiv_id_and_doi() -> None:
    paper = make_paper(arxiv_id="2511.00001", doi="10.1000/xyz")
    for text in (
        str(paper.pk), str(paper.uuid), "2511.00001", "arXiv:2511.00001v2",
        "https://arxiv.org/abs/2511.00001", "10.1000/XYZ", " https://doi.org/10.1000/xyz ",
    ):  # fmt: skip
        assert find_paper(text) == paper


# --- The doors ------------------------------------------------------------------------------------


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("explain", *args, stdout=out)
    return out.getvalue()


def test_the_command_prints_the_ledger_and_the_answer_as_text_and_as_json() -> None:
    reader = reader_of_robots()
    delivery = planned(an_edition(), reader)
    text = run(str(delivery.uuid))
    assert text.strip() == "\n".join(explain(delivery).lines())
    ledger = json.loads(run(str(delivery.pk), "--json"))
    assert ledger["delivery"] == str(delivery.uuid)
    assert [pick["paper_id"] for pick in ledger["picks"]] == delivery.paper_ids
    assert set(ledger["picks"][0]["terms"]) == set(Delivery.TERMS)
    paper = the(OTHERS[0])
    assert "below the threshold" in run(str(delivery.pk), "--paper", str(paper.uuid))
    answer = json.loads(run(str(delivery.pk), "--paper", str(paper.pk), "--json"))
    assert (answer["paper"], answer["verdict"]) == (paper.pk, "below")
    assert reader.address not in text


@pytest.mark.parametrize("args", [["77"], ["nonsense"]])
def test_the_command_refuses_what_it_cannot_find(args: list[str]) -> None:
    with pytest.raises(CommandError, match="No delivery has the UUID or number"):
        run(*args)
    delivery = make_delivery(make_subscriber(), make_paper())
    with pytest.raises(CommandError, match="No paper has"):
        run(str(delivery.pk), "--paper", "2511.99999")


def page_of(delivery: Delivery, asked: str = "", verbs: Iterable[str] = ("view",)) -> str:
    user, _ = User.objects.get_or_create(username="op", is_staff=True)
    for verb in verbs:
        user.user_permissions.add(Permission.objects.get(codename=f"{verb}_delivery"))
    client = Client()
    client.force_login(user)
    query = {"paper": asked} if asked else {}
    response = client.get(f"/admin/newsletter/delivery/{delivery.pk}/change/", query)
    return response.content.decode() if response.status_code == 200 else str(response.status_code)


def test_the_admin_shows_the_ledger_and_answers_why_not() -> None:
    paper = make_paper("Robot <b>grasp</b> gripper")
    delivery = planned(an_edition(paper), reader_of_robots())
    shown = page_of(delivery)
    assert "1. Robot &lt;b&gt;grasp&lt;/b&gt; gripper" in shown
    assert "deviations from chance" in shown
    assert "Why not this paper?" in shown
    assert 'role="status"' not in shown
    answered = page_of(delivery, str(the(OTHERS[0]).pk))
    assert "is below the threshold" in answered
    assert "No paper has the number" in page_of(delivery, "<script>")
    assert "<script>alert" not in page_of(delivery, "<script>alert(1)")


def test_the_admin_answers_nobody_without_the_right() -> None:
    delivery = make_delivery(make_subscriber(), make_paper())
    assert page_of(delivery, "1", verbs=()) == "403"
