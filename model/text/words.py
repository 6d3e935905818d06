"""Abbreviations, acronyms, Roman numerals, addresses and signs between words, as they are said."""

import re

from .numerals import cardinal, ordinal
from .tables import pairs

TITLES = pairs("titles")
ABBREVIATIONS = TITLES | pairs("abbreviations")
NUMBERED = pairs("numbered")
"""Only before a number: "p. 5" and "Fig. 3", but "a bit of art."."""
CAPITALS = pairs("capitals")
"""Words in capitals, acronyms read as words or in part; and those that look like words and are not.
Others of two or three letters are spelled, longer ones with a vowel are read."""
LOWER = (
    "https http html css urls url usb gpus gpu cpus cpu apis api sql pdfs pdf ftp ssh faqs faq "
    "dvds dvd tvs tv"
).split()
BEFORE_NUMERALS = pairs("before_numerals")
"""What a Roman numeral is behind a name of rulers (ordinal), and behind "chapter" (cardinal)."""
CROWNS = ("King", "Queen", "Pope", "Emperor", "Tsar", "Sultan", "Prince")
CLAUSE = r"(?!\s(?:think|am|was|have|had|will|would|can|could|do|did|know|saw|see|said|like)\b|')"
ROMAN = dict(zip("IVXLCDM", (1, 5, 10, 50, 100, 500, 1000), strict=True))
WELL_FORMED = re.compile(r"M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")
SIGNS = pairs("signs")
WEB = re.compile(
    r"(?<![\w@.])(?:(https?|ftp)://|www\.)[^\s,;()\"]+|(?<![\w@.])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?<![\w@.])(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|io|co|uk|de|ai|dev|info)\b(?:/[^\s,;()\"]*)?"
)


def any_of(table: dict[str, str]) -> str:
    """A pattern of all keys, those in small letters with a capital too."""
    keys = {*table, *(key[0].upper() + key[1:] for key in table)}
    return "|".join(re.escape(key) for key in sorted(keys, key=len, reverse=True))


NUMBERED_FOUND = re.compile(
    rf"(?<![\w.])({any_of(NUMBERED)})\.(?:\s?(?=\d)|\s(?=(?:[IVXLCDM]+|[ivx]+)\b))"
)
DOTTED_FOUND = re.compile(rf"(?<![\w.])({any_of(ABBREVIATIONS)})\.(?!\w)")
IN_ADDRESS = pairs("addresses")


def read_abbreviations(text: str) -> str:
    """One sentence with addresses, titles and what is written with dots in full."""
    text = WEB.sub(_web, text)
    text = re.sub(r"(?<=[A-Za-z][a-z][.?!])(?=[A-Z])(?<!Ph\.)", " ", text)
    text = streets(text)
    text = NUMBERED_FOUND.sub(lambda m: _in_full(m[1], NUMBERED, True) + " ", text)
    text = DOTTED_FOUND.sub(lambda m: _in_full(m[1], ABBREVIATIONS, False), text)
    text = re.sub(
        rf"(?<![\w.'-])({'|'.join(TITLES)})(?=\s(?:[A-Z]|and\s))", lambda m: TITLES[m[1]], text
    )
    text = re.sub(r"(?<![\w.'-])(etc|vs|eg|ie)(?![\w.'-])", lambda m: ABBREVIATIONS[m[1]], text)
    text = re.sub(r"\b(?:[A-Za-z]\.){2,}", lambda m: m[0].replace(".", " ").upper(), text)
    text = re.sub(r"\b([A-Z])\.(?=\s+[A-Z]|\s*[,'-])", r"\1", text)
    text = re.sub(r"\b([wW])/(?=\s|\w{3})", r"\1ith ", text)
    return re.sub(r"\b([cC])/o\b", r"\1are of", re.sub(r"\b([wW])/o\b", r"\1ithout", text))


def _in_full(short: str, table: dict[str, str], cased: bool) -> str:
    full = table.get(short) or table[short[0].lower() + short[1:]]
    return full.capitalize() if cased and short[0].isupper() else full


def streets(text: str) -> str:
    """Dr. and St. are of a street behind its name, and else before a person's or a saint's."""
    number = r"(?<=\d\s)((?:(?:[NSEW]\.?|[A-Z][a-z]+|\d+\w\w)\s){1,3})"
    for short, street, person in (("St", "Street", "Saint"), ("Dr", "Drive", "Doctor")):
        text = re.sub(rf"{number}{short}\b\.?", rf"\1{street}", text)
        text = re.sub(rf"\b{short}\b\.?(?=\s+[A-Z])", person, text)
        behind_name = r"(?<=[a-z])(?<!\bthe)(?<!\ba)\s"
        text = re.sub(rf"(\b[A-Z]\w*{behind_name}){short}\b\.?(?![\w'])", rf"\1{street}", text)
        text = re.sub(rf"\b{short}\.", street if short == "St" else person, text)
    return text


def _web(match: re.Match[str]) -> str:
    """An address with its marks as words."""
    written = match[0].rstrip(".?!:'")
    scheme = f"{' '.join(match[1].upper())}, " if match[1] else ""
    rest = written.partition("://")[2] if match[1] else written
    said = re.sub(r"[^\w]|_", lambda m: f" {IN_ADDRESS.get(m[0], m[0])} ", rest.rstrip("/"))
    return scheme + said + match[0][len(written) :]


