"""What readers type -> papers: by the words, by the meaning, or straight by an identifier.

Two searches answer a query, and their answers are fused:

- by words: any of them counts, a rare one more than a frequent one, and two that stand together as
  in the query once more. PostgreSQL's ts_rank says how much a paper says a word; how rare that is,
  SearchWord says. A phrase in "quotation marks" must be there, a -word must not;
- by meaning: the query's vector beside the papers', where the encoder in ENCODER_DIR is the one
  whose vectors serve. Without one the words alone answer; and where no paper says any of the
  words, nothing does, for to a vector something is always the closest.

What a query may cost is bounded: of frequent words, only those papers are ranked that have them in
the title or all together; what takes too long all the same is given up. A word that no paper has
is taken for a slip of the pen.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import numpy as np
from django.db import OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper
from numpy.typing import NDArray
from psycopg.errors import QueryCanceled

from papers import embeddings
from papers.encoders import Encoder, EncoderError, EncoderMissing
from papers.ingest import storable
from papers.locks import Lock
from papers.models import Embedding, Paper, SearchText, SearchWord
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi, title_key

log = logging.getLogger(__name__)

LONGEST_QUERY = 1_000  # characters; a title is shorter
LONGEST_WORD = 100
LONGEST_QUESTION = 5_000  # milliseconds that each of its questions to the database may take
MOST_WORDS = 16  # the rarest, and as many pairs: a longer query is a pasted text
MOST_CORRECTED = 3  # words: where more are unknown, it is no slip of the pen
MOST_SPELLINGS = 50  # of an author's name
POOL = 200  # papers that each of the two searches brings: the pages end with them
RANKED = 3_000  # papers whose words are looked at, about

LEAST_LETTERS = 4  # of a word that may be a mistyped one
SHORT = 5  # letters; in longer words two slips are forgiven
DRIFT = 0.05  # papers come and gone before words are counted again
LOCK = Lock.COUNT_WORDS
ENCODED = 1_000  # queries whose vectors are kept

_PART = re.compile(r'(?P<minus>(?<!\S)-(?=[^\s-]))?(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')
_QUOTES = str.maketrans("“”„«»", '"""""')


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

    withdrawn: as direct, but its source withdrew it, so it is not found. corrected: the query as
    it was understood, "" if as typed. more: there is a further page.
    """

    papers: list[Paper]
    direct: Paper | None = None
    withdrawn: Paper | None = None
    corrected: str = ""
    more: bool = False


class TookTooLong(Exception):
    """A question was given up: the database had not answered it in time."""


@contextmanager
def in_time() -> Iterator[None]:
    """A transaction whose every question to the database is answered in time, or given up.

    Raises:
        TookTooLong: one was given up.
    """
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {LONGEST_QUESTION}")
            yield
    except OperationalError as error:
        if not isinstance(error.__cause__, QueryCanceled):
            raise
        raise TookTooLong from None


def search(
    query: str, filters: Filters = EVERYTHING, *, limit: int = 20, offset: int = 0
) -> Results:
    """Papers for a query; without any words, the newest ones that pass the filters.

    Any text is a query: nothing that is typed is an error.

    Raises:
        TookTooLong: the query is too much for the database as it is now.
    """
    text = readable(query)
    filters = replace(filters, category=readable(filters.category), author=readable(filters.author))
    with in_time():
        identifier = _identifier(text)
        if identifier is not None:
            named = Paper.objects.filter(**identifier).first()
            if named is not None and named.withdrawn_on:
                return Results([], withdrawn=named)
            return Results([named] if named else [], direct=named)
        asked = understand(text)
        where = _where(asked.required, filters)
        if asked.words:
            ids = [*_titled(text, where), *order(candidates(asked, where), asked)]
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
    """The papers closest in meaning, without itself; by its title where it has no vector.

    Raises:
        TookTooLong: as of `search`.
    """
    with in_time():
        ids = _near(paper, limit)
        if ids is None:
            asked = understand(paper.title.replace('"', " ").replace("-", " "), correct=False)
            ids = order(candidates(asked), asked) if asked.words else []
        ids = [pk for pk in ids if pk != paper.pk][:limit]
        found = Paper.objects.in_bulk(ids)
    return [found[pk] for pk in ids if pk in found]


def saying(words: str) -> list[int]:
    """The ids of papers that say all of these words, of many the RANKED that came last; none of
    what was withdrawn."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT paper_id FROM papers_searchtext "
            "WHERE lexemes @@ plainto_tsquery('pg_catalog.english', papers_plain(%s)) "
            "ORDER BY paper_id DESC LIMIT %s",
            [words, RANKED],
        )
        return [pk for (pk,) in cursor.fetchall()]


