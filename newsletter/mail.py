"""compose(delivery) -> message; and the mails that answer who signs up or in.

A mail is an HTML part and a true text part from the same context. Every value that reaches a
header loses its control characters first: Django refuses only CR and LF, and others split headers
just as well.

What the mails of an edition share is rendered once, with blanks for what differs by reader; a mail
is then put together from these pieces.
"""

from __future__ import annotations

import html
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from email.header import Header
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, NamedTuple

import css_inline
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.utils.safestring import mark_safe

from newsletter import links
from newsletter.feedback import ASKED
from newsletter.links import Purpose
from newsletter.mime import Piece, PreparedMessage, piece
from newsletter.models import Delivery, Interest, Subscriber
from newsletter.stencils import Stencil, blank, wrapped
from papers.abstracts import cut, sentences
from papers.models import Edition, EditionPaper, Paper, PaperAlias

log = logging.getLogger(__name__)

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
LONGEST_SUBJECT_TITLE = 120
LONGEST_HEADING = 80
LONGEST_QUOTED = 90
EXCERPT = 320  # characters of an abstract: 20 papers stay far below Gmail's 102 kB
LONGEST_KEY = 320  # characters of its key sentence,
EXCERPT_AFTER_KEY = 200  # and of what is quoted after that
LONGEST_ID = 19  # digits: fewer always fit into the database's integers
MOST_PREPARED = 4_000  # papers, counted once for each key sentence: some tens of MB

CLOSE_TO = {
    Delivery.Reason.EXAMPLE: "which you gave as an example",
    Delivery.Reason.SAVED: "which you saved",
    Delivery.Reason.LIKED: "of which you wanted more",
}

LABELS = {section: str(section.label) for section in Delivery.Section}

_inliner = css_inline.CSSInliner(keep_style_tags=True, load_remote_stylesheets=False)


class NothingToSend(Exception):
    """Nothing of the delivery may be sent any more; the message says why."""


@dataclass(frozen=True)
class Pick:
    """One paper of a mail, as its templates see it."""

    candidate: EditionPaper
    key: int  # the index of the abstract's key sentence for this reader, -1 for none
    section: str = ""  # the heading it stands under
    reason: str = ""

    @property
    def paper(self) -> Paper:
        return self.candidate.paper

    @property
    def note(self) -> str:
        return self.candidate.note

    @cached_property
    def _quoted(self) -> tuple[str, str]:
        return quoted(self.paper.abstract, self.key)

    @property
    def key_sentence(self) -> str:
        """Of the abstract, for this reader; "" for none."""
        return self._quoted[0]

    @property
    def excerpt(self) -> str:
        """The beginning of the abstract, without the key sentence."""
        return self._quoted[1]

    @property
    def authors(self) -> str:
        return short_authors(self.paper.authors)

    @property
    def page(self) -> str:
        """The abstract at its source, else the paper's page here."""
        return self.paper.abstract_page or settings.SITE_URL + self.paper.get_absolute_url()


def header(text: str) -> str:
    """`text` as one line without control characters."""
    return " ".join(CONTROLS.sub(" ", text).split())


def short_authors(names: list[str]) -> str:
    """The first three, or the first two and how many more."""
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} others"


def quoted(abstract: str, key: int) -> tuple[str, str]:
    """What a mail quotes of an abstract: its key sentence, and its beginning without that one.

    The key sentence is "" where its index is -1 or, since the abstract was replaced, out of range,
    and where there is no other: emphasis on everything is none.
    """
    found = sentences(abstract) if key >= 0 else []
    if len(found) < 2 or key >= len(found):
        return "", cut(abstract, EXCERPT)
    others = [*found[:key], *(["…"] if key else []), *found[key + 1 :]]
    excerpt = cut(" ".join(others), EXCERPT_AFTER_KEY).replace("… …", "…")
    return cut(found[key], LONGEST_KEY), excerpt


