"""What readers type -> papers: by the words, by the meaning, or straight by an identifier.

Two searches answer a query, and their answers are fused:

- by words: any of them counts, a rare one more than a frequent one, in the title more than in the
  abstract. PostgreSQL's ts_rank says how much a paper says a word; how rare that is, SearchWord
  says. A phrase in "quotation marks" must be there, a -word must not;
- by meaning: the query's vector beside the papers', where the encoder in ENCODER_DIR is the one
  whose vectors serve. Without one the words alone answer.

What a query may cost is bounded: of frequent words, only those papers are ranked that have them in
the title or all together. A word that no paper has is taken for a slip of the pen.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import numpy as np
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from numpy.typing import NDArray

from papers import embeddings
from papers.encoders import Encoder, EncoderError, EncoderMissing
from papers.models import Embedding, Paper, SearchText, SearchWord
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi, title_key

log = logging.getLogger(__name__)

LONGEST_QUERY = 1_000  # characters; a title is shorter
LONGEST_WORD = 100
MOST_WORDS = 32
POOL = 200  # papers that each of the two searches brings: the pages end with them
RANKED = 3_000  # papers whose words are looked at, about

# Of ts_rank, for a word in the abstract, an unused label, the authors and the title.
LABELS = "{0.4, 0.4, 0.6, 1.0}"
LEAST_LETTERS = 4  # of a word that may be a mistyped one
SHORT = 5  # letters; in longer words two slips are forgiven
DRIFT = 0.01  # papers come and gone before words are counted again
LOCK = 7_405_003  # one process at a time counts; a pg_advisory_xact_lock of our own
ENCODED = 1_000  # queries whose vectors are kept

_PART = re.compile(r'(?P<minus>(?<!\S)-(?=[^\s-]))?(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')
_QUOTES = str.maketrans("“”„«»", '"""""')
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Filters:
    """since and until: listing days, both included. author: a full name, case and accents aside."""

    since: date | None = None
    until: date | None = None
    category: str = ""
    author: str = ""


EVERYTHING = Filters()


@dataclass(frozen=True, slots=True)
class Results:
    """papers: of this page, the best first. direct: the one that the query names by identifier.

    corrected: the query as it was understood, "" if as typed. more: there is a further page.
    """

    papers: list[Paper]
    direct: Paper | None = None
    corrected: str = ""
    more: bool = False


def search(
    query: str, filters: Filters = EVERYTHING, *, limit: int = 20, offset: int = 0
) -> Results:
    """Papers for a query; without any words, the newest ones that pass the filters.

    Any text is a query: nothing that is typed is an error.
    """
    text = " ".join(_UNSTORABLE.sub(" ", query)[:LONGEST_QUERY].split())
    with transaction.atomic():  # SET LOCAL ends with it
        identifier = _identifier(text)
        if identifier is not None:
            named = Paper.objects.filter(withdrawn_on=None, **identifier).first()
            return Results([named] if named else [], direct=named)
        asked = understand(text)
        where = _Where(asked.required, filters)
        if asked.words:
            ids = [*_titled(text, where), *order(candidates(asked, where))]
            ids = list(dict.fromkeys(ids))
        elif text and not asked.required:
            ids = []  # nothing but signs, and words such as "the"
        else:
            ids = _newest(where, offset + limit + 1)
        page = ids[offset : offset + limit]
        found = Paper.objects.in_bulk(page)
    return Results(
        [found[pk] for pk in page if pk in found],
        corrected=asked.corrected,
        more=len(ids) > offset + limit,
    )


def similar(paper: Paper, limit: int = 10) -> list[Paper]:
    """The papers closest in meaning, without itself; by its title where it has no vector."""
    with transaction.atomic():
        ids = _near(paper, limit)
        if ids is None:
            asked = understand(paper.title.replace('"', " ").replace("-", " "), correct=False)
            ids = order(candidates(asked, _Where())) if asked.words else []
        ids = [pk for pk in ids if pk != paper.pk][:limit]
        found = Paper.objects.in_bulk(ids)
    return [found[pk] for pk in ids if pk in found]


# --- Straight to the paper ------------------------------------------------------------------------


def _identifier(text: str) -> dict[str, object] | None:
    """What a paper is looked up by, where the query is an arXiv id, a DOI or a page of ours."""
    with suppress(ValueError):
        return {"arxiv_id": normalise_arxiv_id(text)}
    with suppress(ValueError):
        return {"doi": normalise_doi(text)}
    with suppress(ValueError):
        folder, _, name = urlsplit(text).path.rstrip("/").rpartition("/")
        if folder == "/paper":
            return {"uuid": UUID(name)}
    return None


