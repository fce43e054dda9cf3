"""A curator at work in the admin: read the list, pin, hide, order, note, add, freeze."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from papers import editions, ingest
from papers.models import CurationRecord, Edition, EditionPaper, Paper
from papers.sources import PaperRecord
from papers.sources.recorded import Recorded, Saved
from tests.admin_forms import form_of
from tests.factories import MORNING, TODAY, make_frozen_edition, make_paper, make_signal
from tests.papers.test_harvesting import ATOM
from tests.plans import analyse, counted

pytestmark = pytest.mark.django_db

PINNED, HIDDEN = EditionPaper.Curation.PINNED, EditionPaper.Curation.HIDDEN
LIST = "/admin/papers/editionpaper/"
DAY = f"/admin/papers/edition/{TODAY}"


@pytest.fixture(autouse=True)
def _today() -> object:
    with time_machine.travel(MORNING):
        yield


@pytest.fixture
def curator(client: Client) -> Client:
    user = User.objects.create_user("carol", is_staff=True)
    user.groups.add(Group.objects.get(name="curators"))
    client.force_login(user)
    return client


def body(response: Any) -> str:
    return unescape(response.content.decode())


def the_list(curator: Client, edition: Edition) -> str:
    response = curator.get(LIST, {"edition__id__exact": edition.pk})
    assert response.status_code == 200
    return body(response)


def opened(curator: Client, edition: Edition) -> dict[str, str]:
    """The list as a browser holds it, ready to be posted."""
    return the_form(curator.get(LIST, {"edition__id__exact": edition.pk}))


def the_form(response: Any) -> dict[str, str]:
    form = form_of(response.content.decode())
    return {name: value for name, value in form.items() if "form-" in name}


def named(form: dict[str, str], row: EditionPaper, field: str) -> str:
    """The name of the field in that row of the form."""
    ids = (name for name in form if re.fullmatch(r"form-\d+-id", name))
    [found] = [name for name in ids if form[name] == str(row.pk)]
    return f"{found.removesuffix('id')}{field}"


def save(
    curator: Client,
    edition: Edition,
    changes: dict[EditionPaper, dict[str, object]],
    form: dict[str, str] | None = None,
) -> Any:
    """What the browser posts when the list's "Save" is pressed; `form`: opened earlier."""
    form = form or opened(curator, edition)
    written = {
        named(form, row, field): value
        for row, fields in changes.items()
        for field, value in fields.items()
    }
    url = f"{LIST}?edition__id__exact={edition.pk}"
    return curator.post(url, form | written | {"_save": "Save"})


def act(
    curator: Client, action: str, *rows: EditionPaper, form: dict[str, str] | None = None
) -> str:
    """What the browser posts when an action is chosen; `form`: the list, opened earlier."""
    chosen = {"action": action, "_selected_action": [row.pk for row in rows]}
    return body(curator.post(LIST, {**(form or {}), **chosen}, follow=True))


def candidate(edition: Edition, title: str) -> EditionPaper:
    return edition.candidates.get(paper__title=title)


def logged() -> list[str]:
    """What people did, oldest first."""
    return [str(row) for row in CurationRecord.objects.exclude(by="").order_by("id")]


# Reading


def test_the_list_of_editions_says_how_many_papers_each_has(curator: Client) -> None:
    make_frozen_edition(make_paper("A"), day=TODAY)
    make_frozen_edition(make_paper("B"), make_paper("C"), day=TODAY - timedelta(days=1))
    shown = body(curator.get("/admin/papers/edition/"))
    assert re.findall(r'/curate/">([^<]+)</a>', shown) == ["1 paper", "2 papers"]


def test_the_admin_leads_from_the_candidates_to_todays_list_and_collects_it(
    curator: Client,
) -> None:
    make_paper("In today's list")
    response = curator.get(LIST, follow=True)
    edition = Edition.objects.get()
    assert edition.day == TODAY
    assert response.redirect_chain[-1][0] == f"{LIST}?edition__id__exact={edition.pk}"
    assert "In today's list" in body(response)


def test_the_list_shows_title_source_counters_and_trend_with_its_terms(curator: Client) -> None:
    paper = make_paper("Attention & graphs", sources=["huggingface", "listing"])
    make_signal(paper, 42)
    make_signal(paper, 3, counter="comments")
    make_paper("Uncounted")
    shown = the_list(curator, editions.open_edition(TODAY))
    assert "Attention & graphs" in shown
    assert "huggingface, listing" in shown
    assert "0.50: upvotes 42 (50%), comments 3 (50%)" in shown
    assert "nothing counted, neutral" in shown
    assert "Pins, hides, order and notes count until the freeze" in shown
    assert f"{DAY}/add/" in shown
    assert f"{DAY}/freeze/" in shown


def test_the_list_of_a_frozen_edition_offers_neither_adding_nor_freezing(curator: Client) -> None:
    shown = the_list(curator, make_frozen_edition(make_paper(), day=TODAY))
    assert "papers can still be hidden" in shown
    assert f"{DAY}/add/" not in shown
    assert f"{DAY}/freeze/" not in shown
    assert f'href="/papers/{TODAY}"' in shown


def test_a_hostile_title_is_text_in_the_admin_too(curator: Client) -> None:
    make_paper("<script>alert(1)</script>")
    edition = editions.open_edition(TODAY)
    response = curator.get(LIST, {"edition__id__exact": edition.pk})
    assert b"<script>alert(1)" not in response.content
    assert b"&lt;script&gt;alert(1)" in response.content