def picks_of(delivery: Delivery) -> list[Pick]:
    """The picks of a delivery, without those hidden or withdrawn since it was planned."""
    return Composer([delivery]).picks_of(delivery)


def titles_named_by(*deliveries: Delivery) -> dict[str, str]:
    """The titles of the papers that reasons name, by their ids as text."""
    named = {
        detail
        for delivery in deliveries
        for code, detail in zip(delivery.reasons, delivery.reason_details, strict=False)
        if code in CLOSE_TO and detail.isdecimal() and len(detail) < LONGEST_ID
    }
    if not named:
        return {}
    ids = set(map(int, named))
    titles = dict(Paper.objects.filter(pk__in=ids).values_list("pk", "title"))
    if missing := ids - titles.keys():
        joined = PaperAlias.objects.filter(pk__in=missing)
        titles |= dict(joined.values_list("old_id", "paper__title"))
    return {str(pk): title for pk, title in titles.items()}


def _heading(section: Delivery.Section, interest: str, *, names_categories: bool) -> str:
    if section == Delivery.Section.FOR_YOU and interest:
        return f"{LABELS[section]}: {cut(interest, LONGEST_HEADING)}"
    if section == Delivery.Section.TRENDING and not names_categories:
        return "Trending"  # a reader who named no field has none
    return LABELS[section]


def reason_text(code: Delivery.Reason, detail: str, titles: Mapping[str, str] | None = None) -> str:
    """Why a paper was picked, as one phrase; `titles` are those of the papers it may name."""
    if code in CLOSE_TO:
        title = cut((titles or {}).get(detail, ""), LONGEST_QUOTED)
        close = f"Close to “{title}”," if title else "Close to a paper"
        return f"{close} {CLOSE_TO[code]}"
    return _reason(code, detail)


@lru_cache(maxsize=4_096)
def _reason(code: Delivery.Reason, detail: str) -> str:
    match code:
        case Delivery.Reason.PINNED:
            return "Chosen by the editors"
        case Delivery.Reason.WORDS:
            return f"Matches your interest: {detail}"
        case Delivery.Reason.CATEGORY:
            return f"In {detail}, which you follow"
        case Delivery.Reason.UPVOTES:
            votes, _, gained = detail.partition(" ")
            upvotes = f"{votes} upvote{'' if votes == '1' else 's'}"
            return f"{upvotes}, {gained} since the day before" if gained else upvotes
        case Delivery.Reason.NEW:
            return f"New on {detail}" if detail else "New today"
        case Delivery.Reason.AUTHOR:
            return f"By {detail}, whom you follow"
        case Delivery.Reason.MUST_READ:
            return f"You never want to miss: {detail}"
        case Delivery.Reason.EXPLORATION:
            return "Exploration: outside what you usually read"
    raise ValueError(code)


def subject_of(picks: list[Pick]) -> str:
    return _subject(picks[0].paper.title, len(picks) - 1)


@lru_cache(maxsize=4_096)
def _subject(title: str, more: int) -> str:
    lead = cut(header(title), LONGEST_SUBJECT_TITLE)
    return f"{lead}, and {more} more" if more else lead


def message_id(delivery: Delivery) -> str:
    """The same for every try at sending a delivery: receivers can tell a repeat."""
    return f"<{delivery.uuid}@{settings.SITE_HOST}>"


def compose(delivery: Delivery) -> PreparedMessage:
    """The mail of a delivery.

    Raises:
        NothingToSend: all its picks were hidden or withdrawn since it was planned.
    """
    return Composer([delivery]).compose(delivery)


# The edition of a mail, and where it is chosen from several the day of the oldest.
Chosen = tuple[int, date | None]


def _chosen(delivery: Delivery) -> Chosen:
    return delivery.edition_id, delivery.editions_from


