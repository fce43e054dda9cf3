"""LaTeX becomes Unicode, and nothing else changes."""

from __future__ import annotations

import ast
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papers.latex import to_text
from tests.real_inputs import ABSENT, DATA


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"S$^{2}$FT", "S²FT"),
        (r"$\ell_p$ norms", "ℓₚ norms"),
        (r"$\alpha$-divergence", "α-divergence"),
        (r"$O(n^{3/2})$", "O(n^(3/2))"),
        (r"$\mathcal{O}(\sqrt{T})$ and ${\mathcal O}(\sqrt {dK})$", "O(√T) and O(√(dK))"),
        (r"$10\times$ faster, 100$\%$ of 5\%", "10× faster, 100% of 5%"),
        (r"$\frac{a}{b}$, $\frac{a+1}{2}$, $2\frac12$", "a/b, (a+1)/2, 2 1/2"),
        (r"$n\log n$ and $\log\log n$", "n log n and log log n"),
        (r"$x \in \mathbb{R}^{n\times d}$", "x ∈ ℝ^(n×d)"),
        (r"$\hat{x}_{i,j}$, $x_{max}$, $\bar F$", "x̂_(i,j), x_max, F̄"),
        (r"CO$_2$, ${}^4$He, Fe$^{3+}$, 90$^\circ$, $A^\top$", "CO₂, ⁴He, Fe³⁺, 90°, Aᵀ"),
        (r"$\sqrt[3]{x}$, $f''$, $A^*$, $\{0,1\}$", "∛x, f″, A*, {0,1}"),
        (r"\[ x^2 \] \(y\) $$z$$", "x² y z"),
        (r"$\text{if } p \le 1$", "if p ≤ 1"),
        (r"10^{19} outside formulas", "10¹⁹ outside formulas"),
    ],
)
def test_formulas_become_unicode(source: str, text: str) -> None:
    assert to_text(source) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("``word''", "“word”"),
        ("a `word' and ``two words''", "a ‘word’ and “two words”"),
        ("pages 1--2---3", "pages 1–2—3"),
        ("a.k.a.~the, Fig.~5", "a.k.a. the, Fig. 5"),
        (r"Schr\"odinger, na\"{\i}ve, Fran\c{c}ois, It\^o", "Schrödinger, naïve, François, Itô"),
        (r"\L ukasz, Stra\ss e, \v{C}ech", "Łukasz, Straße, Čech"),
        (r"models\' and GPT-4o\'s \"0.7 eV\" observed", "models' and GPT-4o's \"0.7 eV\" observed"),
        (r"\textbf{bold \emph{and} more}, {\em all}", "bold and more, all"),
        (r"R\&D, \$5, a\_b", "R&D, $5, a_b"),
        (r"\url{https://x.org/a\_b}", "https://x.org/a_b"),
        (r"\href{https://x.org}{our page}", "our page (https://x.org)"),
        (r"see~\cite{x}\footnote{Or not.}", "see [x] (Or not.)"),
        (r"we propose \name, and \name\ wins", "we propose name, and name wins"),
        (r"\unknown{two}{words}", "two words"),
        (r"360{\deg}, {\Theta}(40K)", "360°, Θ(40K)"),
        (r"$p=1.3\\pm0.3$ of \β\\ decay", "p=1.3±0.3 of β decay"),
        (r"Schr\\\"odinger, Jos\\'{e}, L\\'evy, M\\öbius", "Schrödinger, José, Lévy, Möbius"),
        (r"a \\ 'quoted' line", "a 'quoted' line"),
        ("R&amp;D &lt; 3", "R&D < 3"),
    ],
)  # fmt: skip
def test_text_macros_and_typography_become_unicode(source: str, text: str) -> None:
    assert to_text(source) == text


@pytest.mark.parametrize(
    "text",
    [
        "$5 million and $6 million",
        "$5, $6 and $7, from US$ 8 to A$ 9",
        r"C:\path, C:\new\times and \\host\share",
        "snake_case and x_i and L^2",
        "100% of",
        "a ~ b, ~5 of 7~8",
        "R&D, AT&T; and &c;",
        "^ and { and } and \\",
        "an odd $ sign",
        "labels in {0, 1}",
        r"either\or",
        "run it with --verbose",
        "https://x.org/~me/a--b_c",
        "don't, 'single' and \"double\"",
        "日本語 и русский",
    ],
)
def test_what_only_looks_like_latex_survives(text: str) -> None:
    assert to_text(text) == text


def test_whitespace_is_folded_and_control_characters_go() -> None:
    assert to_text("  Two\r\n   lines\tand\x00 a\x07 bell\x9f ") == "Two lines and a bell"
    assert to_text("half a pair \ud800") == "half a pair \ufffd"


@given(st.text() | st.text(alphabet="\\{}$^_~`'\"-[]() ab1"))
def test_any_text_is_read_without_an_error(source: str) -> None:
    text = to_text(source)
    assert text == " ".join(text.split())
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in text)


@given(st.text(alphabet="abcXYZ 0123.,:;!?()éß日", max_size=80))
def test_ordinary_text_stays_as_it_is(source: str) -> None:
    assert to_text(source) == " ".join(source.split())


@pytest.mark.parametrize(
    "piece",
    ["{", "$", "\\", "{$\\", "^{", "\\hat", "\\frac", "\\'{", "``a", "`", "\\[", "\\\\[ ", "~\\"],
)
@pytest.mark.parametrize("closing", ["", "}", "$"])
def test_a_hostile_text_is_read_to_its_end(piece: str, closing: str) -> None:
    """A parser that looks back for each of 200,000 characters would not come there for hours."""
    source = piece * (100_000 // len(piece)) + closing * 100_000
    text = unicodedata.normalize("NFKD", to_text(f"{source} end of it"))
    # An accent or a fraction may have taken some of the letters; none is lost.
    assert "".join(char for char in text if char.isalpha()).endswith("endofit")


@pytest.mark.skipif(not (DATA / "hf_daily").is_dir(), reason=ABSENT)
def test_real_abstracts_lose_no_word_and_are_stable() -> None:
    # macro names, words split by an accent, and markup whose backslash a scraper dropped
    markup = re.compile(
        r"\\+[A-Za-z]+|[A-Za-z]*\\[\"'^`~][A-Za-z]+|\b(mathcal|textit|sqrt)\b|{circ}"
    )
    for file in sorted((DATA / "hf_daily").glob("2025-0[67]*.json")):
        for entry in json.loads(file.read_text()):
            paper = (ast.literal_eval(entry) if isinstance(entry, str) else entry)["paper"]
            for source in (paper["title"], paper["summary"]):
                text = to_text(source)
                compatible = unicodedata.normalize("NFKC", text)
                words = set(re.findall(r"[A-Za-z]{4,}", markup.sub(" ", source)))
                assert not {word for word in words if word not in compatible}
                assert to_text(text) == text
