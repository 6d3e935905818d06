"""Dates, times, telephone numbers and other digits that are no quantity, as they are said."""

import re

from .numerals import cardinal, decade, digits, ordinal, value, year

MONTHS = (
    "January February March April May June July August September October November December"
).split()
SHORT = {name[:3]: name for name in MONTHS} | {"Sept": "September"}
MONTH = rf"(?:{'|'.join(MONTHS)}|(?:{'|'.join(SHORT)})\b\.?)"
DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
TO = r"\s?(?:-|to|through)\s?"
YEAR = r"(?:,?\s(\d{4})\b)?"
WEEKDAY = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday",
    "Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
ZONES = r"(?:\s?(EST|EDT|CST|CDT|MST|MDT|PST|PDT|GMT|UTC|BST|CET)\b)?"
NOON = r"\s?([AaPp])(?:\.\s?[Mm]\b\.?|[Mm]\b)"
PHONES = (
    r"(?<![\w.,-])(?:\+?\d{1,3}[ .-]?)?(?:\(\d{3}\)\s?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])",
    r"(?<![\w.,$£€-])\d{3}-\d{4}(?![\w%-])",
    r"(?<![\w.,])\+\d{1,3}(?:[ -]?\(?\d{1,5}\)?){2,5}(?![\w-])",
    r"(?<![\w.,$£€-])\(?0\d{2,4}\)?[ -]\d{3,8}(?:[ -]\d{3,4})?(?![\w-])",
    r"(?<![\w.,-])\d{3}-\d{2}-\d{4}(?![\w-])",  # US social security
    r"(?<![\w.,-])\d{4}(?:[ -]\d{4}){2,3}(?![\w-])",  # cards
)


def read_dates(text: str) -> str:
    """One sentence with its dates, times, years and telephone numbers in words."""
    spaced = r"(?<![\w.,+-])[1-9]\d{0,2}(?:(?: \d{3}){2,}|(?: 000)+)(?![\w.,-]*\s?\d)"
    text = re.sub(spaced, lambda m: m[0].replace(" ", ","), text)
    for pattern in PHONES:
        text = re.sub(pattern, _phone, text)
    text = re.sub(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)", _address, text)
    text = re.sub(r"(?<![\d.,])\d+(?:\.\d+){2,}(?![\d.]*\d)", _numeric_date_or_version, text)
    text = re.sub(r"\b([A-Z]{2}|[Zz][Ii][Pp](?: code)?) (\d{5})(-\d{4})?\b", _code, text)
    text = re.sub(
        r"\b(call|dial|text|ring|code|PIN|pin|extension|ext)(\.?(?: is)?) (\d{3,8})\b",
        lambda m: f"{m[1]}{m[2]} {digits(m[3])}", text, flags=re.I,
    )  # fmt: skip
    text = re.sub(r"\b(\d{4})([-/])(\d{1,2})\2(\d{1,2})\b", _numeric_date, text)
    text = re.sub(r"\b(\d{1,2})([/-])(\d{1,2})\2(\d{4}|\d{2})\b", _numeric_date, text)
    text = re.sub(
        r"\b(on|by|until|since|before|after|from) (\d{1,2})/(\d{1,2})\b(?!/)", _short, text
    )
    text = re.sub(rf"\b(\d{{1,2}})-({MONTH})-(?=\d{{4}}\b)", r"\1 \2 ", text)
    text = re.sub(rf"\b({'|'.join(WEEKDAY)})\b\.?(?=,?\s(?:{MONTH}|\d))",
                  lambda m: WEEKDAY[m[1]], text)  # fmt: skip
    text = re.sub(rf"\b({MONTH})\s{DAY}{TO}({MONTH})\s{DAY}{YEAR}", _days_of_two_months, text)
    text = re.sub(rf"\b({MONTH})\s{DAY}{TO}{DAY}(?![:\d]){YEAR}", _days, text)
    text = re.sub(rf"\b(the\s)?{DAY}{TO}{DAY}(\sof)?\s({MONTH})(?!\w){YEAR}", _days_first, text)
    text = re.sub(rf"\b({MONTH})\s{DAY}(?!\w)(?![,.:/%-]\d)(?!\s?[%x-])", _month_day, text)
    text = re.sub(
        rf"(?<![\w.,:$£€/-])(the\s)?(\d{{1,2}})(st|nd|rd|th)?(\sof)?\s({MONTH})(?!\w)",
        _day_month,
        text,
    )
    text = re.sub(rf"\b({MONTH})(?=,?\s\d{{4}}\b)", lambda m: _month(m[1]), text)
    text = re.sub(r"(?<!\d)(1[1-9]|20)?'?(\d)0'?s\b", decade, text)
    text = re.sub(r"(?<![\w.,-])(1[1-9]\d\d|20\d\d)\s?[-/]\s?(\d{4}|\d\d)(?![\w/-])", _years, text)
    return read_times(text)