class Composer:
    """Composes the mails of a batch of deliveries; what they need is read here, in few queries."""

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        Delivery.follow(deliveries)
        self._titles = titles_named_by(*deliveries)
        self._interests: dict[int, dict[int, str]] = defaultdict(dict)
        self._readers_of_fields: set[int] = set()
        readers = {delivery.subscriber_id for delivery in deliveries}
        rows = Interest.objects.filter(subscriber__in=readers)
        for pk, reader, name, categories in rows.values_list(
            "pk", "subscriber_id", "name", "categories"
        ):
            self._interests[reader][pk] = name
            if categories:
                self._readers_of_fields.add(reader)
        self._sheets: dict[Chosen, Sheet] = {}
        self._candidates: dict[Chosen, dict[int, EditionPaper]] = {}
        for chosen, edition in {_chosen(one): one.edition for one in deliveries}.items():
            of_edition = [one for one in deliveries if _chosen(one) == chosen]
            sheet = _sheet_of(edition, chosen[1])
            shown = sheet.refresh({paper for one in of_edition for paper in one.paper_ids})
            self._sheets[chosen], self._candidates[chosen] = sheet, shown
            wanted = {
                key
                for one in of_edition
                for key in zip(one.paper_ids, one.sentences, strict=False)
                if key[0] in shown
            }
            try:
                sheet.prepare([Pick(shown[paper], key) for paper, key in sorted(wanted)])
            except Exception:
                # Then each by itself, where it fails none but the mails that hold it.
                log.warning("the papers of edition %s could not be prepared together", edition.pk)

    def picks_of(self, delivery: Delivery) -> list[Pick]:
        candidates = self._candidates[_chosen(delivery)]
        names = self._interests[delivery.subscriber_id]
        if len(names) < 2:  # one needs no name in a mail
            names = {}
        names_categories = delivery.subscriber_id in self._readers_of_fields
        return [
            Pick(
                candidate=candidates[paper_id],
                key=sentence,
                section=_heading(
                    Delivery.Section(section),
                    names.get(interest_id, ""),
                    names_categories=names_categories,
                ),
                reason=reason_text(Delivery.Reason(code), detail, self._titles),
            )
            for paper_id, section, code, detail, interest_id, sentence in zip(
                delivery.paper_ids,
                delivery.sections,
                delivery.reasons,
                delivery.reason_details,
                delivery.interest_ids,
                delivery.sentences,
                strict=True,
            )
            if paper_id in candidates
        ]

    def compose(self, delivery: Delivery) -> PreparedMessage:
        """The mail of one of them.

        Raises:
            NothingToSend: all its picks were hidden or withdrawn since it was planned.
        """
        picks = self.picks_of(delivery)
        if not picks:
            raise NothingToSend("Every paper picked was hidden or withdrawn before the mail left.")
        subscriber, edition = delivery.subscriber, delivery.edition
        subject = subject_of(picks)
        second = picks[1].paper.title if len(picks) > 1 else ""
        unsubscribe = links.token(subscriber.uuid, Purpose.UNSUBSCRIBE)
        sheet = self._sheets[_chosen(delivery)]
        text, marked_up = sheet.put_together(
            delivery,
            picks,
            {
                SUBJECT: _again(subject),
                PREHEADER: _again(second or picks[0].key_sentence or picks[0].excerpt),
                ADDRESS: _inserted(subscriber.address),
                WHEN: _again(subscriber.when),
                UNSUBSCRIBE: _inserted(unsubscribe),
                PREFERENCES: _inserted(links.token(subscriber.uuid, Purpose.PREFERENCES)),
            },
        )
        message = PreparedMessage(
            text,
            marked_up,
            subject=header(subject),
            from_email=header(settings.DEFAULT_FROM_EMAIL),
            to=header(subscriber.address),
            headers={
                "Auto-Submitted": "auto-generated",
                "Message-ID": message_id(delivery),
                "List-Id": _list_id(settings.SITE_NAME, settings.LIST_ID),
                "List-Unsubscribe": f"<{sheet.unsubscribe_page(unsubscribe)}>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
                "Feedback-ID": f"{edition.day:%Y%m%d}:daily:paperround",
                "Precedence": "bulk",
            },
        )
        # Anymail gives these back with every event, so that an event finds its delivery.
        message.metadata = {"delivery": str(delivery.uuid)}  # type: ignore[attr-defined]
        return message


