"""Who may open what in the admin: every page of both apps, for every role."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
import time_machine
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from newsletter.models import (
    Alert,
    ConsentRecord,
    Delivery,
    DeliveryEvent,
    Feedback,
    Interest,
    RankingModel,
    SendingPause,
    Submission,
    Subscriber,
    Suppression,
)
from newsletter.roles import GROUPS
from papers import editions
from papers.models import Edition, EditionPaper, Harvest, Paper
from tests.admin_forms import form_of
from tests.factories import (
    MORNING,
    TODAY,
    make_delivery,
    make_frozen_edition,
    make_paper,
    make_subscriber,
)

pytestmark = pytest.mark.django_db

APPS = ("papers", "newsletter")
MODELS = [model for model in admin.site._registry if model._meta.app_label in APPS]
PAGES = ("changelist", "add", "change", "delete", "history")

# What each group may open; whatever is not named is forbidden.
LOOK = {"changelist", "change", "history"}
ALLOWED: dict[str, dict[type[Model], set[str]]] = {
    "curators": {
        Paper: LOOK | {"add"},
        Edition: LOOK | {"add"},
        EditionPaper: LOOK,
        Harvest: LOOK,
        Submission: LOOK,
    },
    "operators": {
        Paper: LOOK,
        Edition: LOOK,
        EditionPaper: LOOK,
        Harvest: LOOK,
        Subscriber: LOOK,
        Feedback: LOOK,
        RankingModel: LOOK,
        Delivery: LOOK,
        DeliveryEvent: LOOK,
        SendingPause: LOOK | {"add"},
        Alert: LOOK,
        Suppression: LOOK | {"delete"},
        ConsentRecord: LOOK,
        Submission: LOOK,
    },
    "plain staff": {},
}


@pytest.fixture(autouse=True)
def _today() -> object:
    with time_machine.travel(MORNING):
        yield


@pytest.fixture
def rows() -> dict[type[Model], Model]:
    """One row of every model that the admin shows, each with all that its page may render."""
    paper = make_paper(arxiv_id="2505.24864", categories=["cs.LG"])
    edition = make_frozen_edition(paper, day=TODAY)
    subscriber = make_subscriber(interests=("sparse graphs",))
    interest = subscriber.interests.get()
    delivery = make_delivery(
        subscriber,
        paper,
        interest=interest,
        edition=edition,
        state=Delivery.State.SENT,
        sent_at=timezone.now(),
    )
    return {
        Paper: paper,
        Edition: edition,
        EditionPaper: edition.candidates.get(),
        Harvest: Harvest.objects.create(source="file", state="done", errors=["a:1: bad"]),
        Subscriber: subscriber,
        Feedback: Feedback.objects.create(
            subscriber=subscriber, interest=interest, paper=paper, kind="more"
        ),
        RankingModel: RankingModel.objects.create(name="2026-11-20.1", arrays=b"PK"),
        Delivery: delivery,
        DeliveryEvent: DeliveryEvent.objects.create(
            delivery=delivery,
            kind="bounced",
            source="smtp",
            occurred_at=timezone.now(),
            content_digest="0" * 64,
        ),
        SendingPause: SendingPause.objects.create(domain="blocked.example", why="It blocks us."),
        Alert: Alert.objects.create(subject="Down", text="Look.", raised_at=timezone.now()),
        Suppression: Suppression.objects.create(address_hash="0" * 64, reason="complaint"),
        ConsentRecord: ConsentRecord.objects.create(
            address_hash="0" * 64, act="confirmed", way="link"
        ),
        Submission: Submission.objects.create(subscriber=subscriber, arxiv_id="2505.24864"),
    }


def client_of(role: str) -> Client:
    client = Client()
    if role == "superuser":
        client.force_login(User.objects.create_superuser("root"))
    elif role != "anonymous":
        user = User.objects.create_user(role, is_staff=role != "reader with an account")
        if role in GROUPS:
            user.groups.add(Group.objects.get(name=role))
        client.force_login(user)
    return client


def url_of(model: type[Model], page: str, row: Model) -> str:
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"
    try:
        return reverse(name)
    except NoReverseMatch:
        return reverse(name, args=[row.pk])


def test_every_model_of_the_admin_has_its_row_here(rows: dict[type[Model], Model]) -> None:
    assert set(rows) == set(MODELS)


@pytest.mark.parametrize("role", ["curators", "operators", "plain staff"])
def test_each_group_opens_what_it_needs_and_nothing_else(
    rows: dict[type[Model], Model], role: str
) -> None:
    client = client_of(role)
    for model in MODELS:
        for page in PAGES:
            url = url_of(model, page, rows[model])
            status = client.get(url, follow=page == "changelist").status_code
            assert (url, status) == (url, 200 if page in ALLOWED[role].get(model, ()) else 403)


@pytest.mark.parametrize("role", ["anonymous", "reader with an account"])
def test_whoever_is_not_staff_is_asked_to_log_in(rows: dict[type[Model], Model], role: str) -> None:
    client = client_of(role)
    urls = [url_of(model, page, rows[model]) for model in MODELS for page in PAGES]
    for url in [*urls, *CUSTOM, f"{DAY}/hold/"]:
        for response in (client.get(url), client.post(url)):
            assert response.status_code == 302
            assert response["Location"].startswith("/admin/login/")


def test_a_superuser_opens_every_page_that_exists(rows: dict[type[Model], Model]) -> None:
    client = client_of("superuser")
    for model in MODELS:
        for page in PAGES:
            url = url_of(model, page, rows[model])
            assert client.get(url, follow=True).status_code in (200, 403)


@pytest.mark.parametrize("role", ["curators", "operators", "plain staff"])
def test_nobody_changes_by_posting_what_they_may_only_look_at(
    rows: dict[type[Model], Model], role: str
) -> None:
    client = client_of(role)
    group = GROUPS.get(role, {})
    for model in MODELS:
        rights = group.get(model._meta.app_label, {}).get(str(model._meta.model_name), ())
        for page in ("add", "change", "delete"):
            allowed = page in rights and page in {*ALLOWED[role].get(model, ()), "change"}
            status = client.post(url_of(model, page, rows[model]), {}).status_code
            assert (model, page, status == 403) == (model, page, not allowed)


# The pages of our own

DAY = f"/admin/papers/edition/{TODAY}"
CUSTOM = [
    "/admin/papers/edition/next/",
    *(f"{DAY}/{page}/" for page in ("curate", "log", "add", "preview", "freeze")),
]


@pytest.mark.parametrize(
    ("role", "curate", "add", "freeze"),
    [
        ("curators", 200, 200, 200),
        ("operators", 200, 403, 403),
        ("plain staff", 403, 403, 403),
        ("superuser", 200, 200, 200),
    ],
)
def test_the_pages_of_an_edition_ask_for_their_rights(
    role: str, curate: int, add: int, freeze: int
) -> None:
    Edition.objects.create(day=TODAY)
    client = client_of(role)
    # Who may add and curate sees the preview.
    for path, status in zip(CUSTOM, (curate, curate, curate, add, add, freeze), strict=True):
        assert (path, client.get(path, follow=True).status_code) == (path, status)
    if freeze == 403:
        assert client.post(f"{DAY}/freeze/").status_code == 403
        assert client.post(f"{DAY}/hold/", {"do": "hold"}).status_code == 403
        edition = Edition.objects.get()
        assert edition.is_open
        assert not edition.held
        editions.hold(edition, by="carol")
        assert client.post(f"{DAY}/hold/", {"do": "release"}).status_code == 403
        assert Edition.objects.get().held


def test_an_operator_looks_at_an_open_edition_without_touching_it() -> None:
    client = client_of("operators")
    make_paper()
    assert client.get("/admin/papers/edition/next/", follow=True).status_code == 200
    assert not Edition.objects.exists()
    edition = Edition.objects.create(day=TODAY)
    shown = client.get(f"{DAY}/curate/", follow=True).content.decode()
    assert edition.candidates.count() == 0
    for page in ("add", "freeze", "preview", "hold"):
        assert f"{DAY}/{page}/" not in shown
    form = {"form-TOTAL_FORMS": 0, "form-INITIAL_FORMS": 0, "_save": "Save"}
    assert client.post("/admin/papers/editionpaper/", form).status_code == 403


def test_a_look_only_role_has_no_actions_that_curate() -> None:
    client = client_of("operators")
    row = make_frozen_edition(make_paper(), day=TODAY).candidates.get()
    chosen = {"action": "hide", "_selected_action": [row.pk]}
    client.post("/admin/papers/editionpaper/", chosen)
    row.refresh_from_db()
    assert row.curation == ""


def test_the_groups_have_the_rights_written_down_and_no_other() -> None:
    for name, apps in GROUPS.items():
        wanted = {
            f"{label}.{verb}_{model}"
            for label, models in apps.items()
            for model, verbs in models.items()
            for verb in verbs
        }
        permissions = Group.objects.get(name=name).permissions.select_related("content_type")
        assert {f"{p.content_type.app_label}.{p.codename}" for p in permissions} == wanted


# What operators do for readers


def act(action: str, *rows: Model) -> None:
    model = type(rows[0])
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    sure = {"post": "yes", "sure": "yes"}  # Django's own word, and ours
    chosen = {"action": action, "_selected_action": [row.pk for row in rows], **sure}
    response = client_of("operators").post(url, chosen, follow=True)
    assert response.status_code == 200


def test_an_operator_unsubscribes_a_reader() -> None:
    subscriber = make_subscriber()
    act("unsubscribe", subscriber)
    subscriber.refresh_from_db()
    assert subscriber.state == Subscriber.State.UNSUBSCRIBED


def test_an_operator_suppresses_an_address_and_lifts_that_again() -> None:
    subscriber = make_subscriber()
    act("suppress", subscriber)
    suppression = Suppression.objects.get()
    assert suppression.reason == Suppression.Reason.OPERATOR
    User.objects.all().delete()
    act("delete_selected", suppression)
    assert not Suppression.objects.exists()


def test_an_operator_erases_a_reader_and_the_address_stays_suppressed() -> None:
    subscriber = make_subscriber(interests=("graphs",))
    act("erase", subscriber)
    assert not Subscriber.objects.exists()
    assert not Interest.objects.exists()
    assert Suppression.objects.get().reason == Suppression.Reason.ERASURE


@pytest.mark.parametrize("action", ["unsubscribe", "suppress", "erase"])
def test_what_ends_a_subscription_is_asked_about_first(action: str) -> None:
    readers = [make_subscriber(f"reader{number}@example.org") for number in range(22)]
    client, url = client_of("operators"), reverse("admin:newsletter_subscriber_changelist")
    chosen = {"action": action, "_selected_action": [reader.pk for reader in readers]}
    asked = client.post(url, chosen).content.decode()
    assert Subscriber.objects.filter(state=Subscriber.State.ACTIVE).count() == 22
    assert "@example.org (Active)" in asked
    assert "and 2 more" in asked
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="[^"]+" name="([^"]+)" value="([^"]*)"', asked):
        fields.setdefault(name, []).append(value)
    assert client.post(url, fields).status_code == 302
    assert not Subscriber.objects.filter(state=Subscriber.State.ACTIVE).exists()


def test_an_operator_finds_a_suppression_by_its_address() -> None:
    subscriber = make_subscriber("alice@example.org")
    act("suppress", subscriber)
    Suppression.objects.create(address_hash="0" * 64, reason="invalid")
    User.objects.all().delete()
    client = client_of("operators")
    for address in ("alice@example.org", " ALICE@example.org "):
        shown = client.get("/admin/newsletter/suppression/", {"q": address}).content.decode()
        assert "1 suppression" in shown


def test_an_operator_mends_a_readers_settings_but_not_their_consent() -> None:
    subscriber = make_subscriber(state=Subscriber.State.UNSUBSCRIBED)
    form: dict[str, object] = {
        "name": "Alice", "time_zone": "Europe/Berlin", "send_hour": 8,
        "send_minute": 30, "send_days": "weekdays", "papers_per_mail": 5,
        "state": "active", "address": "mallory@example.org",
        "interests-TOTAL_FORMS": 1, "interests-INITIAL_FORMS": 0,
        "interests-0-name": "Graphs", "interests-0-words": "sparse graphs",
        "interests-0-categories": "cs.LG,stat.ML", "interests-0-authors": "Ada Alvarez",
        "popularity": 40, "muted_terms": "survey,benchmark", "_save": "Save",
    }  # fmt: skip
    url = f"/admin/newsletter/subscriber/{subscriber.pk}/change/"
    client = client_of("operators")
    shown = form_of(client.get(url).content.decode())
    assert client.post(url, shown | form).status_code == 302
    subscriber.refresh_from_db()
    assert (subscriber.name, subscriber.time_zone) == ("Alice", "Europe/Berlin")
    assert (subscriber.state, subscriber.address) == ("unsubscribed", "alice@example.org")
    assert (subscriber.popularity, subscriber.muted_terms) == (40, ["survey", "benchmark"])
    interest = subscriber.interests.get()
    assert interest.categories == ["cs.LG", "stat.ML"]
    assert (interest.authors, interest.example_ids) == (["Ada Alvarez"], [])


def test_an_operator_undoes_nothing_that_a_reader_has_changed_meanwhile() -> None:
    subscriber = make_subscriber(interests=("graphs", "groups"), muted_terms=["survey"])
    graphs = subscriber.interests.get(name="graphs")
    url = f"/admin/newsletter/subscriber/{subscriber.pk}/change/"
    client = client_of("operators")
    form = form_of(client.get(url).content.decode())
    Subscriber.objects.update(send_hour=21, muted_terms=["survey", "a, b"], name="Alice")
    subscriber.interests.filter(pk=graphs.pk).update(words="sparse graphs")
    typed = {"papers_per_mail": "5", "interests-1-words": "finite groups"}
    assert client.post(url, form | typed).status_code == 302
    subscriber.refresh_from_db()
    assert (subscriber.send_hour, subscriber.papers_per_mail) == (21, 5)
    assert subscriber.muted_terms == ["survey", "a, b"]
    assert list(subscriber.interests.values_list("words", flat=True)) == [
        "sparse graphs",
        "finite groups",
    ]
    typed = {"name": "A.", "interests-0-words": "dense graphs"}
    refused = client.post(url, form | typed).content.decode()
    assert "Changed meanwhile: it is “Alice” now." in refused
    assert "Changed meanwhile: it is “sparse graphs” now." in refused
    subscriber.refresh_from_db()
    assert subscriber.name == "Alice"
    assert client.post(url, form_of(refused)).status_code == 302
    subscriber.refresh_from_db()
    graphs.refresh_from_db()
    assert (subscriber.name, subscriber.send_hour, graphs.words) == ("A.", 21, "dense graphs")


def test_a_subject_that_a_reader_took_away_meanwhile_does_not_come_back() -> None:
    subscriber = make_subscriber(interests=("graphs", "groups"))
    url = f"/admin/newsletter/subscriber/{subscriber.pk}/change/"
    client = client_of("operators")
    form = form_of(client.get(url).content.decode())
    subscriber.interests.filter(name="groups").delete()
    refused = client.post(url, form | {"name": "Alice"}).content.decode()
    assert "The reader has taken a subject of these away meanwhile." in refused
    assert subscriber.interests.get().name == "graphs"
    form = form_of(client.get(url).content.decode())
    assert client.post(url, form | {"name": "Alice"}).status_code == 302


# --- What the pages say ---------------------------------------------------------------------------


def shown_to(role: str, path: str) -> str:
    response = client_of(role).get(path)
    assert response.status_code == 200
    return str(response.content.decode())


def test_the_admin_begins_with_the_next_edition_for_who_may_look() -> None:
    link = reverse("admin:papers_edition_next")
    assert link in shown_to("curators", "/admin/")
    assert link not in shown_to("plain staff", "/admin/")


def test_times_in_the_admin_are_of_24_hours_and_say_their_zone() -> None:
    RankingModel.objects.create(name="one", fitted_at=datetime(2026, 11, 20, 14, 34, tzinfo=UTC))
    shown = shown_to("superuser", "/admin/newsletter/rankingmodel/")
    assert "20 Nov 2026, 14:34<" in shown
    assert shown.count("UTC") == 1


def test_a_subscriber_is_headed_by_the_address_and_listed_so_in_feedback(
    rows: dict[type[Model], Model],
) -> None:
    url = f"/admin/newsletter/subscriber/{rows[Subscriber].pk}/change/"
    assert "<h2>alice@example.org</h2>" in shown_to("operators", url)
    User.objects.all().delete()
    assert "alice@example.org" in shown_to("operators", "/admin/newsletter/feedback/")


def test_a_delivery_shows_its_picks_in_words_and_no_bare_arrays(
    rows: dict[type[Model], Model],
) -> None:
    shown = shown_to("operators", f"/admin/newsletter/delivery/{rows[Delivery].pk}/change/")
    assert "1. Attention over sparse graphs" in shown
    for name in ("paper_ids", "sections", "terms", "reasons", "interest_ids", "sentences"):
        assert f"field-{name}" not in shown


def test_the_pages_of_an_edition_lead_back_to_it() -> None:
    edition = editions.open_edition(TODAY)
    list_of_it = f"/admin/papers/editionpaper/?edition__id__exact={edition.pk}"
    client = client_of("curators")
    for page in ("add", "freeze", "log"):
        shown = client.get(f"/admin/papers/edition/{TODAY}/{page}/").content.decode()
        [crumbs] = re.findall(r'(?s)<div class="breadcrumbs">(.*?)</div>', shown)
        assert f'<a href="{list_of_it}">Edition of {TODAY}</a>' in crumbs


def test_a_papers_identifier_is_labelled_as_arxiv_writes_itself(
    rows: dict[type[Model], Model],
) -> None:
    shown = shown_to("curators", f"/admin/papers/paper/{rows[Paper].pk}/change/")
    assert ">arXiv id:<" in shown
    assert ">URL:<" in shown
