"""Measures, fractions, powers, ranges and bare numbers, as they are said."""

import re

from .money import SIGN, attributive, read_money
from .numerals import NUMBER, fraction, ordinal, value
from .tables import pairs, rows

NUMERATE = {"K": "thousand", "M": "million", "B": "billion", "bn": "billion", "k": "thousand"}
PREFIXES = {
    "p": "pico", "n": "nano", "u": "micro", "m": "milli", "c": "centi", "d": "deci", "h": "hecto",
    "k": "kilo", "M": "mega", "G": "giga", "T": "tera",
}  # fmt: skip
UNITS = {
    prefix + base: PREFIXES.get(prefix, "") + name
    for base, name, prefixes in rows("prefixed_units")
    for prefix in ("", *prefixes)
    if prefix + base not in ("B", "A", "F")  # "5 B" and "5 A" are letters
} | pairs("units")
PER = pairs("rates")
PLURALS = {"foot": "feet", "inch": "inches", "hertz": "hertz", "percent": "percent", "lux": "lux",
           "Celsius": "Celsius", "horsepower": "horsepower", "kelvin": "kelvin"}  # fmt: skip
POWERS = {"2": "squared", "3": "cubed", "n": "to the n"}
FRACTION = r"(?:(\d+)(?:\s(and)\s|\s))?(\d+)/(\d+)"
UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
RATE = "|".join(re.escape(unit) for unit in sorted(PER, key=len, reverse=True))


def read_quantities(text: str) -> str:
    """One sentence with every number in words; dates and times are so already."""
    text = canonical(text)
    power = r"\^\(?([+-]?\d+|[a-z])\)?"
    text = re.sub(rf"(?<=[\d)])\s?{power}", _power_words, text)
    text = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?)(\d+)\b", _scientific, text)
    text = re.sub(r"(?<![\w.,/-])(\d+)-(?=\d/\d+\b)", r"\1 and ", text)
    text = re.sub(r"(\d/\d+)(?:rds?|ths?|nds?)\b", r"\1", text)
    text = per(read_money(text))
    text = read_measures(text)
    text = re.sub(r"\b24/7\b", "twenty four seven", text)
    text = re.sub(r"\b9/11\b", "nine eleven", text)
    text = re.sub(r"(?<![\w/.])(\d+)/\1(?![\w/])", lambda m: f"{value(m[1])} {value(m[1])}", text)
    text = re.sub(rf"{SIGN}(?<![\w/.,]){FRACTION}(?![\w/]|[.,]\d)", _part, text)
    text = re.sub(r"(\d)\s/\s(?=\d)", r"\1 divided by ", text)
    text = re.sub(r"(\d)/(?=\d)", r"\1 over ", text)
    text = re.sub(rf"(?<=\b[A-Za-z]){power}|(?<=\b[A-Za-z][A-Za-z]){power}", _power_words, text)
    text = re.sub(r"(?<=[A-Za-z.,!?\"'])\^\(?(\d+)\)?", r" note \1", text)
    text = re.sub(
        rf"(?<![\w.])(\d[\d,]*)(?:st|nd|rd|th)?\s?-\s?(\d[\d,]*)({ENDING})\b", _ordinals, text
    )
    text = re.sub(rf"(?<![\w.])(\d[\d,]*)({ENDING})\b", lambda m: _nth(m[1]), text)
    text = re.sub(r"(?<=\d)\s?[xX]\s?(?=\d)", _times, text)
    text = re.sub(r"(?<=\d)[xX]\b", " times", text)
    text = re.sub(r"(\d)\s*\*\s*(?=\d)", r"\1 times ", text)
    text = re.sub(r"(?<=\d)(?:-(?=\d+-\d)|(?<=-\d)-(?=\d))", ", ", text)
    if re.search(r"[=+]|\btimes\b|\bdivided by\b", text):
        text = re.sub(r"(?<=\d)\s?-\s?(?=\d)", " minus ", text)
    text = re.sub(rf"(?<![\w.-])({NUMBER})\s?-\s?({NUMBER})(?![\w-])", _span, text)
    text = re.sub(r"(?<![\w)\]%°.])-\s?(?=\d|\.\d)|(?<=[(=<>]\s)-(?=\d)", " negative ", text)
    text = re.sub(r"\bNos?\.?(?=\s?\d)|#(?=\d)", "Number ", text)
    text = re.sub(rf"(?<![\w.])({NUMBER})([KMBk]|bn)\b(?!\s[A-Z])", _numerous, text)
    text = re.sub(r"(?<=[A-Za-z])-(?=\d)|(?<=\d)-(?=[A-Za-z])", " ", text)
    text = re.sub(r"(\d[\d,]*)'?s\b", _several, text)
    return re.sub(NUMBER, lambda m: f" {value(m[0])} ", text)