# What the mails of an edition share

MARK = "<!--paperround-->"  # a comment may stand between the rows of a table, a word may not
PAPERS = blank("papers")
SUBJECT, PREHEADER, ADDRESS, WHEN = map(blank, ("subject", "preheader", "address", "when"))
SECTION, REASON = blank("section"), blank("reason")
# Tokens have one length each, so that lines are wrapped before they are known.
JUDGE = blank("judge", 83)
UNSUBSCRIBE, PREFERENCES = blank("unsubscribe", 73), blank("preferences", 73)

EMPTY_LINE = piece("\n")


class Both(NamedTuple):
    """The same for the two parts of a mail."""

    text: Stencil
    html: Stencil

    def given(self, values: Mapping[str, tuple[Piece, Piece]]) -> Both:
        text, html = _each(values)
        return Both(self.text.given(text), self.html.given(html))


def _each(values: Mapping[str, tuple[Piece, Piece]]) -> tuple[dict[str, Piece], dict[str, Piece]]:
    """Values for the text, and the same for the HTML."""
    text = {word: value for word, (value, _) in values.items()}
    return text, {word: value for word, (_, value) in values.items()}


class Sheet:
    """What the mails of one edition share, prepared as it is asked for."""

    def __init__(self, edition: Edition, of: Sequence[int]) -> None:
        self._edition = edition
        self._of = of  # the editions that papers come from
        self._candidates: dict[int, EditionPaper] = {}
        self._papers: dict[tuple[int, int], Both] = {}  # by paper and key sentence
        self._with_reasons: dict[tuple[int, int, str], Both] = {}  # the same, by the reason too
        self._frames: dict[int, tuple[Both, Both]] = {}  # head and foot, by the number of papers
        self._section: Both | None = None
        self._headings: dict[str, Both] = {}
        self._unsubscribe_page = links.page(Purpose.UNSUBSCRIBE, UNSUBSCRIBE)

    def refresh(self, paper_ids: Iterable[int]) -> dict[int, EditionPaper]:
        """Those of these papers that are neither hidden nor withdrawn, as they are now."""
        rows = EditionPaper.objects.filter(edition__in=self._of, paper__in=paper_ids)
        rows = rows.order_by("edition__day")  # of two the newest counts, and is written last
        hidden = rows.filter(curation=EditionPaper.Curation.HIDDEN).order_by().values("paper")
        shown = rows.filter(paper__withdrawn_on=None).exclude(paper__in=hidden)
        versions = dict(shown.values_list("paper_id", "paper__updated_at"))
        known = self._candidates
        stale = {
            pk
            for pk, version in versions.items()
            if pk not in known or known[pk].paper.updated_at != version
        }
        if stale:
            for row in rows.filter(paper__in=stale).select_related("paper"):
                known[row.paper_id] = row
            self._papers = {key: both for key, both in self._papers.items() if key[0] not in stale}
            self._with_reasons = {}
        return {pk: known[pk] for pk in versions if pk in known}

    def prepare(self, picks: Iterable[Pick]) -> None:
        """Render these papers; their styles are inlined in one go."""
        if len(self._papers) > MOST_PREPARED:
            self._papers = {}
        wanted = [pick for pick in picks if (pick.paper.pk, pick.key) not in self._papers]
        if not wanted and self._section:
            return
        shared = {"reason": REASON, "kinds": ASKED, "judge": links.page(Purpose.FEEDBACK, JUDGE)}
        pieces: list[tuple[str, dict[str, Any]]] = [("section", {"section": SECTION})]
        pieces += [("pick", shared | {"pick": pick}) for pick in wanted]
        texts = [render_to_string(f"newsletter/mail/{name}.txt", values) for name, values in pieces]
        htmls: list[str] = [
            render_to_string(f"newsletter/mail/{name}.html", values) for name, values in pieces
        ]
        _, *htmls, _ = self._inlined(1, htmls)
        self._section, *prepared = (
            Both(Stencil.of_text(text), Stencil.of_html(html))
            for text, html in zip(texts, htmls, strict=True)
        )
        keys = [(pick.paper.pk, pick.key) for pick in wanted]
        self._papers.update(zip(keys, prepared, strict=True))

    def put_together(
        self,
        delivery: Delivery,
        picks: Sequence[Pick],
        values: Mapping[str, tuple[Piece, Piece]],
    ) -> tuple[list[Piece], list[Piece]]:
        """The pieces of a mail: of its text and of its HTML."""
        self.prepare(picks)
        head, foot = self._frame(len(picks))
        in_text, in_html = _each(values)
        text, rows = head.text.fill(in_text), head.html.fill(in_html)
        section = ""
        for pick in _by_section(picks):
            if pick.section != section:
                section = pick.section
                heading = self._heading(section)
                text.append(EMPTY_LINE)
                text += heading.text.fill({})
                rows += heading.html.fill({})
            text.append(EMPTY_LINE)
            judge = {JUDGE: piece(links.pick_token(delivery.uuid, pick.paper.pk))}
            both = self._pick(pick)
            text += both.text.fill(judge)
            rows += both.html.fill(judge)
        text.append(EMPTY_LINE)
        text += foot.text.fill(in_text)
        rows += foot.html.fill(in_html)
        return text, rows

    def _heading(self, section: str) -> Both:
        if section not in self._headings:
            assert self._section is not None  # noqa: S101  (it was prepared with the picks)
            if len(self._headings) > MOST_PREPARED:  # readers name their subjects as they like
                self._headings = {}
            self._headings[section] = self._section.given({SECTION: _inserted(section)})
        return self._headings[section]

    def _pick(self, pick: Pick) -> Both:
        """One pick as it is for all readers who get it for the same reason."""
        key = (pick.paper.pk, pick.key, pick.reason)
        if key not in self._with_reasons:
            if len(self._with_reasons) > MOST_PREPARED:
                self._with_reasons = {}
            both = self._papers[key[:2]]
            self._with_reasons[key] = both.given({REASON: _inserted(pick.reason)})
        return self._with_reasons[key]

    def unsubscribe_page(self, token: str) -> str:
        return self._unsubscribe_page.replace(UNSUBSCRIBE, token)

    def _frame(self, count: int) -> tuple[Both, Both]:
        if count not in self._frames:
            text = render_to_string("newsletter/mail/delivery.txt", self._context(count, PAPERS))
            above, below = text.split(PAPERS)
            first, last = self._inlined(count, [])
            self._frames[count] = (
                Both(Stencil.of_text(above), Stencil.of_html(first)),
                Both(Stencil.of_text(below), Stencil.of_html(last)),
            )
        return self._frames[count]

    def _inlined(self, count: int, rows: list[str]) -> list[str]:
        """The head, each of the rows, and the foot, with inline styles."""
        papers = mark_safe(MARK.join(["", *rows, ""]) or MARK)  # noqa: S308  (rows were rendered)
        whole = render_to_string("newsletter/mail/delivery.html", self._context(count, papers))
        return _inliner.inline(whole).split(MARK)

    def _context(self, count: int, papers: str) -> dict[str, Any]:
        return _shared() | {
            "edition": self._edition,
            "edition_url": settings.SITE_URL + self._edition.get_absolute_url(),
            "count": count,
            "papers": papers,
            "subject": SUBJECT,
            "preheader": PREHEADER,
            "address": ADDRESS,
            "when": WHEN,
            "preferences_url": links.page(Purpose.PREFERENCES, PREFERENCES),
            "unsubscribe_url": self._unsubscribe_page,
        }


