"""What a reader's mail looks like, and what mail servers and scanners ask of it."""

from __future__ import annotations

import re
from datetime import date
from html.parser import HTMLParser
from random import Random
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from newsletter import links, mail, picks
from newsletter.feedback import ASKED
from newsletter.models import Delivery
from newsletter.stencils import wrapped
from papers.abstracts import cut
from papers.models import EditionPaper, Paper
from tests.factories import (
    TODAY,
    make_delivery,
    make_frozen_edition,
    make_interest,
    make_paper,
    make_signal,
    make_subscriber,
)

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
    titles = ("Linear attention", "Dark matter", "Protein folding")
    message = mail_of(*titles)
    lead, more = message.subject.split(", and ")
    assert lead in titles
    assert more == "2 more"


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
        ),
        *[make_paper(f"{subject} of another kind") for subject in ("Robots", "Stars", "Proteins")],
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


def test_the_editors_note_is_html_with_inline_styles_and_plain_text() -> None:
    edition = make_frozen_edition(make_paper("Noted"))
    note = "Read *this*:\n- [the code](https://code.example/?a=1&b=2)\n- <script>"
    edition.candidates.update(note=note)
    make_subscriber()
    picks.plan_everybody(edition, timezone.now())
    message = mail.compose(Delivery.objects.get())
    text = "Editors: Read this:\n- the code (https://code.example/?a=1&b=2)\n- <script>\n"
    assert text in str(message.body)
    html = html_of(message)
    assert re.search(r"<b>Editors:</b> Read <em [^>]*>this</em>:", html)
    [link] = re.findall(r'<a [^>]*href="https://code.example[^>]*>', html)
    assert 'href="https://code.example/?a=1&amp;b=2"' in link
    assert 'rel="nofollow noopener"' in link
    assert 'style="color:' in link
    assert "<script" not in html


ABSTRACT = (
    "Attention is costly. We make it linear in the length of a text. Nothing is lost on any of "
    "seven tasks. " + "More is said of it in the paper. " * 20
).strip()


def quoting(abstract: str, key: int) -> mail.Pick:
    paper = make_paper("Linear attention", abstract=abstract)
    [pick] = mail.picks_of(make_delivery(make_subscriber(), paper, sentences=[key]))
    return pick


def test_the_key_sentence_stands_first_and_the_abstract_begins_after_it() -> None:
    pick = quoting(ABSTRACT, 1)
    assert pick.key_sentence == "We make it linear in the length of a text."
    assert pick.excerpt.startswith("Attention is costly. … Nothing is lost on any of seven tasks.")
    message = mail.compose(Delivery.objects.get())
    key = "<em>We make it linear in the length of a text.</em>"
    _, html = html_of(message).split("<h1")
    assert html.index(key) < html.index("Attention is costly.")
    assert html.count("We make it linear") == 1
    text = " ".join(str(message.body).split())
    assert "Key sentence: We make it linear in the length of a text. Attention is costly." in text


def test_an_excerpt_that_begins_with_the_key_sentence_goes_on_after_it() -> None:
    pick = quoting(ABSTRACT, 0)
    assert pick.key_sentence == "Attention is costly."
    assert pick.excerpt.startswith("We make it linear")


@pytest.mark.parametrize("key", [-1, 24, 99])
def test_without_a_key_sentence_the_abstract_is_quoted_as_it_begins(key: int) -> None:
    pick = quoting(ABSTRACT, key)
    assert pick.key_sentence == ""
    assert pick.excerpt == cut(ABSTRACT, mail.EXCERPT)
    message = mail.compose(Delivery.objects.get())
    assert "<em>" not in html_of(message)
    assert "Key sentence" not in str(message.body)


def test_an_abstract_that_was_replaced_by_a_shorter_one_has_no_key_sentence() -> None:
    paper = make_paper("Linear attention", abstract=ABSTRACT)
    delivery = make_delivery(make_subscriber(), paper, sentences=[2])
    paper.abstract = "Withdrawn. By the authors."
    paper.save()
    [pick] = mail.picks_of(delivery)
    assert (pick.key_sentence, pick.excerpt) == ("", "Withdrawn. By the authors.")


