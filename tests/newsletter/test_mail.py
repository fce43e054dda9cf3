"""What a reader's mail looks like, and what mail servers and scanners ask of it."""

from __future__ import annotations

import re

import pytest
from django.core.mail import EmailMultiAlternatives
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from newsletter import mail, picks
from newsletter.models import Delivery
from papers.models import EditionPaper
from tests.factories import make_frozen_edition, make_paper, make_signal, make_subscriber

pytestmark = pytest.mark.django_db


def mail_of(
    *titles: str, interests: tuple[str, ...] = (), count: int = 8
) -> EmailMultiAlternatives:
    papers = [make_paper(title) for title in titles]
    edition = make_frozen_edition(*papers)
    make_subscriber(interests=interests, papers_per_mail=count)
    picks.plan_everybody(edition, timezone.now())
    return mail.compose(Delivery.objects.get())


def html_of(message: EmailMultiAlternatives) -> str:
    [part] = message.alternatives
    return str(part[0])


def test_the_subject_is_the_lead_paper_and_how_many_more() -> None:
    message = mail_of("Linear attention", "Two more", "Three more")
    assert message.subject == "Linear attention, and 2 more"


def test_one_paper_is_a_subject_by_itself() -> None:
    assert mail_of("Linear attention").subject == "Linear attention"


def test_it_carries_the_headers_of_a_list_mail() -> None:
    message = mail_of("Linear attention")
    headers = message.message()
    delivery = Delivery.objects.get()
    assert re.fullmatch(r"<http://testserver/unsubscribe/[^>, ]+>", headers["List-Unsubscribe"])
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert headers["List-Id"] == "Paperround <daily.testserver>"
    assert headers["Auto-Submitted"] == "auto-generated"
    assert headers["Precedence"] == "bulk"
    assert headers["Message-ID"] == f"<{delivery.uuid}@testserver>"
    assert headers["Feedback-ID"].endswith(":daily:paperround")


@pytest.mark.parametrize(
    "control", ["\r\n", "\n", "\x00", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"]
)
def test_no_title_can_add_a_header(control: str) -> None:
    message = mail_of("Linear attention")
    message.subject = mail.header(f"Poisoned{control}Bcc: eve@example.org")
    raw = message.message().as_string()
    assert not re.search(r"(?m)^Bcc:", raw)
    assert mail.header(f"a{control}b") == "a b"


@given(st.text())
def test_a_header_value_is_one_line_whatever_it_is_made_of(text: str) -> None:
    assert len(mail.header(text).splitlines()) <= 1


def test_a_poisoned_title_leaves_a_sound_mail() -> None:
    message = mail_of("Evil\x0bBcc: eve@example.org <script>alert(1)</script>")
    assert message.subject == "Evil Bcc: eve@example.org <script>alert(1)</script>"
    assert "<script>" not in html_of(message)
    assert "&lt;script&gt;" in html_of(message)


def test_both_parts_name_each_paper_its_reason_and_its_links() -> None:
    edition = make_frozen_edition(
        make_paper(
            "Video diffusion at scale", arxiv_id="2511.00001", code_url="https://code.example/x"
        )
    )
    make_subscriber(interests=("video diffusion",))
    picks.plan_everybody(edition, timezone.now())
    message = mail.compose(Delivery.objects.get())
    for part in (str(message.body), html_of(message)):
        assert "Video diffusion at scale" in part
        assert "video diffusion" in part
        assert "https://arxiv.org/abs/2511.00001" in part
        assert "https://arxiv.org/pdf/2511.00001" in part
        assert "https://code.example/x" in part
        assert "http://testserver/unsubscribe/" in part
        assert "http://testserver/preferences/" in part
        assert "Example Street" in part
        assert "contact@papers.example" in part


def test_a_paper_without_a_link_leads_to_its_own_page() -> None:
    message = mail_of("Nowhere else")
    paper = EditionPaper.objects.get().paper
    assert f"http://testserver/paper/{paper.uuid}" in str(message.body)
    assert f"http://testserver/paper/{paper.uuid}" in html_of(message)


def test_the_editors_note_is_in_the_mail() -> None:
    papers = [make_paper("Noted"), make_paper("Unnoted")]
    edition = make_frozen_edition(*papers)
    edition.candidates.filter(paper=papers[0]).update(note="Read the appendix.")
    make_subscriber()
    picks.plan_everybody(edition, timezone.now())
    message = mail.compose(Delivery.objects.get())
    assert "Read the appendix." in str(message.body)
    assert "Read the appendix." in html_of(message)


def test_twenty_papers_stay_below_what_gmail_clips(settings: Settings) -> None:
    long = "On the remarkable effectiveness of very long titles in the literature of today, part "
    papers = [
        make_paper(f"{long} {n}", abstract="A sentence about λ-calculus & more. " * 60)
        for n in range(20)
    ]
    edition = make_frozen_edition(*papers)
    make_subscriber(papers_per_mail=20)
    picks.plan_everybody(edition, timezone.now())
    message = mail.compose(Delivery.objects.get())
    assert len(html_of(message).encode()) <= 70_000
    assert all(len(line) <= 998 for line in message.message().as_bytes().split(b"\n"))


def test_there_is_no_pixel_no_script_and_nothing_remote() -> None:
    html = html_of(mail_of("Linear attention"))
    assert "<img" not in html
    assert "<script" not in html
    assert not re.search(r"""(src|background)=["']?http""", html)
    assert "color-scheme" in html
    assert 'lang="en' in html


def test_the_upvotes_named_as_a_reason_are_true() -> None:
    paper = make_paper("Popular")
    edition = make_frozen_edition(paper, make_paper("Unknown"))
    make_signal(paper, 41)
    edition.candidates.filter(paper=paper).update(
        trend=0.9, trend_terms={"upvotes": {"count": 41, "gained": 12, "percentile": 0.9}}
    )
    make_subscriber()
    picks.plan_everybody(edition, timezone.now())
    text = str(mail.compose(Delivery.objects.get()).body)
    assert "41 upvotes, 12 since the day before" in text
    assert "New today" in text


def test_with_every_pick_hidden_there_is_nothing_to_compose() -> None:
    mail_of("Linear attention")
    EditionPaper.objects.update(curation=EditionPaper.Curation.HIDDEN)
    with pytest.raises(mail.NothingToSend):
        mail.compose(Delivery.objects.get())


def test_a_title_without_spaces_is_cut_and_not_lost() -> None:
    assert mail.cut("论" * 400, 120) == "论" * 118 + " …"
    assert mail.cut("short", 120) == "short"
    assert mail.cut("several words here", 12) == "several …"


def test_a_site_name_beyond_ascii_leaves_the_list_id_readable(settings: Settings) -> None:
    settings.SITE_NAME = "Papier für alle"
    list_id = mail_of("Linear attention").message()["List-Id"]
    assert list_id.endswith(" <daily.testserver>")
    assert "ü" not in list_id
