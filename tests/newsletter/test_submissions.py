"""Papers that readers propose: what is taken, who decides, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
import time_machine
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from newsletter import submissions, subscriptions
from newsletter.models import Submission, Subscriber
from newsletter.submissions import SubmissionError
from papers import editions
from papers.ingest import Summary, ingest, write
from papers.models import Edition, EditionPaper, Paper
from papers.sources import PaperRecord
from papers.sources.recorded import Saved
from tests.factories import make_frozen_edition, make_paper, make_subscriber
from tests.newsletter.pages import in_thread, signed_in, until_blocked
from tests.sources_server import serving

pytestmark = pytest.mark.django_db

State = Submission.State
ID, NEXT = "2505.24864", "2505.24865"
TODAY = date(2026, 11, 20)
BEFORE_FREEZE = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
AFTER_FREEZE = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _now() -> object:
    with time_machine.travel(AFTER_FREEZE, tick=False):
        yield


def submit(client: Client, arxiv_id: str = ID, **fields: str) -> HttpResponse:
    answer = client.post("/submit/", {"arxiv_id": arxiv_id, **fields})
    assert isinstance(answer, HttpResponse)
    return answer


def curator() -> Client:
    user = User.objects.create_user("curator", is_staff=True)
    user.groups.add(Group.objects.get(name="curators"))
    client = Client()
    client.force_login(user)
    return client


def act(action: str, *rows: Submission, reason: str = "") -> str:
    chosen = {"action": action, "_selected_action": [row.pk for row in rows], "reason": reason}
    answer = curator().post("/admin/newsletter/submission/", chosen, follow=True)
    assert answer.status_code == 200
    return str(answer.content.decode())


# --- What is taken --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed",
    [ID, f"arXiv:{ID}v2", f"https://arxiv.org/abs/{ID}", f"https://arxiv.org/pdf/{ID}v1.pdf"],
)
def test_a_reader_submits_a_paper_and_sees_that_it_waits(client: Client, typed: str) -> None:
    signed_in(client, make_subscriber())
    assert submit(client, typed).status_code == 302
    row = Submission.objects.get()
    assert (row.arxiv_id, row.state, row.paper) == (ID, State.PENDING, None)
    page = client.get("/submit/").content.decode()
    assert "waits for the editors" in page
    assert "Thank you" in page


def test_a_known_paper_is_shown_by_its_title(client: Client) -> None:
    make_paper("Graphs that forget", arxiv_id=ID)
    signed_in(client, make_subscriber())
    submit(client)
    assert "Graphs that forget" in client.get("/submit/").content.decode()


@pytest.mark.parametrize("typed", ["", "hello", "10.1000/182", "2505.24864; DROP TABLE", "x" * 300])
def test_what_is_no_arxiv_id_is_refused_with_words(client: Client, typed: str) -> None:
    signed_in(client, make_subscriber())
    answer = submit(client, typed)
    assert answer.status_code == 400
    assert "errorlist" in answer.content.decode()
    assert not Submission.objects.exists()


def test_what_was_on_a_list_is_told_with_its_day(client: Client) -> None:
    make_frozen_edition(make_paper(arxiv_id=ID), day=date(2026, 11, 18))
    signed_in(client, make_subscriber())
    answer = submit(client)
    assert answer.status_code == 400
    assert "on the list of 18 November 2026 already" in answer.content.decode()


def test_what_was_withdrawn_is_not_taken(client: Client) -> None:
    make_paper(arxiv_id=ID, withdrawn_on=TODAY)
    signed_in(client, make_subscriber())
    assert "withdrawn" in submit(client).content.decode()
    assert not Submission.objects.exists()


def test_twice_is_told_kindly_whoever_was_first(client: Client) -> None:
    signed_in(client, make_subscriber())
    submit(client)
    assert "You submitted it on 20 November 2026" in submit(client).content.decode()
    bob = signed_in(Client(), make_subscriber("bob@example.org"))
    assert "Another reader" in submit(bob).content.decode()
    submissions.decline(Submission.objects.get(), "Off topic.", timezone.now())
    assert submit(bob).status_code == 302


def test_a_reader_can_submit_only_so_many_a_day(client: Client, settings: Settings) -> None:
    settings.SUBMISSIONS_PER_DAY = 2
    signed_in(client, make_subscriber())
    codes = [submit(client, f"2505.0000{n}").status_code for n in range(3)]
    assert codes == [302, 302, 400]
    other = signed_in(Client(), make_subscriber("bob@example.org"))
    assert submit(other, "2505.00009").status_code == 302
    with time_machine.travel(AFTER_FREEZE + timedelta(days=1, minutes=1), tick=False):
        assert submit(client, "2505.00008").status_code == 302


def test_the_editors_are_not_flooded(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    monkeypatch.setattr(submissions, "MOST_WAITING", 1)
    signed_in(client, make_subscriber())
    assert submit(client, "2505.00001").status_code == 302
    assert submit(client, "2505.00002").status_code == 400


def test_a_name_is_one_line_without_control_characters(client: Client) -> None:
    signed_in(client, make_subscriber())
    submit(client, shown_name="  Ada\u2028\x0b <b>Alvarez</b> ")
    assert Submission.objects.get().shown_name == "Ada <b>Alvarez</b>"


# --- Accepting and declining ----------------------------------------------------------------------


def test_before_the_freeze_an_accepted_paper_comes_onto_today_s_list() -> None:
    paper = make_paper(arxiv_id=ID, listing_day=date(2020, 1, 1))
    row = submissions.submit(make_subscriber(), ID, shown_name="Ada")
    with time_machine.travel(BEFORE_FREEZE, tick=False):
        assert submissions.accept(row, timezone.now()) == TODAY
        edition = Edition.objects.get()
        assert [candidate.paper for candidate in edition.candidates.all()] == [paper]
    editions.freeze(edition, timezone.now())
    paper.refresh_from_db()
    assert (paper.submitter, paper.sources) == ("Ada", ["file", "paperround"])
    assert Edition.objects.settled().get().papers.get() == paper


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("listed", [date(2020, 1, 1), TODAY, TODAY + timedelta(days=5)])
def test_after_the_freeze_it_is_on_tomorrow_s(
    settings: Settings, listed: date, window: int
) -> None:
    settings.EDITION_WINDOW_DAYS = window
    make_frozen_edition(make_paper("Another"), day=TODAY)
    paper = make_paper(arxiv_id=ID, listing_day=listed)
    row = submissions.submit(make_subscriber(), ID)
    assert submissions.accept(row, timezone.now()) == TODAY + timedelta(days=1)
    with time_machine.travel(AFTER_FREEZE + timedelta(days=1), tick=False):
        edition = editions.freeze_due(timezone.now())
    assert edition is not None
    assert paper in edition.papers.all()
    paper.refresh_from_db()
    assert paper.submitter == "a reader"


def test_nothing_of_a_reader_goes_with_the_paper() -> None:
    paper = make_paper(arxiv_id=ID)
    row = submissions.submit(make_subscriber("alice@example.org", name="Alice Example"), ID)
    submissions.accept(row, timezone.now())
    paper.refresh_from_db()
    assert paper.submitter == "a reader"
    page = Client().get(paper.get_absolute_url()).content.decode()
    assert "alice" not in page.lower()


def test_the_submitter_that_a_source_named_stays() -> None:
    paper = make_paper(arxiv_id=ID, submitter="akhaliq")
    submissions.accept(submissions.submit(make_subscriber(), ID, shown_name="Ada"), timezone.now())
    paper.refresh_from_db()
    assert paper.submitter == "akhaliq"


def test_a_curator_accepts_and_the_reader_is_told(client: Client) -> None:
    make_frozen_edition(make_paper("Another"), day=TODAY)
    make_paper("Graphs that forget", arxiv_id=ID)
    row = submissions.submit(make_subscriber(), ID)
    assert "comes onto the list of 2026-11-21" in act("accept", row)
    row.refresh_from_db()
    assert row.state == State.ACCEPTED
    assert LogEntry.objects.get().change_message == "Accepted for 2026-11-21."
    page = signed_in(client, Subscriber.objects.get()).get("/submit/").content.decode()
    assert "accepted" in page


def test_a_curator_declines_with_the_reason_and_the_reader_is_told(client: Client) -> None:
    row = submissions.submit(make_subscriber(), ID)
    assert "Please say why" in act("decline", row)
    row.refresh_from_db()
    assert row.state == State.PENDING
    User.objects.all().delete()
    act("decline", row, reason="It is not <research>.")
    page = signed_in(client, Subscriber.objects.get()).get("/submit/").content.decode()
    assert "declined: It is not &lt;research&gt;." in page


def test_what_was_decided_stays_decided() -> None:
    make_paper(arxiv_id=ID)
    row = submissions.submit(make_subscriber(), ID)
    submissions.accept(row, timezone.now())
    with pytest.raises(SubmissionError, match="accepted before"):
        submissions.accept(row, timezone.now())
    with pytest.raises(SubmissionError, match="accepted before"):
        submissions.decline(row, "Changed my mind.", timezone.now())


def test_a_paper_that_came_onto_a_list_meanwhile_is_not_listed_again() -> None:
    paper = make_paper(arxiv_id=ID)
    row = submissions.submit(make_subscriber(), ID)
    make_frozen_edition(paper, day=TODAY)
    assert "on the list of 2026-11-20 already" in act("accept", row)
    row.refresh_from_db()
    assert row.state == State.PENDING


def test_who_submitted_is_not_for_the_curators() -> None:
    alice = make_subscriber("alice@example.org", name="Alice Example")
    row = submissions.submit(alice, ID)
    client = curator()
    for path in ("", f"{row.pk}/change/"):
        page = client.get(f"/admin/newsletter/submission/{path}").content.decode()
        assert ID in page
        assert "alice" not in page.lower()


def test_an_operator_looks_and_does_not_decide() -> None:
    make_paper(arxiv_id=ID)
    row = submissions.submit(make_subscriber(), ID)
    user = User.objects.create_user("operator", is_staff=True)
    user.groups.add(Group.objects.get(name="operators"))
    client = Client()
    client.force_login(user)
    assert client.get("/admin/newsletter/submission/").status_code == 200
    client.post("/admin/newsletter/submission/", {"action": "accept", "_selected_action": [row.pk]})
    row.refresh_from_db()
    assert row.state == State.PENDING


def test_what_a_reader_wrote_is_text_in_the_admin_and_on_the_page(client: Client) -> None:
    paper = make_paper("<script>alert(1)</script>", arxiv_id=ID)
    row = submissions.submit(make_subscriber(), ID, shown_name="<script>alert(2)</script>")
    pages = [curator().get("/admin/newsletter/submission/").content.decode()]
    submissions.accept(row, timezone.now())
    pages.append(client.get(paper.get_absolute_url()).content.decode())
    signed_in(client, Subscriber.objects.get())
    pages.append(client.get("/submit/").content.decode())
    assert all("<script>alert" not in page for page in pages)


def test_an_erased_reader_s_submissions_go_and_the_paper_stays() -> None:
    alice, paper = make_subscriber(), make_paper(arxiv_id=ID)
    submissions.accept(submissions.submit(alice, ID, shown_name="Alice"), timezone.now())
    subscriptions.erase(alice, way="test")
    assert not Submission.objects.exists()
    paper.refresh_from_db()
    assert paper.submitter == "a reader"
    assert EditionPaper.objects.get().paper == paper


@pytest.mark.django_db(transaction=True)
def test_an_editor_who_accepts_while_the_reader_is_erased_leaves_no_name() -> None:
    alice, paper = make_subscriber(), make_paper(arxiv_id=ID)
    row = submissions.submit(alice, ID, shown_name="Alice")
    with transaction.atomic():
        submissions.accept(row, timezone.now())
        erasing = in_thread(lambda: subscriptions.erase(alice, way="test"))
        until_blocked(erasing)
    erasing.join()
    assert not Subscriber.objects.exists()
    paper.refresh_from_db()
    assert paper.submitter == "a reader"


def test_what_an_erased_reader_proposed_is_gone_for_who_would_accept_it() -> None:
    alice, _ = make_subscriber(), make_paper(arxiv_id=ID)
    row = submissions.submit(alice, ID)
    subscriptions.erase(alice, way="test")
    with pytest.raises(SubmissionError, match="is gone"):
        submissions.accept(row, timezone.now())


@pytest.mark.django_db(transaction=True)
def test_an_erased_reader_s_two_papers_are_waited_for_in_the_order_of_a_harvest() -> None:
    alice, papers = make_subscriber(), [make_paper(f"Graphs {n}", arxiv_id=n) for n in (ID, NEXT)]
    for paper in papers:
        row = submissions.submit(alice, str(paper.arxiv_id), shown_name="Alice")
        submissions.accept(row, timezone.now())
    with transaction.atomic():
        write([corrected(ID)], timezone.now(), Summary())
        erasing = in_thread(lambda: subscriptions.erase(alice, way="test"))
        until_blocked(erasing)
        write([corrected(NEXT)], timezone.now(), Summary())
    erasing.join()
    assert {paper.submitter for paper in Paper.objects.all()} == {"a reader"}
    assert {paper.abstract for paper in Paper.objects.all()} == {"As it is now."}


@pytest.mark.django_db(transaction=True)
def test_of_two_readers_at_once_one_submits_and_the_other_is_told() -> None:
    alice, bob = make_subscriber(), make_subscriber("bob@example.org")
    said: list[str] = []

    def second() -> None:
        try:
            submissions.submit(bob, ID)
        except SubmissionError as error:
            said.append(str(error))

    with transaction.atomic():
        submissions.submit(alice, ID)
        waiting = in_thread(second)
        until_blocked(waiting)
    waiting.join()
    assert Submission.objects.get().subscriber == alice
    assert said == [submissions.ANOTHER]


def test_what_is_hidden_on_today_s_list_is_not_accepted_as_if_it_were_listed() -> None:
    paper = make_paper(arxiv_id=ID, listing_day=TODAY)
    row = submissions.submit(make_subscriber(), ID)
    editions.open_edition(TODAY)
    EditionPaper.objects.filter(paper=paper).update(curation="hidden")
    assert "hidden on this list; show it again first" in act("accept", row)
    row.refresh_from_db()
    assert row.state == State.PENDING


# --- Fetching what is not known here --------------------------------------------------------------

ENTRY = """<entry>
  <id>http://arxiv.org/abs/2505.24864v1</id>
  <updated>2025-05-30T17:59:02Z</updated><published>2025-05-30T17:59:02Z</published>
  <title>Graphs that forget</title><summary>We forget graphs.</summary>
  <author><name>Ada Alvarez</name></author>
  <arxiv:primary_category term="cs.LG"/><category term="cs.LG"/>
