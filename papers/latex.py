"""LaTeX fragments in titles and abstracts become readable Unicode text.

Abstracts are not LaTeX documents: "$5 million", "C:\\path" and "x_i" stand beside "$\\ell_p$" and
'Schr\\"odinger'. So nothing here follows TeX's grammar. One scanner goes over the text once, acts
on what is unmistakably LaTeX and copies the rest as it is. It never raises and takes linear time;
words are never lost: of an unknown macro the arguments stay, or else its name.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache
from html.entities import html5

from pylatexenc.latex2text import get_default_latex_context_db

MAX_DEPTH = 40  # deeper nesting is copied as it is
MAX_MATH = 1500  # characters between two dollar signs that can still be one formula

# NUL is removed from the input, so it can mean "a space, if letters or digits meet here".
_BOUNDARY = "\0"

_TOKEN = re.compile(
    r"\\(?:[A-Za-z]+(?:\*(?=\{))?|.)|https?://[^\s\\{}$]+|\$\$|[${}^_~]|``|''|[`']|--+", re.DOTALL
)
_PAIRED = re.compile(r"\\.|\$\$|[${}]", re.DOTALL)
_MONEY = re.compile(r"\s*\d[\d.,]*[kKmMbBtT]?[\s-]+[A-Za-z]{2,}")
_PROSE = re.compile(r"[A-Za-z]{2,}\s+[A-Za-z]{2,}")
_QUOTED = re.compile(r"``(?=(?:(?!``)[^\0]){1,400}?(?:''|\"))")
_SINGLE_QUOTED = re.compile(r"`[^`'\n]{1,80}(?='(?![A-Za-z]))")
_ESCAPED_QUOTE = re.compile(r'\\"[^\\"]{1,60}\\"(?![A-Za-z{])')
_CONTRACTION = re.compile(r"\\'(?:s|m|re|ll)\b")
# {\i} {e} {Cech} | \i | e after a space | e
_ACCENTED = re.compile(
    r"\{\\?([^\W\d_])([^\W\d_]{0,30})\}|\\([ij])(?![A-Za-z]) ?| ([^\W\d_])|([^\W\d_])"
)
_UNC_PATH = re.compile(r"\\\\[\w.$-]+\\[\w$.-]\S*")
_PLACEHOLDER = re.compile(r"[A-Z][A-Za-z0-9-]*|")
# 12.5, a word, or one character with its marks: no parentheses needed in a fraction or root
_ATOM = re.compile(r"\d[\d.]*|[A-Za-z]{3,}|\w[^A-Za-zα-ω0-9\s()+*/,=-]*|[^\w\s]|")
_WORD = re.compile(r"[A-Za-z]{3,}")
# Macros whose backslash a scraper has dropped, still recognisable by their brace or capital.
_LOST_BACKSLASH = re.compile(
    r"(?<![\\\w])(?=(?:mathcal|mathbb|mathbf|mathrm|textbf|textit|texttt|sqrt)\{"
    r"|(?:mathcal|mathbb|widetilde|widehat) [A-Z]\b)"
)
_DOUBLED = re.compile(
    r"\\\\(?=([A-Za-z]+)|[{}%&#_,;$\]]|(\[))|\\{2,3}(?=['`^\"~=.]\{?\\?[A-Za-z]|[^\W\d_a-zA-Z])"
)

_SUPERSCRIPT = dict(
    zip(
        "0123456789+-=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWβγδθφχ⊤",
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵝᵞᵟᶿᵠᵡᵀ",
        strict=True,
    )
)
_SUBSCRIPT = dict(
    zip(
        "0123456789+-=()aehijklmnoprstuvxβγρφχ",
        "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ",
        strict=True,
    )
)
_MEETING = re.compile(
    rf"(?<=[^\W_])\0+(?=[^\W_{''.join({*_SUPERSCRIPT.values(), *_SUBSCRIPT.values()})}])"
)
_RAISED = {"∘": "°", "circ": "°", "star": "*", "⋆": "*", "∗": "*"}  # readable without a caret
_DOUBLE_STRUCK = dict(zip("CHNPQRZ", "ℂℍℕℙℚℝℤ", strict=True))
_ROOTS = {"": "√", "2": "√", "3": "∛", "4": "∜"}
_TEXT_ACCENTS = dict(
    zip("`'^\"~=.cvuHkrbdt", "\u0300\u0301\u0302\u0308\u0303\u0304\u0307\u0327\u030c\u0306"
        "\u030b\u0328\u030a\u0331\u0323\u0361", strict=True)
)  # fmt: skip
_MATH_ACCENTS = {
    "hat": "\u0302", "widehat": "\u0302", "bar": "\u0304", "overline": "\u0305",
    "tilde": "\u0303", "widetilde": "\u0303", "vec": "\u20d7", "dot": "\u0307", "ddot": "\u0308",
    "check": "\u030c", "breve": "\u0306", "acute": "\u0301", "grave": "\u0300",
    "mathring": "\u030a", "underline": "\u0332",
}  # fmt: skip
_FRACTIONS = {"frac", "dfrac", "tfrac", "cfrac", "nicefrac", "sfrac"}
_TEXT_IN_MATH = {"text", "textrm", "textbf", "textit", "textsf", "texttt", "mbox", "hbox", "emph"}
_SILENT = {
    "left", "right", "middle", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr",
    "biggl", "biggr", "Biggl", "Biggr", "bf", "it", "rm", "em", "tt", "sc", "sf", "sl", "cal",
    "displaystyle", "textstyle", "scriptstyle", "limits", "nolimits", "noindent", "centering",
    "tiny", "small", "footnotesize", "normalsize", "large", "Large", "xspace", "protect", "relax",
    "null", "mathcal", "mathfrak", "mathscr", "mathbf", "mathrm", "mathit", "mathsf", "mathtt",
    "bm", "boldsymbol", "boldmath", "ensuremath",
}  # fmt: skip
_DROPS_ARGUMENT = {
    "begin", "end", "label", "vspace", "hspace", "color", "textcolor", "colorbox", "fontsize",
}  # fmt: skip
_LETTERS = set("ßøØłŁåÅæÆœŒıȷ")
_SYMBOLS = {
    "S": "§", "P": "¶", "lbrace": "{", "rbrace": "}", "backslash": "\\", "par": " ",
    "newline": " ", "linebreak": " ", "quad": " ", "qquad": " ", "thinspace": " ", "item": " • ",
    "eg": "e.g.", "ie": "i.e.", "etal": "et al.", "etc": "etc.", "aka": "a.k.a.", "wrt": "w.r.t.",
    "prime": "′", "lVert": "‖", "rVert": "‖", "lvert": "|", "rvert": "|", "colon": ":",
    "slash": "/", "degree": "°", "celsius": "°C", "ast": "*", "mid": "|", "coloneqq": "≔",
    "argmax": "arg max", "argmin": "arg min", "bmod": "mod", "cdot": "·",
}  # fmt: skip


def to_text(source: str) -> str:
    """Readable Unicode for a title, abstract or name: one line, no control characters, NFC.

    >>> to_text(r"S$^{2}$FT with $\\ell_p$ and Schr\\"odinger bridges")
    'S²FT with ℓₚ and Schrödinger bridges'
    """
    text = re.sub(r"&(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{2,31});", _entity, source)
    text = "".join(map(_printable, text))
    if not text.isascii() or not text.replace(" ", "").isalnum():
        if "\\\\" in text:  # some archives hold every backslash twice
            closes = "\\\\]" in text
            text = _DOUBLED.sub(lambda match: _undoubled(match, closes), text)
        text = _LOST_BACKSLASH.sub(r"\\", text)
        text = _resolve(_Scanner(text).run(0, len(text), math=False, depth=0))
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _undoubled(match: re.Match[str], closes: bool) -> str:
    macro, bracket = match[1], match[2]
    single = _is_known(macro) if macro else closes or not bracket
    return "\\" if single else match[0]


def _entity(match: re.Match[str]) -> str:
    known = match[1].startswith("#") or f"{match[1]};" in html5
    return html.unescape(match[0]) if known else match[0]


def _printable(char: str) -> str:
    if char.isprintable() or char.isspace():
        return char
    category = unicodedata.category(char)
    return "" if category == "Cc" else "\ufffd" if category == "Cs" else char


def _resolve(text: str) -> str:
    return _MEETING.sub(" ", text).replace(_BOUNDARY, "")


@lru_cache(maxsize=4096)
def _symbol(name: str) -> str | None:
    """The character(s) a macro without arguments stands for."""
    if name in _SYMBOLS:
        return _SYMBOLS[name]
    spec = _CONTEXT.get_macro_spec(name)
    symbol = getattr(spec, "simplify_repl", None)
    # "log" for \log and the like are words, not symbols
    if not isinstance(symbol, str) or symbol == name or re.search(r"%|<\w", symbol):
        return None
    return symbol


_CONTEXT = get_default_latex_context_db()


def _is_known(name: str) -> bool:
    return (
        name in _SILENT | _FRACTIONS | _TEXT_IN_MATH | _DROPS_ARGUMENT | _MATH_ACCENTS.keys()
        or _symbol(name) is not None
        or _CONTEXT.get_macro_spec(name) is not _UNKNOWN
    )


_UNKNOWN = _CONTEXT.get_macro_spec("thereisnosuchmacro")


def _scripted(mark: str, argument: str) -> str:
    """`argument` raised ("^") or lowered ("_"), in Unicode's own characters if it has them all.

    A word of three letters or more stays a word, so that it can be read and searched for.
    """
    text = _resolve(argument).strip()
    table = _SUPERSCRIPT if mark == "^" else _SUBSCRIPT
    if not text.strip("′"):
        return text
    if mark == "^" and (text in _RAISED or text in "*†‡°"):
        return _RAISED.get(text, text)
    if not _WORD.search(text) and all(char in table for char in text):
        return "".join(table[char] for char in text)
    if text.isalnum():
        return f"{mark}{text}{_BOUNDARY}"
    return mark + text if len(text) == 1 else mark + _enclosed(text)


def _accented(base: str, accent: str) -> str:
    """`base` with the accent on its letters, if they are at most two, else on the first."""
    letters = [i for i, char in enumerate(base) if char.isalnum()]
    marked = set(letters if len(letters) <= 2 else letters[:1])
    plain = base.replace("ı", "i").replace("ȷ", "j") if len(base) == 1 else base
    return "".join(char + accent if i in marked else char for i, char in enumerate(plain))


class _Scanner:
    """One pass over one text; `pairs` maps each opening brace and dollar sign to its partner."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.pairs: dict[int, int] = {}
        self.closing_quotes: set[int] = set()
        self.open_quotes = 0
        self.pair()

    def pair(self) -> None:
        braces: list[int] = []
        displays: dict[str, int] = {}
        opener = ""
        start = -1
        for match in _PAIRED.finditer(self.source):
            part, at = match[0], match.start()
            if part == "{":
                braces.append(at)
            elif part == "}":
                if braces:
                    self.pairs[braces.pop()] = at
            elif part in ("\\(", "\\["):
                displays[part] = at
            elif part in ("\\)", "\\]"):
                if (begin := displays.pop("\\(" if part == "\\)" else "\\[", None)) is not None:
                    self.pairs[begin] = at
            elif part[0] == "$":
                if part == "$$" and opener == "$" and self.is_formula(start + 1, at):
                    self.pairs[start] = at
                    opener, start = "$", at + 1  # "$i$$j$"
                elif part == opener and self.is_formula(start + len(part), at):
                    self.pairs[start] = at
                    opener = ""
                else:
                    opener, start = part, at

    def is_formula(self, start: int, end: int) -> bool:
        """Whether two dollar signs enclose mathematics and not "5 million and " or "5, US"."""
        inner = self.source[start : min(end, start + MAX_MATH + 1)]
        if not inner.strip() or len(inner) > MAX_MATH or _MONEY.match(inner):
            return False
        if inner[0].isdigit() and self.source[end + 1 : end + 2].isdigit():
            return False
        if re.search(r"[\\^_{]", inner):
            return True
        currency = self.source[start - 2 : start - 1].isalpha() and not inner[0].isalpha()
        return not currency and not _PROSE.search(inner.strip())

    def run(self, start: int, end: int, *, math: bool, depth: int) -> str:
        out: list[str] = []
        at = start
        while match := _TOKEN.search(self.source, at, end):
            out.append(self.source[at : match.start()])
            text, at = self.token(match, end, math, depth)
            out.append(text)
        out.append(self.source[at:end])
        return "".join(out)

    def token(self, match: re.Match[str], end: int, math: bool, depth: int) -> tuple[str, int]:
        """The text for one part and where to go on."""
        part, at, after = match[0], match.start(), match.end()
        if part[0] == "\\" and len(part) > 1:
            return self.macro(match, end, math, depth)
        close = self.pairs.get(at, end)
        if part[0] == "$" and close < end and not math:
            inner = self.run(after, close, math=True, depth=depth + 1)
            return inner, close + len(part)
        if part == "{" and close < end and depth < MAX_DEPTH:
            inner = self.run(after, close, math=math, depth=depth + 1)
            bare = (
                math
                or self.source[after] == "\\"
                or _PLACEHOLDER.fullmatch(self.source, after, close)
            )
            return (inner if bare else f"{{{inner}}}"), close + 1
        if part in ("^", "_") and (math or self.source[after : after + 1] == "{"):
            argument, rest = self.argument(after, end, math=True, depth=depth)
            return (_scripted(part, argument), rest) if rest > after else (part, after)
        if math:
            return {"~": " ", "'": "′", "''": "″"}.get(part, part), after
        return self.typography(part, at, after, end), after

    def typography(self, part: str, at: int, after: int, end: int) -> str:
        """Quotes, dashes and ties as TeX sets them."""
        before, behind = self.source[at - 1 : at], self.source[after : after + 1]
        if part == "``" and _QUOTED.match(self.source, at):
            self.open_quotes += 1
            return "“"
        if part == "''" and self.open_quotes:
            self.open_quotes -= 1
            return "”"
        if part == "`" and (single := _SINGLE_QUOTED.match(self.source, at)):
            self.closing_quotes.add(single.end())
            return "‘"
        if part == "'" and at in self.closing_quotes:
            return "’"
        if part == "---" or (part == "--" and not (before.strip() == "" and behind.isalpha())):
            return "—" if part == "---" else "–"
        if part == "~" and (behind.isalnum() or behind in "\\$([{`"):
            word = re.search(r"\w*$", self.source[max(0, at - 20) : at])
            number = word is not None and word[0][:1].isdigit() and behind.isdigit()
            if (before.isalnum() or before in ".,;:)]}$'") and before and not number:
                return " "  # a tie; "~5", "7~8" and "a ~ b" mean "about", "to" and "similar"
            if behind == "\\":
                return " "
        return part

    def argument(self, at: int, end: int, *, math: bool, depth: int) -> tuple[str, int]:
        """The next group, macro or character; nothing (and `at` itself) where there is none."""
        start = at
        while start < min(end, at + 20) and self.source[start].isspace():
            start += 1
        if start >= end or depth >= MAX_DEPTH or self.source[start] in "}$":
            return "", at
        close = self.pairs.get(start, end)
        if self.source[start] == "{":
            if close >= end:
                return "", at
            return self.run(start + 1, close, math=math, depth=depth + 1), close + 1
        match = _TOKEN.match(self.source, start, end)
        if match and match[0][0] == "\\" and len(match[0]) > 1:
            return self.macro(match, end, math, depth + 1)
        return self.source[start], start + 1

    def macro(self, match: re.Match[str], end: int, math: bool, depth: int) -> tuple[str, int]:
        """The text for a backslash and what follows it, arguments included."""
        source, at, after = self.source, match.start(), match.end()
        name = match[0][1:].rstrip("*") or "*"
        before = source[at - 1 : at] if at else ""
        if not math and (path := self.windows_path(at, end)):
            return source[at:path], path
        if name in _TEXT_ACCENTS and (not math or name in '`"='):
            text, rest = self.accent(name, at, after, end)
            if rest:
                return text, rest
        if not name.isascii() or not name.isalpha():
            return self.control_symbol(name, at, after, end, math, depth)

        group = source[after : after + 1] == "{" and self.pairs.get(after, end) < end
        rest = after
        while rest < end and source[rest] == " ":
            rest += 1
        if name in _FRACTIONS:
            over, middle = self.argument(after, end, math=True, depth=depth)
            under, final = self.argument(middle, end, math=True, depth=depth)
            if middle > after:
                return f"{_BOUNDARY}{_operand(over)}/{_operand(under)}{_BOUNDARY}", final
        if name == "sqrt":
            return self.root(after, end, depth)
        if name in _MATH_ACCENTS and (math or group or source[after : after + 1] == " "):
            base, final = self.argument(after, end, math=math, depth=depth)
            return _accented(_resolve(base), _MATH_ACCENTS[name]), max(final, after)
        if name == "mathbb":
            base, final = self.argument(after, end, math=True, depth=depth)
            return _DOUBLE_STRUCK.get(base.strip(), base), max(final, after)
        if name in ("url", "path") and group:
            close = self.pairs[after]
            return re.sub(r"\\([_%#&~])", r"\1", source[after + 1 : close]).strip(), close + 1
        if name in ("textsuperscript", "textsubscript") and group:
            base, final = self.argument(after, end, math=False, depth=depth)
            return _scripted("^" if name == "textsuperscript" else "_", base), final
        if name == "deg" and not math:
            return "°", rest if source[rest : rest + 1] == "}" else after
        if (symbol := _symbol(name)) is not None:
            return symbol, self.behind_symbol(symbol, before, after, rest, math)
        if name in _SILENT and not (group and not math):
            delimiter = source[rest : rest + 1] == "." and name in ("left", "right", "middle")
            return "", rest + 1 if delimiter and rest < end else rest
        if group and depth < MAX_DEPTH:
            return self.groups(name, after, end, math, depth)
        return self.bare_name(name, before, after, math)

    def windows_path(self, at: int, end: int) -> int:
        r"""Where a path such as C:\data\new or \\host\share ends, if one goes through `at`."""
        drive = self.source[max(0, at - 3) : at]
        if re.search(r"(?:^|[^A-Za-z])[A-Za-z]:$", drive):
            match = re.compile(r"\\\S*").match(self.source, at, end)
        elif not drive[-1:].strip():
            match = _UNC_PATH.match(self.source, at, end)
        else:
            match = None
        return match.end() if match else 0

    def accent(self, name: str, at: int, after: int, end: int) -> tuple[str, int]:
        """An accented letter, if Unicode has that letter; (text, 0) means there is none."""
        in_word = self.source[at - 1 : at].isalpha() if at else False
        if name == "'" and in_word and (short := _CONTRACTION.match(self.source, at)):
            return short[0][1:], short.end()
        if name == '"' and not in_word and _ESCAPED_QUOTE.match(self.source, at):
            return "", 0
        match = _ACCENTED.match(self.source, after, end)
        if not match or (match[4] and not name.isalpha()):
            return "", 0
        base = match[1] or match[3] or match[4] or match[5]
        letter = unicodedata.normalize("NFC", base + _TEXT_ACCENTS[name])
        return (letter + (match[2] or ""), match.end()) if len(letter) == 1 else ("", 0)

    def control_symbol(
        self, name: str, at: int, after: int, end: int, math: bool, depth: int
    ) -> tuple[str, int]:
        r"""A backslash before anything but an ASCII letter: \%, \\, \(, \μ."""
        if name in "%&#_{}$" or ord(name) > 127:
            return name, after
        if name in "([" and not math and depth < MAX_DEPTH:
            close = self.pairs.get(at, end)
            if close < end:
                return self.run(after, close, math=True, depth=depth + 1), close + 2
        if name == "|" and math:
            return "‖", after
        if name in "!-/" and math:
            return "", after
        if name == '"':
            return name, after
        if name == "'" and not math:
            return name, after
        if name.isspace() or name == "," or (math and name in ";:>"):
            return " ", after
        if name == "\\":
            return ("" if math and self.source[after : after + 1].isalpha() else " "), after
        if name == "-" and self.source[at - 1 : at].isalpha():
            return "", after  # where TeX may break the word
        return (name if math else "\\" + name), after

    def root(self, after: int, end: int, depth: int) -> tuple[str, int]:
        index = re.compile(r"\[([^\[\]]{0,20})\]").match(self.source, after, end)
        base, rest = self.argument(index.end() if index else after, end, math=True, depth=depth)
        if rest == after:
            return "√", after
        degree = index[1].strip() if index else ""
        sign = _ROOTS.get(degree) or _resolve(_scripted("^", degree)) + "√"
        return f"{sign}{_operand(base)}{_BOUNDARY}", rest

    def behind_symbol(self, symbol: str, before: str, after: int, rest: int, math: bool) -> int:
        r"""Where to go on: TeX takes the spaces after a macro, and so do we within words and
        formulas ("Stra\ss e", "n\times d"), but not in "\alpha and" or "n \times d"."""
        if self.source[after : after + 2] == "{}":
            return after + 2
        return rest if symbol in _LETTERS or (math and before.strip()) else after

    def groups(self, name: str, after: int, end: int, math: bool, depth: int) -> tuple[str, int]:
        """A macro with braces: the text of its arguments is what it says."""
        math_inside = (math and name not in _TEXT_IN_MATH) or name == "ensuremath"
        arguments: list[str] = []
        at = after
        while self.source[at : at + 1] == "{" and self.pairs.get(at, end) < end:
            text, at = self.argument(at, end, math=math_inside, depth=depth)
            arguments.append(text)
            if math_inside or name in ("cite", "footnote"):
                break
        first = arguments[0].strip()
        if name in _DROPS_ARGUMENT:
            return " ".join(arguments[1:]), at
        if name == "href" and len(arguments) == 2:
            label = arguments[1].strip()
            return (f"{label} ({first})" if label and label != first else first), at
        if name == "footnote":
            return f" ({first})", at
        if name.startswith(("cite", "Cite")):
            return f"[{', '.join(arguments)}]", at
        edge = _BOUNDARY if math_inside and name.startswith("operatorname") else ""
        return edge + " ".join(arguments) + edge, at

    def bare_name(self, name: str, before: str, after: int, math: bool) -> tuple[str, int]:
        """A macro we know nothing of, with nothing to act on."""
        if self.source[after : after + 2] == "{}":
            after += 2
        if math:
            return f"{_BOUNDARY}{name}{_BOUNDARY}", after
        if name in ("n", "t", "r") and not self.source[after : after + 1].strip():
            return " ", after  # a line break that was escaped once too often
        if before.isalnum():  # "either\or", "TCP\IP"
            return "\\" + name, after
        if name[0] == "n" and name[1:2].isupper():
            return " " + name[1:], after
        return name + (_BOUNDARY if self.source[after : after + 1] != " " else ""), after


def _operand(text: str) -> str:
    """What stands under a root or beside a fraction bar, in parentheses where they are needed."""
    text = _resolve(text).strip()
    return text if _ATOM.fullmatch(text) else _enclosed(text)


def _enclosed(text: str) -> str:
    return text if re.fullmatch(r"\([^()]*\)", text) else f"({text})"