def readable(typed: str) -> str:
    """What was typed, without what PostgreSQL cannot hold, white space as single blanks, cut."""
    return " ".join(storable(typed[:LONGEST_QUERY]).split())


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
            found = Paper.named(UUID(name))
            return {"pk": found and found.pk}
    return None


def _titled(text: str, where: Where) -> list[int]:
    key = title_key(text)
    if not key:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT s.paper_id FROM papers_searchtext s "  # noqa: S608
            "JOIN papers_paper p ON p.id = s.paper_id "
            f"WHERE p.title_key = %s AND {where.sql} ORDER BY s.paper_id DESC LIMIT %s",
            [key, *where.values, POOL],
        )
        return [pk for (pk,) in cursor.fetchall()]


# --- Understanding a query ------------------------------------------------------------------------


@dataclass(slots=True)
class Word:
    """A word of a query: as typed, as the index knows it, and in how many papers it stands.

    weight: how much it says, more the rarer it is (the idf of BM25).
    """

    typed: str
    lexeme: str
    papers: int = 0
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two words of a query that follow one another, with stop words between where distance > 1."""

    first: Word
    second: Word
    distance: int

    @property
    def tsquery(self) -> str:
        return f"{_quoted(self.first.lexeme)} <{self.distance}> {_quoted(self.second.lexeme)}"


@dataclass(slots=True)
class Asked:
    """A query, understood.

    words, pairs: each once; of the words, the rarest first. share: of the papers that have the
    rarest. required: a tsquery of its phrases and exclusions, "" none. meaning: what an encoder
    reads of it. corrected: all of it without slips of the pen, "" where there are none.
    """

    words: list[Word] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    share: float = 0.0
    required: str = ""
    meaning: str = ""
    corrected: str = ""


def understand(text: str, *, correct: bool = True) -> Asked:
    """A query as PostgreSQL's parser reads it; correct: with slips of the pen put right."""
    parts = []
    for match in _PART.finditer(text.translate(_QUOTES)):
        words = match["phrase"] or (match["word"] or "")[:LONGEST_WORD]
        if words.strip():
            parts.append((bool(match["minus"]), match["phrase"] is not None, words))
    if not parts:
        return Asked()
    asked = Asked(meaning=" ".join(words for minus, _, words in parts if not minus))
    required: list[str] = []
    known: dict[str, Word] = {}
    pairs: dict[tuple[str, str, int], Pair] = {}
    last: tuple[Word, int] | None = None  # and its place among all that was typed
    place = 0
    lexemes = _lexemes([words for _, _, words in parts])
    for (minus, phrase, _), (tokens, tsquery) in zip(parts, lexemes, strict=True):
        if (minus or phrase) and tsquery:
            required.append(f"{'!' if minus else ''}({tsquery})")
        if minus:
            continue
        for typed, lexeme in tokens:
            place += 1
            if not lexeme:
                continue
            word = known.setdefault(lexeme, Word(typed, lexeme))
            if last and last[0] is not word:
                distance = place - last[1]
                pair = Pair(last[0], word, distance)
                pairs.setdefault((last[0].lexeme, lexeme, distance), pair)
            last = (word, place)
    asked.required = " & ".join(required)
    asked.pairs = list(pairs.values())
    _weigh(asked, known)
    if correct and (meant := _corrections(asked)):
        right = text
        for typed, word_meant in meant.items():
            right = re.sub(rf"(?<!\w){typed}(?!\w)", word_meant, right, flags=re.IGNORECASE)
        if right != text:  # a word that was typed with accents does not stand there as it was read
            asked = understand(right, correct=False)
            asked.corrected = right
    return asked


