"""What an abstract says: its sentences, and the one that tells what the paper does. No Django."""

from __future__ import annotations

import re
from functools import lru_cache

LONGEST_TEXT = 20_000  # characters that count; no profile needs more, and no reader can stall a run
LONGEST_KEY = 260  # characters of a key sentence

# The end of a sentence: its mark, and a space before what can begin the next one; not after "et
# al.", "e.g.", "Fig.", a lone initial and the like, nor after the "No." of a number.
SENTENCE_END = re.compile(
    r"(?<!\bal)(?<!\be\.g)(?<!\bi\.e)(?<!\bcf)(?<!\bvs)(?<!\bFig)(?<!\bFigs)(?<!\bEq)(?<!\bEqs)"
    r"(?<!\bSec)(?<!\bDr)(?<!\bapprox)(?<!\bresp)(?<!\bw\.r\.t)(?<!\b[A-Z])"
    r"(?:(?<!\bNo)|(?!\.\s+\d))"
    r"[.!?][\"')\]”]*(?=\s+[\"'(\[“]?[A-Z0-9À-ÖØ-Þ])"
)
MAX_SENTENCES = 24
# What an abstract says of its own work, against what it says of the field before it.
OWN_WORK = re.compile(
    r"\b(?:we|our|this (?:paper|work|article|study|survey|report))\b", re.IGNORECASE
)
# Its result or its proposal, in the verbs that abstracts have for it.
_TELLING = re.compile(
    r"\b(?:we|our \w+|this (?:paper|work|article|study|survey|report))\s+"
    r"(?:\w+ly\s+|then\s+|also\s+)?"
    r"(?:achiev|address|analy[sz]|argu|build|built|construct|deriv|describ|demonstrat|design|"
    r"develop|establish|explor|find|found|giv|introduc|investigat|obtain|present|propos|prov|"
    r"releas|report|review|show|stud|survey)",
    re.IGNORECASE,
)


def sentences(text: str) -> list[str]:
    """The sentences of an abstract, at most MAX_SENTENCES; the last one holds whatever is left."""
    text = " ".join(text[:LONGEST_TEXT].split())
    found: list[str] = []
    start = 0
    for end in SENTENCE_END.finditer(text):
        if len(found) == MAX_SENTENCES - 1:
            break
        found.append(text[start : end.end()].strip())
        start = end.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


@lru_cache(maxsize=4096)
def key_sentence(abstract: str) -> str:
    """The sentence for somebody who reads only one.

    The first that says what the authors propose or found ("we show", "this paper introduces");
    else the first that speaks of their own work at all; else the first.
    """
    found = sentences(abstract)
    for pattern in (_TELLING, OWN_WORK):
        for sentence in found:
            if pattern.search(sentence):
                return cut(sentence, LONGEST_KEY)
    return cut(found[0], LONGEST_KEY) if found else ""


def cut(text: str, most: int) -> str:
    """`text`, or its beginning up to a word's end and an ellipsis: at most `most` characters."""
    if len(text) <= most:
        return text
    beginning, _, _ = text[: most - 1].rpartition(" ")
    # Chinese has no spaces, and a word may be longer than all the room there is.
    return f"{beginning or text[: most - 2]} …"