ENDING = "(?:st|nd|rd|th|ST|ND|RD|TH)"


def canonical(text: str) -> str:
    """Decimal commas become points, except in lists (`1,2 or 3`); `1.234,50` becomes 1234.50."""
    text = re.sub(
        r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+),(\d{1,2})(?![\d,.]*\d)",
        lambda m: f"{m[1].replace('.', ',')}.{m[2]}", text,
    )  # fmt: skip
    text = re.sub(r"(?<=€)\d{1,3}(?:\.\d{3})+(?![\d,.]*\d)", lambda m: m[0].replace(".", ","), text)
    pair = r"(?<![\d.,])\d{1,2}(?:,\d{1,2})"
    listed = rf"{pair}+(?=\s?,?\s(?:or|and|&)\s\d)|{pair}{{2,}}(?![\d,.]*\d)"
    text = re.sub(listed, lambda m: m[0].replace(",", ", "), text)
    return re.sub(r"(?<![\d.,])(\d+),(\d{1,2})(?![\d,.]*\d)", r"\1.\2", text)


def per(text: str) -> str:
    """`/month` behind a word is "per month", `l/100 km` per hundred kilometers."""
    text = re.sub(r"(?<=[a-z])/(?=\d)", " per ", text)
    return re.sub(rf"(?<=[a-z])\s?/\s?({RATE})(?![\w^])", lambda m: f" per {PER[m[1]]}", text)


def read_measures(text: str) -> str:
    """Numbers with units: `5 m/s`, `6'2"`, `10-20%`, `a 5 km run`, `40°26'46"N`."""
    text = re.sub(r"(?<=\d['\"])[xX](?=\d)", " x ", text)
    text = re.sub(rf"({NUMBER})%\s?-\s?(?={NUMBER}\s?%)", r"\1-", text)
    text = re.sub(r"(\d+)°\s?(\d+)'\s?(?:(\d+(?:\.\d+)?)\"\s?)?([NSEW]\b)?", _bearing, text)
    text = re.sub(r"(?<![\w.'])(\d+)'\s?(\d+)\s?(?:\"|''|in\b\.?|(?![\w.,]))", _feet, text)
    text = re.sub(r"(?<![\w.'])(\d+)\s?ft\.?,?\s(\d+)\s?in\b\.?", _feet, text)
    text = re.sub(
        rf"{SIGN}(?<![\w/.,']){FRACTION}(?:\"|[ -]?(?P<unit>{UNIT})(?![\w'/]))", _part_of_unit, text
    )
    text = re.sub(rf"(?<![\w.'])({NUMBER})'(?![\w'])", lambda m: _quoted(m, "'", "foot"), text)
    text = re.sub(rf"(?<![\w.])({NUMBER})\"", lambda m: _quoted(m, '"', "inch"), text)
    text = re.sub(
        rf"(?<![\w.])({NUMBER})[ -]?in(?:\.|(?=\sx\s?\d|\s(?:tall|long|wide|high|deep|thick)\b))",
        r"\1 inch", text,
    )  # fmt: skip
    text = re.sub(r"(?<=feet|foot|inch|ches) [xX] ", " by ", text)
    text = re.sub(rf"(\d\s?(?:{UNIT})\.?)\s[xX]\s(?=\d)", r"\1 by ", text)
    by = re.search(rf"\d\s?[xX]\s?{NUMBER}\s?(?:{UNIT})\b", text)
    if by:
        text = re.sub(r"(?<=[\w\"'])\s?[xX]\s?(?=\d)", " by ", text)
    text = re.sub(r"(\d\s?degrees?)\s([CF])\b", lambda m: f"{m[1]} {DEGREES[m[2]]}", text)
    pattern = (
        rf"{SIGN}(?<![\w.^])({NUMBER})(?:\s?(?:-|to)\s?({NUMBER}))?(\s(?:and\s)?\d/\d)?"
        rf"[ -]?(?:{SCALEWORD})?({UNIT})(?:\^?([23]))?(?:/({RATE}))?(?![\w^'])"
        r"(?:\.(?=\s[a-z]|[,;]))?"
    )
    return per(re.sub(pattern, _measure, text))


DEGREES = {"C": "Celsius", "F": "Fahrenheit"}
SCALEWORD = r"(hundred|thousand|million|billion|trillion)\s"


def _measure(match: re.Match[str]) -> str:
    minus, low, high, added, scale, unit, power, rate = match.groups()
    if re.search(r"\dK$|\d{3}s$", match[0]):
        return match[0]  # "5K" is a thousand or a letter, "747s" are planes
    name = UNITS[unit]
    if power:
        name = f"{'square' if power == '2' else 'cubic'} {name}"
    single = (low == "1" and not high and not scale and not added) or attributive(match)
    hyphen = re.search(r"\d-[A-Za-z]", match[0]) is not None
    said = value(low) + (f" to {value(high)}" if high else "")
    if added:
        over, under = added.replace("and", "").strip().split("/")
        said += f" and {fraction(int(over), int(under))}"
    name = name if single or hyphen else plural(name)
    rest = f" per {PER[rate]}" if rate else ""
    return f"{'negative ' if minus else ''}{said}{f' {scale}' if scale else ''} {name}{rest}"