def _titled(text: str, where: _Where) -> list[int]:
    key = title_key(text)
    if not key:
        return []
    condition, values = where.sql()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT s.paper_id FROM papers_searchtext s "  # noqa: S608
            "JOIN papers_paper p ON p.id = s.paper_id "
            f"WHERE p.title_key = %s AND {condition} ORDER BY s.paper_id DESC LIMIT %s",
            [key, *values, POOL],
        )
        return [pk for (pk,) in cursor.fetchall()]


# --- Understanding a query ------------------------------------------------------------------------


@dataclass(slots=True)
class Word:
    """A word of a query: as typed, as the index knows it, and in how many papers it stands."""

    typed: str
    lexeme: str
    papers: int = 0
    weight: float = 0.0


@dataclass(slots=True)
class Asked:
    """A query, understood.

    words: each once, the rarest first. required: a tsquery of its phrases and exclusions, "" none.
    meaning: what an encoder reads of it.
    """

    words: list[Word] = field(default_factory=list)
    required: str = ""
    meaning: str = ""
    corrected: str = ""


def understand(text: str, *, correct: bool = True) -> Asked:
    parts = [
        (
            bool(match["minus"]),
            match["phrase"],
            match["phrase"] or (match["word"] or "")[:LONGEST_WORD],
        )
        for match in _PART.finditer(text.translate(_QUOTES))
    ]
    parts = [part for part in parts if part[2].strip()]
    if not parts:
        return Asked()
    tokens, phrases = _lexemes([words for _, _, words in parts])
    required = []
    words: dict[str, Word] = {}
    for (minus, phrase, _), own, tsquery in zip(parts, tokens, phrases, strict=True):
        if minus:
            required += [f"!({tsquery})"] if tsquery else []
            continue
        if phrase is not None and tsquery:
            required.append(f"({tsquery})")
        for typed, lexeme in own:
            words.setdefault(lexeme, Word(typed, lexeme))
    asked = Asked(
        list(words.values()),
        " & ".join(required),
        " ".join(words for minus, _, words in parts if not minus),
    )
    _weigh(asked)
    if correct and (slips := _corrections(asked)):
        for typed, meant in slips.items():
            pattern = re.compile(rf"(?<!\w){re.escape(typed)}(?!\w)", re.IGNORECASE)
            text = pattern.sub(lambda match, meant=meant: meant, text)  # type: ignore[misc]
        asked = understand(text, correct=False)
        asked.corrected = text
    return asked


def _lexemes(parts: Sequence[str]) -> tuple[list[list[tuple[str, str]]], list[str]]:
    """Of each part, its words with their lexemes, stop words left out, and its tsquery as a phrase.

    PostgreSQL reads them as it reads the papers.
    """
    tokens: list[list[tuple[str, str]]] = [[] for _ in parts]
    phrases: list[str] = []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT part.place, token.token, tsvector_to_array("
            "to_tsvector('pg_catalog.english', token.token)) "
            "FROM unnest(%s::text[]) WITH ORDINALITY part(text, place), "
            "ts_parse('default', papers_plain(part.text)) token WHERE token.tokid <> 12",
            [list(parts)],
        )
        for place, token, lexemes in cursor.fetchall():
            tokens[place - 1] += [(token, lexeme) for lexeme in lexemes]
        cursor.execute(
            "SELECT phraseto_tsquery('pg_catalog.english', papers_plain(part.text))::text "
            "FROM unnest(%s::text[]) WITH ORDINALITY part(text, place) ORDER BY place",
            [list(parts)],
        )
        phrases = [phrase for (phrase,) in cursor.fetchall()]
    return tokens, phrases


def _weigh(asked: Asked) -> None:
    """Say in how many papers each word stands, and what that is worth; keep the rarest words."""
    rows = SearchWord.objects.filter(lexeme__in=["", *(word.lexeme for word in asked.words)])
    counts: dict[str, int] = {}
    for lexeme, papers in rows.values_list("lexeme", "papers"):
        counts[lexeme] = counts.get(lexeme, 0) + papers
    total = max(counts.get("", 0), 1)
    for word in asked.words:
        word.papers = min(counts.get(word.lexeme, 0), total)
        word.weight = math.log(1 + (total - word.papers + 0.5) / (word.papers + 0.5))
    asked.words = sorted(asked.words, key=lambda word: word.papers)[:MOST_WORDS]


