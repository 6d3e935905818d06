"""What people write around the words: Markdown and HTML, spellings, pauses and a lexicon.

Markdown is parsed by markdown-it-py (MIT, CommonMark) and read as prose. What asks for a way of
speaking that is not there is refused by its name, never read aloud. Emphasis (`*so*`, `_so_`)
stands between `STRESS` and `RELAX` while the text around it is read.
"""
# ruff: noqa: RUF001

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ..errors import InputError
from ..files import read_regular
from .phonemes import PHONES, plural
from .tables import pairs

LONGEST_PAUSE = 10.0
"""Seconds."""
MOST_LEXICON = 2**24
"""Bytes."""
STRESS, RELAX = "\ufdd0", "\ufdd1"  # no characters by Unicode: no text and no entity makes them
IPA = pairs("ipa")
SILENT = "ˈˌ.ˑ ‿͡/-"
SPELLING = re.compile(r"\{((?:[A-Z]{1,2} )*[A-Z]{1,2})\}")
"""`{EY AY}`: phones in the midst of text, as they pass through normalising."""
SSML = (
    "speak break emphasis prosody say-as phoneme sub voice audio mark amazon:effect lang"
).split()
BLOCKS = ("p div br li ul ol h1 h2 h3 h4 h5 h6 tr table blockquote pre hr td th section").split()
INLINE = (
    "a b i u s em strong span code small big sub sup del ins mark q cite kbd font img abbr"
).split()
ATTRIBUTES = r"(?:\s+[\w:-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'>]+))*\s*/?"
TAG = re.compile(rf"</?([A-Za-z][\w:-]*){ATTRIBUTES}>")
MANNERS = re.compile(
    r"[\[<]((?:laugh|chuckle|sigh|gasp|cough|groan|yawn|sniff|sniffle|whisper|shout|breath)"
    r"(?:s|es|ter|ing)?|clears throat|music|applause|emphasis|loud|soft|slow|fast|happy|sad|angry|"
    r"excited|silence)[\]>]", re.IGNORECASE,
)  # fmt: skip
MARKED_PART = re.compile(
    r"""(?<![\w*])(?:
        \*\w(?:[^*\n]*\w)?\*[^\W\d]\w*  # *un*known, *1990*s
        |\w*[^\W\d]\*\w+\*  # un*known*
        |[^\W\d]{2,}\*[^\W\d]{2,}\*[^\W\d]{2,}  # fan*tas*tic; not a*b*c, which is multiplied
    )(?![\w*])""", re.VERBOSE,
)  # fmt: skip
"""Emphasis of a part of a word: all of the word is emphasised."""
PAUSE = re.compile(r"\[(?:pause|break|silence)\b:?\s*([^\]]*)\]", re.IGNORECASE)


def phones_of(spelling: str) -> str:
    """ARPAbet (`T AH M EY T OW`, stress ignored) or IPA (`təmeɪtoʊ`) to phones between spaces.

    Raises:
        InputError: A sign is neither.
    """
    arpabet = re.sub(r"(?<=[A-Z])[012]\b", "", spelling).split()
    if arpabet and set(arpabet) <= set(PHONES):
        return " ".join(arpabet)
    rest, phones = "".join(sign for sign in spelling if sign not in SILENT), []
    while rest:
        size = next((n for n in (3, 2, 1) if rest[:n] in IPA and len(rest) >= n), 0)
        if rest[0] == "ː":
            rest = rest[1:]
        elif not size:
            raise InputError(
                f"{rest[0]!r} in the spelling {spelling!r} is no IPA sign of English: use IPA or "
                f"the phones {' '.join(PHONES)}"
            )
        else:
            phones.append(IPA[rest[:size]])
            rest = rest[size:]
    if not phones:
        raise InputError("an empty spelling: write [word|its sounds], as in [AI|eɪ aɪ]")
    return " ".join(phones)


def read_lexicon(path: Path) -> dict[str, str]:
    """A personal lexicon, a word and its IPA or ARPAbet behind a tab on each line; # is a comment.

    Raises:
        InputError: The file cannot be read, or a line is something else.
    """
    try:
        lines = read_regular(path, MOST_LEXICON).decode("utf-8-sig").splitlines()
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"lexicon {path}: {error}") from None
    lexicon = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        word, tab, spelling = line.partition("\t")
        if not tab or not word.strip():
            raise InputError(f"lexicon {path}, line {number}: write a word, a tab and its sounds")
        try:
            lexicon[word.strip()] = phones_of(spelling)
        except InputError as error:
            raise InputError(f"lexicon {path}, line {number}: {error}") from None
    return lexicon


def respell(text: str, lexicon: Mapping[str, str]) -> str:
    """The words of a lexicon replaced by their phones; case counts only for words in capitals."""
    for word, phones in sorted(lexicon.items(), key=lambda entry: -len(entry[0])):
        flags = 0 if word.isupper() else re.IGNORECASE
        said = {"": f"{{{phones}}}", "'s": f"{{{phones} {plural(phones)}}}"}
        found = rf"(?<![\w{{|]){re.escape(word)}('s|)(?![\w|])"
        text = re.sub(found, lambda m, said=said: said[m[1]], text, flags=flags)
    return text