def test_long_lists_ask_few_questions_of_the_database(
    curator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for n in range(50):
        make_paper(f"Paper {n}")
        make_frozen_edition(day=TODAY - timedelta(days=n + 1))
    edition = editions.open_edition(TODAY)
    edition.candidates.update(note="Read *this*.")
    with django_assert_max_num_queries(14):
        the_list(curator, edition)
    with django_assert_max_num_queries(10):
        assert curator.get("/admin/papers/edition/").status_code == 200


@pytest.mark.parametrize("value", ["²", "x", "99999999999999999999", "-1", ""])
def test_an_odd_edition_in_the_address_is_no_error(curator: Client, value: str) -> None:
    response = curator.get(LIST, {"edition__id__exact": value}, follow=True)
    assert response.status_code == 200


def test_a_list_of_three_hundred_asks_no_more_than_one_of_ten(
    curator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for n in range(300):
        make_paper(f"Paper {n}", categories=[f"cs.{n % 50}"])
    edition = editions.open_edition(TODAY)
    with django_assert_max_num_queries(14):
        the_list(curator, edition)
    everything = edition.candidates.all()
    with django_assert_max_num_queries(20):
        editions.curate_all(everything.select_related("paper"), HIDDEN, by="carol")
    assert everything.filter(curation="hidden").count() == 300


def titles(shown: str) -> list[str]:
    return re.findall(r'<a href="/admin/papers/paper/\d+/change/">([^<]*)</a>', shown)


@pytest.mark.parametrize(
    "words", ["sparse gra", "Quine", "2511.01", "10.1000/182", "unheard of", "ada quine"]
)
def test_the_list_is_searched_by_title_author_identifier_and_abstract(
    curator: Client, words: str
) -> None:
    make_paper(
        "Sparse graphs", authors=["Ada A.", "W. Quine"], arxiv_id="2511.01234",
        doi="10.1000/182", abstract="Of unheard-of unheard of things.",
    )  # fmt: skip
    make_paper("Other", abstract="Else.")
    edition = editions.open_edition(TODAY)
    shown = body(curator.get(LIST, {"edition__id__exact": str(edition.pk), "q": words}))
    assert titles(shown) == ["Sparse graphs"]


def test_the_list_is_sifted_by_curation_category_and_source_and_sorted_by_upvotes(
    curator: Client,
) -> None:
    few = make_paper("Few", categories=["cs.LG", "stat.ML"], sources=["huggingface"])
    many = make_paper("Many", categories=["stat.ML"], sources=["file", "huggingface"])
    make_paper("None", categories=["math.GR"])
    make_signal(few, 9)
    make_signal(many, 10)
    edition = editions.open_edition(TODAY)
    editions.curate(candidate(edition, "Few"), PINNED)

    def found(**query: str) -> list[str]:
        return titles(body(curator.get(LIST, {"edition__id__exact": str(edition.pk), **query})))

    assert set(found(category="stat.ML")) == {"Few", "Many"}
    assert found(category="math.GR") == ["None"]
    assert set(found(source="huggingface")) == {"Few", "Many"}
    assert found(curation__exact="pinned") == ["Few"]
    assert found(category="'; --") == []
    assert set(found(curation__exact="")) == {"Many", "None"}
    curations = r'<a href="\?[^"]*curation__exact=[^"]*">\s*([^<]*?)\s*</a>'
    shown = the_list(curator, edition)
    assert re.findall(curations, shown) == ["Neither", "Pinned", "Hidden"]
    heads = re.findall(r"column-(\w+)", the_list(curator, edition))
    upvotes = heads.index("upvotes") + 1
    assert found(o=f"-{upvotes}") == ["Many", "Few", "None"]
    assert found(o=str(upvotes)) == ["None", "Few", "Many"]


def test_the_list_is_in_the_order_of_the_page_and_the_hidden_come_last(curator: Client) -> None:
    for title in "ABCD":
        make_paper(title)
    edition = editions.open_edition(TODAY)
    edition.candidates.filter(paper__title="A").update(curation="hidden", position=1)
    edition.candidates.filter(paper__title="C").update(position=1)
    edition.candidates.filter(paper__title="D").update(curation="pinned", position=9)
    shown = the_list(curator, edition)
    assert titles(shown) == ["D", "C", "B", "A"]
    told = "The pinned come first and the hidden last"
    assert told in shown
    sorted_by = f"{LIST}?edition__id__exact={edition.pk}&o=1"
    assert told not in body(curator.get(sorted_by))


def test_a_note_is_text_in_the_admin_and_too_long_a_one_is_refused(curator: Client) -> None:
    make_paper()
    edition = editions.open_edition(TODAY)
    row = edition.candidates.get()
    response = save(curator, edition, {row: {"note": "x" * 1001}})
    assert "at most 1000 characters" in body(response)
    row.note = "</textarea><script>alert(1)</script>"
    row.save()
    url = f"{LIST}?edition__id__exact={edition.pk}"
    assert b"<script>alert" not in curator.get(url).content
    shown = curator.get(f"{DAY}/preview/").content
    assert b"<script>alert" not in shown
    assert b"&lt;script&gt;alert" in shown


# Pin, hide, order, note


def test_saving_the_list_pins_hides_orders_and_notes_and_leaves_a_trail(curator: Client) -> None:
    for title in "ABCD":
        make_paper(title)
    edition = editions.open_edition(TODAY)
    changes: dict[EditionPaper, dict[str, object]] = {
        candidate(edition, "A"): {"curation": "pinned", "position": 2},
        candidate(edition, "B"): {"curation": "pinned", "position": 1, "note": "Read this first."},
        candidate(edition, "C"): {"curation": "hidden"},
    }
    response = save(curator, edition, changes)
    assert response.status_code == 302
    frozen = editions.freeze(edition, MORNING)
    pool = editions.pool(frozen)
    titles = [Paper.objects.get(pk=pk).title for pk in pool.paper_ids]
    assert [titles[index] for index in pool.pinned] == ["B", "A"]
    assert set(titles) == {"A", "B", "D"}
    assert candidate(edition, "B").note == "Read this first."
    assert set(logged()) == {
        "carol: Pinned “A”.",
        "carol: Placed “A” at 2.",
        "carol: Pinned “B”.",
        "carol: Placed “B” at 1.",
        "carol: Noted at “B”: Read this first.",
        "carol: Hid “C”.",
    }


def test_the_list_of_a_frozen_edition_refuses_a_pin_and_saves_a_hide(curator: Client) -> None:
    edition = make_frozen_edition(make_paper("A"), make_paper("B"), day=TODAY)
    was = Edition.objects.get().changed_at
    response = save(curator, edition, {candidate(edition, "A"): {"curation": "pinned"}})
    assert response.status_code == 200
    assert "can still be hidden, but no longer pinned" in body(response)
    assert candidate(edition, "A").curation == ""
    response = save(curator, edition, {candidate(edition, "B"): {"curation": "hidden"}})
    assert response.status_code == 302
    assert candidate(edition, "B").curation == "hidden"
    assert Edition.objects.get().changed_at > was


def choices(form: str, name: str) -> list[str]:
    [chosen] = re.findall(rf'<select name="{name}".*?</select>', form, re.S)
    return re.findall(r'<option value="([^"]*)"', chosen)


def test_the_list_of_a_frozen_edition_offers_what_can_still_be_done_and_no_more(
    curator: Client,
) -> None:
    edition = four_papers()
    edition.candidates.filter(paper__title="A").update(curation="pinned", note="Read this.")
    edition.candidates.filter(paper__title="B").update(curation="hidden", position=7)
    shown = the_list(curator, edition)
    assert choices(rows_of(shown)["C"], r"form-\d+-curation") == ["", "pinned", "hidden"]
    assert choices(shown, "action") == ["", "pin", "hide", "restore"]
    assert 'id="order"' in shown
    assert "Next edition" not in shown
    assert {"form-0-position", "form-0-note"} <= set(opened(curator, edition))

    editions.freeze(edition, MORNING)
    shown = the_list(curator, edition)
    rows = rows_of(shown)
    assert choices(rows["A"], r"form-\d+-curation") == ["", "pinned", "hidden"]
    assert choices(rows["B"], r"form-\d+-curation") == ["", "hidden"]
    assert choices(rows["C"], r"form-\d+-curation") == ["", "hidden"]
    assert ">Read this.<" in rows["A"]
    assert ">7<" in rows["B"]
    assert choices(shown, "action") == ["", "hide", "restore"]
    assert 'id="order"' not in shown
    assert '<a href="/admin/papers/edition/next/">Next edition</a>' in shown
    posted = opened(curator, edition)
    assert [name for name in posted if name.endswith(("-position", "-note"))] == []
    row = candidate(edition, "B")
    assert save(curator, edition, {row: {"curation": ""}}, posted).status_code == 302
    assert candidate(edition, "B").curation == ""

    url = f"{LIST}{row.pk}/change/"
    one = body(curator.get(url))
    assert choices(one, "curation") == ["", "hidden"]
    assert 'name="note"' not in one
    assert 'name="position"' not in one
    form = form_of(one) | {"curation": "hidden"}
    assert curator.post(url, form).status_code == 302
    row = candidate(edition, "B")
    assert (row.curation, row.position) == ("hidden", 7)


def test_what_a_page_from_before_the_freeze_orders_and_notes_is_told_and_not_saved(
    curator: Client,
) -> None:
    edition = four_papers()
    edition.candidates.filter(paper__title="A").update(note="Two\nlines.")
    a, b, c, d = (candidate(edition, title) for title in "ABCD")
    form = opened(curator, edition)
    url = f"{LIST}{a.pk}/change/"
    single = form_of(curator.get(url).content.decode())
    editions.freeze(edition, MORNING)
    changes: dict[EditionPaper, dict[str, object]] = {
        a: {"curation": "hidden", "note": "Two\r\nlines."},
        b: {"note": "Too late."},
        c: {"position": 1},
        d: {"position": 2},
    }
    response = save(curator, edition, changes, form)
    told = body(response).partition('id="result_list"')[0]
    assert "“B”</a>: The edition has been frozen meanwhile, and its notes are fixed." in told
    assert "You had noted: “Too late.”" in told
    assert re.search("“C”</a>, <a[^>]*>“D”</a>: .* its order is fixed", told)
    assert "“A”" not in told
    assert logged() == []
    assert save(curator, edition, {}, the_form(response)).status_code == 302
    assert logged() == ["carol: Hid “A”."]
    assert not edition.candidates.exclude(position=None).exists()

    response = curator.post(url, single | {"note": "Hers."})
    assert "its notes are fixed. You had noted: “Hers.”" in body(response)
    assert candidate(edition, "A").note == "Two\nlines."
    response = curator.post(url, {"curation": "", "note": "Hers.", "position": ""})
    assert "its notes are fixed." in body(response)


def test_what_is_wrong_with_a_row_is_told_above_the_list_by_a_link_to_it(curator: Client) -> None:
    edition = four_papers()
    a, b, c = (candidate(edition, title) for title in "ABC")
    Paper.objects.filter(title="A").update(title="A & <b>")
    changes: dict[EditionPaper, dict[str, object]] = {row: {"note": "x" * 1001} for row in (a, b)}
    changes[c] = {"position": -1}
    response = save(curator, edition, changes)
    told, _, rows = response.content.decode().partition('id="result_list"')
    found = re.findall(r'<a href="#(id_form-\d+-curation)">“([^<]*)”</a>', told)
    assert {title for _, title in found} == {"A &amp; &lt;b&gt;", "B", "C"}
    assert all(f'id="{link}"' in rows for link, _ in found)
    assert len(re.findall(": Ensure this value has at most 1000", told)) == 1  # of two papers
    assert "“C”</a>: Ensure this value is greater than or equal to 0" in told
    assert 'class="errorlist"' not in the_list(curator, edition)


def test_the_actions_pin_hide_and_restore_several_at_once(curator: Client) -> None:
    for title in "ABC":
        make_paper(title)
    edition = editions.open_edition(TODAY)
    a, b, c = (candidate(edition, title) for title in "ABC")
    act(curator, "pin", a, b)
    act(curator, "hide", c)
    assert dict(edition.candidates.values_list("paper__title", "curation")) == {
        "A": "pinned",
        "B": "pinned",
        "C": "hidden",
    }
    act(curator, "restore", a, c)
    assert list(edition.candidates.exclude(curation="")) == [b]
    assert len(logged()) == 5


def test_the_pin_action_says_why_it_cannot_pin_in_a_frozen_edition(curator: Client) -> None:
    edition = make_frozen_edition(make_paper("A"), day=TODAY)
    assert "no longer pinned" in act(curator, "pin", candidate(edition, "A"))
    assert candidate(edition, "A").curation == ""
    assert logged() == []


def four_papers() -> Edition:
    for title in "ABCD":
        make_paper(title)
    return editions.open_edition(TODAY)


def test_the_pin_action_refuses_the_fourth_pin(curator: Client) -> None:
    edition = four_papers()
    shown = act(curator, "pin", *edition.candidates.all())
    left = edition.candidates.get(curation="")
    assert "3 papers are pinned now." in shown
    assert f"Not pinned: “{left.paper}”. At most 3 papers of an edition can be pinned" in shown
    assert edition.candidates.filter(curation="pinned").count() == 3
    assert len(logged()) == 3
    shown = act(curator, "hide", left)
    assert "1 paper is hidden now." in shown
    assert "1 paper is hidden already." in act(curator, "hide", left)
    assert len(logged()) == 4


def test_several_curators_at_once_pin_no_more_than_there_is_room_for(curator: Client) -> None:
    edition = four_papers()
    first, *others = edition.candidates.select_related("paper")
    editions.curate(candidate(edition, first.paper.title), PINNED, by="dan")
    refused = editions.curate_all([first, *others], PINNED, by="carol")
    assert [refusal.what for refusal in refused] == [others[-1].paper.title]


def test_saving_the_list_refuses_a_fourth_pin_beside_its_paper(curator: Client) -> None:
    edition = four_papers()
    act(curator, "pin", *(candidate(edition, title) for title in "ABC"))
    response = save(curator, edition, {candidate(edition, "D"): {"curation": "pinned"}})
    assert response.status_code == 200
    assert "3 are pinned already; take a pin back" in body(response)
    assert candidate(edition, "D").curation == ""
    response = save(curator, edition, {candidate(edition, "A"): {"note": "Still pinned."}})
    assert response.status_code == 302


@pytest.mark.parametrize(
    ("pinned_before", "words"),
    [
        ("", "You chose 4; an edition has at most 3 pins: a pinned paper is in everybody's mail"),
        ("A", "1 is pinned already, and you chose 3 more; take a pin back"),
        ("AB", "2 are pinned already, and you chose 2 more; take a pin back"),
    ],
)
def test_saving_the_list_refuses_four_pins_of_one_save_and_saves_none_of_them(
    curator: Client, pinned_before: str, words: str
) -> None:
    edition = four_papers()
    edition.candidates.filter(paper__title__in=list(pinned_before)).update(curation="pinned")
    changes: dict[EditionPaper, dict[str, object]] = {
        row: {"curation": "pinned"} for row in edition.candidates.all()
    }
    response = save(curator, edition, changes)
    assert response.status_code == 200
    assert words in body(response)
    assert edition.candidates.filter(curation="pinned").count() == len(pinned_before)
    assert logged() == []


def test_the_form_of_one_candidate_refuses_a_fourth_pin(curator: Client) -> None:
    edition = four_papers()
    edition.candidates.exclude(paper__title="D").update(curation="pinned")
    url = f"{LIST}{candidate(edition, 'D').pk}/change/"
    response = curator.post(url, {"curation": "pinned", "position": "", "note": ""})
    assert "At most 3 papers of an edition can be pinned" in body(response)
    response = curator.post(url, {"curation": "hidden", "position": "", "note": ""})
    assert response.status_code == 302
    assert candidate(edition, "D").curation == "hidden"


# Two curators


@pytest.fixture
def ben() -> Client:
    """The other one."""
    user = User.objects.create_user("ben", is_staff=True)
    user.groups.add(Group.objects.get(name="curators"))
    client = Client()
    client.force_login(user)
    return client


def rows_of(shown: str) -> dict[str, str]:
    """Each row of the list, by its title."""
    found = re.findall(r"<tr>(.*?)</tr>", shown.partition('id="result_list"')[2], re.S)
    return {titles(row)[0]: row for row in found if titles(row)}


def test_saving_the_list_undoes_nothing_that_another_curator_has_done_meanwhile(
    curator: Client, ben: Client
) -> None:
    edition = four_papers()
    a, b, c, d = (candidate(edition, title) for title in "ABCD")
    edition.candidates.filter(pk=d.pk).update(note="Two\r\nlines.")
    form = opened(curator, edition)
    act(ben, "pin", a)
    act(ben, "hide", b)
    save(ben, edition, {c: {"position": 3}, d: {"note": "Ben's."}})
    response = save(curator, edition, {c: {"note": "Nice."}, d: {"position": 1}}, form)
    assert response.status_code == 302
    assert list(
        edition.candidates.order_by("paper__title").values_list("curation", "position", "note")
    ) == [("pinned", None, ""), ("hidden", None, ""), ("", 3, "Nice."), ("", 1, "Ben's.")]
    assert [line for line in logged() if line.startswith("carol")] == [
        "carol: Noted at “C”: Nice.",
        "carol: Placed “D” at 1.",
    ]


def test_what_two_curators_change_otherwise_is_told_and_neither_is_lost(
    curator: Client, ben: Client
) -> None:
    edition = four_papers()
    rows = a, b, c, d = [candidate(edition, title) for title in "ABCD"]
    form = opened(curator, edition)
    save(ben, edition, {a: {"note": "Ben's."}, b: {"curation": "hidden"}, d: {"position": 1}})
    act(ben, "pin", c)
    was = list(edition.candidates.order_by("pk").values())
    hers: dict[EditionPaper, dict[str, object]] = {
        a: {"note": "Hers."}, b: {"curation": "pinned", "note": "<b>"}, d: {"position": 2},
    }  # fmt: skip
    response = save(curator, edition, hers, form)
    assert response.status_code == 200
    assert list(edition.candidates.order_by("pk").values()) == was
    # Each row has its own fields still, though the rows stand in another order by now.
    told = rows_of(body(response))
    assert "Changed meanwhile by ben: it is “Ben's.” now. Yours is not saved" in told["A"]
    assert "Hers.</textarea>" in told["A"]
    assert "Changed meanwhile by ben: it is hidden now." in told["B"]
    assert "Changed meanwhile by ben: it is “1” now." in told["D"]
    assert "Changed meanwhile" not in told["C"]
    # What she sees now, she may overrule.
    again = the_form(response)
    assert {row: again[named(again, row, "curation")] for row in rows} == {
        a: "", b: "pinned", c: "pinned", d: "",
    }  # fmt: skip
    assert save(curator, edition, {}, again).status_code == 302
    assert dict(edition.candidates.values_list("paper__title", "curation")) == {
        "A": "", "B": "pinned", "C": "pinned", "D": "",
    }  # fmt: skip
    assert (candidate(edition, "A").note, candidate(edition, "B").note) == ("Hers.", "<b>")
    assert candidate(edition, "D").position == 2
    assert "carol: Noted at “A”: Hers." in logged()


def test_what_two_curators_change_alike_is_not_told(curator: Client, ben: Client) -> None:
    edition = four_papers()
    a = candidate(edition, "A")
    form = opened(curator, edition)
    act(ben, "pin", a)
    assert save(curator, edition, {a: {"curation": "pinned"}}, form).status_code == 302
    assert logged() == ["ben: Pinned “A”."]


def test_an_action_overrules_nobody_who_was_faster(curator: Client, ben: Client) -> None:
    edition = four_papers()
    a, b = candidate(edition, "A"), candidate(edition, "B")
    form = opened(curator, edition)
    act(ben, "hide", a)
    shown = act(curator, "pin", a, b, form=form)
    assert "Not pinned: “A”. Changed meanwhile by ben: it is hidden now." in shown
    assert "1 paper is pinned now." in shown
    assert candidate(edition, "A").curation == "hidden"
    act(curator, "pin", a, form=opened(curator, edition))
    assert candidate(edition, "A").curation == "pinned"
    form = opened(curator, edition)
    act(ben, "restore", a)
    shown = act(curator, "pin", a, form=form)
    assert "Changed meanwhile by ben: it is neither pinned nor hidden now." in shown
    assert "pinned already" not in shown
    assert "is pinned now" not in shown


def test_the_form_of_one_candidate_undoes_nothing_of_another_curator(
    curator: Client, ben: Client
) -> None:
    edition = four_papers()
    row = candidate(edition, "A")
    url = f"{LIST}{row.pk}/change/"
    form = form_of(curator.get(url).content.decode())
    act(ben, "pin", row)
    save(ben, edition, {row: {"note": "Ben's."}})
    assert curator.post(url, form | {"position": "5"}).status_code == 302
    row = candidate(edition, "A")
    assert (row.curation, row.position, row.note) == ("pinned", 5, "Ben's.")
    response = curator.post(url, form | {"note": "Hers."})
    assert "Changed meanwhile by ben: it is “Ben's.” now." in body(response)
    assert candidate(edition, "A").note == "Ben's."
    assert curator.post(url, form_of(response.content.decode())).status_code == 302
    assert candidate(edition, "A").note == "Hers."


def test_a_paper_that_has_left_the_list_does_not_keep_the_others_from_being_saved(
    curator: Client,
) -> None:
    edition = four_papers()
    a, b, d = (candidate(edition, title) for title in "ABD")
    form = opened(curator, edition)
    Paper.objects.filter(title="D").update(withdrawn_on=TODAY)
    editions.open_edition(TODAY)
    assert save(curator, edition, {a: {"note": "Saved."}}, form).status_code == 302
    assert candidate(edition, "A").note == "Saved."
    response = save(curator, edition, {b: {"note": "Kept."}, d: {"note": "Lost?"}}, form)
    assert "A paper that you changed has left this list meanwhile" in body(response)
    assert "You had noted at it: “Lost?”." in body(response)
    assert candidate(edition, "B").note == ""
    assert save(curator, edition, {}, the_form(response)).status_code == 302
    assert candidate(edition, "B").note == "Kept."


def test_the_longest_list_that_is_shown_at_once_can_be_saved(curator: Client) -> None:
    for n in range(190):
        make_paper(f"Paper {n}")
    edition = editions.open_edition(TODAY)
    url = f"{LIST}?edition__id__exact={edition.pk}&all="
    form = the_form(curator.get(url))
    last = candidate(edition, "Paper 189")
    chosen = [row.pk for row in edition.candidates.all()]
    posted = {**form, named(form, last, "note"): "Seen.", "_selected_action": chosen}
    assert len(form) > 1000
    assert curator.post(url, posted | {"_save": "Save"}).status_code == 302
    assert candidate(edition, "Paper 189").note == "Seen."


# Adding


def add(curator: Client, **form: str) -> str:
    return body(curator.post(f"{DAY}/add/", form, follow=True))


def test_a_known_paper_is_added_by_its_identifier(curator: Client) -> None:
    make_paper("Old", arxiv_id="2505.24864", listing_day=TODAY - timedelta(days=300))
    edition = editions.open_edition(TODAY)
    assert curator.get(f"{DAY}/add/").status_code == 200
    assert "“Old” is on the list" in add(curator, identifier="https://arxiv.org/abs/2505.24864")
    assert candidate(edition, "Old")
    assert "Added “Old”" in logged()[0]


def test_a_new_paper_is_added_by_title_and_link(curator: Client) -> None:
    edition = editions.open_edition(TODAY)
    shown = add(curator, title="Brand new", link="example.org/new")
    assert "“Brand new” is on the list" in shown
    assert candidate(edition, "Brand new").paper.url == "https://example.org/new"


def test_papers_are_added_by_a_list_and_what_is_unknown_stays_to_be_seen_to(
    curator: Client,
) -> None:
    old = TODAY - timedelta(days=300)
    make_paper("One", arxiv_id="2505.24864", listing_day=old)
    make_paper("Two", doi="10.1000/182", listing_day=old)
    make_frozen_edition(make_paper("Seen", arxiv_id="2505.00001", listing_day=old), day=old)
    edition = editions.open_edition(TODAY)
    lines = "2505.24864\r\n\r\n https://doi.org/10.1000/182 \n2505.99999\nhello\n2505.00001\n"
    shown = add(curator, identifier=lines)
    assert "“One” is on the list" in shown
    assert "“Two” is on the list" in shown
    assert "No paper 2505.99999 is known here" in shown
    assert "“hello” is neither an arXiv id nor a DOI" in shown
    assert f"“Seen” was on the list of {old} already" in shown
    left = re.findall(r"<textarea[^>]*>\s*([^<]*)</textarea>", shown)
    assert left == ["2505.99999\nhello\n2505.00001"]
    assert {row.paper.title for row in edition.candidates.all()} == {"One", "Two"}
    assert logged() == ["carol: Added “One”.", "carol: Added “Two”."]


ENTRY = (
    b'<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>http://arxiv.org/abs/2611.00001v1</id>'
    b"<published>2026-11-19T10:00:00Z</published><title>Kites of kind 1</title>"
    b"<summary>About kites.</summary><author><name>Ada Alvarez</name></author></entry></feed>"
)


@pytest.mark.django_db(transaction=True)
def test_what_is_unknown_is_asked_of_arxiv_where_the_curator_says_so(settings: Settings) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("carol"))
    known = make_paper("Old", arxiv_id="2505.24864", listing_day=TODAY - timedelta(days=300))
    edition = editions.open_edition(TODAY)
    with Recorded([Saved("/api?id_list=2611.00001", ENTRY)]) as server:
        settings.ARXIV_API_URL = f"{server.url}/api"
        assert "No paper 2611.00001 is known here" in add(client, identifier="2611.00001")
        assert server.asked == []
        shown = add(client, identifier="2505.24864\n2611.00001\nhello", ask="on")
        assert len(server.asked) == 1
    assert "“Kites of kind 1” is on the list" in shown
    assert "“hello” is neither an arXiv id nor a DOI" in shown
    assert {row.paper.title for row in edition.candidates.all()} == {"Old", "Kites of kind 1"}
    assert known in edition.papers.all()


@pytest.mark.django_db(transaction=True)
def test_what_arxiv_does_not_have_is_said_and_stays_to_be_seen_to(settings: Settings) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("carol"))
    editions.open_edition(TODAY)
    with Recorded([Saved("/api", b'<feed xmlns="http://www.w3.org/2005/Atom"/>')]) as server:
        settings.ARXIV_API_URL = f"{server.url}/api"
        shown = add(client, identifier="2611.00001", ask="on")
    assert "arXiv did not give 2611.00001" in shown
    assert ">\n2611.00001</textarea>" in shown.replace("\r", "")