def _lexemes(parts: Sequence[str]) -> list[tuple[list[tuple[str, str]], str]]:
    """Of each part, its words with their lexemes ("" of a stop word), and its tsquery as a phrase.

    PostgreSQL reads them as it reads the papers.
    """
    found: list[tuple[list[tuple[str, str]], str]] = []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT ARRAY(SELECT token FROM ts_parse('default', plain) WHERE tokid <> 12), "
            "ARRAY(SELECT coalesce((tsvector_to_array("
            "to_tsvector('pg_catalog.english', token)))[1], '') "
            "FROM ts_parse('default', plain) WHERE tokid <> 12), "
            "phraseto_tsquery('pg_catalog.english', plain)::text "
            "FROM unnest(%s::text[]) WITH ORDINALITY part(text, place), "
            "papers_plain(part.text) plain ORDER BY place",
            [list(parts)],
        )
        for tokens, lexemes, tsquery in cursor.fetchall():
            found.append((list(zip(tokens, lexemes, strict=True)), tsquery))
    return found


def _weigh(asked: Asked, known: Mapping[str, Word]) -> None:
    """Say in how many papers each word stands, and what that is worth; keep the rarest words."""
    counts: dict[str, int] = {}
    rows = SearchWord.objects.filter(lexeme__in=["", *known]).values_list("lexeme", "papers")
    for lexeme, papers in rows:
        counts[lexeme] = counts.get(lexeme, 0) + papers
    total = counts.get("", 0)
    for word in known.values():
        word.papers = min(counts.get(word.lexeme, 0), total)  # its forms were counted apart
        word.weight = math.log(1 + (total - word.papers + 0.5) / (word.papers + 0.5))
    asked.words = sorted(known.values(), key=lambda word: word.papers)[:MOST_WORDS]
    if asked.words and total:
        asked.share = asked.words[0].papers / total
    kept = {word.lexeme for word in asked.words}
    pairs = [p for p in asked.pairs if {p.first.lexeme, p.second.lexeme} <= kept]
    asked.pairs = pairs[:MOST_WORDS]


def _corrections(asked: Asked) -> dict[str, str]:
    """What was probably meant, by what was typed: of words that no paper has."""
    unknown = [
        word
        for word in asked.words
        if not word.papers and len(word.typed) >= LEAST_LETTERS and word.typed.isalpha()
    ]
    found: dict[str, str] = {}
    with connection.cursor() as cursor:
        for word in unknown[:MOST_CORRECTED]:
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
    near = [
        (slips(typed, word), -papers, word)
        for word, papers in cursor.fetchall()
        if abs(len(word) - len(typed)) <= most  # else it is more slips, and long ones cost
    ]
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
class Where:
    """What every answer must fulfil, besides not being withdrawn: a condition on the table s,
    papers_searchtext, and its values."""

    sql: str = "true"
    values: Sequence[Any] = ()


EVERYWHERE = Where()


def _where(required: str, filters: Filters) -> Where:
    conditions: dict[str, Any] = {}
    if filters.since:
        conditions["listing_day >= %s"] = filters.since
    if filters.until:
        conditions["listing_day <= %s"] = filters.until
    if filters.category:
        conditions["categories @> ARRAY[%s]::text[]"] = filters.category
    if filters.author:
        conditions["authors && %s::text[]"] = _spellings(filters.author)
    parts, values = ["true"], list(conditions.values())
    if conditions:
        inner = " AND ".join(conditions)
        parts.append(f"s.paper_id IN (SELECT id FROM papers_paper WHERE {inner})")  # noqa: S608
    if required:
        parts.append("s.lexemes @@ %s::tsquery")
        values.append(required)
    return Where(" AND ".join(parts), values)