def plural(name: str) -> str:
    """`mile per hour` -> "miles per hour", `degree Celsius` -> "degrees Celsius"."""
    head, space, rest = name.partition(" per ")
    first, gap, last = head.rpartition(" ")
    if last in ("Celsius", "Fahrenheit"):
        return f"{first}s {last}"
    irregular = next((PLURALS[end] for end in PLURALS if last.endswith(end)), None)
    stem = last[: -len(next(e for e in PLURALS if last.endswith(e)))] if irregular else last
    return first + gap + (stem + irregular if irregular else f"{last}s") + space + rest


def _feet(match: re.Match[str]) -> str:
    foot, inch = match[1], match[2]
    first = "foot" if foot == "1" else "feet"
    return f"{value(foot)} {first} {value(inch)} {'inch' if inch == '1' else 'inches'}"


def _quoted(match: re.Match[str], mark: str, unit: str) -> str:
    """A mark behind a number is a unit, unless it closes a quotation."""
    before = match.string[: match.start()]
    opened = before.count(mark) % 2 if mark == '"' else len(re.findall(r"(?<!\w)'(?=\w)", before))
    if opened:
        return match[0]
    return f"{value(match[1])} {unit if match[1] == '1' else PLURALS[unit]}"


def _bearing(match: re.Match[str]) -> str:
    degrees, minutes, seconds, side = match.groups()
    said = f"{value(degrees)} degrees {value(minutes)} minutes"
    said += f" {value(seconds)} seconds" if seconds else ""
    sides = {"N": "north", "S": "south", "E": "east", "W": "west"}
    return f"{said} {sides[side]}" if side else said


def _part(match: re.Match[str]) -> str:
    """`3/4`, `1 1/2`, `3 and 1/2`; `120/80` is no fraction."""
    minus, whole, joined, over, under = match[1], match[2], match[3], int(match[4]), int(match[5])
    if under < 2 or len(match[5]) > 4 or (over > under and under > 16) or len(match[4]) == 4:
        return match[0]
    half = whole and not joined and (over, under) == (1, 2)
    said = "a half" if half else fraction(over, under)
    said = f"{value(whole)} and {said}" if whole else said
    return f"negative {said}" if minus else said


def _part_of_unit(match: re.Match[str]) -> str:
    """`1/2 km`, `3/4"`, `2 1/2"`."""
    name = UNITS[match["unit"]] if match["unit"] else "inch"
    return f"{_part(match)} {plural(name) if match[2] else name}"


def _power_words(match: re.Match[str]) -> str:
    index = next(group for group in match.groups() if group)
    if index in POWERS:
        return f" {POWERS[index]} "
    index = index.replace("-", "negative ").replace("+", "plus ")
    return f" to the power of {index} "


def _scientific(match: re.Match[str]) -> str:
    """`1.5e-6` -> one point five times ten to the power of negative six."""
    sign = {"-": "negative ", "+": "", "": ""}[match[2]]
    return f"{value(match[1])} times ten to the power of {sign}{value(match[3])}"


def _several(match: re.Match[str]) -> str:
    """`747s` -> seven hundred and forty sevens."""
    said = f" {value(match[1])}"
    if said.endswith("y"):
        return f"{said[:-1]}ies"
    return said + ("es" if said.endswith("x") else "s")


def _nth(number: str) -> str:
    return ordinal(int(number.replace(",", "")))


def _ordinals(match: re.Match[str]) -> str:
    return f"{_nth(match[1])} to {_nth(match[2])}"


def _times(match: re.Match[str]) -> str:
    """Sizes of screens are "by", the rest is multiplied."""
    before = re.search(r"\d+$", match.string[: match.start()])
    after = re.match(r"\d+", match.string[match.end() :])
    large = before and after and len(before[0]) > 2 and len(after[0]) > 2
    return " by " if large else " times "


def _span(match: re.Match[str]) -> str:
    if match[1] == match[2]:
        return f"{value(match[1])} {value(match[2])}"
    return f"{value(match[1])} to {value(match[2])}"


def _numerous(match: re.Match[str]) -> str:
    """`100K` -> one hundred thousand; `4K` and `8K` are names of pictures, `5K` of a run."""
    if match[2] == "K" and match[1] in ("2", "4", "5", "8", "10"):
        return f"{value(match[1])} K"
    return f"{value(match[1])} {NUMERATE[match[2]]}"