def read_words(text: str) -> str:
    """One sentence, its numbers in words, with Roman numerals, acronyms and joined words read."""
    text = re.sub(r"(?<=\w)\.(?=[a-z])", " dot ", text)
    text = re.sub(r"\b([A-Za-z]+)((?:\s[A-Z][a-z]+)?)\s([IVXLCDMivxlcdm]+)\b('s)?", _roman, text)
    text = re.sub(
        r"(?<![\w-])(?:II|III|VI{1,3}|IX|X[IV]{1,4}|XI?X|XXI?)(?![\w'-])(?=\s(century|Corps)|)",
        lambda m: (ordinal if m[1] else cardinal)(_arabic(m[0])), text,
    )  # fmt: skip
    text = re.sub(r"\b([A-Z])#", r"\1 sharp", re.sub(r"#(?=[A-Za-z])", "hashtag ", text))
    text = re.sub(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", " ", text)
    if is_shouted(text):
        return text
    text = re.sub(r"(?<=[a-z])(?=[A-Z]{2,})|(?<=[A-Z]{2})(?=[A-Z][a-z]{2,})", " ", text)
    text = re.sub(r"\b(?:PhD|Ph\.D)(s?)\b", lambda m: f"P H D{m[1] and chr(39)}{m[1]}", text)
    text = re.sub(r"(?<![\w'])([A-Z]{2,})('s|s)?(?![\w])", _acronym, text)
    letters = "|".join(LOWER)
    return re.sub(rf"(?<![\w'])(?:{letters})(?![\w'])", lambda m: _spell(m[0]), text)


def is_shouted(text: str) -> bool:
    """Whether a sentence is in capitals throughout, where they say nothing."""
    words = re.findall(r"[A-Za-z']{2,}", text)
    return len(words) > 1 and all(word.isupper() for word in words)


def _spell(word: str) -> str:
    plural = word.endswith("s") and word not in ("https", "css")
    return " ".join(word.removesuffix("s").upper() if plural else word.upper()) + "'s" * plural


def _acronym(match: re.Match[str]) -> str:
    """Letters, unless it is read as a word, or is a word in capitals for emphasis."""
    word, spelled = match[1], " ".join(match[1])
    is_read = len(word) > 3 and re.search("[AEIOUY]", word)
    said = CAPITALS.get(word) or (word if is_read else spelled)
    if not match[2]:
        return said
    return said + ("'s" if said == spelled else match[2])


def _arabic(numeral: str) -> int:
    values = [ROMAN[letter] for letter in numeral.upper()]
    return sum(
        -one if any(one < later for later in values[place + 1 :][:1]) else one
        for place, one in enumerate(values)
    )


def _roman(match: re.Match[str]) -> str:
    """`Henry VIII` -> the eighth, `Chapter IX` -> nine; `I` mostly is no number."""
    word, second, numeral, ending = match[1], match[2], match[3], match[4] or ""
    name = (second or word).strip()
    if not WELL_FORMED.fullmatch(numeral.upper()) or (
        numeral.islower() and numeral.upper() == numeral
    ):
        return match[0]
    after = match.string[match.end() :]
    counted = BEFORE_NUMERALS.get(name.lower()) == "cardinal" and (
        numeral.isupper() or len(numeral) > 1 or numeral in "vx"
    )
    if counted and not (numeral == "I" and not re.match(CLAUSE, after)):
        return f"{word}{second} {cardinal(_arabic(numeral))}{ending}"
    if not numeral.isupper() or not name[0].isupper():
        return match[0]
    crowned = BEFORE_NUMERALS.get(name) == "ordinal" or word in CROWNS
    if crowned and set(numeral) <= set("IVX") and (numeral != "I" or regnal_first(after)):
        return f"{word}{second} the {ordinal(_arabic(numeral))}{ending}"
    if (
        len(numeral) > 1
        and set(numeral) <= set("IVX")
        and name not in ("The", "An", "A", "My", "His")
    ):
        return f"{word}{second} {cardinal(_arabic(numeral))}{ending}"
    return match[0]


def regnal_first(after: str) -> bool:
    """Whether "Elizabeth I" goes on as a queen and not as the speaker."""
    return bool(re.match(r"\s?(?:$|[.,;:?!)]|(?:of|was|is|had|died|ruled|became|and|in)\b)", after))


def read_signs(text: str) -> str:
    """One sentence, its numbers in words, with the signs left over said."""
    text = re.sub(r"(?<!\w)~(?=\s?\w)", "about ", text)
    text = re.sub(r"(?<![\w-])([A-F])-(?![\w-])", r"\1 minus", text)
    text = re.sub(r"(?<![\w/])~?/(?=\w)[\w./-]+", _path, text)
    text = re.sub(r"/", " ", text)
    text = re.sub(r"_{2,}", " blank ", text)
    text = text.replace("_", " underscore ").replace("~", " tilde ").replace("|", ", ")
    text = re.sub(
        r"\+/-|<=|>=|!=|==|<->|-->?|->|=>|<-", lambda m: f" {SIGNS.get(m[0], m[0])} ", text
    )
    for sign, word in SIGNS.items():
        text = text.replace(sign, f" {word} ") if len(sign) == 1 else text
    return text


def _path(match: re.Match[str]) -> str:
    return re.sub(r"[/.~-]", lambda m: f" {IN_ADDRESS[m[0]]} ", match[0])