def test_a_lone_sentence_is_not_emphasised() -> None:
    pick = quoting("One sentence, and that is all.", 0)
    assert (pick.key_sentence, pick.excerpt) == ("", "One sentence, and that is all.")


@given(st.text(max_size=2_000), st.integers(-1, 30))
def test_whatever_an_abstract_is_made_of_its_quotation_is_short(abstract: str, key: int) -> None:
    sentence, excerpt = mail.quoted(abstract, key)
    assert len(sentence) <= mail.LONGEST_KEY
    assert len(excerpt) <= mail.EXCERPT


@pytest.mark.parametrize("sentence", ["A sentence about λ-calculus & more. ", "论文研究图神经网络"])
def test_twenty_papers_with_key_sentences_stay_below_it_too(sentence: str) -> None:
    papers = [
        make_paper(f"论{'文' * 200} {n}", abstract=f"Short. {sentence * 60}. Last one.")
        for n in range(20)
    ]
    delivery = make_delivery(make_subscriber(), *papers, sentences=[1] * 20)
    assert all(pick.key_sentence for pick in mail.picks_of(delivery))
    assert len(html_of(mail.compose(delivery)).encode()) <= 70_000


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


def test_the_reason_names_the_paper_that_it_is_close_to(
    django_assert_max_num_queries: object,
) -> None:
    liked = [make_paper(title) for title in ("Given", "Saved", "A “liked” one", "Gone")]
    papers = [make_paper(f"New {n}") for n in range(7)]
    Reason = Delivery.Reason
    delivery = make_delivery(
        make_subscriber(),
        *papers,
        reasons=[
            Reason.EXAMPLE, Reason.SAVED, Reason.LIKED, Reason.SAVED,
            Reason.AUTHOR, Reason.MUST_READ, Reason.EXPLORATION,
        ],
        reason_details=[*(str(paper.pk) for paper in liked), "Ada Alvarez", "sparse & wide", ""],
    )  # fmt: skip
    liked[3].delete()
    # Two of them for papers that were joined since, of picks and of reasons.
    with django_assert_max_num_queries(6):  # type: ignore[operator]
        reasons = [pick.reason for pick in mail.picks_of(delivery)]
    assert reasons == [
        "Close to “Given”, which you gave as an example",
        "Close to “Saved”, which you saved",
        "Close to “A “liked” one”, of which you wanted more",
        "Close to a paper which you saved",
        "By Ada Alvarez, whom you follow",
        "You never want to miss: sparse & wide",
        "Exploration: outside what you usually read",
    ]
    assert "sparse &amp; wide" in html_of(mail.compose(delivery))


@pytest.mark.parametrize("reason", Delivery.Reason)
def test_every_reason_has_its_words(reason: Delivery.Reason) -> None:
    assert mail.reason_text(reason, "1")


def test_a_heading_names_the_interest_where_a_reader_has_several() -> None:
    alice = make_subscriber()
    first = make_interest(alice, "graph <b>learning</b>")
    papers = [make_paper("One"), make_paper("Two"), make_paper("Three")]
    delivery = make_delivery(alice, *papers, interest=first)
    assert {pick.section for pick in mail.picks_of(delivery)} == {"For you"}
    second = make_interest(alice, "robots")
    delivery.interest_ids = [first.pk, second.pk, first.pk + second.pk]  # the last one is gone
    sections = [pick.section for pick in mail.picks_of(delivery)]
    assert sections == ["For you: graph <b>learning</b>", "For you: robots", "For you"]
    delivery.save()
    html = html_of(mail.compose(delivery))
    assert "For you: graph &lt;b&gt;learning&lt;/b&gt;" in html


def test_with_every_pick_hidden_there_is_nothing_to_compose() -> None:
    mail_of("Linear attention")
    EditionPaper.objects.update(curation=EditionPaper.Curation.HIDDEN)
    with pytest.raises(mail.NothingToSend):
        mail.compose(Delivery.objects.get())