</entry>"""


def answer_of_arxiv(entry: str) -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:arxiv="http://arxiv.org/schemas/atom"
      xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">
  <id>http://arxiv.org/api/x</id><title>ArXiv Query</title><updated>2026-11-20T00:00:00Z</updated>
  <opensearch:totalResults>{int(bool(entry))}</opensearch:totalResults>
  <opensearch:startIndex>0</opensearch:startIndex>
  <opensearch:itemsPerPage>{int(bool(entry))}</opensearch:itemsPerPage>
  {entry}
</feed>""".encode()


@pytest.mark.django_db(transaction=True)
def test_a_worker_fetches_what_is_not_known_and_never_the_page(
    client: Client, settings: Settings
) -> None:
    with serving(Saved(f"/query?id_list={ID}", answer_of_arxiv(ENTRY))) as arxiv:
        settings.ARXIV_API_URL = f"{arxiv.url}/query"
        signed_in(client, make_subscriber())
        submit(client)
        assert arxiv.asked == []
        assert submissions.fetch_waiting(timezone.now()) == 1
        assert submissions.fetch_waiting(timezone.now()) == 0
    row = Submission.objects.select_related("paper").get()
    assert row.paper is not None
    assert row.paper.title == "Graphs that forget"
    assert row.fetch_at is None
    assert "Graphs that forget" in client.get("/submit/").content.decode()


