"""The editors' notes: a little Markdown -> safe HTML for pages and mails, and readable plain text.

Emphasis, code, links, lists and quotes. Headings, rules and images are none of a note's business:
their signs stay as they were typed, and so does HTML. Lines stay lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

MOST = 1_000  # characters of a note: 20 papers stay below the size at which mail is clipped
SCHEMES = {"http", "https", "mailto"}
TAGS = {"p", "br", "em", "strong", "code", "a", "ul", "ol", "li", "blockquote"}

# Each would turn what older notes hold as plain text into something else, or into nothing.
LEFT_AS_TYPED = ["code", "fence", "heading", "lheading", "hr", "reference", "image", "entity"]


def _is_link(url: str) -> bool:
    """A whole address: a mail has no page that "/paper" could be relative to."""
    return url.partition(":")[0].lower() in SCHEMES


def _reader() -> MarkdownIt:
    # maxNesting bounds what ">>>>" and "[[[[" cost.
    options = {"html": False, "linkify": False, "breaks": True, "maxNesting": 8}
    reader = MarkdownIt("commonmark", options).disable([*LEFT_AS_TYPED, "html_block"])
    reader.disable("html_inline")
    reader.validateLink = _is_link  # type: ignore[method-assign]
    return reader


_markdown = _reader()


@lru_cache(maxsize=2_048)
def note_html(note: str) -> str:
    """Safe HTML; a first paragraph has no <p> of its own, so that it follows "Editors:"."""
    tokens = _read(note)
    if tokens and tokens[0].type == "paragraph_open":
        closing = next(token for token in tokens if token.type == "paragraph_close")
        tokens[0].hidden = closing.hidden = True
    rendered = str(_markdown.renderer.render(tokens, _markdown.options, {}))
    return nh3.clean(
        rendered,
        tags=TAGS,
        attributes={"*": set(), "a": {"href"}, "ol": {"start"}},
        url_schemes=SCHEMES,
        link_rel="nofollow noopener",
    ).strip()


@lru_cache(maxsize=2_048)
def note_text(note: str) -> str:
    """The note without its signs, as a mail's text part, a feed and the API show it."""
    lines: list[str] = []
    lists: list[int | None] = []  # the next number of each list around, None of a bulleted one
    quotes = 0
    mark = ""  # of the item that begins
    for token in _read(note):
        match token.type:
            case "bullet_list_open":
                lists.append(None)
            case "ordered_list_open":
                lists.append(int(token.attrs.get("start", 1)))
            case "bullet_list_close" | "ordered_list_close":
                lists.pop()
            case "list_item_open":
                number = lists[-1]
                mark = "- " if number is None else f"{number}. "
                lists[-1] = None if number is None else number + 1
            case "blockquote_open":
                quotes += 1
            case "blockquote_close":
                quotes -= 1
            case "inline":
                # The items of a list stand close together, paragraphs apart.
                if lines and not (lists and token.level > 1 and mark):
                    lines.append("")
                indent = "  " * max(len(lists) - 1, 0)
                for line in _plain(token.children or []).split("\n"):
                    lines.append(f"{'> ' * quotes}{indent}{mark}{line}")
                    mark = " " * len(mark)
                mark = ""
    return "\n".join(lines)


def _read(note: str) -> list[Token]:
    return _markdown.parse(note[:MOST].replace("\0", ""))


def _plain(children: Sequence[Token]) -> str:
    """The words of a paragraph; a link is followed by its address, unless that is its words."""
    words: list[str] = []
    links: list[tuple[str, int]] = []
    for token in children:
        match token.type:
            case "text" | "code_inline" | "text_special":
                words.append(token.content)
            case "softbreak" | "hardbreak":
                words.append("\n")
            case "link_open":
                links.append((str(token.attrs["href"]), len(words)))
            case "link_close":
                address, start = links.pop()
                if "".join(words[start:]) != address.removeprefix("mailto:"):
                    words.append(f" ({address})")
    return "".join(words)