def _corrections(asked: Asked) -> dict[str, str]:
    """What was probably meant, by what was typed: of words that no paper has."""
    unknown = [
        word
        for word in asked.words
        if not word.papers and len(word.typed) >= LEAST_LETTERS and word.typed.isalpha()
    ]
    found: dict[str, str] = {}
    with connection.cursor() as cursor:
        for word in unknown:
            cursor.execute(
                "SELECT EXISTS (SELECT 1 FROM papers_searchtext WHERE lexemes @@ %s::tsquery)",
                [_quoted(word.lexeme)],  # a paper that came after the words were counted
            )
            if not cursor.fetchone()[0] and (meant := _meant(cursor, word.typed.lower())):
                found[word.typed] = meant
    return found


def _meant(cursor: CursorWrapper, typed: str) -> str:
    """The word of the papers that is the fewest slips from what was typed; "" if all are far."""
    cursor.execute("SELECT set_config('pg_trgm.similarity_threshold', '0.15', true)")
    cursor.execute(
        "SELECT word, papers FROM papers_searchword WHERE word %% %s "
        "ORDER BY similarity(word, %s) DESC, papers DESC LIMIT 200",
        [typed, typed],
    )
    most = 1 if len(typed) <= SHORT else 2
    near = [(slips(typed, word), -papers, word) for word, papers in cursor.fetchall()]
    distance, _, word = min(near, default=(most + 1, 0, ""))
    return word if distance <= most else ""


def slips(typed: str, word: str) -> int:
    """How many letters were left out, put in, exchanged or swapped with their neighbour.

    The optimal string alignment distance.
    """
    before: list[int] = []
    last = list(range(len(word) + 1))
    for i, a in enumerate(typed, start=1):
        row = [i]
        for j, b in enumerate(word, start=1):
            least = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == word[j - 2] and b == typed[i - 2]:
                least = min(least, before[j - 2] + 1)
            row.append(least)
        before, last = last, row
    return last[-1]


# --- The words of the papers ----------------------------------------------------------------------


def count_words() -> None:
    """Write down every word and in how many papers it stands, if the papers have changed much."""
    counted = SearchWord.objects.filter(word="").values_list("papers", flat=True).first() or 0
    papers = SearchText.objects.count()
    if abs(papers - counted) <= counted * DRIFT:
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return  # another worker is at it
        cursor.execute("DELETE FROM papers_searchword")
        # The empty word is in every paper.
        cursor.execute(
            "INSERT INTO papers_searchword (word, lexeme, papers) "
            "SELECT word, (tsvector_to_array(to_tsvector('pg_catalog.english', word)))[1], ndoc "
            "FROM ts_stat($$SELECT to_tsvector('pg_catalog.simple', papers_plain("
            "p.title || ' , ' || array_to_string(p.authors, ' , ') || ' , ' || p.abstract)) "
            "FROM papers_paper p JOIN papers_searchtext s ON s.paper_id = p.id$$) "
            "WHERE cardinality(tsvector_to_array(to_tsvector('pg_catalog.english', word))) = 1 "
            "UNION ALL SELECT '', '', %s",
            [papers],
        )
    log.info("the words of %s papers counted", papers)


# --- Candidates -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Where:
    """What every answer must fulfil, besides not being withdrawn."""

    required: str = ""
    filters: Filters = EVERYTHING

    def sql(self) -> tuple[str, list[Any]]:
        """A condition on the table s, papers_searchtext, and its values."""
        conditions: list[str] = []
        values: list[Any] = []
        if self.required:
            conditions.append("s.lexemes @@ %s::tsquery")
            values.append(self.required)
        of_papers: list[str] = []
        if self.filters.since:
            of_papers.append("listing_day >= %s")
            values.append(self.filters.since)
        if self.filters.until:
            of_papers.append("listing_day <= %s")
            values.append(self.filters.until)
        if self.filters.category:
            of_papers.append("categories @> ARRAY[%s]::text[]")
            values.append(self.filters.category)
        if self.filters.author:
            of_papers.append("authors && %s::text[]")
            values.append(_spellings(self.filters.author))
        if of_papers:
            inner = " AND ".join(of_papers)
            conditions.append(f"s.paper_id IN (SELECT id FROM papers_paper WHERE {inner})")  # noqa: S608
        return " AND ".join(conditions) or "true", values


