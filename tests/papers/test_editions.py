"""The dated daily list: whose day it is, what is on it, and when it is fixed."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, time, timedelta

import pytest
import time_machine
from django.db import IntegrityError, connection, transaction
from pytest_django import Settings

from papers import editions
from papers.models import MOST_PINS, Edition, EditionPaper, Paper
from papers.tasks import freeze_due
from tests.factories import MORNING, TODAY, make_frozen_edition, make_paper, make_signal
from tests.plans import analyse, counted

pytestmark = pytest.mark.django_db

YESTERDAY = TODAY - timedelta(days=1)
PINNED, HIDDEN, NONE = (
    EditionPaper.Curation.PINNED,
    EditionPaper.Curation.HIDDEN,
    EditionPaper.Curation.NONE,
)


@pytest.fixture(autouse=True)
def _today() -> object:
    with time_machine.travel(MORNING):
        yield


def titles(edition: Edition) -> set[str]:
    return set(edition.candidates.values_list("paper__title", flat=True))


def on(edition: Edition, paper: Paper) -> EditionPaper:
    return EditionPaper.objects.get(edition=edition, paper=paper)


def frozen(day: date = TODAY, now: datetime = MORNING) -> Edition:
    return editions.freeze(editions.open_edition(day), now)


# Which papers


def test_candidates_are_the_papers_of_the_day_and_of_the_window_before_it(
    settings: Settings,
) -> None:
    settings.EDITION_WINDOW_DAYS = 3
    for back in range(-1, 4):
        make_paper(f"{back} days back", listing_day=TODAY - timedelta(days=back))
    assert titles(frozen()) == {"0 days back", "1 days back", "2 days back"}


def test_no_paper_is_in_two_editions() -> None:
    make_paper("Old", listing_day=YESTERDAY)
    frozen(YESTERDAY)
    make_paper("Late", listing_day=YESTERDAY)
    make_paper("New", listing_day=TODAY)
    assert titles(frozen(TODAY)) == {"Late", "New"}


def test_what_was_carried_in_all_years_is_not_read_anew_for_each_paper_of_a_list() -> None:
    """However little memory there is for it."""
    days = [TODAY - timedelta(days=back) for back in range(31)]
    made = Paper.objects.bulk_create(
        Paper(title=f"{day} {n}", title_key=f"{day} {n}", listing_day=day)
        for day in days
        for n in range(100)
    )
    for day in days[1:]:
        edition = make_frozen_edition(day=day)
        EditionPaper.objects.bulk_create(
            EditionPaper(edition=edition, paper=paper) for paper in made if paper.listing_day == day
        )
    analyse(Paper, Edition, EditionPaper)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL work_mem = '64kB'; SET LOCAL hash_mem_multiplier = 1")
    for _ in ("new", "again"):
        with counted(most=20 * len(made)):
            assert editions.open_edition(TODAY).candidates.count() == 100


def test_of_two_open_editions_the_first_to_be_frozen_has_the_paper() -> None:
    make_paper("Wanted by both", listing_day=YESTERDAY)
    earlier, later = editions.open_edition(YESTERDAY), editions.open_edition(TODAY)
    assert titles(earlier) == titles(later) == {"Wanted by both"}
    assert editions.freeze(later, MORNING).state == Edition.State.FROZEN
    assert editions.freeze(earlier, MORNING).state == Edition.State.EMPTY


@pytest.mark.django_db(transaction=True)
def test_two_freezes_at_one_time_share_no_paper() -> None:
    make_paper("Wanted by both", listing_day=YESTERDAY)
    both = [editions.open_edition(YESTERDAY), editions.open_edition(TODAY)]
    at_once = threading.Barrier(2)

    def freeze(edition: Edition) -> None:
        at_once.wait(10)
        editions.freeze(edition, MORNING)
        connection.close()

    threads = [threading.Thread(target=freeze, args=[edition]) for edition in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    states = sorted(Edition.objects.values_list("state", flat=True))
    assert states == [Edition.State.EMPTY, Edition.State.FROZEN]
    assert EditionPaper.objects.count() == 1


def test_an_open_edition_collects_what_arrives_and_keeps_what_was_curated() -> None:
    first = make_paper("First", listing_day=TODAY)
    edition = editions.open_edition(TODAY)
    editions.curate(on(edition, first), PINNED)
    make_paper("Second", listing_day=TODAY)
    assert titles(editions.open_edition(TODAY)) == {"First", "Second"}
    assert on(edition, first).curation == PINNED
    assert Edition.objects.count() == 1


def test_a_paper_that_its_source_took_back_is_in_no_new_edition() -> None:
    kept, gone = make_paper("Kept"), make_paper("Taken back")
    edition = editions.open_edition(TODAY)
    assert titles(edition) == {"Kept", "Taken back"}
    Paper.objects.filter(pk=gone.pk).update(withdrawn_on=TODAY)
    assert titles(frozen()) == {kept.title}
    assert not editions.candidates_for(TODAY).exists()


def test_a_paper_that_was_taken_back_cannot_be_added_either() -> None:
    make_paper("Taken back", arxiv_id="2505.24864", withdrawn_on=TODAY)
    edition = editions.open_edition(TODAY)
    with pytest.raises(editions.CurationError, match="was withdrawn by its source"):
        editions.add_paper(edition, identifier="2505.24864")


def test_a_day_without_papers_is_an_empty_edition_with_its_reason() -> None:
    edition = frozen()
    assert edition.state == Edition.State.EMPTY
    assert edition.reason == "No new papers have arrived for this day."
    assert edition.frozen_at == MORNING


def test_a_day_of_which_everything_is_hidden_is_empty_for_that_reason() -> None:
    paper = make_paper(listing_day=TODAY)
    edition = editions.open_edition(TODAY)
    editions.curate(on(edition, paper), HIDDEN)
    edition = editions.freeze(edition, MORNING)
    assert edition.state == Edition.State.EMPTY
    assert "hidden every paper" in edition.reason
    assert not editions.candidates_for(TODAY + timedelta(days=1)).exists()


# When it is fixed


def test_a_frozen_edition_takes_no_more_papers_and_freezing_again_changes_nothing() -> None:
    make_paper("In time", listing_day=TODAY)
    edition = frozen()
    before = Edition.objects.values().get()
    trends = list(edition.candidates.values())
    make_signal(Paper.objects.get(), 99, observed_at=MORNING)
    make_paper("Too late", listing_day=TODAY)
    again = editions.freeze(editions.open_edition(TODAY), MORNING + timedelta(hours=1))
    assert again.frozen_at == MORNING
    assert Edition.objects.values().get() == before
    assert list(edition.candidates.values()) == trends


def test_it_freezes_at_its_hour_and_not_before(settings: Settings) -> None:
    settings.EDITION_FREEZE_AT = time(4, 0)
    make_paper(listing_day=TODAY)
    with time_machine.travel(datetime(2026, 11, 20, 3, 59, 59, tzinfo=UTC), tick=False):
        freeze_due()
    assert not Edition.objects.exists()
    with time_machine.travel(datetime(2026, 11, 20, 4, 0, tzinfo=UTC), tick=False):
        freeze_due()
    edition = Edition.objects.get()
    assert edition.state == Edition.State.FROZEN
    assert edition.frozen_at == datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
    with time_machine.travel(datetime(2026, 11, 20, 23, 0, tzinfo=UTC), tick=False):
        freeze_due()
    edition.refresh_from_db()
    assert edition.frozen_at == datetime(2026, 11, 20, 4, 0, tzinfo=UTC)


def test_an_edition_that_curators_hold_is_frozen_by_hand_only() -> None:
    make_paper(listing_day=TODAY)
    edition = editions.open_edition(TODAY)
    Edition.objects.update(held=True)
    assert editions.freeze_due(MORNING) is None
    assert Edition.objects.get().is_open
    assert editions.freeze(edition, MORNING).state == Edition.State.FROZEN


def after_midnight(minutes: int = 1) -> datetime:
    return datetime(2026, 11, 20, 0, minutes, tzinfo=UTC)


def test_a_freeze_missed_before_midnight_is_made_up_for_after_it(settings: Settings) -> None:
    settings.EDITION_FREEZE_AT = time(23, 59)
    make_paper("Yesterday's", listing_day=YESTERDAY)
    edition = editions.freeze_due(after_midnight())
    assert edition is not None
    assert (edition.day, edition.state) == (YESTERDAY, Edition.State.FROZEN)
    assert edition.frozen_at == after_midnight()
    assert edition.may_be_mailed(after_midnight())
    assert editions.freeze_due(after_midnight(2)) is None
    assert Edition.objects.count() == 1


def test_an_open_edition_of_yesterday_is_frozen_even_when_it_stays_empty(
    settings: Settings,
) -> None:
    settings.EDITION_FREEZE_AT = time(23, 59)
    Edition.objects.create(day=YESTERDAY)
    edition = editions.freeze_due(after_midnight())
    assert edition is not None
    assert (edition.day, edition.state) == (YESTERDAY, Edition.State.EMPTY)


def test_a_fresh_install_makes_no_empty_edition_of_yesterday(settings: Settings) -> None:
    settings.EDITION_FREEZE_AT = time(23, 59)
    make_paper("Today's", listing_day=TODAY)
    assert editions.freeze_due(after_midnight()) is None
    assert not Edition.objects.exists()


def test_yesterday_s_edition_that_curators_hold_is_not_made_up_for(settings: Settings) -> None:
    settings.EDITION_FREEZE_AT = time(23, 59)
    make_paper("Yesterday's", listing_day=YESTERDAY)
    Edition.objects.create(day=YESTERDAY, held=True)
    assert editions.freeze_due(after_midnight()) is None
    assert Edition.objects.get().is_open


def test_a_freeze_at_midnight_is_that_of_the_day_that_begins(settings: Settings) -> None:
    settings.EDITION_FREEZE_AT = time(0, 0)
    make_paper(listing_day=TODAY)
    edition = editions.freeze_due(after_midnight(0))
    assert edition is not None
    assert edition.day == TODAY


@pytest.mark.parametrize("day", [TODAY + timedelta(days=1), date.max])
def test_a_day_that_has_not_come_yet_is_neither_opened_nor_frozen(day: date) -> None:
    with pytest.raises(editions.CurationError, match=f"{day} has not come yet"):
        editions.open_edition(day)
    assert not Edition.objects.exists()
    edition = Edition.objects.create(day=day)
    with pytest.raises(editions.CurationError, match=f"{day} has not come yet"):
        editions.freeze(edition, MORNING)
    with pytest.raises(editions.CurationError, match=f"{day} has not come yet"):
        editions.add_paper(edition, title="New", link="https://example.org/new")
    assert Edition.objects.get().is_open
    assert not Paper.objects.exists()


@pytest.mark.parametrize("day", [date.min, date(1989, 12, 31)])
def test_a_day_before_all_papers_is_out_of_range(day: date) -> None:
    with pytest.raises(editions.CurationError, match="out of range"):
        editions.open_edition(day)
    with pytest.raises(editions.CurationError, match="out of range"):
        editions.freeze(Edition(day=day), MORNING)
    assert not Edition.objects.exists()


def test_a_counter_counts_up_to_the_freeze_and_its_growth_since_a_day_before(
    settings: Settings,
) -> None:
    freeze = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
    paper = make_paper(listing_day=TODAY)
    make_signal(paper, 10, observed_at=freeze - timedelta(hours=25))
    make_signal(paper, 15, observed_at=freeze - timedelta(hours=12))
    make_signal(paper, 40, observed_at=freeze - timedelta(minutes=1))
    make_signal(paper, 99, observed_at=freeze + timedelta(minutes=1))
    terms = on(frozen(now=freeze), paper).trend_terms
    half = {"level": 0.5, "growth": 0.5, "percentile": 0.5}
    assert terms == {"upvotes": {"count": 40, "gained": 30, **half}}


def test_every_term_of_a_trend_is_kept() -> None:
    papers = [make_paper(f"Paper {n}", listing_day=TODAY) for n in range(2)]
    for paper, earlier, now in zip(papers, (50, 10), (60, 40), strict=True):
        make_signal(paper, earlier, observed_at=MORNING - timedelta(hours=26))
        make_signal(paper, now, observed_at=MORNING)
    make_signal(papers[0], 3, counter="stars", observed_at=MORNING)
    terms = on(frozen(), papers[0]).trend_terms
    assert terms["upvotes"] == {
        "count": 60, "gained": 10, "level": 0.75, "growth": 0.25, "percentile": 0.536,
    }  # fmt: skip
    assert terms["stars"] == {
        "count": 3, "gained": None, "level": 0.5, "growth": None, "percentile": 0.5,
    }  # fmt: skip
    assert "stars" not in on(Edition.objects.get(), papers[1]).trend_terms


def test_an_edition_of_the_past_looks_no_further_than_the_end_of_its_day() -> None:
    paper = make_paper(listing_day=YESTERDAY)
    make_signal(paper, 10, observed_at=datetime(2026, 11, 19, 23, tzinfo=UTC))
    make_signal(paper, 99, observed_at=datetime(2026, 11, 20, 1, tzinfo=UTC))
    assert on(frozen(YESTERDAY), paper).trend_terms["upvotes"]["count"] == 10


def count(paper: Paper, source: str, value: int, moment: datetime) -> None:
    paper.signals.create(source=source, counter="upvotes", value=value, observed_at=moment)


def test_two_sources_of_a_counter_count_apart_and_the_larger_one_tells() -> None:
    paper = make_paper(listing_day=TODAY)
    for source, hours, value in [
        ("huggingface", 30, 80),
        ("huggingface", 3, 100),
        ("listing", 40, 2),
        ("listing", 26, 4),
        ("listing", 1, 5),
    ]:
        moment = MORNING - timedelta(hours=hours)
        count(paper, source, value, moment)
    terms = on(frozen(), paper).trend_terms
    assert (terms["upvotes"]["count"], terms["upvotes"]["gained"]) == (100, 20)


def test_a_source_that_counts_for_the_first_time_is_no_growth() -> None:
    paper = make_paper(listing_day=TODAY)
    count(paper, "listing", 4, MORNING - timedelta(hours=26))
    count(paper, "listing", 5, MORNING - timedelta(hours=1))
    count(paper, "huggingface", 100, MORNING - timedelta(hours=2))
    terms = on(frozen(), paper).trend_terms
    assert (terms["upvotes"]["count"], terms["upvotes"]["gained"]) == (100, 1)


# The pool


def test_hidden_papers_are_not_in_the_pool_and_pins_stand_in_the_curators_order() -> None:
    papers = {name: make_paper(name, listing_day=TODAY) for name in "ABCDE"}
    make_signal(papers["E"], 50, observed_at=MORNING)
    make_signal(papers["D"], 10, observed_at=MORNING)
    edition = editions.open_edition(TODAY)
    for name, curation, position in [
        ("A", PINNED, None),
        ("B", PINNED, 2),
        ("C", PINNED, 1),
        ("D", HIDDEN, None),
    ]:
        editions.curate(on(edition, papers[name]), curation)
        edition.candidates.filter(paper=papers[name]).update(position=position)
    pool = editions.pool(editions.freeze(edition, MORNING))
    names = {paper.pk: name for name, paper in papers.items()}
    assert {names[pk] for pk in pool.paper_ids} == {"A", "B", "C", "E"}
    assert [names[pool.paper_ids[index]] for index in pool.pinned] == ["C", "B", "A"]
    assert names[pool.paper_ids[0]] == "E"
    assert (pool.upvotes[0], pool.gained[0]) == (50, -1)
    assert list(pool.upvotes[1:]) == [-1, -1, -1]
    assert list(pool.trend) == sorted(pool.trend, reverse=True)
    assert len(pool.texts) == len(pool.categories) == len(pool.trend) == 4


def test_what_its_source_took_back_since_the_freeze_is_not_in_the_pool() -> None:
    kept, gone = make_paper("A", listing_day=TODAY), make_paper("B", listing_day=TODAY)
    edition = frozen()
    assert set(editions.pool(edition).paper_ids) == {kept.pk, gone.pk}
    Paper.objects.filter(pk=gone.pk).update(withdrawn_on=TODAY)
    assert list(editions.pool(edition).paper_ids) == [kept.pk]


def test_the_pool_of_an_empty_edition_has_no_papers() -> None:
    pool = editions.pool(frozen())
    assert len(pool.paper_ids) == len(pool.texts) == len(pool.pinned) == 0


# What is current


def settled_at(day: date, moment: datetime, state: str = Edition.State.FROZEN) -> Edition:
    edition = make_frozen_edition(day=day)
    Edition.objects.filter(pk=edition.pk).update(state=state, reason="none", frozen_at=moment)
    edition.refresh_from_db()
    return edition


def test_an_edition_is_current_from_its_freeze_for_24_hours() -> None:
    edition = settled_at(TODAY, MORNING)
    second = timedelta(seconds=1)
    current = Edition.objects.current
    assert current(MORNING - second) is None
    assert current(MORNING) == edition
    assert current(MORNING + timedelta(hours=24) - second) == edition
    assert current(MORNING + timedelta(hours=24)) is None
    assert not edition.may_be_mailed(MORNING - second)
    assert edition.may_be_mailed(MORNING)
    assert not edition.may_be_mailed(MORNING + timedelta(hours=24))


def test_the_next_freeze_ends_it() -> None:
    old = settled_at(YESTERDAY, MORNING - timedelta(hours=23))
    new = settled_at(TODAY, MORNING)
    assert Edition.objects.current(MORNING - timedelta(hours=1)) == old
    assert Edition.objects.current(MORNING) == new
    assert old.may_be_mailed(MORNING - timedelta(hours=1))
    assert not old.may_be_mailed(MORNING)
    assert new.may_be_mailed(MORNING)


def test_an_empty_edition_is_current_but_lets_planned_mail_of_the_one_before_go_out() -> None:
    old = settled_at(YESTERDAY, MORNING - timedelta(hours=23))
    new = settled_at(TODAY, MORNING, Edition.State.EMPTY)
    assert Edition.objects.current(MORNING) == new
    assert old.may_be_mailed(MORNING)


def test_an_old_day_frozen_late_does_not_replace_a_newer_one() -> None:
    new = settled_at(TODAY, MORNING)
    old = settled_at(YESTERDAY, MORNING + timedelta(hours=1))
    assert Edition.objects.current(MORNING + timedelta(hours=2)) == new
    assert not old.may_be_mailed(MORNING + timedelta(hours=2))


def test_an_open_edition_is_neither_current_nor_mailed() -> None:
    make_paper(listing_day=TODAY)
    edition = editions.open_edition(TODAY)
    assert Edition.objects.current(MORNING) is None
    assert not edition.may_be_mailed(MORNING)


# Curating


def test_a_known_paper_is_added_by_any_spelling_of_its_identifier() -> None:
    old = make_paper("Old", arxiv_id="2505.24864", listing_day=date(2026, 1, 1))
    other = make_paper("Other", doi="10.1000/182", listing_day=date(2026, 1, 1))
    edition = editions.open_edition(TODAY)
    by_link = editions.add_paper(edition, identifier="https://arxiv.org/abs/2505.24864v2")
    assert by_link.paper == old
    assert editions.add_paper(edition, identifier="arXiv:2505.24864") == by_link
    assert editions.add_paper(edition, identifier="https://doi.org/10.1000/182").paper == other
    assert titles(editions.open_edition(TODAY)) == {"Old", "Other"}
    assert titles(frozen()) == {"Old", "Other"}


def test_a_new_paper_is_added_by_title_and_link() -> None:
    edition = editions.open_edition(TODAY)
    candidate = editions.add_paper(edition, title=" A  new\npaper ", link="https://example.org/new")
    paper = candidate.paper
    assert (paper.title, paper.url) == ("A new paper", "https://example.org/new")
    assert (paper.listing_day, paper.sources) == (TODAY, ["curator"])
    assert candidate.trend == 0.5
    again = editions.add_paper(edition, title="a new PAPER", link="https://example.org/elsewhere")
    assert again == candidate


def test_the_link_of_a_new_paper_tells_its_identifier() -> None:
    edition = editions.open_edition(TODAY)
    new = editions.add_paper(edition, title="New", link="https://arxiv.org/pdf/2505.24864v1").paper
    assert new.arxiv_id == "2505.24864"
    link = "https://arxiv.org/abs/2505.24864"
    assert editions.add_paper(edition, title="Its newer title", link=link).paper == new
    link = "https://arxiv.org/abs/2505.11111"
    namesake = editions.add_paper(edition, title="New", link=link).paper
    assert namesake != new
    published = editions.add_paper(edition, title="P", link="https://doi.org/10.1000/ABC").paper
    assert published.doi == "10.1000/abc"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"identifier": "2505.00001"}, "No paper 2505.00001 is known here.*title and link"),
        ({"identifier": "hello"}, "“hello” is neither an arXiv id nor a DOI"),
        ({"title": "Only a title"}, "an identifier, or both a title and a link"),
        ({"link": "https://example.org"}, "an identifier, or both a title and a link"),
        ({}, "an identifier, or both a title and a link"),
    ],
)
def test_what_cannot_be_added_is_refused_in_clear_words(
    request_: dict[str, str], words: str
) -> None:
    edition = editions.open_edition(TODAY)
    with pytest.raises(editions.CurationError, match=words):
        editions.add_paper(edition, **request_)
    assert not Paper.objects.exists()


def test_a_paper_of_an_earlier_edition_is_not_added_again() -> None:
    make_paper("Old", arxiv_id="2505.24864", listing_day=YESTERDAY)
    frozen(YESTERDAY)
    with pytest.raises(editions.CurationError, match="“Old” was on the list of 2026-11-19 already"):
        editions.add_paper(editions.open_edition(TODAY), identifier="2505.24864")


def test_nothing_is_added_to_a_frozen_edition_even_when_its_page_was_opened_before() -> None:
    make_paper(arxiv_id="2505.24864", listing_day=date(2026, 1, 1))
    stale = editions.open_edition(TODAY)
    editions.freeze(stale, MORNING)
    with pytest.raises(editions.CurationError, match="Add the paper to the next one"):
        editions.add_paper(stale, identifier="2505.24864")
    assert not EditionPaper.objects.exists()


def test_a_frozen_edition_refuses_a_pin_and_allows_a_hide() -> None:
    paper = make_paper(listing_day=TODAY)
    candidate = on(editions.open_edition(TODAY), paper)
    stale = EditionPaper.objects.select_related("edition").get(pk=candidate.pk)
    edition = frozen()
    with pytest.raises(editions.CurationError, match="no longer pinned"):
        editions.curate(stale, PINNED)
    assert on(edition, paper).curation == NONE
    editions.curate(on(edition, paper), HIDDEN)
    assert on(edition, paper).curation == HIDDEN
    assert len(editions.pool(edition).paper_ids) == 0


def test_adding_what_is_hidden_on_the_list_already_says_so() -> None:
    paper = make_paper("Old", arxiv_id="2505.24864", listing_day=TODAY)
    edition = editions.open_edition(TODAY)
    editions.curate(on(edition, paper), HIDDEN)
    with pytest.raises(editions.CurationError, match="“Old” is hidden on this list; show it again"):
        editions.add_paper(edition, identifier="2505.24864")
    assert on(edition, paper).curation == HIDDEN


def test_an_edition_has_at_most_three_pins_so_that_the_smallest_mail_holds_them_all() -> None:
    for title in "ABCD":
        make_paper(title, listing_day=TODAY)
    edition = editions.open_edition(TODAY)
    *first, last = edition.candidates.order_by("paper__title")
    for candidate in [*first, first[0]]:  # once more is no fourth pin
        editions.curate(candidate, PINNED)
    with pytest.raises(editions.CurationError, match=r"At most 3 papers.*3 are pinned already"):
        editions.curate(last, PINNED)
    assert on(edition, last.paper).curation == NONE
    editions.curate(first[0], NONE)
    editions.curate(last, PINNED)
    assert len(first) == edition.candidates.filter(curation=PINNED).count() == MOST_PINS


def test_the_pins_of_another_edition_do_not_count() -> None:
    earlier = make_frozen_edition(*(make_paper(title) for title in "ABC"), day=YESTERDAY)
    earlier.candidates.update(curation=PINNED)
    paper = make_paper("D", listing_day=TODAY)
    editions.curate(on(editions.open_edition(TODAY), paper), PINNED)


def test_a_pin_made_in_time_can_be_taken_back_after_the_freeze() -> None:
    paper = make_paper(listing_day=TODAY)
    editions.curate(on(editions.open_edition(TODAY), paper), PINNED)
    edition = frozen()
    editions.curate(on(edition, paper), NONE)
    assert on(edition, paper).curation == NONE


def test_each_change_of_a_candidate_says_that_what_was_computed_is_stale() -> None:
    paper = make_paper(listing_day=TODAY)
    edition = frozen()
    with time_machine.travel(MORNING + timedelta(minutes=1)):
        editions.curate(on(edition, paper), HIDDEN)
    assert Edition.objects.get().changed_at > edition.changed_at == MORNING


def test_papers_of_earlier_days_can_be_listed_again_on_an_open_edition() -> None:
    paper = make_paper("Old", listing_day=date(2026, 1, 1))
    edition = editions.open_edition(TODAY)
    editions.list_again(edition, [paper])
    editions.list_again(edition, [paper])
    assert titles(frozen()) == {"Old"}


# What the database itself refuses


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "open", "frozen_at": MORNING},
        {"state": "frozen", "frozen_at": None},
        {"state": "empty", "frozen_at": None, "reason": "none"},
        {"state": "empty", "frozen_at": MORNING, "reason": ""},
        {"state": "lost"},
    ],
)
def test_an_edition_is_in_a_whole_state(fields: dict[str, object]) -> None:
    with pytest.raises(IntegrityError, match="edition_state_complete"), transaction.atomic():
        Edition.objects.create(day=TODAY, **fields)


def test_a_day_has_one_edition_and_an_edition_a_paper_once() -> None:
    paper = make_paper(listing_day=TODAY)
    edition = editions.open_edition(TODAY)
    with pytest.raises(IntegrityError), transaction.atomic():
        Edition.objects.create(day=TODAY)
    with pytest.raises(IntegrityError, match="candidate_once"), transaction.atomic():
        EditionPaper.objects.create(edition=edition, paper=paper)
    with pytest.raises(IntegrityError, match="candidate_curation_known"), transaction.atomic():
        edition.candidates.update(curation="starred")


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"title": ""}, "paper_has_title"),
        ({"arxiv_id": ""}, "paper_arxiv_id_not_empty"),
        ({"doi": ""}, "paper_doi_not_empty"),
    ],
)
def test_a_paper_has_a_title_and_no_empty_identifier(
    fields: dict[str, str], constraint: str
) -> None:
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        make_paper(**fields)