@pytest.mark.django_db(transaction=True)
def test_what_arxiv_does_not_know_is_told_to_the_curator_and_not_asked_again(
    settings: Settings,
) -> None:
    submissions.submit(make_subscriber(), ID)
    with serving(Saved(f"/query?id_list={ID}", answer_of_arxiv(""))) as arxiv:
        settings.ARXIV_API_URL = f"{arxiv.url}/query"
        assert submissions.fetch_waiting(timezone.now()) == 0
    row = Submission.objects.get()
    assert row.fetch_at is None
    assert "no such paper" in row.problem
    with pytest.raises(SubmissionError, match="not known here yet"):
        submissions.accept(row, timezone.now())
    assert row.problem in act("accept", row)


@pytest.mark.django_db(transaction=True)
def test_an_arxiv_that_answers_with_another_paper_is_asked_again_and_holds_no_other_up(
    settings: Settings,
) -> None:
    submissions.submit(make_subscriber(), NEXT)
    submissions.submit(make_subscriber("bob@example.org"), ID)
    Submission.objects.filter(arxiv_id=NEXT).update(fetch_at=timezone.now() - timedelta(minutes=1))
    with serving(Saved("/query", answer_of_arxiv(ENTRY))) as arxiv:
        settings.ARXIV_API_URL = f"{arxiv.url}/query"
        assert submissions.fetch_waiting(timezone.now()) == 1
    row = Submission.objects.get(arxiv_id=NEXT)
    assert f"answers with {ID}, which was not asked for" in row.problem
    assert row.fetch_at == timezone.now() + submissions.FIRST_DELAY
    assert [paper.arxiv_id for paper in Paper.objects.all()] == [ID]