def _spellings(author: str) -> list[str]:
    """The name as typed, and as the papers spell it: in other letters' case, with its accents."""
    key = title_key(author)
    rows = Paper.objects.raw(
        "SELECT p.id, p.authors FROM papers_searchtext s JOIN papers_paper p ON p.id = s.paper_id "
        "WHERE s.lexemes @@ phraseto_tsquery('pg_catalog.english', papers_plain(%s)) "
        "AND numnode(phraseto_tsquery('pg_catalog.english', papers_plain(%s))) > 0 LIMIT %s",
        [author, author, RANKED],
    )
    spelled = {name for paper in rows for name in paper.authors if title_key(name) == key}
    return sorted(spelled | {author})


def _newest(where: _Where, limit: int) -> list[int]:
    condition, values = where.sql()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT s.paper_id FROM papers_searchtext s "  # noqa: S608
            "JOIN papers_paper p ON p.id = s.paper_id "
            f"WHERE {condition} ORDER BY p.listing_day DESC, p.id DESC LIMIT %s",
            [*values, limit],
        )
        return [pk for (pk,) in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Candidate:
    """words: how well a paper says the words, 0 none. meaning: a cosine, None without vectors."""

    paper_id: int
    words: float
    meaning: float | None


def candidates(asked: Asked, where: _Where) -> list[Candidate]:
    """The best POOL by words and the best POOL by meaning, each once."""
    encoder = _serving_encoder(int(time.monotonic() // 60))
    query = _vector(encoder, asked.meaning) if encoder else None
    found = by_words(asked, where, encoder, query)
    if encoder and query is not None:
        found += by_meaning(asked, where, encoder, query)
    return list({candidate.paper_id: candidate for candidate in found}.values())


def by_words(
    asked: Asked, where: _Where, encoder: Encoder | None, query: NDArray[np.float32] | None
) -> list[Candidate]:
    """The POOL papers that say the words best, the best first."""
    condition, values = where.sql()
    tiers = _tiers(asked.words)
    sources = " UNION ".join(
        f"(SELECT s.paper_id FROM papers_searchtext s WHERE s.{column} @@ %s::tsquery "  # noqa: S608
        f"AND {condition} ORDER BY s.paper_id DESC LIMIT {RANKED})"
        for column, _ in tiers
    )
    said, weights = _said(asked.words)
    close, vectors, near = "NULL::float8", "", []
    if encoder is not None and query is not None:
        close = f"1 - (e.vector::vector({encoder.dimension}) <=> %s::vector)"
        vectors = (
            "LEFT JOIN papers_embedding e ON e.paper_id = best.paper_id AND e.encoder = %s "
            "AND e.vector IS NOT NULL"
        )
        near = [_written(query)]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT best.paper_id, best.said, {close} FROM ("  # noqa: S608
            f"SELECT s.paper_id, {said} AS said FROM ({sources}) candidate "
            "JOIN papers_searchtext s ON s.paper_id = candidate.paper_id "
            f"ORDER BY said DESC, s.paper_id DESC LIMIT {POOL}) best {vectors} "
            "ORDER BY best.said DESC, best.paper_id DESC",
            [
                *near,
                *weights,
                *(value for _, tsquery in tiers for value in (tsquery, *values)),
                *([encoder.identity] if near and encoder else []),
            ],
        )
        return [Candidate(*row) for row in cursor.fetchall()]


def by_meaning(
    asked: Asked, where: _Where, encoder: Encoder, query: NDArray[np.float32]
) -> list[Candidate]:
    """The POOL papers closest to the query's vector, the closest first."""
    condition, values = where.sql()
    said, weights = _said(asked.words)
    distance = f"e.vector::vector({encoder.dimension}) <=> %s::vector"
    written = _written(query)
    with connection.cursor() as cursor:
        _wide_scan(cursor)
        cursor.execute(
            f"SELECT s.paper_id, {said}, 1 - ({distance}) FROM papers_embedding e "  # noqa: S608
            "JOIN papers_searchtext s ON s.paper_id = e.paper_id "
            f"WHERE e.encoder = %s AND e.vector IS NOT NULL AND {condition} "
            f"ORDER BY {distance} LIMIT {POOL}",
            [*weights, written, encoder.identity, *values, written],
        )
        return [Candidate(*row) for row in cursor.fetchall()]


def _tiers(words: Sequence[Word]) -> list[tuple[str, str]]:
    """Which papers are ranked: (column of papers_searchtext, tsquery), each brings RANKED at most.

    All that have any of the words, where these are not too many. Else those with a rare one, those
    with one in the title, and those with all of them.
    """
    rare: list[Word] = []
    total = 0
    for word in words:
        total += word.papers
        if total > RANKED:
            break
        rare.append(word)
    if len(rare) == len(words):
        return [("lexemes", _any(words))]
    tiers = [("title", _any(words)), ("lexemes", " & ".join(_quoted(w.lexeme) for w in words))]
    return [("lexemes", _any(rare)), *tiers] if rare else tiers


def _any(words: Sequence[Word]) -> str:
    return " | ".join(_quoted(word.lexeme) for word in words)


def _quoted(lexeme: str) -> str:
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _said(words: Sequence[Word]) -> tuple[str, list[Any]]:
    """How well a paper says the words: an expression over the table s, and its values.

    ts_rank of one word grows with each place where it stands, less and less, as in BM25.
    """
    terms = [f"%s * ts_rank('{LABELS}', s.lexemes, %s::tsquery, 1)"] * len(words)
    values: list[Any] = []
    for word in words:
        values += [word.weight, _quoted(word.lexeme)]
    return f"({' + '.join(terms)})::float8", values


# --- Fusion ---------------------------------------------------------------------------------------

EQUAL = 60  # of reciprocal-rank fusion: how little the first ranks differ
MEANING = 0.3  # the weight of the meaning's rank beside that of the words


def order(found: Sequence[Candidate]) -> list[int]:
    """Ids, the best first: reciprocal-rank fusion of the two orders, weighted."""
    scores = dict.fromkeys((candidate.paper_id for candidate in found), 0.0)
    said = sorted((c for c in found if c.words > 0), key=lambda c: (-c.words, -c.paper_id))
    near = sorted(
        (c for c in found if c.meaning is not None),
        key=lambda c: (-(c.meaning or 0.0), -c.paper_id),
    )
    for weight, ranked in ((1.0, said), (MEANING, near)):
        for rank, candidate in enumerate(ranked):
            scores[candidate.paper_id] += weight / (EQUAL + rank)
    return sorted(scores, key=lambda pk: (-scores[pk], -pk))


# --- Vectors --------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _serving_encoder(minute: int) -> Encoder | None:
    """The configured encoder, where its vectors serve; asked again each minute."""
    identity = _serving(minute)
    if identity is None or embeddings.configured_identity() != identity:
        return None
    try:
        return embeddings.encoder()
    except EncoderMissing:
        return None
    except EncoderError as error:
        log.error("search by words alone: %s", error)
        return None


@lru_cache(maxsize=1)
def _serving(minute: int) -> str | None:
    return embeddings.serving_encoder()


@lru_cache(maxsize=ENCODED)
def _encoded(encoder: Encoder, text: str) -> NDArray[np.float32]:
    return np.asarray(encoder.encode([text])[0], dtype=np.float32)


def _vector(encoder: Encoder, text: str) -> NDArray[np.float32] | None:
    """The text's, of length 1; None where it says nothing to the encoder."""
    try:
        vector = _encoded(encoder, text)
    except EncoderError as error:
        log.error("search by words alone: %s", error)
        return None
    return vector if vector.any() else None


def _written(vector: NDArray[np.float32]) -> str:
    return f"[{','.join(map(str, vector.tolist()))}]"


def _wide_scan(cursor: CursorWrapper) -> None:
    """Let HNSW bring POOL papers, and go on where a condition leaves too few of those it finds."""
    cursor.execute(
        "SELECT set_config('hnsw.ef_search', %s, true), "
        "set_config('hnsw.iterative_scan', 'relaxed_order', true)",
        [str(POOL)],
    )


def _near(paper: Paper, limit: int) -> list[int] | None:
    """The ids of the papers closest to `paper` and perhaps itself; None where it has no vector."""
    identity = _serving(int(time.monotonic() // 60))
    row = Embedding.objects.filter(paper=paper, encoder=identity).values_list("vector").first()
    if row is None or row[0] is None:
        return None
    distance = f"e.vector::vector({len(row[0])}) <=> %s::vector"
    with connection.cursor() as cursor:
        _wide_scan(cursor)
        cursor.execute(
            "SELECT e.paper_id FROM papers_embedding e "  # noqa: S608
            "JOIN papers_searchtext s ON s.paper_id = e.paper_id "
            "WHERE e.encoder = %s AND e.vector IS NOT NULL "
            f"ORDER BY {distance} LIMIT %s",
            [identity, _written(np.asarray(row[0])), limit + 1],
        )
        return [pk for (pk,) in cursor.fetchall()]