def _spellings(author: str) -> list[str]:
    """The name as typed, and as the papers spell it: in other letters' case, with its accents."""
    with connection.cursor() as cursor:
        # Each name is read once: of a collaboration, a thousand papers have the same thousands.
        cursor.execute(
            "WITH papers AS (SELECT p.authors FROM papers_searchtext s "
            "JOIN papers_paper p ON p.id = s.paper_id "
            "WHERE s.lexemes @@ phraseto_tsquery('pg_catalog.english', papers_plain(%s)) "
            "AND numnode(phraseto_tsquery('pg_catalog.english', papers_plain(%s))) > 0 LIMIT %s), "
            "names AS MATERIALIZED (SELECT DISTINCT name FROM papers, unnest(authors) name) "
            "SELECT name FROM names WHERE to_tsvector('pg_catalog.simple', papers_plain(name)) "
            "= to_tsvector('pg_catalog.simple', papers_plain(%s)) LIMIT %s",
            [author, author, RANKED, author, MOST_SPELLINGS],
        )
        return sorted({author, *(name for (name,) in cursor.fetchall())})


def _newest(where: Where, limit: int) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT s.paper_id FROM papers_searchtext s "  # noqa: S608
            "JOIN papers_paper p ON p.id = s.paper_id "
            f"WHERE {where.sql} ORDER BY p.listing_day DESC, p.id DESC LIMIT %s",
            [*where.values, limit],
        )
        return [pk for (pk,) in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Candidate:
    """words: how well a paper says the words, 0 none. meaning: a cosine, None without vectors."""

    paper_id: int
    words: float
    meaning: float | None


def candidates(asked: Asked, where: Where = EVERYWHERE) -> list[Candidate]:
    """The best POOL by words and the best POOL by meaning, each once."""
    encoder = _serving_encoder(int(time.monotonic() // 60))
    query = _vector(encoder, asked.meaning) if encoder else None
    found = by_words(asked, where, encoder, query)
    if found and encoder and query is not None:
        found += by_meaning(asked, where, encoder, query)
    return list({candidate.paper_id: candidate for candidate in found}.values())


def by_words(
    asked: Asked, where: Where, encoder: Encoder | None, query: NDArray[np.float32] | None
) -> list[Candidate]:
    """The POOL papers that say the words best, the best first."""
    tiers = _tiers(asked.words)
    sources = " UNION ".join(
        f"(SELECT s.paper_id FROM papers_searchtext s WHERE s.{column} @@ %s::tsquery "  # noqa: S608
        f"AND {where.sql} ORDER BY s.paper_id DESC LIMIT {RANKED})"
        for column, _ in tiers
    )
    said, weights = _said(asked)
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
                *(value for _, tsquery in tiers for value in (tsquery, *where.values)),
                *([encoder.identity] if near and encoder else []),
            ],
        )
        return [Candidate(*row) for row in cursor.fetchall()]


def by_meaning(
    asked: Asked, where: Where, encoder: Encoder, query: NDArray[np.float32]
) -> list[Candidate]:
    """The POOL papers closest to the query's vector, the closest first."""
    said, weights = _said(asked)
    distance = f"e.vector::vector({encoder.dimension}) <=> %s::vector"
    written = _written(query)
    with connection.cursor() as cursor:
        _wide_scan(cursor)
        cursor.execute(
            f"SELECT s.paper_id, {said}, 1 - ({distance}) FROM papers_embedding e "  # noqa: S608
            "JOIN papers_searchtext s ON s.paper_id = e.paper_id "
            f"WHERE e.encoder = %s AND e.vector IS NOT NULL AND {where.sql} "
            f"ORDER BY {distance} LIMIT {POOL}",
            [*weights, written, encoder.identity, *where.values, written],
        )
        return [Candidate(*row) for row in cursor.fetchall()]


def _tiers(words: Sequence[Word]) -> list[tuple[str, str]]:
    """Which papers are ranked: (column of papers_searchtext, tsquery), each brings RANKED at most.

    All that have any of the words, where these are not too many. Else those with a rare one, those
    with any in the title, and those with all the frequent ones; of more, those that came last.
    """
    rare: list[Word] = []
    total = 0
    for word in words:
        total += word.papers
        if total > RANKED:
            break
        rare.append(word)
    frequent = words[len(rare) :]
    if not frequent:
        return [("lexemes", _any(words))]
    tiers = [("title", _any(words))]
    if rare:
        tiers.append(("lexemes", _any(rare)))
    if len(frequent) > 1 or not rare:
        tiers.append(("lexemes", " & ".join(_quoted(word.lexeme) for word in frequent)))
    return tiers


def _any(words: Sequence[Word]) -> str:
    return " | ".join(_quoted(word.lexeme) for word in words)


def _quoted(lexeme: str) -> str:
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _said(asked: Asked) -> tuple[str, list[Any]]:
    """How well a paper says the words: an expression over the table s, and its values.

    1 is about a paper that says each word many times. ts_rank of one word grows with each place
    where it stands, less and less, as in BM25; ts_rank_cd of a pair likewise, by 32, where
    the pair is: asking that first costs less.
    """
    terms = ["%s * ts_rank('{1, 1, 1, 1}', s.lexemes, %s::tsquery)"] * len(asked.words)
    terms += [
        "CASE WHEN s.lexemes @@ %s::tsquery THEN "
        "%s * ts_rank_cd('{1, 1, 1, 1}', s.lexemes, %s::tsquery, 32) ELSE 0 END"
    ] * len(asked.pairs)
    whole = sum(word.weight for word in asked.words)
    values: list[Any] = []
    for word in asked.words:
        values += [word.weight / whole, _quoted(word.lexeme)]
    for pair in asked.pairs:
        weight = PAIRS * max(pair.first.weight, pair.second.weight)
        values += [pair.tsquery, weight / whole, pair.tsquery]
    return f"({' + '.join(terms)})::float8", values


# --- Fusion ---------------------------------------------------------------------------------------

# Chosen by `evaluate_search --half a`; docs/evaluation.md has the figures of the other half.
PAIRS = 2.0  # the weight of two words in a row, beside the rarer one of them
MEANING = 0.4  # of the paper closest in meaning, beside 1 for one that says all the words
LEAST_MEANING = 0.25  # of that, where a word singles papers out
EQUAL = 60  # of reciprocal ranks: how little the first ones differ


def order(found: Sequence[Candidate], asked: Asked) -> list[int]:
    """Ids, the best first: how well the words are said, and the rank of the meaning, weighted.

    Plain reciprocal-rank fusion of both loses: a query's words say much more than its vector, and
    how much better one paper says them than the next is lost in ranks. The meaning counts for the
    more, the more papers have even the rarest of the words, and the less any paper says them all.
    """
    scores = {candidate.paper_id: candidate.words for candidate in found}
    common = LEAST_MEANING + (1 - LEAST_MEANING) * min(1.0, 2 * asked.share)
    weight = MEANING * max(common, 1 - max(scores.values(), default=0.0))
    near = [(c.meaning, c.paper_id) for c in found if c.meaning is not None]
    for rank, (_, paper_id) in enumerate(sorted(near, reverse=True)):
        scores[paper_id] += weight * EQUAL / (EQUAL + rank)
    return sorted(scores, key=lambda paper_id: (-scores[paper_id], -paper_id))


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


def forget_encoder() -> None:
    """Look again which encoder serves."""
    _serving.cache_clear()
    _serving_encoder.cache_clear()


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
