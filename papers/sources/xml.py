"""XML as a server sends it: parsed within bounds, without DTD, entities or trust."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from papers.latex import to_text
from papers.sources import BadAnswer

MAX_DEPTH = 50
MAX_PARTS = 1_000_000  # elements and attributes
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_REFERENCE = re.compile(rb"&#(x[0-9a-f]{1,20}|[0-9]{1,20});", re.I)


class _Bounded(TreeBuilder):
    def __init__(self) -> None:
        super().__init__()
        self.depth = self.parts = 0

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        self.depth += 1
        self.parts += 1 + len(attrs)
        if self.depth > MAX_DEPTH or self.parts > MAX_PARTS:
            raise ValueError("nested too deep" if self.depth > MAX_DEPTH else "too many elements")
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        self.depth -= 1
        return super().end(tag)


def parsed(content: bytes, place: str) -> Element:
    """The root of a whole document; `place` is for the message.

    Raises:
        BadAnswer: it is something else, or only its beginning.
    """
    start = re.sub(rb"<!--.*?-->|<\?.*?\?>", b"", content[:1000].lower(), flags=re.S)
    if not content.strip():
        raise BadAnswer(f"{place}: the answer is empty")
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html)\b", start):
        raise BadAnswer(f"{place}: a page in HTML instead of XML{_titled(content)}")
    content = _readable(content)
    parser = DefusedXMLParser(
        target=_Bounded(), forbid_dtd=True, forbid_entities=True, forbid_external=True
    )
    try:
        parser.feed(content)
        root: Element = parser.close()
    except DefusedXmlException as error:
        raise BadAnswer(f"{place}: XML with a {type(error).__name__}, refused") from None
    except ParseError as error:
        raise BadAnswer(f"{place}: not whole, well-formed XML: {error}") from None
    except (ValueError, LookupError) as error:  # also an encoding that nobody knows
        raise BadAnswer(f"{place}: XML that cannot be read: {str(error)[:200]}") from None
    return root


def _readable(content: bytes) -> bytes:
    """Without the characters that XML forbids: a record that has them costs no other."""
    if b"\0" in content[:4] or content[:2] in (b"\xfe\xff", b"\xff\xfe"):
        return content  # UTF-16, where these bytes are parts of others
    return _REFERENCE.sub(_allowed, _CONTROLS.sub(b"", content))


def _allowed(reference: re.Match[bytes]) -> bytes:
    digits = reference[1].lower()
    code = int(digits[1:], 16) if digits.startswith(b"x") else int(digits)
    allowed = code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD
    return reference[0] if allowed or 0x10000 <= code <= 0x10FFFF else b""


def _titled(content: bytes) -> str:
    found = re.search(rb"<title[^>]*>([^<]{1,200})</title", content[:5_000], re.I)
    return f": “{to_text(found[1].decode('utf-8', 'replace'))[:100]}”" if found else ""


def name(element: Element) -> str:
    """The name without its namespace, whose spelling differs from server to server."""
    return element.tag.rpartition("}")[2]


def children(element: Element | None, *path: str) -> Iterator[Element]:
    if element is None:
        return
    for child in element:
        if name(child) == path[0]:
            if len(path) == 1:
                yield child
            else:
                yield from children(child, *path[1:])


def child(element: Element | None, *path: str) -> Element | None:
    return next(children(element, *path), None)


def text(element: Element | None, *path: str) -> str:
    """The text of the first such child, with that of the elements in it; "" where there is none."""
    found = child(element, *path) if path else element
    return "".join(found.itertext()).strip() if found is not None else ""