@pytest.mark.django_db(transaction=True)
def test_another_paper_than_the_one_asked_for_is_not_added(settings: Settings) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("carol"))
    editions.open_edition(TODAY)
    with Recorded([Saved("/api", ATOM)]) as server:
        settings.ARXIV_API_URL = f"{server.url}/api"
        shown = add(client, identifier="2611.00002", ask="on")
    assert "arXiv answers with 2611.00001, which was not asked for" in shown
    assert not Paper.objects.exists()


def test_a_withdrawn_paper_is_not_added(curator: Client) -> None:
    old = TODAY - timedelta(days=300)
    make_paper("Gone", arxiv_id="2505.24864", listing_day=old, withdrawn_on=TODAY)
    editions.open_edition(TODAY)
    assert "“Gone” was withdrawn by its source" in add(curator, identifier="2505.24864")


def test_more_identifiers_than_a_hundred_are_refused(curator: Client) -> None:
    editions.open_edition(TODAY)
    lines = "\n".join(f"2505.{n:05}" for n in range(101))
    assert "These are 101: add at most 100" in add(curator, identifier=lines)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"identifier": "2505.24864", "ask": "on"}, "Or add the paper by its title and link"),
        ({"identifier": "10.1000/182"}, "No paper 10.1000/182 is known here"),
        ({"identifier": "hello"}, "“hello” is neither an arXiv id nor a DOI"),
        ({"title": "Only a title"}, "an identifier, or both a title and a link"),
        ({"title": "T", "link": "javascript:alert(1)"}, "Enter a valid URL"),
        ({"title": "T\0", "link": "https://example.org"}, "Null characters are not allowed"),
    ],
)
def test_what_cannot_be_added_is_told_on_the_form(
    curator: Client, form: dict[str, str], words: str
) -> None:
    editions.open_edition(TODAY)
    assert words in add(curator, **form)
    assert not Paper.objects.exists()
    assert logged() == []


