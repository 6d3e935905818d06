"""Money, as it is said."""

import re

from .numerals import NUMBER, cardinal, value
from .tables import pairs, rows

CURRENCIES = {sign: names for sign, *names in rows("currencies")}
COUNTRIES = {
    "US": "U S", "A": "Australian", "AU": "Australian", "C": "Canadian", "CA": "Canadian",
    "NZ": "New Zealand", "HK": "Hong Kong", "S": "Singapore",
}  # fmt: skip
CODES = pairs("currency_codes")
SCALES = {
    "k": "thousand", "m": "million", "mn": "million", "mm": "million", "mil": "million",
    "bn": "billion", "b": "billion", "t": "trillion", "tn": "trillion", "trn": "trillion",
}  # fmt: skip
SCALE = r"(?:\s?(mil|mn|mm|bn|trn|tn|[kKmMbBtT]|(?:hundred|thousand|million|billion|trillion))\b)?"
SYMBOL = f"[{re.escape(''.join(CURRENCIES))}]"
SIGN = rf"((?<![\w)\]%°.'\"])-\s?(?=[\d.{re.escape(''.join(CURRENCIES))}]|[A-Z]+\$))?"
FUNCTION = (
    "of in for and or to at per a an the is was were on by with from as than more less"
).split()


def attributive(match: re.Match[str]) -> bool:
    """Whether a quantity stands before its noun as in "a $5 bill": then it has no plural."""
    word = re.match(r"\s([a-z]+)", match.string[match.end() :])
    article = re.search(r"\b[Aa]n?\s$", match.string[: match.start()])
    return bool(article and word and word[1] not in FUNCTION)


def read_money(text: str) -> str:
    """Sums with their signs or codes in words: `$5.20`, `CA$5m`, `EUR 20`, `50p`."""
    amount = rf"({NUMBER})(?:\s?-\s?(?:{SYMBOL})?({NUMBER}))?"
    lands = "|".join(sorted(COUNTRIES, key=len, reverse=True))
    text = re.sub(
        rf"{SIGN}(?:\b({lands})(?=\$))?({SYMBOL})\s?(-)?{amount}{SCALE}",
        lambda m: _cash(m, m[1] or m[4], m[2], m[3], m[5], m[6], m[7]), text,
    )  # fmt: skip
    text = re.sub(
        rf"{SIGN}(?<![\w.]){amount}{SCALE}\s?({SYMBOL})(?!\d)",
        lambda m: _cash(m, m[1], None, m[5], m[2], m[3], m[4]), text,
    )  # fmt: skip
    codes = "|".join(CODES)
    text = re.sub(
        rf"\b({codes})\s?({NUMBER}){SCALE}", lambda m: _coins(m, CODES[m[1]], m[2], m[3]), text
    )
    text = re.sub(
        rf"(?<![\w.])({NUMBER}){SCALE}\s?({codes})\b",
        lambda m: _coins(m, CODES[m[3]], m[1], m[2]), text,
    )  # fmt: skip
    text = re.sub(r"(?<![\w.])(\d+)\s?¢", lambda m: _coins(m, "cent", m[1], None), text)
    text = re.sub(
        r"(?<![\w.,])(\d{1,2})p\b(?!\.)",
        lambda m: f"{value(m[1])} {'penny' if m[1] == '1' else 'pence'}", text,
    )  # fmt: skip
    return text


def _cash(match, minus, land, symbol, amount, upper, scale) -> str:
    """`$5.20` -> five dollars and twenty cents; `£5m` -> five million pounds; `$10-20`."""
    one, many, cent, cents = (*CURRENCIES[symbol], "", "")[:4]
    prefix = "negative " if minus else ""
    place = f"{COUNTRIES[land]} " if land else ""
    tail = " " if match.end() < len(match.string) and match.string[match.end()].isalnum() else ""
    whole, _, decimals = amount.partition(".")
    if upper or scale or (decimals and (len(decimals) != 2 or not cent)):
        said = value(amount) + (f" to {value(upper)}" if upper else "")
        size = f" {SCALES.get(scale.lower(), scale)}" if scale else ""
        return f"{prefix}{said}{size} {place}{one if attributive(match) else many}{tail}"
    parts = []
    if int(whole.replace(",", "") or 0) or not int(decimals or 0):
        name = one if whole == "1" or attributive(match) else many
        parts.append(f"{value(whole or '0')} {place}{name}")
    if int(decimals or 0):
        parts.append(f"{cardinal(int(decimals))} {cent if int(decimals) == 1 else cents}")
    return prefix + " and ".join(parts) + tail


def _coins(match: re.Match[str], name: str, amount: str, scale: str | None) -> str:
    size = f" {SCALES.get(scale.lower(), scale)}" if scale else ""
    same = amount == "1" or attributive(match) or name in ("yen", "yuan")
    return f"{value(amount)}{size} {name if same else f'{name}s'}"
