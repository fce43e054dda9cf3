"""What readers say of themselves, and what that does to their next mail."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from newsletter import candidates, feedback, learning
from newsletter.batch import Batch
from newsletter.models import Delivery, Feedback, Interest, Subscriber
from newsletter.picks import ALL_SHOWN, NOT_CLOSE, plan_everybody
from newsletter.recommender import ranking
from papers import editions
from papers.abstracts import sentences
from papers.models import Edition, EditionPaper, Embedding, Paper
from tests.factories import (
    make_delivery,
    make_frozen_edition,
    make_interest,
    make_paper,
    make_subscriber,
)
from tests.plans import analyse, counted

pytestmark = pytest.mark.django_db

Reason, Section, Kind = Delivery.Reason, Delivery.Section, Feedback.Kind

SUBJECTS = {
    "video": ["video", "diffusion", "frame", "clip", "motion", "temporal"],
    "robot": ["robot", "gripper", "grasp", "manipulation", "arm", "tactile"],
    "star": ["galaxy", "star", "dwarf", "halo", "telescope", "redshift"],
    "key": ["lattice", "cipher", "key", "proof", "signature", "encryption"],
    "protein": ["protein", "folding", "residue", "ligand", "docking", "binding"],
}
OLD = timedelta(days=30)


def paper_on(subject: str, seed: int = 0, **fields: object) -> Paper:
    """Three words of the subject in its title, two others in its abstract."""
    words = np.random.default_rng([seed, len(subject)]).permutation(SUBJECTS[subject])
    fields.setdefault("abstract", f"Here {words[3]} meets {words[4]}. Tables number {seed}.")
    return make_paper(f"{' '.join(words[:3])} {subject}{seed}", **fields)


def an_archive(each: int = 6) -> dict[str, list[Paper]]:
    """Papers of each subject that were on the list long ago."""
    day = timezone.now().date() - OLD
    return {
        subject: [paper_on(subject, 100 + seed, listing_day=day) for seed in range(each)]
        for subject in SUBJECTS
    }


def an_edition(each: int = 3, *more: Paper) -> Edition:
    papers = [paper_on(subject, seed) for subject in SUBJECTS for seed in range(each)]
    return make_frozen_edition(*papers, *more)


def planned(edition: Edition, reader: Subscriber) -> Delivery:
    """What the reader, as they are now, would get of the edition; planned afresh each time."""
    edition.deliveries.all().delete()
    reader.save()
    plan_everybody(edition, timezone.now())
    delivery = Delivery.objects.get(edition=edition, subscriber=reader)
    delivery.clean()
    return delivery


def titles_of(delivery: Delivery) -> list[str]:
    titles = dict(Paper.objects.values_list("pk", "title"))
    return [titles[pk] for pk in delivery.paper_ids]


def subjects_of(delivery: Delivery) -> list[str]:
    return [title.split()[-1].rstrip("0123456789") for title in titles_of(delivery)]


def reason_of(delivery: Delivery, paper: Paper) -> tuple[Delivery.Reason, str]:
    place = delivery.paper_ids.index(paper.pk)
    return Reason(delivery.reasons[place]), delivery.reason_details[place]


def section_of(delivery: Delivery, paper: Paper) -> Delivery.Section:
    return Section(delivery.sections[delivery.paper_ids.index(paper.pk)])


def terms_of(delivery: Delivery, paper: Paper) -> dict[str, float]:
    start = delivery.paper_ids.index(paper.pk) * len(Delivery.TERMS)
    return dict(zip(Delivery.TERMS, delivery.terms[start:], strict=False))


def scores_of(edition: Edition, reader: Subscriber) -> dict[str, float]:
    """The score of each subject's papers for the reader's first interest, on average."""
    batch = Batch(candidates.today(edition), edition, [reader], timezone.now())
    titles = dict(Paper.objects.values_list("pk", "title"))
    found: dict[str, list[float]] = {}
    for place, pk in enumerate(batch.today.pool.paper_ids.tolist()):
        subject = titles[pk].split()[-1].rstrip("0123456789")
        found.setdefault(subject, []).append(float(batch.scores[0, place]))
    return {subject: float(np.mean(values)) for subject, values in found.items()}


def judge(
    reader: Subscriber, paper: Paper, kind: Feedback.Kind, interest: Interest | None = None
) -> None:
    feedback.give(reader, paper, kind, interest)


def reader_with(**fields: object) -> Subscriber:
    reader = make_subscriber()
    make_interest(reader, "mine", **fields)
    return reader


# --- What an interest is made of ------------------------------------------------------------------


def test_examples_bring_papers_that_are_close_to_them_and_are_named() -> None:
    archive = an_archive()
    edition = an_edition()
    examples = [paper.pk for paper in archive["robot"][:2]]
    delivery = planned(edition, reader_with(example_ids=examples))
    assert subjects_of(delivery)[:3] == ["robot"] * 3
    for place in range(3):
        assert delivery.reasons[place] == Reason.EXAMPLE
        assert int(delivery.reason_details[place]) in examples
        assert delivery.interest_ids[place] == Interest.objects.get().pk


def test_the_example_that_is_named_is_the_closest_one() -> None:
    archive = an_archive()
    one, other = archive["star"][0], archive["robot"][0]
    new = make_paper(f"{other.title} again and faster", abstract=other.abstract)
    edition = an_edition(3, new)
    delivery = planned(edition, reader_with(example_ids=[one.pk, other.pk]))
    assert reason_of(delivery, new) == (Reason.EXAMPLE, str(other.pk))


def test_examples_added_after_the_edition_was_first_looked_at_count_too() -> None:
    archive = an_archive()
    edition = an_edition()
    planned(edition, reader_with(words="galaxy"))
    bob = make_subscriber("bob@example.org")
    make_interest(bob, "his", example_ids=[archive["key"][0].pk])
    assert set(subjects_of(planned(edition, bob))[:3]) == {"key"}


def test_examples_that_are_gone_are_ignored() -> None:
    archive = an_archive()
    edition = an_edition()
    reader = reader_with(example_ids=[archive["robot"][0].pk, 10**15, archive["star"][0].pk])
    archive["star"][0].delete()
    delivery = planned(edition, reader)
    assert subjects_of(delivery)[0] == "robot"
    assert "star" not in subjects_of(delivery)[:3]


def test_a_reader_whose_examples_are_all_gone_gets_trending() -> None:
    an_archive()
    delivery = planned(an_edition(), reader_with(example_ids=[10**15]))
    assert len(delivery.paper_ids) == 8
    assert set(delivery.sections) == {Section.LEAD, Section.TRENDING}


def test_words_that_are_the_whole_of_a_paper_find_it() -> None:
    an_archive()
    bare = make_paper("Grasp robot arm", abstract="")
    delivery = planned(an_edition(3, bare), reader_with(words="grasp robot arm"))
    assert delivery.paper_ids[0] == bare.pk


def test_a_library_of_papers_without_text_gives_a_poor_profile_and_no_error() -> None:
    an_archive()
    blank = make_paper("⸻", abstract="", listing_day=timezone.now().date() - OLD)
    delivery = planned(an_edition(), reader_with(example_ids=[blank.pk]))
    assert (delivery.state, delivery.skip_reason) == (Delivery.State.SKIPPED, NOT_CLOSE)


def test_a_followed_author_is_found_however_the_name_is_spelled() -> None:
    an_archive()
    followed = paper_on("key", 50, authors=["José Núñez", "Bo Berg"])
    stranger = paper_on("key", 51, authors=["J. Nunez"])
    edition = an_edition(3, followed, stranger)
    delivery = planned(edition, reader_with(words="galaxy", authors=["Nunez, Jose"]))
    assert reason_of(delivery, followed) == (Reason.AUTHOR, "Nunez, Jose")
    assert terms_of(delivery, followed)["authors"] == ranking.AUTHOR_BONUS
    assert stranger.pk not in delivery.paper_ids


def test_a_category_alone_is_enough_and_is_the_reason() -> None:
    an_archive()
    listed = [paper_on("key", 50 + n, categories=["cs.CR", "math.NT"]) for n in range(2)]
    edition = an_edition(3, *listed)
    delivery = planned(edition, reader_with(categories=["cs.CR"]))
    assert set(delivery.paper_ids[:2]) == {paper.pk for paper in listed}
    assert reason_of(delivery, listed[0]) == (Reason.CATEGORY, "cs.CR")


@pytest.mark.parametrize("words", ["🤖🔥", "the of and", "робот", "zebra zoology"])
def test_a_category_is_enough_beside_words_that_say_nothing(words: str) -> None:
    an_archive()
    listed = paper_on("key", 50, categories=["cs.CR"])
    delivery = planned(an_edition(3, listed), reader_with(words=words, categories=["cs.CR"]))
    assert reason_of(delivery, listed) == (Reason.CATEGORY, "cs.CR")


def test_a_category_beside_telling_words_is_a_bonus_and_no_ticket() -> None:
    an_archive()
    listed = paper_on("key", 50, categories=["cs.CR"])
    delivery = planned(an_edition(3, listed), reader_with(words="galaxy", categories=["cs.CR"]))
    assert listed.pk not in delivery.paper_ids
    assert "star" in subjects_of(delivery)


@pytest.mark.parametrize(
    "words", ["🤖🔥", "the of and", "сверточные сети", "机器人操作", "\x0b -- __"]
)
def test_a_reader_whose_interest_says_nothing_gets_trending(words: str) -> None:
    an_archive()
    delivery = planned(an_edition(), reader_with(words=words))
    assert len(delivery.paper_ids) == 8
    assert set(delivery.sections) == {Section.LEAD, Section.TRENDING}
    assert set(delivery.interest_ids) == {0}


def test_ten_thousand_words_are_an_interest_like_any_other() -> None:
    an_archive()
    delivery = planned(an_edition(), reader_with(words="robot grasp " * 5_000))
    assert subjects_of(delivery)[0] == "robot"


def test_an_interest_that_matches_nothing_today_brings_no_mail() -> None:
    an_archive()
    edition = make_frozen_edition(*[paper_on("star", n) for n in range(5)])
    delivery = planned(edition, reader_with(words="lattice cipher"))
    assert (delivery.state, delivery.skip_reason) == (Delivery.State.SKIPPED, NOT_CLOSE)
    assert delivery.paper_ids == []


def test_a_weak_day_brings_a_short_mail() -> None:
    an_archive()
    delivery = planned(an_edition(1), reader_with(words="lattice cipher key"))
    assert 1 <= len(delivery.paper_ids) < 8
    assert subjects_of(delivery)[0] == "key"


def test_the_dense_view_finds_what_shares_no_word() -> None:
    archive = an_archive()
    edition = an_edition()
    directions = np.eye(len(SUBJECTS), dtype=np.float32)
    rows = []
    for paper in Paper.objects.all():
        subject = paper.title.split()[-1].rstrip("0123456789")
        vector = directions[list(SUBJECTS).index(subject)].tolist()
        rows.append(Embedding(paper=paper, encoder="a" * 64, vector=vector, text_digest="x"))
    Embedding.objects.bulk_create(rows)
    blank = make_paper("Zebra zoology", abstract="", listing_day=archive["star"][0].listing_day)
    Embedding.objects.create(
        paper=blank, encoder="a" * 64, vector=directions[1].tolist(), text_digest="x"
    )
    unsaid = make_paper("Unsaid", abstract="")
    Embedding.objects.create(paper=unsaid, encoder="a" * 64, vector=None, text_digest="x")
    EditionPaper.objects.create(edition=edition, paper=unsaid)
    learning.fit()
    scores = scores_of(edition, reader_with(example_ids=[blank.pk]))
    assert max(scores, key=lambda subject: scores[subject]) == "robot"
    assert np.isfinite(list(scores.values())).all()


# --- Feedback -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "reason"), [(Kind.MORE, Reason.LIKED), (Kind.SAVE, Reason.SAVED)])
def test_what_a_reader_likes_counts_in_the_very_next_plan(
    kind: Feedback.Kind, reason: Delivery.Reason
) -> None:
    archive = an_archive()
    edition = an_edition()
    reader = make_subscriber()
    assert set(planned(edition, reader).reasons) == {Reason.NEW}
    judge(reader, archive["protein"][0], kind)
    delivery = planned(edition, reader)
    assert subjects_of(delivery)[0] == "protein"
    assert delivery.reasons[0] == reason
    assert delivery.reason_details[0] == str(archive["protein"][0].pk)


def test_a_dislike_takes_from_what_is_like_it_and_gives_to_none() -> None:
    archive = an_archive()
    edition = an_edition()
    reader = reader_with(words="robot galaxy")
    before = scores_of(edition, reader)
    judge(reader, archive["robot"][0], Kind.LESS)
    after = scores_of(edition, reader)
    assert after["robot"] < before["robot"]
    assert after["star"] - after["robot"] > before["star"] - before["robot"]


def test_a_dislike_outside_every_interest_counts_against_all_of_them() -> None:
    archive = an_archive()
    edition = an_edition()
    reader = reader_with(words="robot")
    make_interest(reader, "arms", words="gripper arm")
    before = Batch(candidates.today(edition), edition, [reader], timezone.now())
    judge(reader, archive["robot"][0], Kind.LESS)
    after = Batch(candidates.today(edition), edition, [reader], timezone.now())
    assert [len(before.entries.row), len(after.entries.row)] == [0, 2]
    robots = [n for n, title in enumerate(before.today.pool.texts) if "robot" in title]
    assert np.all(after.scores[:, robots].mean(axis=1) < before.scores[:, robots].mean(axis=1))


def test_a_reader_who_only_dislikes_gets_trending() -> None:
    archive = an_archive()
    reader = make_subscriber()
    judge(reader, archive["robot"][0], Kind.LESS)
    assert set(planned(an_edition(), reader).sections) == {Section.LEAD, Section.TRENDING}


def test_a_judgement_fades_with_the_months() -> None:
    archive = an_archive()
    edition = an_edition()
    reader = reader_with(words="")
    mine = reader.interests.get()
    judge(reader, archive["robot"][0], Kind.SAVE, mine)
    judge(reader, archive["star"][0], Kind.SAVE, mine)
    Feedback.objects.filter(paper=archive["robot"][0]).update(
        at=timezone.now() - timedelta(days=540)
    )
    batch = Batch(candidates.today(edition), edition, [reader], timezone.now())
    weights = dict(zip(batch.entries.row.tolist(), batch.entries.weight.tolist(), strict=True))
    [old, new] = batch.today.library.rows(
        np.array([archive["robot"][0].pk, archive["star"][0].pk])
    ).tolist()
    assert weights[old] == pytest.approx(1 / 8, rel=0.01)
    assert weights[new] == pytest.approx(1, rel=0.01)
    scores = scores_of(edition, reader)
    assert scores["star"] > scores["robot"]


def test_a_click_says_less_than_a_save() -> None:
    archive = an_archive()
    edition = an_edition()
    reader = reader_with(words="")
    mine = reader.interests.get()
    judge(reader, archive["robot"][0], Kind.CLICK, mine)
    judge(reader, archive["star"][0], Kind.SAVE, mine)
    scores = scores_of(edition, reader)
    assert scores["star"] > scores["robot"]


# --- What a reader rules --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "rule"),
    [
        ("muted_terms", "GRASP  robot"),
        ("muted_categories", "CS.ro"),
        ("muted_authors", "Núñez, José"),
    ],
)
def test_a_mute_excludes_a_paper_whatever_its_score(field: str, rule: str) -> None:
    an_archive()
    paper = make_paper("Grasp robot arm", categories=["cs.RO"], authors=["Jose Nunez"])
    edition = an_edition(3, paper)
    reader = reader_with(words="grasp robot arm")
    assert paper.pk in planned(edition, reader).paper_ids
    Subscriber.objects.update(**{field: [rule]})
    reader.refresh_from_db()
    assert paper.pk not in planned(edition, reader).paper_ids


def test_a_muted_piece_of_a_word_mutes_nothing() -> None:
    an_archive()
    paper = make_paper("Grasp robot arm")
    reader = reader_with(words="grasp robot arm")
    reader.muted_terms = ["rob", "gras", " ", ".*"]
    assert paper.pk in planned(an_edition(3, paper), reader).paper_ids


def test_a_mute_goes_before_a_pin_and_a_must_read() -> None:
    an_archive()
    paper = make_paper("Grasp robot arm")
    edition = an_edition(3, paper)
    edition.candidates.filter(paper=paper).update(curation="pinned")
    editions.touch(edition)
    edition.refresh_from_db()
    reader = reader_with(words="galaxy")
    assert section_of(planned(edition, reader), paper) == Section.PINNED
    reader.muted_terms = reader.must_phrases = ["grasp robot"]
    assert paper.pk not in planned(edition, reader).paper_ids


@pytest.mark.parametrize(
    ("field", "rule"), [("must_phrases", "cipher KEY"), ("must_authors", "Turing, Alan")]
)
def test_a_must_read_comes_though_it_fits_no_interest_and_says_why(field: str, rule: str) -> None:
    an_archive()
    paper = make_paper("Cipher key proof", authors=["Alan Turing"])
    edition = an_edition(3, paper)
    reader = reader_with(words="galaxy")
    assert paper.pk not in planned(edition, reader).paper_ids
    setattr(reader, field, [rule])
    delivery = planned(edition, reader)
    assert section_of(delivery, paper) == Section.MUST_READ
    assert reason_of(delivery, paper) == (Reason.MUST_READ, rule)


def test_a_must_read_alone_makes_a_mail() -> None:
    an_archive()
    edition = make_frozen_edition(*[paper_on("star", n) for n in range(5)])
    reader = reader_with(words="lattice cipher")
    reader.must_phrases = ["star0"]
    assert subjects_of(planned(edition, reader)) == ["star"]


def test_with_everything_muted_the_delivery_is_skipped_for_that_reason() -> None:
    edition = an_edition()
    reader = make_subscriber(muted_authors=["Ada Alvarez"])
    delivery = planned(edition, reader)
    assert (delivery.state, delivery.skip_reason) == (Delivery.State.SKIPPED, ALL_SHOWN)


def with_trends(edition: Edition, best: str) -> Edition:
    """The papers of one subject are what everybody reads."""
    for row in edition.candidates.select_related("paper"):
        row.trend = 0.9 if best in row.paper.title else 0.1
        row.trend_terms = (
            {"upvotes": {"count": 41, "gained": 12}} if best in row.paper.title else {}
        )
        row.save()
    editions.touch(edition)
    edition.refresh_from_db()
    return edition


def test_the_slider_goes_from_one_s_own_to_everybody_s_papers() -> None:
    an_archive()
    edition = with_trends(an_edition(5), "star")
    reader = reader_with(words="robot")
    shares = []
    for popularity in (0, 50, 100):
        reader.popularity = popularity
        shares.append(subjects_of(planned(edition, reader)).count("star"))
    assert shares[0] <= 2
    assert shares[0] < shares[1] <= shares[2]


def test_upvotes_and_exploration_are_named_as_what_they_are() -> None:
    an_archive()
    edition = with_trends(an_edition(5), "star")
    reader = reader_with(words="robot grasp")
    delivery = planned(edition, reader)
    sections = list(map(Section, delivery.sections))
    assert sections[0] == Section.LEAD
    assert sections.count(Section.EXPLORE) == 1
    assert sections.count(Section.TRENDING) >= 1
    for place, section in enumerate(sections):
        reason = (delivery.reasons[place], delivery.reason_details[place])
        if section == Section.EXPLORE:
            assert reason == (Reason.EXPLORATION, "")
        elif section == Section.TRENDING:
            assert reason == (Reason.UPVOTES, "41 12")
        if section in (Section.EXPLORE, Section.TRENDING):
            assert delivery.interest_ids[place] == 0
            assert subjects_of(delivery)[place] == "star"


# --- What comes once ------------------------------------------------------------------------------


def test_near_duplicates_are_folded() -> None:
    an_archive()
    abstract = "We grasp with a robot arm and a tactile gripper, which no one did before."
    twins = [make_paper(title, abstract=abstract) for title in ("A robot arm", "Robot arms")]
    delivery = planned(an_edition(3, *twins), reader_with(words="grasp robot"))
    assert len({paper.pk for paper in twins} & set(delivery.paper_ids)) == 1


@pytest.mark.parametrize("state", [Delivery.State.SENT, Delivery.State.PLANNED])
def test_a_paper_that_was_shown_never_comes_again_even_in_a_new_version(state: str) -> None:
    an_archive()
    paper = make_paper("Grasp robot arm", arxiv_id="2511.00001")
    reader = reader_with(words="grasp robot arm")
    day = timezone.now().date()
    yesterday = make_frozen_edition(paper, day=day - timedelta(days=1))
    delivery = make_delivery(reader, paper, edition=yesterday)
    Delivery.objects.filter(pk=delivery.pk).update(state=state, sent_at=timezone.now())
    paper.abstract = "A second version of the grasp robot arm."
    paper.listing_day = day
    paper.save()
    edition = an_edition(3, paper)
    assert paper.pk not in planned(edition, reader).paper_ids
    bob = make_subscriber("bob@example.org", interests=("grasp robot arm",))
    assert paper.pk in planned(edition, bob).paper_ids


def test_what_readers_were_shown_is_asked_of_few_of_their_mails_however_many_they_had() -> None:
    an_archive()
    paper = make_paper("Grasp robot arm")
    today = timezone.now().date()
    past = [make_frozen_edition(day=today - timedelta(days=back)) for back in range(60, 0, -1)]
    EditionPaper.objects.create(edition=past[20], paper=paper)
    Subscriber.objects.bulk_create(
        Subscriber(address=f"r{n}@example.org", state="paused", confirmed_at=timezone.now())
        for n in range(100)
    )
    readers = list(Subscriber.objects.order_by("pk"))
    Delivery.objects.bulk_create(
        Delivery(edition=edition, subscriber=reader) for edition in past for reader in readers
    )
    own = Delivery.objects.filter(edition=past[20], subscriber=readers[0])
    own.update(paper_ids=[paper.pk])
    joined = Delivery.objects.filter(edition=past[27], subscriber=readers[1])
    joined.update(paper_ids=[paper.pk], editions_from=past[20].day)
    analyse(Delivery, Edition, EditionPaper, Subscriber)
    edition = an_edition(1, paper)
    batch = Batch(candidates.today(edition), edition, readers, timezone.now())
    with counted(most=3000):
        known = batch.known
    assert {reader for reader, _ in known} == {0, 1}


@pytest.mark.parametrize("state", [Delivery.State.EXPIRED, Delivery.State.FAILED])
def test_what_never_arrived_may_come_again(state: str) -> None:
    an_archive()
    paper = make_paper("Grasp robot arm")
    reader = reader_with(words="grasp robot arm")
    yesterday = make_frozen_edition(paper, day=timezone.now().date() - timedelta(days=1))
    make_delivery(reader, paper, edition=yesterday, state=state)
    assert paper.pk in planned(an_edition(3, paper), reader).paper_ids


@pytest.mark.parametrize("kind", Kind)
def test_what_a_reader_has_judged_is_known(kind: Feedback.Kind) -> None:
    an_archive()
    paper = make_paper("Grasp robot arm")
    reader = reader_with(words="grasp robot arm")
    judge(reader, paper, kind, reader.interests.get())
    assert paper.pk not in planned(an_edition(3, paper), reader).paper_ids


def test_an_example_of_the_reader_is_no_news() -> None:
    an_archive()
    paper = make_paper("Grasp robot arm")
    delivery = planned(an_edition(3, paper), reader_with(example_ids=[paper.pk]))
    assert paper.pk not in delivery.paper_ids
    assert "robot" in subjects_of(delivery)


# --- Reasons and key sentences --------------------------------------------------------------------


def test_words_given_as_a_reason_are_the_reader_s_and_the_paper_s() -> None:
    an_archive()
    delivery = planned(an_edition(), reader_with(words="robot grasp"))
    texts = {paper.pk: paper.text.lower() for paper in Paper.objects.all()}
    said = 0
    for place, pk in enumerate(delivery.paper_ids):
        if delivery.reasons[place] == Reason.WORDS:
            said += 1
            for word in " ".join(delivery.reason_details[place].split(", ")).split():
                assert word in {"robot", "grasp"}
                assert word in texts[pk]
    assert said


def test_the_larger_part_of_the_score_is_the_reason() -> None:
    archive = an_archive()
    reader = reader_with(words="galaxy telescope", example_ids=[archive["robot"][0].pk])
    delivery = planned(an_edition(), reader)
    found = {}
    for place, subject in enumerate(subjects_of(delivery)):
        if delivery.interest_ids[place]:
            found[subject] = Reason(delivery.reasons[place])
    assert found["star"] == Reason.WORDS
    assert found["robot"] == Reason.EXAMPLE


def test_the_terms_of_a_pick_make_its_relevance() -> None:
    archive = an_archive()
    paper = paper_on("robot", 50, categories=["cs.RO"], authors=["Ann Author"])
    reader = reader_with(
        words="gripper arm",
        example_ids=[archive["robot"][0].pk],
        categories=["cs.RO"],
        authors=["Ann Author"],
    )
    terms = terms_of(planned(an_edition(3, paper), reader), paper)
    assert terms["categories"] == ranking.CATEGORY_BONUS
    assert terms["authors"] == ranking.AUTHOR_BONUS
    total = sum(terms[name] for name in ("words", "categories", "authors", "examples"))
    assert terms["relevance"] == pytest.approx(total / (total + ranking.HALF), abs=0.002)
    assert terms["score"] == pytest.approx(
        0.78 * terms["relevance"] + 0.22 * terms["trend"], abs=0.002
    )


def key_sentence(delivery: Delivery, paper: Paper) -> str:
    index = delivery.sentences[delivery.paper_ids.index(paper.pk)]
    return sentences(paper.abstract)[index] if index >= 0 else ""


def test_the_key_sentence_is_the_one_nearest_to_the_reader_s_example() -> None:
    archive = an_archive()
    paper = make_paper(
        "Between two worlds",
        abstract=(
            "This has been done before. A robot gripper can grasp by its tactile arm. "
            "A galaxy and its dwarf star are seen by telescope. More could be said."
        ),
    )
    edition = an_edition(1, paper)
    keys = {}
    for subject in ("robot", "star"):
        reader = make_subscriber(f"{subject}@example.org")
        make_interest(reader, subject, example_ids=[p.pk for p in archive[subject]])
        keys[subject] = key_sentence(planned(edition, reader), paper)
    assert keys == {
        "robot": "A robot gripper can grasp by its tactile arm.",
        "star": "A galaxy and its dwarf star are seen by telescope.",
    }


def test_the_key_sentence_is_the_one_nearest_to_the_reader_s_words() -> None:
    an_archive()
    paper = make_paper(
        "Grasp and galaxy", abstract="A galaxy far away. A robot can grasp. Something else."
    )
    delivery = planned(an_edition(1, paper), reader_with(words="robot grasp"))
    assert key_sentence(delivery, paper) == "A robot can grasp."


def test_where_no_sentence_is_near_or_nothing_chose_the_paper_there_is_no_key_sentence() -> None:
    an_archive()
    paper = make_paper("Grasp robot arm", abstract="Nothing. At all.")
    blank = make_paper("Grasp robot gripper", abstract="")
    edition = an_edition(1, paper, blank)
    delivery = planned(edition, reader_with(words="grasp robot"))
    assert key_sentence(delivery, paper) == key_sentence(delivery, blank) == ""
    assert set(planned(edition, make_subscriber("bob@example.org")).sentences) == {-1}


def test_an_edition_without_any_abstract_is_planned_too() -> None:
    papers = [make_paper(" ".join(words), abstract="") for words in SUBJECTS.values()]
    delivery = planned(make_frozen_edition(*papers), reader_with(words="robot grasp"))
    assert delivery.paper_ids == [papers[1].pk]
    assert delivery.sentences == [-1]


# --- Many readers ---------------------------------------------------------------------------------


def test_in_a_batch_a_reader_gets_what_they_would_get_alone() -> None:
    archive = an_archive()
    edition = with_trends(an_edition(), "star")
    readers: list[Subscriber] = []
    rules: Sequence[dict[str, object]] = [
        {"words": "robot grasp"},
        {"example_ids": [archive["protein"][0].pk, archive["key"][0].pk]},
        {"words": "🤖"},
        {"authors": ["Ada Alvarez"]},
    ]
    for n, fields in enumerate(rules):
        reader = make_subscriber(f"r{n}@example.org", muted_terms=["star1"] if n % 2 else [])
        make_interest(reader, "mine", **fields)
        readers.append(reader)
    readers.append(make_subscriber("plain@example.org"))
    judge(readers[0], archive["robot"][0], Kind.LESS)
    plan_everybody(edition, timezone.now())
    together = [Delivery.objects.get(subscriber=reader) for reader in readers]
    assert len({len(mine.paper_ids) for mine in together}) > 1
    Subscriber.objects.update(state="paused", next_send_at=None)
    for reader, mine in zip(readers, together, strict=True):
        alone = planned(edition, reader)
        assert Delivery.objects.count() == 1
        Subscriber.objects.update(state="paused", next_send_at=None)
        for name in ("paper_ids", "sections", "reasons", "reason_details", "sentences"):
            assert getattr(mine, name) == getattr(alone, name), name
        assert mine.terms == pytest.approx(alone.terms, abs=0.002)


def test_any_rule_of_a_reader_is_kept_as_it_was_written() -> None:
    an_archive()
    rule = 'Ann "the\\one", {O\'Hara}\tNULL'
    paper = paper_on("key", 50, authors=[rule])
    delivery = planned(an_edition(1, paper), reader_with(authors=[rule]))
    assert reason_of(delivery, paper) == (Reason.AUTHOR, rule)


def test_an_edition_of_which_everything_is_hidden_is_planned_without_an_error() -> None:
    edition = an_edition()
    edition.candidates.update(curation="hidden")
    editions.touch(edition)
    edition.refresh_from_db()
    assert planned(edition, reader_with(words="robot")).skip_reason == ALL_SHOWN


def test_libraries_of_earlier_batches_go_when_there_are_too_many_papers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive, edition = an_archive(), an_edition()
    reader = make_subscriber()
    learning.fit()
    today = candidates.today(edition)
    assert len(today.library.ids) == 0
    monkeypatch.setattr(candidates, "MOST_HELD", 8)
    for subject in ("video", "robot", "star"):
        make_interest(reader, name=subject, example_ids=[paper.pk for paper in archive[subject]])
        delivery = planned(edition, reader)
        Interest.objects.all().delete()
        assert subjects_of(delivery)[0] == subject
        assert len(today.library.ids) == 6