def _sheet_of(edition: Edition, since: date | None) -> Sheet:
    """An edition's, with those since a day; of an edition that was changed, a new one."""
    versions = [(edition.pk, edition.changed_at)]
    if since is not None:
        joined = Edition.objects.joined(edition, since)
        versions = list(joined.values_list("pk", "changed_at"))
    return _sheet(edition, tuple(versions), tuple(_shared().values()))


@lru_cache(maxsize=12)
def _sheet(
    edition: Edition, versions: tuple[tuple[int, datetime], ...], shared: tuple[str, ...]
) -> Sheet:
    return Sheet(edition, [pk for pk, _ in versions])


def _inserted(value: str) -> tuple[Piece, Piece]:
    """A value that differs by reader, for the text and for the HTML."""
    line = header(value)
    return piece(line), piece(html.escape(line))


_again = lru_cache(maxsize=4_096)(_inserted)  # for what many mails say


def _by_section(picks: Sequence[Pick]) -> Iterator[Pick]:
    """The picks, those of one section together, the sections in the order of their first ones."""
    sections: dict[str, list[Pick]] = {}
    for pick in picks:
        sections.setdefault(pick.section, []).append(pick)
    return chain.from_iterable(sections.values())


@lru_cache(maxsize=4)
def _list_id(site: str, list_id: str) -> str:
    return f"{Header(header(site)).encode()} <{header(list_id)}>"