def test_a_paper_withdrawn_since_it_was_picked_is_in_no_mail() -> None:
    kept, gone = make_paper("Robots that fold"), make_paper("Folding without robots")
    delivery = make_delivery(make_subscriber(), gone, kept)
    assert "Folding without robots" in html_of(mail.compose(delivery))
    Paper.objects.filter(pk=gone.pk).update(withdrawn_on=TODAY, updated_at=timezone.now())
    assert [pick.paper for pick in mail.picks_of(delivery)] == [kept]
    assert "Folding without robots" not in html_of(mail.compose(delivery))
    Paper.objects.update(withdrawn_on=TODAY)
    with pytest.raises(mail.NothingToSend):
        mail.compose(delivery)


def test_a_title_without_spaces_is_cut_and_not_lost() -> None:
    assert cut("论" * 400, 120) == "论" * 118 + " …"
    assert cut("short", 120) == "short"
    assert cut("several words here", 12) == "several …"


def test_a_site_name_beyond_ascii_leaves_the_list_id_readable(settings: Settings) -> None:
    settings.SITE_NAME = "Papier für alle"
    list_id = mail_of("Linear attention").message()["List-Id"]
    assert list_id.endswith(" <daily.testserver>")
    assert "ü" not in list_id


# A mail is put together from prepared pieces: it must be what its templates say, rendered whole.