def read_times(text: str) -> str:
    """One sentence with its clock times in words."""
    clock = r"(\d{1,2})(?::([0-5]\d))?"
    text = re.sub(
        rf"\b(\d{{1,2}}(?::[0-5]\d)?(?:{NOON})?)\s?-\s?(?=\d{{1,2}}(?::[0-5]\d)?{NOON})",
        r"\1 to ", text,
    )  # fmt: skip
    text = re.sub(r"(\d:[0-5]\d)\s?-\s?(?=\d{1,2}:[0-5]\d)", r"\1 to ", text)
    text = re.sub(rf"(?<![\d:.,]){clock}{NOON}{ZONES}", _twelve_hours, text)
    text = re.sub(r"(?<![\d:.,])(\d{1,2}):([0-5]\d):([0-5]\d)\b", _duration, text)
    text = re.sub(rf"(?<![\d:.,])([01]?\d|2[0-4]):([0-5]\d)(?![\d:]){ZONES}", _whole_day, text)
    return re.sub(r"(?<![\d:.])(\d+):(\d+)(?![\d:])", r"\1 to \2", text)


def _phone(match: re.Match[str]) -> str:
    """Digit by digit, a pause between the groups."""
    groups = re.findall(r"\d+", match[0])
    said = [
        "eight hundred" if group == "800" and len(groups) > 2 else digits(group)
        for group in groups
    ]  # fmt: skip
    return ("plus " if "+" in match[0] else "") + ", ".join(said)


def _address(match: re.Match[str]) -> str:
    return " dot ".join(digits(part) for part in match[0].split("."))


def _code(match: re.Match[str]) -> str:
    rest = f", {digits(match[3])}" if match[3] else ""
    return f"{match[1]} {digits(match[2])}{rest}"


def _month(name: str) -> str:
    return SHORT.get(name.rstrip("."), name)


def spoken_date(day: int, number: int, in_year: str | None) -> str | None:
    """None where there is no such day."""
    if not (1 <= day <= 31 and 1 <= number <= 12):
        return None
    said = f"the {ordinal(day)} of {MONTHS[number - 1]}"
    return said if in_year is None else f"{said} {written_year(in_year)}"


def written_year(text: str) -> str:
    """Two digits are of 1950 to 2049."""
    if len(text) == 4:
        return year(int(text))
    return year(int(text) + (2000 if int(text) < 50 else 1900))


def _numeric_date(match: re.Match[str]) -> str:
    """Year first, or month first as in the US unless only day first can be."""
    first, second, third = match[1], int(match[3]), match[4]
    if len(first) == 4:
        return spoken_date(int(third), second, first) or match[0]
    if int(first) > 12:
        return spoken_date(int(first), second, third) or match[0]
    return spoken_date(second, int(first), third) or match[0]


def _numeric_date_or_version(match: re.Match[str]) -> str:
    """`25.12.2024`, day first; `1.2.3` has points; `1.234.567` is one number."""
    parts = match[0].split(".")
    if all(len(part) == 3 for part in parts[1:]) and len(parts[0]) < 4:
        return match[0].replace(".", ",")
    sizes = [len(part) for part in parts]
    if len(parts) == 3 and (sizes == [2, 2, 2] or (max(sizes[:2]) < 3 and sizes[2] == 4)):
        date = spoken_date(int(parts[0]), int(parts[1]), parts[2])
        if date:
            return date
    return f" {' point '.join(value(part) for part in parts)} "


