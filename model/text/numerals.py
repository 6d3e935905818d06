"""Whole numbers, decimals, fractions, years and digits in English words."""

import re

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = ("- - twenty thirty forty fifty sixty seventy eighty ninety").split()
GROUPS = (
    "- thousand million billion trillion quadrillion quintillion sextillion septillion "
    "octillion nonillion decillion"
).split()
ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
DECADES = (
    "hundreds tens twenties thirties forties fifties sixties seventies eighties nineties"
).split()
NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|(?<![\w.])\.\d+)"
"""Digits, in groups of three or not, and decimals behind a point."""


def cardinal(number: int) -> str:
    """`1234` -> "one thousand two hundred and thirty four"; too long ones digit by digit."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f" {ONES[number % 10]}" if number % 10 else "")
    if number < 1000:
        rest = f" and {cardinal(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number >= 1000 ** len(GROUPS):
        return digits(str(number))
    said, power = [], 0
    while number:
        number, group = divmod(number, 1000)
        if group:
            # "and" stands in the last group only, and not behind one thousand alone
            words = cardinal(group) if not power else cardinal(group).replace(" and ", " ")
            last = not power and group < 100 and number > 1
            said.insert(0, ("and " if last else "") + words + (f" {GROUPS[power]}" * (power > 0)))
        power += 1
    return " ".join(said)


def ordinal(number: int) -> str:
    """`21` -> "twenty first"."""
    head, _, last = cardinal(number).rpartition(" ")
    last = ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return f"{head} {last.replace('tt', 't')}".strip()


def digits(text: str, zero: str = "zero") -> str:
    """Each digit of a text as a word."""
    return " ".join(zero if d == "0" else ONES[int(d)] for d in text if d.isdigit())


def year(number: int) -> str:
    """`1905` -> "nineteen oh five", `2005` -> "two thousand five", `476` as any number."""
    first, last = divmod(number, 100)
    if not 1010 <= number < 3000 or number % 1000 == 0:
        return cardinal(number)
    if 2000 <= number < 2010:
        return f"two thousand {ONES[last]}"
    ending = cardinal(last) if last > 9 else f"oh {ONES[last]}" if last else "hundred"
    return f"{cardinal(first)} {ending}"


def value(text: str) -> str:
    """A number as it matches NUMBER; four digits without a comma as years are."""
    whole, _, part = text.partition(".")
    if whole.startswith("0") and len(whole) > 1 and not part:
        return digits(whole, "oh")
    plain = whole.replace(",", "")
    said = year(int(plain)) if len(whole) == 4 and not part else cardinal(int(plain or "0"))
    return (said if whole else "") + (f" point {digits(part, 'oh')}" if part else "")


def fraction(over: int, under: int) -> str:
    """`3, 4` -> "three quarters"."""
    name = {2: "half", 4: "quarter"}.get(under) or ordinal(under)
    plural = "halves" if under == 2 else f"{name}s"
    return f"{cardinal(over)} {name if over == 1 else plural}"


def decade(match: re.Match[str]) -> str:
    """`1990s` -> "nineteen nineties", `'80s` and `80's` -> "eighties"; groups: century, tens."""
    century, tens = match[1], int(match[2])
    if century == "20" and tens == 0:
        return "two thousands"
    return f"{cardinal(int(century)) if century else ''} {DECADES[tens]}".lstrip()