def test_nothing_is_added_to_a_frozen_edition(curator: Client) -> None:
    make_paper("Old", arxiv_id="2505.24864", listing_day=TODAY - timedelta(days=300))
    edition = make_frozen_edition(make_paper("A"), day=TODAY)
    assert "This edition is frozen" in add(curator, identifier="2505.24864")
    assert edition.candidates.count() == 1


def test_an_edition_that_does_not_exist_has_no_pages(curator: Client) -> None:
    assert curator.get("/admin/papers/edition/2026-01-01/add/").status_code == 404
    assert curator.get("/admin/papers/edition/2026-01-01/freeze/").status_code == 404
    assert curator.get("/admin/papers/edition/2026-99-99/curate/").status_code == 302  # unknown
    assert not Edition.objects.exists()


@pytest.mark.parametrize("day", ["0001-01-01", "1989-12-31", "2026-11-21", "9999-12-31"])
@pytest.mark.parametrize("page", ["curate", "add", "freeze"])
def test_a_day_that_can_have_no_edition_has_no_pages(
    curator: Client, admin_client: Client, day: str, page: str
) -> None:
    for client in (curator, admin_client):
        url = f"/admin/papers/edition/{day}/{page}/"
        assert client.get(url).status_code == client.post(url).status_code == 404
    assert not Edition.objects.exists()