@pytest.mark.django_db(transaction=True)
def test_an_arxiv_that_is_away_is_asked_again_later_and_not_for_ever(settings: Settings) -> None:
    settings.ARXIV_API_URL = "http://127.0.0.1:9/query"  # nobody listens there
    submissions.submit(make_subscriber(), ID)
    moment = timezone.now()
    for tries in range(1, submissions.MOST_FETCHES + 1):
        assert submissions.fetch_waiting(moment) == 0
        row = Submission.objects.get()
        assert (row.fetches, bool(row.problem)) == (tries, True)
        assert submissions.fetch_waiting(moment) == 0, "not before its time"
        moment = row.fetch_at or moment
    assert row.fetch_at is None
    submissions.fetch_again(row, moment)
    assert Submission.objects.get().fetch_at == moment


def test_a_paper_that_came_another_way_is_found_when_it_is_accepted() -> None:
    row = submissions.submit(make_subscriber(), ID)
    paper = make_paper(arxiv_id=ID)
    submissions.accept(row, timezone.now())
    row.refresh_from_db()
    assert (row.paper, row.state) == (paper, State.ACCEPTED)


def test_a_later_harvest_does_not_take_an_accepted_paper_off_tomorrow_s_list() -> None:
    make_frozen_edition(make_paper("Another"), day=TODAY)
    paper = make_paper("Graphs", arxiv_id=ID, listing_day=date(2020, 1, 1))
    submissions.accept(submissions.submit(make_subscriber(), ID), timezone.now())
    record = PaperRecord("arxiv", "Graphs", arxiv_id=ID, listed_on=date(2020, 1, 1))
    ingest([record], source="test", now=timezone.now())
    tomorrow = Edition.objects.get(day=TODAY + timedelta(days=1))
    with time_machine.travel(AFTER_FREEZE + timedelta(days=1), tick=False):
        assert paper in editions.freeze(tomorrow, timezone.now()).papers.all()


