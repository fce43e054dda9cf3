"""The one spelling of what a paper is recognised by: arXiv id, DOI, title."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

_ARXIV_PREFIX = re.compile(
    r"(?:https?://)?(?:(?:[a-z]+\.)?arxiv\.org/(?:abs|pdf|html|format|ps|src)/"
    r"|huggingface\.co/papers/|(?:dx\.)?doi\.org/10\.48550/arxiv\.)"
    r"|10\.48550/arxiv\.|oai:arxiv\.org:|arxiv:\s*",
    re.IGNORECASE,
)
_ARXIV_SUFFIX = re.compile(r"(?:\.pdf)?(?:[?#]\S*)?(?:\s*\[[\w.-]+\])?$", re.IGNORECASE)
_ARXIV_ID = re.compile(
    r"(?P<new>\d\d(?:0[1-9]|1[0-2])\.\d{4,5})(?:v\d+)?"
    r"|(?P<archive>[a-z]{1,10}(?:-[a-z]{1,10})?)(?:\.[a-z-]+)?/(?P<number>\d\d(?:0[1-9]|1[0-2])\d{3})(?:v\d+)?",
    re.IGNORECASE | re.ASCII,
)
_DOI_PREFIX = re.compile(r"(?P<url>https?://(?:dx\.|www\.)?doi\.org/)|doi:\s*", re.IGNORECASE)
_DOI = re.compile(r"10\.\d{4,9}(?:\.\d+)*/[^\s\x00-\x1f\x7f]+", re.ASCII)


def normalise_arxiv_id(text: str) -> str:
    """The bare id without version, from an id, `arXiv:` reference or address.

    >>> normalise_arxiv_id("https://arxiv.org/abs/2505.24864v2")
    '2505.24864'
    >>> normalise_arxiv_id("math.GT/0211159")
    'math/0211159'
    """
    bare = _ARXIV_PREFIX.sub("", text.strip()[:200], count=1)
    match = _ARXIV_ID.fullmatch(_ARXIV_SUFFIX.sub("", bare, count=1))
    if not match:
        raise ValueError(f"“{text[:80]}” is not an arXiv id such as 2505.24864 or math/0211159")
    return match["new"] or f"{match['archive'].lower()}/{match['number']}"


def normalise_doi(text: str) -> str:
    """The bare DOI in lower case (DOIs ignore case), from a DOI, `doi:` reference or address."""
    bare = text.strip()
    if prefix := _DOI_PREFIX.match(bare):
        bare = bare[prefix.end() :]
        bare = unquote(bare) if prefix["url"] else bare
    bare = bare.rstrip(".,; ").lower()  # of some letters, the lower case is two
    if len(bare) > 255 or not _DOI.fullmatch(bare):
        raise ValueError(f"“{text[:80]}” is not a DOI such as 10.1000/182")
    return bare


def title_key(title: str) -> str:
    """What is equal for two spellings of one title: no case, accents, punctuation or spacing.

    Marks of other scripts stay, for there they are vowels. A title of symbols only is its own key.
    """
    decomposed = unicodedata.normalize("NFKD", title).casefold()
    plain = re.sub("[\u0300-\u036f'’]", "", unicodedata.normalize("NFKD", decomposed))
    words = "".join(char if unicodedata.category(char)[0] in "LNM" else " " for char in plain)
    return " ".join(words.split()) or " ".join(title.casefold().split())