@pytest.mark.parametrize("day", ["2026-11-21", "9999-12-31"])
def test_an_edition_made_too_early_is_said_not_to_have_come(curator: Client, day: str) -> None:
    edition = Edition.objects.create(day=day)
    url = f"/admin/papers/edition/{day}"
    words = f"{day} has not come yet"
    assert words in body(curator.get(f"{url}/curate/", follow=True))
    assert words in body(curator.post(f"{url}/freeze/", follow=True))
    new = {"title": "New", "link": "https://example.org/new"}
    assert words in body(curator.post(f"{url}/add/", new, follow=True))
    edition.refresh_from_db()
    assert edition.is_open
    assert logged() == []


def test_once_todays_list_is_frozen_tomorrows_is_curated(curator: Client) -> None:
    make_frozen_edition(make_paper("Of today"), day=TODAY)
    new = make_paper("Of tomorrow")
    lists = "/admin/papers/edition"
    page = body(curator.get(f"{lists}/next/", follow=True))
    edition = Edition.objects.get(day=TODAY + timedelta(days=1))
    assert "Of tomorrow" in page
    assert "freezes itself at 2026-11-21 04:00 UTC" in page
    editions.curate(edition.candidates.get(), EditionPaper.Curation.PINNED)
    assert "Of tomorrow" in body(curator.get(f"{lists}/{edition.day}/preview/"))
    page = f"{lists}/{edition.day}/freeze/"
    assert "Freeze now" not in body(curator.get(page))
    assert "has not come yet" in body(curator.post(page, follow=True))
    edition.refresh_from_db()
    assert edition.is_open
    assert curator.get(f"/papers/{edition.day}").status_code == 404
    with time_machine.travel(MORNING + timedelta(days=1)):
        frozen = editions.freeze_due(timezone.now())
    assert frozen == edition
    assert frozen.candidates.get(curation="pinned").paper == new