def corrected(arxiv_id: str) -> PaperRecord:
    return PaperRecord("arxiv", "Graphs", abstract="As it is now.", arxiv_id=arxiv_id)


def while_a_harvest_writes(arxiv_id: str, work: Callable[[], object]) -> None:
    """Do something while a harvest that has read this paper has not written it yet."""
    with transaction.atomic():
        # For another paper of the same page it has to wait: for this row, to be seen or not.
        make_paper("Another", arxiv_id="2505.00001")
        page = [corrected(arxiv_id), PaperRecord("arxiv", "Another one", arxiv_id="2505.00001")]
        harvest = in_thread(lambda: ingest(page, source="test", now=timezone.now()))
        until_blocked(harvest)
        working = in_thread(work)
        working.join(1)
        transaction.set_rollback(True)
    harvest.join()
    working.join()


@pytest.mark.django_db(transaction=True)
def test_a_harvest_at_the_same_moment_leaves_an_accepted_paper_on_tomorrow_s_list() -> None:
    make_frozen_edition(make_paper("Yesterday's"), day=TODAY)
    paper = make_paper("Graphs", arxiv_id=ID, listing_day=date(2020, 1, 1))
    row = submissions.submit(make_subscriber(), ID, shown_name="Alice")
    while_a_harvest_writes(ID, lambda: submissions.accept(row, timezone.now()))
    paper.refresh_from_db()
    assert paper in Edition.objects.get(day=TODAY + timedelta(days=1)).papers.all()
    assert (paper.abstract, paper.submitter) == ("As it is now.", "Alice")
    assert paper.sources == ["file", "arxiv", "paperround"]


@pytest.mark.django_db(transaction=True)
def test_a_harvest_at_the_same_moment_brings_no_erased_name_back() -> None:
    alice, paper = make_subscriber(), make_paper("Graphs", arxiv_id=ID)
    submissions.accept(submissions.submit(alice, ID, shown_name="Alice"), timezone.now())
    while_a_harvest_writes(ID, lambda: subscriptions.erase(alice, way="test"))
    paper.refresh_from_db()
    assert (paper.abstract, paper.submitter) == ("As it is now.", "a reader")
    ingest([corrected(ID)], source="test", now=timezone.now() + timedelta(hours=1))
    paper.refresh_from_db()
    assert paper.submitter == "a reader"


@pytest.mark.django_db(transaction=True)
def test_an_editor_who_accepts_and_one_who_saves_the_paper_do_not_wait_for_each_other() -> None:
    paper = make_paper("Graphs", arxiv_id=ID, listing_day=date(2020, 1, 1))
    edition = editions.open_edition(TODAY)
    row = submissions.submit(make_subscriber(), ID)
    with transaction.atomic():
        editions.touch(edition)
        accepting = in_thread(lambda: submissions.accept(row, timezone.now()))
        until_blocked(accepting)
        paper.save()
    accepting.join()
    row.refresh_from_db()
    assert row.state == State.ACCEPTED
