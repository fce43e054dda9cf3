"""compose(delivery) -> message; and the mails that answer a sign-up.

A mail is an HTML part and a true text part from the same context. Every value that reaches a
header loses its control characters first: Django refuses only CR and LF, and others split headers
just as well.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from email.header import Header
from typing import Any

import css_inline
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string

from newsletter import links
from newsletter.links import Purpose
from newsletter.models import Delivery, Subscriber
from papers.models import EditionPaper, Paper

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
LONGEST_SUBJECT_TITLE = 120
EXCERPT = 320  # characters of an abstract: 20 papers stay far below Gmail's 102 kB

_inliner = css_inline.CSSInliner(keep_style_tags=True, load_remote_stylesheets=False)


class NothingToSend(Exception):
    """Nothing of the delivery may be sent any more; the message says why."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One paper of a mail, as its templates see it."""

    paper: Paper
    section: str
    reason: str
    terms: dict[str, float]
    note: str
    excerpt: str
    authors: str
    page: str  # the abstract at its source, else the paper's page here


def header(text: str) -> str:
    """`text` as one line without control characters."""
    return " ".join(CONTROLS.sub(" ", text).split())


def cut(text: str, most: int) -> str:
    """`text`, or its beginning up to a word's end and an ellipsis: at most `most` characters."""
    if len(text) <= most:
        return text
    beginning, _, _ = text[: most - 1].rpartition(" ")
    # Chinese has no spaces, and a word may be longer than all the room there is.
    return f"{beginning or text[: most - 2]} …"


def short_authors(names: list[str]) -> str:
    """The first three, or the first two and how many more."""
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} others"


def picks_of(delivery: Delivery) -> list[Pick]:
    """The picks of a delivery, without those hidden since it was planned."""
    rows = EditionPaper.objects.filter(
        edition=delivery.edition_id, paper__in=delivery.paper_ids
    ).select_related("paper")
    candidates = {row.paper_id: row for row in rows}
    picks = []
    width = len(Delivery.TERMS)
    terms = [delivery.terms[at : at + width] for at in range(0, len(delivery.terms), width)]
    for paper_id, values, section, code, detail in zip(
        delivery.paper_ids,
        terms,
        delivery.sections,
        delivery.reasons,
        delivery.reason_details,
        strict=True,
    ):
        row = candidates.get(paper_id)
        if row is None or row.curation == EditionPaper.Curation.HIDDEN:
            continue
        picks.append(
            Pick(
                paper=row.paper,
                section=Delivery.Section(section).label,
                reason=reason_text(Delivery.Reason(code), detail),
                terms=dict(zip(Delivery.TERMS, values, strict=True)),
                note=row.note,
                excerpt=cut(row.paper.abstract, EXCERPT),
                authors=short_authors(row.paper.authors),
                page=row.paper.abstract_page or settings.SITE_URL + row.paper.get_absolute_url(),
            )
        )
    return picks


def reason_text(code: Delivery.Reason, detail: str) -> str:
    """Why a paper was picked, as one phrase."""
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
            return "New today"


def subject_of(picks: list[Pick]) -> str:
    lead = cut(header(picks[0].paper.title), LONGEST_SUBJECT_TITLE)
    return f"{lead}, and {len(picks) - 1} more" if len(picks) > 1 else lead


def message_id(delivery: Delivery) -> str:
    """The same for every try at sending a delivery: receivers can tell a repeat."""
    return f"<{delivery.uuid}@{settings.SITE_HOST}>"


def compose(delivery: Delivery) -> EmailMultiAlternatives:
    """The mail of a delivery.

    Raises:
        NothingToSend: all its picks were hidden since it was planned.
    """
    picks = picks_of(delivery)
    if not picks:
        raise NothingToSend("Every paper picked was hidden before the mail left.")
    subscriber = delivery.subscriber
    unsubscribe = links.url(subscriber.uuid, Purpose.UNSUBSCRIBE)
    sections: dict[str, list[Pick]] = {}
    for pick in picks:
        sections.setdefault(pick.section, []).append(pick)
    message = _message(
        subscriber,
        subject_of(picks),
        "delivery",
        {
            "edition": delivery.edition,
            "sections": sections,
            "count": len(picks),
            "preheader": picks[1].paper.title if len(picks) > 1 else picks[0].excerpt,
            "unsubscribe_url": unsubscribe,
            "preferences_url": links.url(subscriber.uuid, Purpose.PREFERENCES),
            "edition_url": settings.SITE_URL + delivery.edition.get_absolute_url(),
        },
    )
    message.extra_headers |= {
        "Message-ID": message_id(delivery),
        "List-Id": f"{Header(header(settings.SITE_NAME)).encode()} <{header(settings.LIST_ID)}>",
        "List-Unsubscribe": f"<{unsubscribe}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Feedback-ID": f"{delivery.edition.day:%Y%m%d}:daily:paperround",
        "Precedence": "bulk",
    }
    # Anymail gives these back with every event, so that an event finds its delivery.
    message.metadata = {"delivery": str(delivery.uuid)}  # type: ignore[attr-defined]
    return message


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


def _message(
    subscriber: Subscriber, subject: str, template: str, context: dict[str, Any]
) -> EmailMultiAlternatives:
    context |= {
        "subject": subject,
        "subscriber": subscriber,
        "SITE_NAME": settings.SITE_NAME,
        "SITE_URL": settings.SITE_URL,
        "POSTAL_ADDRESS": settings.POSTAL_ADDRESS,
        "CONTACT_ADDRESS": settings.CONTACT_ADDRESS,
    }
    text = render_to_string(f"newsletter/mail/{template}.txt", context)
    message = EmailMultiAlternatives(
        subject=header(subject),
        body=_wrapped(text),
        from_email=header(settings.DEFAULT_FROM_EMAIL),
        to=[header(subscriber.address)],
        headers={"Auto-Submitted": "auto-generated"},
    )
    html = render_to_string(f"newsletter/mail/{template}.html", context)
    message.attach_alternative(_inliner.inline(html), "text/html")
    return message


def _wrapped(text: str) -> str:
    """Lines of at most 76 characters, links whole; no more than one empty line in a row."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line,
            76,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"