class Elements(HTMLParser):
    """What a browser sees: elements, attributes and words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[object] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, sorted(attrs, key=str)))

    def handle_endtag(self, tag: str) -> None:
        self.seen.append(tag)

    def handle_data(self, data: str) -> None:
        self.seen += data.split()


def rendered_whole(delivery: Delivery) -> tuple[str, str]:
    """The text and the HTML of a mail, from its templates, by nothing but Django and css_inline."""
    found = mail.picks_of(delivery)
    sections: dict[str, list[mail.Pick]] = {}
    for pick in found:
        sections.setdefault(pick.section, []).append(pick)
    rows: dict[str, list[str]] = {"txt": [], "html": []}
    for section, of_section in sections.items():
        for kind, rendered in rows.items():
            rendered.append(
                render_to_string(f"newsletter/mail/section.{kind}", {"section": section})
            )
            for pick in of_section:
                judge = links.pick_url(delivery.uuid, pick.paper.pk)
                values = {"pick": pick, "reason": pick.reason, "judge": judge, "kinds": ASKED}
                rendered.append(render_to_string(f"newsletter/mail/pick.{kind}", values))
    subscriber = delivery.subscriber
    context: dict[str, Any] = {
        **mail._shared(),
        "edition": delivery.edition,
        "edition_url": f"http://testserver{delivery.edition.get_absolute_url()}",
        "count": len(found),
        "subject": mail.subject_of(found),
        "preheader": found[1].paper.title
        if len(found) > 1
        else found[0].key_sentence or found[0].excerpt,
        "address": subscriber.address,
        "when": subscriber.when,
        "preferences_url": links.url(subscriber.uuid, links.Purpose.PREFERENCES),
        "unsubscribe_url": links.url(subscriber.uuid, links.Purpose.UNSUBSCRIBE),
    }
    text = render_to_string(
        "newsletter/mail/delivery.txt", context | {"papers": "\n\n".join(rows["txt"])}
    )
    html = render_to_string(
        "newsletter/mail/delivery.html", context | {"papers": mark_safe("".join(rows["html"]))}
    )
    return wrapped(text), mail._inliner.inline(html)


NOTES = ("", "Read <this> & that.\nDo.", "A [*link*](https://e.example/?a=1&b=2).\n\n- `x`\n- y")
AWKWARD = (
    "Plain",
    "a < b & c > 'd' \"e\" = f",
    "<!--paperround--> </td></tr></table>",
    "On the remarkable effectiveness of very long titles in the literature of today, again",
    "论" * 90,
    "Schrödinger’s naïve café, λ-calculus… 🦊",
    "{{ subject }} {% now 'Y' %}",
    "https://example.org/" + "long/" * 30,
    ". dots . and = signs =3D =",
)


@pytest.mark.parametrize("seed", range(6))
def test_a_mail_is_what_its_templates_say_rendered_whole(seed: int) -> None:
    random = Random(seed)
    papers = [
        make_paper(
            f"{random.choice(AWKWARD)} {n}",
            abstract=". ".join(f"{random.choice(AWKWARD)} It is so" for _ in range(9)),
            authors=random.sample(AWKWARD, 3),
            arxiv_id=f"2511.{n:05}" if n % 2 else None,
            code_url="https://code.example/x?a=1&b=2" if n % 3 else "",
        )
        for n in range(7)
    ]
    alice = make_subscriber(f"alice{seed}@example.org", time_zone="America/Argentina/Buenos_Aires")
    interest = make_interest(alice, random.choice(AWKWARD)[:90])
    make_interest(alice, "robots", categories=["cs.RO"] if seed % 2 else [])
    for count in range(1, 8):
        chosen = random.sample(papers, count)
        delivery = make_delivery(
            alice,
            *chosen,
            edition=make_frozen_edition(*chosen, day=date(2026, 11, count)),
            sections=random.choices(list(Delivery.Section), k=count),
            reasons=random.choices(list(Delivery.Reason), k=count),
            reason_details=random.choices(AWKWARD, k=count),
            interest_ids=random.choices([0, interest.pk], k=count),
            sentences=random.choices([-1, 0, 1, 2, 99], k=count),
        )
        delivery.edition.candidates.update(note=random.choice(NOTES))
        with time_machine.travel(timezone.now(), tick=False):  # tokens name the second
            message = mail.compose(delivery)
            text, html = rendered_whole(delivery)
        assert str(message.body) == text
        assert Elements(html_of(message)).seen == Elements(html).seen


def test_what_was_prepared_follows_a_paper_that_is_corrected() -> None:
    paper = make_paper("Wrong title")
    delivery = make_delivery(make_subscriber(), paper)
    assert "Wrong title" in str(mail.compose(delivery).body)
    paper.title = "Right title"
    paper.save()
    message = mail.compose(delivery)
    assert message.subject == "Right title"
    assert "Wrong title" not in str(message.body) + html_of(message)


def test_two_readers_of_an_edition_share_nothing_of_their_own() -> None:
    papers = [make_paper(title) for title in ("One", "Two")]
    edition = make_frozen_edition(*papers)
    of_alice, of_bob = (
        make_delivery(make_subscriber(f"{name}@example.org"), *papers, edition=edition)
        for name in ("alice", "bob")
    )
    composer = mail.Composer([of_alice, of_bob])
    to_alice, to_bob = composer.compose(of_alice), composer.compose(of_bob)
    links_of = [
        set(re.findall(r"/(?:feedback|unsubscribe|preferences)/([^/?\"]+)", html_of(message)))
        for message in (to_alice, to_bob)
    ]
    assert [len(found) for found in links_of] == [4, 4]
    assert not links_of[0] & links_of[1]
    assert "bob@" not in html_of(to_alice) + str(to_alice.body)


def test_a_batch_is_composed_with_as_many_queries_as_one_mail(
    django_assert_max_num_queries: object,
) -> None:
    papers = [make_paper(title) for title in ("One", "Two")]
    edition = make_frozen_edition(*papers)
    batch = [
        make_delivery(make_subscriber(f"reader{n}@example.org"), *papers, edition=edition)
        for n in range(20)
    ]
    with django_assert_max_num_queries(4):  # type: ignore[operator]
        composer = mail.Composer(batch)
        assert len({composer.compose(delivery).to[0] for delivery in batch}) == 20


def test_tokens_have_the_lengths_that_lines_are_wrapped_for() -> None:
    someone = uuid4()
    assert len(mail.JUDGE) == len(links.pick_token(someone, 2**40))
    for word, purpose in (
        (mail.UNSUBSCRIBE, links.Purpose.UNSUBSCRIBE),
        (mail.PREFERENCES, links.Purpose.PREFERENCES),
    ):
        assert len(word) == len(links.token(someone, purpose))


@pytest.mark.parametrize(
    ("categories", "heading"), [([], "Trending"), (["cs.LG"], "Trending in your fields")]
)
def test_who_named_no_field_is_told_of_none(categories: list[str], heading: str) -> None:
    alice = make_subscriber()
    make_interest(alice, "graphs", words="graphs", categories=categories)
    [pick] = mail.picks_of(make_delivery(alice, make_paper()))
    assert pick.section == heading
