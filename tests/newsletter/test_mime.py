"""Mail that is assembled from prepared pieces must be mail like any other."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from django.core.mail import EmailMultiAlternatives
from django.core.mail.message import sanitize_address
from hypothesis import given
from hypothesis import strategies as st

from newsletter.mime import Piece, PreparedMessage, joined, piece
from newsletter.smtp import PLAIN, written
from newsletter.stencils import Stencil, blank, wrapped

NAME, LINK = blank("name"), blank("link", 90)

texts = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]))
borders = st.text(st.sampled_from("a =.é\n\t"), max_size=160)


def message_of(text: list[Piece], html: list[Piece], **changes: str) -> PreparedMessage:
    values = {"subject": "Linear attention", "from_email": "Papers <daily@papers.example>"}
    return PreparedMessage(
        text,
        html,
        **{**values, "to": "alice@example.org", **changes},
        headers={"Message-ID": "<1@papers.example>", "Precedence": "bulk"},
    )


def parsed(message: EmailMultiAlternatives) -> EmailMessage:
    found = message_from_bytes(written(message), policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    payload = body.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode().replace("\r\n", "\n")


@given(st.lists(texts | borders, max_size=6))
def test_pieces_are_read_as_one_text_in_short_lines(parts: list[str]) -> None:
    message = message_of([piece(one) for one in parts], [piece("x")])
    assert part(parsed(message), "plain") == "".join(parts) == message.body
    encoded = joined(map(piece, parts)).encoded
    assert all(len(line) <= 76 for line in encoded.split(b"\r\n"))


def test_each_line_ends_as_the_protocol_wants_it() -> None:
    raw = message_of([piece("a\n.\nb\r\rc\r\n")], [piece("c")]).written()
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")


@pytest.mark.parametrize("subject", ["Short", "Långe " * 30, "long " * 40, "a" * 200])
def test_its_headers_are_those_that_django_writes(subject: str) -> None:
    message = message_of([piece("a")], [piece("b")], subject=subject, from_email="Ä <a@b.example>")
    prepared = parsed(message)
    ordinary = parsed(
        EmailMultiAlternatives(
            subject, "a", message.from_email, message.to, headers=message.extra_headers
        )
    )
    for name in ("Subject", "From", "To", "Message-ID", "Precedence"):
        assert prepared[name].split() == ordinary[name].split()
    assert prepared["Date"]


def test_no_header_can_hold_a_line_break() -> None:
    with pytest.raises(ValueError, match="newlines"):
        message_of([piece("a")], [piece("b")], subject="a\nBcc: eve@example.org").written()


def test_what_is_changed_afterwards_is_sent_as_changed() -> None:
    message = message_of([piece("before")], [piece("before")])
    assert part(parsed(message), "plain") == "before"
    message.subject, message.body = "Another", "after\n"
    message.extra_headers["Reply-To"] = "bob@example.org"
    found = parsed(message)
    assert (found["Subject"], found["Reply-To"]) == ("Another", "bob@example.org")
    assert part(found, "plain") == "after\n"
    assert part(found, "html") == "before"


def test_it_is_written_once() -> None:
    message = message_of([piece("a")], [piece("b")])
    assert message.written() is message.written()


@given(st.from_regex(PLAIN, fullmatch=True).filter(lambda address: len(address) < 254))
def test_a_plain_address_is_what_django_makes_of_it(address: str) -> None:
    assert sanitize_address(address, "utf-8") == address


words = st.text(st.sampled_from("ab &<é论"), max_size=120)
words = words.map(lambda text: " ".join(text.split())).filter(bool)


@given(words, st.lists(st.sampled_from([NAME, LINK, "some words", " ", "\n", "\n\n\n", "x" * 70])))
def test_a_filled_text_is_wrapped_as_if_it_had_been_rendered_with_its_values(
    name: str, parts: list[str]
) -> None:
    link = "l" * 90
    template = f"begins {' '.join(parts)}\nends"
    filled = Stencil.of_text(template).fill({NAME: piece(name), LINK: piece(link)})
    whole = wrapped(template.replace(NAME, name).replace(LINK, link))
    assert joined(filled).text == whole
    partly = Stencil.of_text(template).given({NAME: piece(name)})
    assert joined(partly.fill({LINK: piece(link)})).text == whole