def compose_confirmation(subscriber: Subscriber) -> EmailMultiAlternatives:
    """The first half of the double opt-in.

    It quotes nothing that the form held: anybody can type somebody else's address there.
    """
    return _message(
        subscriber,
        f"Please confirm your subscription to {settings.SITE_NAME}",
        "confirmation",
        {
            "confirm_url": links.url(subscriber.uuid, Purpose.CONFIRM),
            "days": settings.CONFIRMATION_DAYS,
        },
    )


def compose_already_subscribed(subscriber: Subscriber) -> EmailMultiAlternatives:
    """The answer to a sign-up of an address that is subscribed: only its owner learns so."""
    return _message(
        subscriber,
        f"You are subscribed to {settings.SITE_NAME} already",
        "already_subscribed",
        {
            "preferences_url": links.url(subscriber.uuid, Purpose.PREFERENCES),
            "unsubscribe_url": links.url(subscriber.uuid, Purpose.UNSUBSCRIBE),
        },
    )


def compose_sign_in(subscriber: Subscriber) -> EmailMultiAlternatives:
    """The link by which a subscriber signs in."""
    return _message(
        subscriber,
        f"Sign in to {settings.SITE_NAME}",
        "sign_in",
        {
            "sign_in_url": links.numbered_url(subscriber, Purpose.SIGN_IN),
            "minutes": links.SIGN_IN_MINUTES,
        },
    )


def _message(
    subscriber: Subscriber, subject: str, template: str, context: dict[str, Any]
) -> EmailMultiAlternatives:
    context |= {"subject": subject, "subscriber": subscriber, **_shared()}
    text = render_to_string(f"newsletter/mail/{template}.txt", context)
    message = EmailMultiAlternatives(
        subject=header(subject),
        body=wrapped(text),
        from_email=header(settings.DEFAULT_FROM_EMAIL),
        to=[header(subscriber.address)],
        headers={"Auto-Submitted": "auto-generated"},
    )
    marked_up = render_to_string(f"newsletter/mail/{template}.html", context)
    message.attach_alternative(_inliner.inline(marked_up), "text/html")
    return message


def _shared() -> dict[str, str]:
    """What every mail says of the installation."""
    names = ("SITE_NAME", "SITE_URL", "POSTAL_ADDRESS", "CONTACT_ADDRESS")
    return {name: getattr(settings, name) for name in names}