def split_pauses(text: str) -> list[tuple[str, float | None]]:
    """Stretches of text, each with the seconds of `[pause 500ms]` behind it, or None.

    Raises:
        InputError: The length of a pause is none, or too long.
    """
    parts = PAUSE.split(text)
    lengths: list[float | None] = [_seconds(length) for length in parts[1::2]]
    return list(zip(parts[::2], [*lengths, None], strict=True))


def _seconds(length: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|sec|seconds?)", length.strip().lower())
    value = float(found[1]) / (1000 if found[2] == "ms" else 1) if found else 0.0
    if not 0 < value <= LONGEST_PAUSE:
        raise InputError(
            f"[pause {length}] has no length up to {LONGEST_PAUSE:.0f} s: write [pause 500ms] or "
            "[pause 1.5s]"
        )
    return value


def prose(text: str, emphasis: bool = False) -> str:
    """Text without markup: blocks between blank lines, spellings as `{EY AY}`.

    Args:
        emphasis: Whether it is understood: it stands between `STRESS` and `RELAX`.

    Raises:
        InputError: Markup that asks for a manner of speaking, by its name.
    """
    text = re.sub(f"[{STRESS}{RELAX}]", " ", text)
    manner = MANNERS.search(text)
    if manner:
        raise InputError(f"{manner[0]} asks for a manner of speaking, and there is none: delete it")
    text = re.sub(r"\[([^\[\]|{}\n]+)\|([^\[\]|\n]+)\]", lambda m: f"{{{phones_of(m[2])}}}", text)
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.DOTALL)
    text = TAG.sub(_tag, text)
    text = re.sub(r"\[\^\w+\]:?", " ", text)  # marks of footnotes
    text = re.sub(r"^([ \t]*[-*+] )\[[ xX]\] ", r"\1", text, flags=re.MULTILINE)
    if not re.search(r"[*_`#~>|\[\\&=]|^\s*(?:[-+]|\d+[.)])\s", text, flags=re.MULTILINE):
        return text
    text = MARKED_PART.sub(lambda m: f"*{m[0].replace('*', '')}*", text)
    text = re.sub(r"(?<=\w)\*(?=\w)|(?<=\w)~~(?=\w)", r"\\\g<0>", text)  # 2*3*4
    text = re.sub(r"^>(?=\s?\d)", r"\\>", text, flags=re.MULTILINE)
    return "\n\n".join(blocks(parser().parse(text), emphasis))


def _tag(match: re.Match[str]) -> str:
    """What stands for one tag: HTML breaks or nothing; the name within others."""
    name = match[1].lower()
    if name in SSML:
        raise InputError(
            f"{match[0]} is SSML, which is not spoken: write [pause 500ms] for a pause"
        )
    if name in BLOCKS:
        return "\n\n"
    return "" if name in INLINE else f" {match[1]} "


@cache
def parser() -> MarkdownIt:
    """CommonMark and tables, without HTML, references and code by indentation."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    return markdown.disable(["code", "reference", "html_block", "html_inline"])


def blocks(tokens: list[Token], emphasis: bool = False) -> list[str]:
    """The text of each block, in order; the cells of a row are one. InputError as of `prose`."""
    found: list[str] = []
    item, row = "", None
    for token in tokens:
        if token.type == "list_item_open":
            # a year at the start of a line is no number of an item
            item = f"{token.info}{',' if len(token.info) < 4 else '.'} " if token.info else ""
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close" and row:
            found.append(", ".join(cell for cell in row if cell))
            row = None
        elif token.type in ("fence", "inline"):
            said = (
                token.content if token.type == "fence" else _inline(token.children or [], emphasis)
            )
            (found if row is None else row).append(item + said.strip())
            item = ""
    return found


def _inline(tokens: list[Token], emphasis: bool) -> str:
    said = []
    for place, token in enumerate(tokens):
        if token.type == "em_open" and not emphasis:
            word = tokens[place + 1].content
            raise InputError(
                f"{token.markup}{word}{token.markup} asks for emphasis, which is not spoken: take "
                f"the {token.markup} away"
            )
        if token.type == "image" and token.children:
            said.append(_inline(token.children, emphasis))
        elif token.type in ("em_open", "em_close"):
            said.append(STRESS if token.type == "em_open" else RELAX)
        else:
            said.append("\n" if token.type.endswith("break") else token.content)
    return "".join(said)


def set_apart(text: str) -> str:
    """Prose with `STRESS` and `RELAX` as words of their own, around whole words."""
    text = re.sub(rf"({RELAX})(['’]?\w+)", r"\2\1", text)  # *Titanic*'s
    text = re.sub(rf"(?<=\w)-(?={STRESS})|(?<={RELAX})-(?=\w)", "", text)  # *well*-known
    text = text.replace(STRESS, f" {STRESS} ").replace(RELAX, f" {RELAX} ")
    # the stop of a sentence is not emphasised, but stays with its abbreviation
    return re.sub(rf"(?<!\.\w)([.,;:?!…\"')]+) {RELAX} ", rf" {RELAX}\1", text)
