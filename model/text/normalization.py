"""How written English is said: abbreviations, money and symbols by rules, numbers by `wetext`."""

import re
from functools import cache

from ..errors import InputError

ABBREVIATIONS = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor",
    "Capt": "Captain", "Col": "Colonel", "Gen": "General", "Lt": "Lieutenant",
    "Sgt": "Sergeant", "Rev": "Reverend", "Hon": "Honorable", "Jr": "Junior", "Sr": "Senior",
    "Messrs": "Messieurs", "Mt": "Mount", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road",
    "Co": "Company", "Corp": "Corporation", "Inc": "Incorporated", "Ltd": "Limited",
    "etc": "et cetera", "vs": "versus", "approx": "approximately", "dept": "department",
    "Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "Aug": "August",
    "Sept": "September", "Oct": "October", "Nov": "November", "Dec": "December",
    "e.g": "for example", "i.e": "that is", "a.m": "A M", "p.m": "P M", "Ph.D": "P H D",
}  # fmt: skip
SYMBOLS = {"&": "and", "%": "percent", "@": "at", "+": "plus", "=": "equals"}
MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
SCALES = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion"}
DECADES = {
    "0": "hundreds", "1": "tens", "2": "twenties", "3": "thirties", "4": "forties",
    "5": "fifties", "6": "sixties", "7": "seventies", "8": "eighties", "9": "nineties",
}  # fmt: skip

# Each: what is written, and what is said or a way wetext reads correctly; applied in this order.
NUMBERS = [
    (r"\b24/7\b", "24 7"),
    (r"\bNo\.(?=\s*\d)|#(?=\d)", "Number "),
    (r"(?<=[a-z])/(?:h|hr|hour)\b", " per hour"),
    (r"(?<=[a-z])/(?:s|sec|second)\b", " per second"),
    (r"(?<=[\da-z])/(?=(?:minute|day|week|month|year|person)\b)", " per "),
    (r"(?<!\d)\+(?=\d)", "plus "),
    (r"\b(1[1-9]\d\d|20\d\d)-(1[1-9]\d\d|20\d\d)\b", r"\1 to \2"),
    # wetext says "thousand two hundred" for 1,200
    (r"(?<![\d,.])1,(?:000|0{0,2}(\d{1,3}))(?![\d,]*\d)", r"1 thousand \1"),
]
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
# A day stands alone or before a year: "In May 10 people came" has none.
MONTH_DAY = re.compile(rf"\b({MONTHS})\s+(\d{{1,2}})(?=\s*(?:[,.;:?!)]|$|\d{{4}}\b))(?![,.:]\d)")
DAY_MONTH = re.compile(rf"\b(the\s+)?(\d{{1,2}})\s+({MONTHS})\b")
DECADE = re.compile(r"(?<!\d)(1[1-9]|20)?'?(\d)0'?s\b")
CASH = re.compile(
    r"([$£€])\s?(\d[\d,]*)(?:\.(\d+))?(?:\s?(k|m|bn|b|thousand|million|billion|trillion)\b)?"
)


def expand(text: str) -> str:
    """Abbreviations, initials, money, and symbols between words; plain numbers stay digits."""
    text = re.sub(r"(?<=[A-Za-z][a-z][.?!])(?=[A-Z])(?<!Ph\.)", " ", text)
    text = re.sub(r"\bSt\.(?=\s+[A-Z])", "Saint", text)
    text = re.sub(r"\bSt\.", "Street", text)
    text = re.sub(r"\betc\.(?=\s+[A-Z])", "et cetera.", text)
    for short, full in ABBREVIATIONS.items():
        spelling = f"[{short[0].upper()}{short[0].lower()}]" if short[0].islower() else short[0]
        text = re.sub(rf"(?<![\w.]){spelling}{re.escape(short[1:])}\.(?!\w)", full, text)
    text = re.sub(r"\b(?:[A-Za-z]\.){2,}", lambda m: m[0].replace(".", " ").upper(), text)
    text = MONTH_DAY.sub(lambda m: f"{m[1]} {ordinal(m[2])}", text)
    text = DAY_MONTH.sub(lambda m: f"{m[1] or 'the '}{ordinal(m[2])} of {m[3]}", text)
    text = CASH.sub(cash, text)
    text = DECADE.sub(decade, text)
    for written, said in NUMBERS:
        text = re.sub(written, said, text)
    text = re.sub(r"(?<=\w)\.(?=[a-z])", " dot ", text)
    text = re.sub(r"(?<=\D)/|/(?=\D)", " ", text)
    for symbol, word in SYMBOLS.items():
        # wetext reads the symbol itself where it stands by a number
        text = re.sub(rf"(?<![\d\s]){re.escape(symbol)}|{re.escape(symbol)}(?!\s*\d)(?<!\d.)",
                      f" {word} ", text)  # fmt: skip
    return text


def cash(match: re.Match[str]) -> str:
    """`$5.20` -> `5 dollars and 20 cents`; `£5m` -> `5 million pounds`."""
    whole, part = MONEY[match[1]]
    amount, after, scale = match[2].rstrip(","), match[3], match[4]
    tail = "," * (len(match[2]) - len(amount))
    if scale or (after and len(after) != 2):
        number = f"{amount}.{after}" if after else amount
        return f"{number} {SCALES.get(scale, scale or '')} {whole}s{tail}"
    said = f"{amount} {whole}" + ("" if amount == "1" else "s")
    if after and int(after):
        parts = "pence" if part == "penny" else f"{part}s"
        said += f" and {int(after)} " + (part if int(after) == 1 else parts)
    return said + tail


def ordinal(day: str) -> str:
    """`2` -> `2nd`, which wetext reads as `second`."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(int(day) % 10 if int(day) // 10 != 1 else 0, "th")
    return f"{int(day)}{ending}"


def decade(match: re.Match[str]) -> str:
    """`1990s` -> `19 nineties`, `'80s` and `80's` -> `eighties`."""
    century, tens = match[1], match[2]
    if century == "20" and tens == "0":
        return "two thousands"
    return f"{century or ''} {DECADES[tens]} ".lstrip()


def spell_numbers(text: str) -> str:
    """Each sentence that holds digits, in words."""
    sentences = re.split(r"(?<=[.?!])\s+", text)
    return " ".join(s if no_digit(s) else spell_sentence(s) for s in sentences)


def spell_sentence(text: str) -> str:
    try:
        return read_numbers(text)
    except (AssertionError, ValueError):  # wetext has no reading of the whole: word by word, then
        return " ".join(word if no_digit(word) else read_word(word) for word in text.split())


def read_word(word: str) -> str:
    try:
        return read_numbers(word)
    except (AssertionError, ValueError):
        raise InputError(f"no known reading of {word!r}: write it in words") from None


def read_numbers(text: str) -> str:
    """wetext's reading; AssertionError or ValueError where it has none or leaves a digit."""
    said = str(number_reader().normalize(text.strip())).replace("\\", "")
    if not no_digit(said):
        raise ValueError(said)
    return re.sub(r"\b([AP])M\b", r"\1 M", said)


def no_digit(text: str) -> bool:
    return not any(character.isdigit() for character in text)


@cache
def number_reader():
    from wetext import Normalizer  # its grammars take a second to load, and few texts need them

    return Normalizer(lang="en", operator="tn")