@pytest.mark.parametrize(
    ("day", "words"),
    [
        ("2026-11-21", "has not come yet"),
        ("9999-12-31", "has not come yet"),
        ("0001-01-01", "out of range"),
    ],
)
def test_the_form_of_a_new_edition_refuses_such_days_too(
    curator: Client, day: str, words: str
) -> None:
    assert words in body(curator.post("/admin/papers/edition/add/", {"day": day}))
    assert not Edition.objects.exists()
    assert curator.post("/admin/papers/edition/add/", {"day": str(TODAY)}).status_code == 302
    assert Edition.objects.get().day == TODAY
    assert logged() == ["carol: Opened."]


# Freezing


def test_opening_the_freeze_page_freezes_nothing_and_its_button_does(curator: Client) -> None:
    make_paper()
    edition = editions.open_edition(TODAY)
    response = curator.get(f"{DAY}/freeze/")
    assert "This cannot be undone" in body(response)
    edition.refresh_from_db()
    assert edition.is_open
    response = curator.post(f"{DAY}/freeze/", follow=True)
    assert f"Edition of {TODAY} is frozen." in body(response)
    edition.refresh_from_db()
    assert edition.state == Edition.State.FROZEN
    assert len(logged()) == 1


def test_freezing_twice_is_said_and_leaves_one_entry(curator: Client) -> None:
    make_paper()
    editions.open_edition(TODAY)
    curator.post(f"{DAY}/freeze/")
    was = Edition.objects.values().get()
    response = curator.post(f"{DAY}/freeze/")
    assert "It is frozen already" in body(response)
    assert Edition.objects.values().get() == was
    assert len(logged()) == 1


def test_the_freeze_button_is_safe_from_other_sites() -> None:
    user = User.objects.create_superuser("root")
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    make_paper()
    editions.open_edition(TODAY)
    assert client.post(f"{DAY}/freeze/").status_code == 403
    assert Edition.objects.get().is_open


def hold(client: Client, do: str) -> str:
    return body(client.post(f"{DAY}/hold/", {"do": do}, follow=True))


def test_a_held_edition_waits_for_its_curator_and_says_whom_it_waits_for(curator: Client) -> None:
    make_paper()
    edition = editions.open_edition(TODAY)
    assert curator.get(f"{DAY}/hold/").status_code == 405
    shown = hold(curator, "hold")
    assert f"Held by carol since {TODAY} 06:00 UTC" in shown
    assert "Release it" in shown
    assert editions.freeze_due(MORNING) is None
    assert "Hold: do not freeze by itself" in hold(curator, "release")
    edition.refresh_from_db()
    assert (edition.held, edition.held_by, edition.held_at) == (False, "", None)
    assert editions.freeze_due(MORNING) == edition
    assert logged() == [
        "carol: Held: it is not frozen automatically.",
        "carol: Released: it may be frozen automatically.",
    ]


def test_holding_twice_keeps_the_name_of_who_held_it_first(curator: Client) -> None:
    edition = editions.open_edition(TODAY)
    editions.hold(edition, by="dan")
    assert "Held by dan" in hold(curator, "hold")
    assert len(logged()) == 1


def test_an_edition_that_has_been_frozen_meanwhile_is_not_held(curator: Client) -> None:
    make_paper()
    edition = editions.open_edition(TODAY)
    editions.freeze(edition, MORNING)
    was = Edition.objects.values().get()
    assert "it can no longer be held" in hold(curator, "hold")
    assert Edition.objects.values().get() == was


@pytest.mark.parametrize(
    ("clock", "held", "words"),
    [
        ("2026-11-20 00:50", False, "freezes itself at 2026-11-20 04:00 UTC, in 3 h 10 min"),
        ("2026-11-20 03:59:30", False, "in 1 min"),
        ("2026-11-20 04:00", False, "within a minute"),
        ("2026-11-21 03:59", False, "within a minute"),
        ("2026-11-21 04:00", False, "Its day is over: it is not frozen automatically any more"),
        ("2026-11-20 00:50", True, "Its hour is 2026-11-20 04:00 UTC, in 3 h 10 min"),
        ("2026-11-20 05:00", True, "The next edition takes over at 04:00 UTC, in 23 h 0 min"),
        ("2026-11-21 04:00", True, "Its day is over"),
    ],
)
def test_the_edition_says_when_it_is_frozen(clock: str, held: bool, words: str) -> None:
    now = datetime.fromisoformat(clock).replace(tzinfo=UTC)
    edition = Edition.objects.create(day=TODAY, held=held, held_by="dan" if held else "")
    assert words in editions.outlook(edition, now)
    assert ("Held by dan" in editions.outlook(edition, now)) == held
    # It is true: what is said to be frozen is, and nothing else.
    make_paper()
    said = not held and words == "within a minute"
    assert (editions.freeze_due(now) == edition) == said


def test_an_edition_held_past_its_day_keeps_what_the_next_one_has_not_carried() -> None:
    make_paper("Both days'")
    held = editions.open_edition(TODAY)
    editions.hold(held, by="carol")
    tomorrow = MORNING + timedelta(days=1)
    with time_machine.travel(tomorrow):
        make_paper("Tomorrow's")
        assert editions.freeze_due(tomorrow) == Edition.objects.get(day=tomorrow.date())
        editions.release(held, by="carol")
        editions.freeze_due(tomorrow)
        held.refresh_from_db()
        assert held.is_open
        assert editions.freeze(held, tomorrow).state == Edition.State.EMPTY
    records = [row.what for row in held.curation_records.order_by("id")]
    assert "Took 1 paper off: carried by another edition, or withdrawn." in records


# The preview and the log


def test_the_preview_is_the_page_that_a_freeze_makes_and_changes_nothing(
    curator: Client,
) -> None:
    for title in "ABC":
        make_signal(make_paper(title), ord(title))
    edition = editions.open_edition(TODAY)
    editions.curate(candidate(edition, "A"), PINNED)
    editions.curate(candidate(edition, "B"), HIDDEN)
    edition.candidates.filter(paper__title="A").update(note="*First*.")
    make_signal(make_paper("Late"), 90)
    tables = (Edition, EditionPaper, CurationRecord)
    was = [list(table.objects.order_by("pk").values()) for table in tables]
    response = curator.get(f"{DAY}/preview/")
    assert [list(table.objects.order_by("pk").values()) for table in tables] == was
    assert "no-store" in response["Cache-Control"]
    assert response["X-Robots-Tag"] == "noindex"
    shown = body(response)
    assert "Preview: not public." in shown
    assert "1 paper would come to the list with the freeze" in shown
    assert Client().get(f"/papers/{TODAY}").status_code == 404
    editions.freeze(edition, timezone.now())
    public = body(Client().get(f"/papers/{TODAY}"))

    def papers(page: str) -> str:
        [listed] = re.findall(r'<ol class="papers">.*</ol>', page, re.S)
        return str(listed)

    assert papers(shown) == papers(public)
    assert "<em>First</em>" in shown
    refused = body(curator.get(f"{DAY}/preview/", follow=True))
    assert "This edition is frozen: its page is there for everybody." in refused