def _short(match: re.Match[str]) -> str:
    return f"{match[1]} {spoken_date(int(match[3]), int(match[2]), None) or match[0]}"


def _day_and_year(day: str, in_year: str | None) -> str:
    return ordinal(int(day)) + (f", {written_year(in_year)}" if in_year else "")


def _days(match: re.Match[str]) -> str:
    """`June 10-12, 2024`."""
    return f"{_month(match[1])} {ordinal(int(match[2]))} to {_day_and_year(match[3], match[4])}"


def _days_of_two_months(match: re.Match[str]) -> str:
    first = f"{_month(match[1])} {ordinal(int(match[2]))}"
    return f"{first} to {_month(match[3])} {_day_and_year(match[4], match[5])}"


def _days_first(match: re.Match[str]) -> str:
    in_year = f" {written_year(match[6])}" if match[6] else ""
    first, last = ordinal(int(match[2])), ordinal(int(match[3]))
    return f"the {first} to the {last} of {_month(match[5])}{in_year}"


def _month_day(match: re.Match[str]) -> str:
    """`May 2`, with an ending and a year day first; not in "In May 10 people came"."""
    rest, before = match.string[match.end() :], match.string[: match.start()]
    suffixed = not match[0][-1].isdigit()
    alone = re.match(r"\s*(?:[^\w\s]|$|\d{4}\b)", rest)
    linked = re.match(r"\s(?:at|and|or|to|through|until|by|is|was|the|we|I)\b", rest)
    if int(match[2]) > 31 or int(match[2]) == 0:
        return f"{_month(match[1])} {match[2]}"
    if suffixed and re.match(r",?\s\d{4}\b", rest):
        return f"the {ordinal(int(match[2]))} of {_month(match[1])}"
    if suffixed or alone or (linked and not re.search(r"\b[Ii]n\s$", before)):
        return f"{_month(match[1])} {ordinal(int(match[2]))}"
    return f"{_month(match[1])} {match[2]}"


def _day_month(match: re.Match[str]) -> str:
    """`2 May` -> "the second of May"; `12th of May` as it is written."""
    day = int(match[2])
    if not 1 <= day <= 31:
        return match[0]
    if match[3] or match[1]:
        return f"{match[1] or ''}{ordinal(day)}{' of'} {_month(match[5])}"
    return f"the {ordinal(day)} of {_month(match[5])}"


def _years(match: re.Match[str]) -> str:
    """`1999-2005`, `1990-95`; `1999-12` is no range of years."""
    first, last = int(match[1]), match[2]
    if len(last) == 4:
        return f"{year(first)} to {year(int(last))}"
    if int(last) <= first % 100:
        return match[0]
    return f"{year(first)} to {cardinal(int(last)) if int(last) > 9 else digits(last, 'oh')}"


def _clock_words(hours: str, minutes: str | None, whole: str) -> str:
    said = cardinal(int(hours))
    if minutes is None or int(minutes) == 0:
        return said + whole
    low = int(minutes) < 10
    return f"{said} {'oh ' if low else ''}{cardinal(int(minutes))}"


def _twelve_hours(match: re.Match[str]) -> str:
    zone = f" {' '.join(match[4])}" if match[4] else ""
    return f"{_clock_words(match[1], match[2], '')} {match[3].upper()} M{zone}"


def _whole_day(match: re.Match[str]) -> str:
    zone = f" {' '.join(match[3])}" if match[3] else ""
    return _clock_words(match[1], match[2], " o'clock") + zone


def _duration(match: re.Match[str]) -> str:
    parts = [
        f"{cardinal(int(number))} {name}{'' if int(number) == 1 else 's'}"
        for number, name in zip(match.groups(), ("hour", "minute", "second"), strict=True)
    ]
    return f"{parts[0]} {parts[1]} and {parts[2]}"