def test_an_edition_without_papers_has_its_preview_too(curator: Client) -> None:
    editions.open_edition(TODAY)
    assert "No new papers have arrived for this day." in body(curator.get(f"{DAY}/preview/"))
    assert Edition.objects.get().is_open


def test_the_log_tells_who_did_what_newest_first_and_outlives_the_account(
    curator: Client,
) -> None:
    for title in ("A", "<b>B</b>"):
        make_paper(title)
    edition = editions.open_edition(TODAY)
    act(curator, "hide", candidate(edition, "<b>B</b>"))
    act(curator, "restore", candidate(edition, "<b>B</b>"))
    act(curator, "pin", candidate(edition, "A"))
    save(curator, edition, {candidate(edition, "A"): {"note": "Yes.", "position": 4}})
    save(curator, edition, {candidate(edition, "A"): {"note": "", "position": ""}})
    act(curator, "restore", candidate(edition, "A"))
    hold(curator, "hold")
    hold(curator, "release")
    editions.freeze_due(MORNING)
    User.objects.all().delete()
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    row = candidate(edition, "A")
    histories = (f"/admin/papers/edition/{edition.pk}/history/", f"{LIST}{row.pk}/history/")
    for page in (f"{DAY}/log/", *histories):
        response = client.get(page)
        assert b"<b>B</b>" not in response.content
        rows = re.findall(r"<td>([^<]*)</td><td>(.*?)</td></tr>", response.content.decode())
        assert [(who, unescape(what)) for who, what in rows] == [
            ("the service itself", "Frozen with 2 papers."),
            ("carol", "Released: it may be frozen automatically."),
            ("carol", "Held: it is not frozen automatically."),
            ("carol", "Took back the pin of “A”."),
            ("carol", "Took the note away from “A”"),
            ("carol", "Took its place from “A”."),
            ("carol", "Noted at “A”: Yes."),
            ("carol", "Placed “A” at 4."),
            ("carol", "Pinned “A”."),
            ("carol", "Showed again “<b>B</b>”."),
            ("carol", "Hid “<b>B</b>”."),
            ("the service itself", "Listed 2 papers that had come in."),
        ]


# Papers


def test_saving_a_paper_unchanged_changes_none_of_its_facts(curator: Client) -> None:
    paper = make_paper(
        authors=["Sammy Davis, Jr.", "Bo Berg"],
        keywords=["attention, sparse", "graphs"],
        categories=["cs.LG"],
        url="https://example.org/a?b=1&c=2",
        sources=["huggingface", "listing"],
    )
    edition = editions.open_edition(TODAY)
    was = Paper.objects.values().get()
    changed_at = edition.changed_at
    url = f"/admin/papers/paper/{paper.pk}/change/"
    form = form_of(curator.get(url).content.decode())
    assert curator.post(url, form | {"_save": "Save"}).status_code == 302
    now = Paper.objects.values().get()
    assert now | {"updated_at": was["updated_at"]} == was
    assert Edition.objects.get().changed_at >= changed_at


def test_a_mended_title_is_recognised_under_its_new_spelling(curator: Client) -> None:
    paper = make_paper("Atention")
    url = f"/admin/papers/paper/{paper.pk}/change/"
    form = form_of(curator.get(url).content.decode()) | {"title": "Attention", "_save": "Save"}
    assert curator.post(url, form).status_code == 302
    assert Paper.objects.get().title_key == "attention"


def arxiv_says(title: str, **fields: Any) -> None:
    record = PaperRecord("arxiv", title, arxiv_id="2611.00001", **fields)
    ingest.write([record], timezone.now(), ingest.Summary())


def test_what_a_source_corrects_while_a_paper_is_mended_stays_the_sources(
    curator: Client,
) -> None:
    arxiv_says("Old", abstract="Old\nabstract.", authors=("A B",))
    paper = Paper.objects.get()
    url = f"/admin/papers/paper/{paper.pk}/change/"
    form = form_of(curator.get(url).content.decode())
    with time_machine.travel(MORNING + timedelta(hours=1)):
        arxiv_says("New", abstract="New abstract.", authors=("A B", "C D"))
        assert curator.post(url, form | {"keywords": "kites\r\nwind"}).status_code == 302
    paper.refresh_from_db()
    assert (paper.title, paper.authors, paper.keywords) == (
        "New",
        ["A B", "C D"],
        ["kites", "wind"],
    )
    assert paper.source_records.get(source="curator").record == {"keywords": ["kites", "wind"]}
    with time_machine.travel(MORNING + timedelta(hours=2)):
        arxiv_says("Newest", abstract="Newest.", authors=("A B",))
    paper.refresh_from_db()
    assert (paper.title, paper.abstract, paper.keywords) == (
        "Newest", "Newest.", ["kites", "wind"],
    )  # fmt: skip


def test_what_a_curator_and_a_source_change_otherwise_is_told_before_it_is_saved(
    curator: Client,
) -> None:
    arxiv_says("Old", abstract="Old.")
    paper = Paper.objects.get()
    url = f"/admin/papers/paper/{paper.pk}/change/"
    form = form_of(curator.get(url).content.decode())
    with time_machine.travel(MORNING + timedelta(hours=1)):
        arxiv_says("New", abstract="New.")
    response = curator.post(url, form | {"title": "Hers"})
    assert "Changed meanwhile: it is “New” now." in body(response)
    paper.refresh_from_db()
    assert (paper.title, paper.abstract) == ("New", "New.")
    again = form_of(response.content.decode())
    assert (again["title"], again["abstract"]) == ("Hers", "New.")
    assert curator.post(url, again).status_code == 302
    paper.refresh_from_db()
    assert (paper.title, paper.title_key, paper.abstract) == ("Hers", "hers", "New.")
    assert paper.source_records.get(source="curator").record == {"title": "Hers"}


def test_a_corrected_paper_is_in_the_logs_of_the_editions_that_show_it(curator: Client) -> None:
    paper = make_paper("Atention", abstract="")
    make_frozen_edition(paper, day=TODAY - timedelta(days=2))
    hiding = make_frozen_edition(paper, day=TODAY - timedelta(days=1))
    hiding.candidates.update(curation="hidden")
    was = {edition.day: edition.changed_at for edition in Edition.objects.all()}
    url = f"/admin/papers/paper/{paper.pk}/change/"
    form = form_of(curator.get(url).content.decode())
    with time_machine.travel(MORNING + timedelta(minutes=1)):
        assert curator.post(url, form).status_code == 302
        assert logged() == []
        assert curator.post(url, form | {"title": "Attention", "doi": "10.1/a"}).status_code == 200
        changed = {"title": "Attention", "licence": "CC0"}
        assert curator.post(url, form | changed).status_code == 302
    assert [(row.edition.day, str(row)) for row in CurationRecord.objects.exclude(by="")] == [
        (TODAY - timedelta(days=2), "carol: Corrected “Atention”: title, licence.")
    ]
    assert all(edition.changed_at > was[edition.day] for edition in Edition.objects.all())


def test_what_comes_of_the_sources_is_read_and_not_written_by_hand(curator: Client) -> None:
    versions = [{"number": 1, "on": "2026-11-19"}]
    paper = make_paper(sources=["arxiv"], versions=versions, summary="S", summary_source="arxiv")
    url = f"/admin/papers/paper/{paper.pk}/change/"
    form = form_of(curator.get(url).content.decode())
    assert not {"versions", "sources", "summary_source"} & set(form)
    slips = {"versions": '["v1"]', "sources": "x", "summary_source": "file", "comment": "12 pages"}
    assert curator.post(url, form | slips).status_code == 302
    paper.refresh_from_db()
    assert (paper.versions, paper.sources, paper.comment) == (versions, ["arxiv"], "12 pages")
    assert paper.summary_source == "arxiv"
    assert curator.post(url, form | {"summary": "Ours."}).status_code == 302
    paper.refresh_from_db()
    assert (paper.summary, paper.summary_source) == ("Ours.", "curator")


def public_pages(paper: Paper) -> list[str]:
    edition = make_frozen_edition(paper)
    lists = [
        f"/papers/{edition.day}", "/", "/search?q=kites", "/categories/", "/feeds/papers.atom",
        f"/feeds/papers/{edition.day}.atom",
    ]  # fmt: skip
    api = [f"days/{edition.day}", "papers", f"papers/{paper.uuid}", "search?q=kites", "categories"]
    admin = [f"/admin/papers/paper/{paper.pk}/change/", f"{DAY}/log/"]
    admin.append(f"{LIST}?edition__id__exact={edition.pk}")
    return [paper.get_absolute_url(), *lists, *(f"/api/v1/{page}" for page in api), *admin]


ODD = [
    "/", "//x", "../..", ".", "%2f", "?q=1", "#", "{", "é" * 3000, "a\u2028b", "a\x0bb", "\x7f",
    "\ufeff", '"', "'", "<script>", "javascript:alert(1)", "[]", "1" * 40,
]  # fmt: skip
FREE = (
    "title", "abstract", "authors", "keywords", "categories", "summary", "comment", "journal_ref",
    "organisation", "submitter", "licence",
)  # fmt: skip


@pytest.mark.parametrize(
    "typed",
    [
        *({name: odd[:255] if name in FREE[-3:] else odd for name in FREE} for odd in ODD),
        *(dict.fromkeys(FREE[2:5], f"A\n{odd}\nB") for odd in ODD),
        {"listing_day": "0001-01-01", "published_on": "0001-01-01", "withdrawn_on": "0001-01-01"},
        {"listing_day": "9999-12-31", "published_on": "9999-12-31", "withdrawn_on": "9999-12-31"},
    ],
)
def test_nothing_typed_into_a_papers_form_breaks_a_page(
    admin_client: Client, typed: dict[str, str]
) -> None:
    paper = make_paper("Kites")
    pages = public_pages(paper)
    url = f"/admin/papers/paper/{paper.pk}/change/"
    form = form_of(admin_client.get(url).content.decode())
    if "title" in typed:
        typed = typed | {"title": f"Kites {typed['title']}"}
    assert admin_client.post(url, form | typed).status_code == 302
    assert {admin_client.get(page).status_code for page in pages} <= {200, 404}
    if {"withdrawn_on", "title"} & set(typed) == {"title"}:
        assert admin_client.get(paper.get_absolute_url()).status_code == 200


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ({"arxiv_id": "arXiv:2611.00001v2"}, ("2611.00001", None)),
        ({"arxiv_id": " https://arxiv.org/abs/2611.00001v12 "}, ("2611.00001", None)),
        ({"doi": "https://doi.org/10.1000/ABC"}, (None, "10.1000/abc")),
        ({"arxiv_id": "", "doi": ""}, (None, None)),
    ],
)
def test_an_identifier_is_kept_as_the_sources_spell_it(
    admin_client: Client, typed: dict[str, str], kept: tuple[str | None, str | None]
) -> None:
    add = "/admin/papers/paper/add/"
    new = {"title": "Kites", "authors": "Ada Alvarez", "listing_day": str(TODAY)}
    form = form_of(admin_client.get(add).content.decode())
    assert admin_client.post(add, form | new | typed).status_code == 302
    paper = Paper.objects.get()
    assert (paper.arxiv_id, paper.doi) == kept
    assert (paper.sources, paper.title_key) == (["curator"], "kites")
    if any(kept):
        record = PaperRecord("arxiv", "Others", arxiv_id=kept[0] or "", doi=kept[1] or "")
        ingest.write([record], timezone.now(), ingest.Summary())
        assert Paper.objects.get() == paper


def test_what_is_no_identifier_or_anothers_is_told_beside_it(admin_client: Client) -> None:
    make_paper("Other", arxiv_id="2611.00001")
    add = "/admin/papers/paper/add/"
    new = form_of(admin_client.get(add).content.decode())
    new |= {"title": "Kites", "listing_day": str(TODAY)}
    shown = body(admin_client.post(add, new | {"arxiv_id": "2611", "doi": "abc"}))
    assert "“2611” is not an arXiv id such as 2505.24864" in shown
    assert "“abc” is not a DOI such as 10.1000/182" in shown
    shown = body(admin_client.post(add, new | {"arxiv_id": "arXiv:2611.00001v2"}))
    assert "Paper with this ArXiv id already exists." in shown
    assert Paper.objects.count() == 1


def found_among_all(curator: Client, words: str) -> list[str]:
    shown = body(curator.get("/admin/papers/paper/", {"q": words}))
    return re.findall(r'<a href="/admin/papers/paper/\d+/change/[^"]*">([^<]*)</a>', shown)


@pytest.mark.parametrize(
    "words",
    ["sparse graphs", "Quine", "arXiv:2511.01234", "https://doi.org/10.1000/182", "unheard"],
)
def test_all_papers_are_searched_by_whole_words_and_identifiers(
    curator: Client, words: str
) -> None:
    make_paper(
        "Sparse graphs", authors=["Ada A.", "W. Quine"], arxiv_id="2511.01234",
        doi="10.1000/182", abstract="Of unheard-of things.",
    )  # fmt: skip
    make_paper("Other", abstract="Else.")
    assert found_among_all(curator, words) == ["Sparse graphs"]


@pytest.mark.parametrize("words", ["", "\0", "'", '"', "the", "%", "a" * 5000])
def test_whatever_is_searched_for_among_all_papers_is_no_error(curator: Client, words: str) -> None:
    make_paper("Sparse graphs")
    assert curator.get("/admin/papers/paper/", {"q": words}).status_code == 200


def test_a_withdrawn_paper_is_found_among_all_by_a_part_of_its_title(curator: Client) -> None:
    make_paper("Sparse graphs", withdrawn_on=TODAY)
    make_paper("Sparse trees")
    assert found_among_all(curator, "rse gra") == ["Sparse graphs"]
    assert set(found_among_all(curator, "sparse")) == {"Sparse graphs", "Sparse trees"}


def test_the_list_of_editions_counts_the_papers_of_those_that_it_shows(curator: Client) -> None:
    papers = [make_paper(f"Paper {number}") for number in range(10)]
    days = Edition.objects.bulk_create(
        Edition(day=TODAY - timedelta(days=back), state="frozen", frozen_at=MORNING)
        for back in range(300)
    )
    EditionPaper.objects.bulk_create(
        EditionPaper(edition=edition, paper=paper) for edition in days for paper in papers
    )
    Edition.objects.create(day=TODAY + timedelta(days=1))
    analyse(Edition, EditionPaper)
    with counted(most=5000):
        shown = body(curator.get("/admin/papers/edition/"))
    assert shown.count(">10 papers<") == 99
    assert shown.count(">0 papers<") == 1
