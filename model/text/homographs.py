"""Words of one spelling and two readings, told apart by the words beside them.

Rules on context instead of a part-of-speech tagger; docs/text.md has the figures.
"""

import re

from .phonemes import plural
from .tables import rows

FORMS = {word: (noun, verb) for word, noun, verb in rows("homographs")}
MOSTLY_VERBS = {"produce", "refuse", "resume", "reject", "convert"}
BEFORE_VERBS = set(
    (
        "to will would can could shall should may might must do does did don't doesn't didn't "
        "won't can't couldn't wouldn't shouldn't cannot not never let let's please i you we they "
        "who help i'll you'll we'll they'll he'll she'll it'll i'd you'd we'd they'd he'd she'd"
    ).split()
)
THIRD = {"he", "she", "it", "who", "which", "that", "never", "always", "also", "often"}
ARTICLES = {"a", "an", "the", "this", "these", "those", "my", "your", "his", "her", "its", "our"}
ARTICLES |= {"their", "all", "some", "any", "no", "every", "each", "another"}
BEFORE_NOUNS = ARTICLES | set(
    "of in on for with by from at as such own whose one two is are was were be been very".split()
)
OBJECTS = ARTICLES - {"no"} | {"it", "them", "him", "me", "us", "you", "yourself", "that"}
PERFECT = set(
    "have has had having been be being was were is are get got i've you've we've they've".split()
)
PATHS = {"road", "river", "path", "trail", "stream", "street"}
BEFORE_GLAD = set("is was are were be quite not very feel seemed".split())
SMALL = (
    "detail details amount amounts quantity quantities particle particles trace traces "
    "differences variations portions fragments"
)
PAST = re.compile(
    r"(?:was|were|had|did|said|went|came|took|saw|told|yesterday|ago|then|last|[a-z]{2,}ed)"
)


NEAR = {
    "lives": ("L IH V Z", "L AY V Z", THIRD | {"man", "woman", "family"}, ""),
    "tears": ("T EH R Z", "T IH R Z", THIRD - {"that"}, "it them up apart off down"),
    "winds": ("W AY N D Z", "W IH N D Z", THIRD | PATHS, ""),
    "bows": ("B AW Z", "B OW Z", THIRD, "to down"),
    "minute": ("M AY N UW T", "M IH N AH T", set(), SMALL),
    "content": ("K AH N T EH N T", "K AA N T EH N T", BEFORE_GLAD, "with to"),
}
"""Phones with one of these words before it or after it, and else."""


def homograph(words: list[str], place: int) -> str | None:
    """Phones of the word at `place` among those of a sentence; None where there is one."""
    word = words[place]
    if word in SPECIAL:
        before, after = words[max(place - 3, 0) : place], words[place + 1 : place + 4]
        return SPECIAL[word](["", "", "", *before], [*after, "", "", ""], words)
    if word in NEAR:
        near, far, before, after = NEAR[word]
        beside = words[place - 1] if place else "", "".join(words[place + 1 : place + 2])
        return near if beside[0] in before or beside[1] in after.split() else far
    stem = word if word in FORMS else word[:-1] if word.endswith("s") else ""
    if stem not in FORMS:
        return None
    phones = FORMS[stem][is_verb(words, place, word != stem)]
    return phones if stem == word else f"{phones} {plural(phones)}"


def is_verb(words: list[str], place: int, with_s: bool) -> bool:
    """By the word before it, adverbs skipped, and whether an object follows."""
    back = [word for word in words[:place] if not (word.endswith("ly") and len(word) > 4)]
    before = back[-1] if back else ""
    follows = words[place + 1] if place + 1 < len(words) else ""
    if before == "not" and len(back) > 1 and back[-2] in ("is", "are", "was", "were"):
        before = back[-2]
    if with_s and before in THIRD:
        return True
    if not with_s and before in BEFORE_VERBS:
        return True
    if before in BEFORE_NOUNS or before.endswith("'s"):
        return False
    if words[place].removesuffix("s") in MOSTLY_VERBS:
        return True
    return follows in OBJECTS


def _read(before: list[str], after: list[str], words: list[str]) -> str:
    past, present = "R EH D", "R IY D"
    if set(before) & PERFECT and before[-1] != "to":
        return past
    told = any(map(PAST.fullmatch, words))
    if before[-1] in ("and", "or", "i", "we", "they", "who"):
        return past if told else present
    is_present = before[-1] in BEFORE_VERBS or before[-1] in ("a", "the", "good", "")
    return present if is_present else past


def _live(before: list[str], after: list[str], words: list[str]) -> str:
    adjective, verb = "L AY V", "L IH V"
    if before[-1] in BEFORE_VERBS or before[-1] in ("and", "people"):
        return verb
    things = "music show shows concert broadcast audience event stream wire album ammunition "
    things += "performance coverage television tv radio bait animals on from in"
    near = before[-1] in ("a", "the", "is", "are", "was", "were", "go", "went", "going", "this")
    return adjective if near or after[0] in things.split()[:-1] else verb


def _lead(before: list[str], after: list[str], words: list[str]) -> str:
    things = "pipe pipes paint poisoning pencil pencils acid bullet bullets weight weights battery "
    things += "ore mine mines shot roof roofs and"
    made = before[-1] in ("of", "molten", "contains", "like", "white", "red", "into", "as")
    metal = after[0] in things.split()[:-1] or (made and after[0] not in ("the", "a"))
    return "L EH D" if metal else "L IY D"


def _tear(before: list[str], after: list[str], words: list[str]) -> str:
    falls = after[0] in ("rolled", "ran", "fell", "slid", "drop", "drops", "gas", "duct", "ducts")
    single = before[-1] in ("single", "a", "each", "every") and after[:2] != ["in", "the"]
    return "T IH R" if falls or single else "T EH R"


TURNING = ("up", "around", "down", "through", "its", "round", "back", "along", "their")


def _wind(before: list[str], after: list[str], words: list[str]) -> str:
    turns = before[-1] in BEFORE_VERBS or (before[-1] not in BEFORE_NOUNS and after[0] == "up")
    return "W AY N D" if turns else "W IH N D"


def _wound(before: list[str], after: list[str], words: list[str]) -> str:
    turned = after[0] in TURNING and before[-1] not in ("a", "the", "this", "of")
    return "W AW N D" if turned or after[0] == "tightly" else "W UW N D"


def _bow(before: list[str], after: list[str], words: list[str]) -> str:
    bends = before[-1] in BEFORE_VERBS or before[-2:] in (["took", "a"], ["take", "a"])
    return "B AW" if bends or after[0] in ("down", "before", "of") else "B OW"


def _bass(before: list[str], after: list[str], words: list[str]) -> str:
    fish = after[0].startswith("fish") or before[-1] in ("sea", "striped", "largemouth", "caught")
    return "B AE S" if fish else "B EY S"


def _dove(before: list[str], after: list[str], words: list[str]) -> str:
    went = after[0] in ("into", "in", "under", "off", "down", "for", "to", "headfirst")
    return "D OW V" if went and before[-1] not in ("a", "the", "white") else "D AH V"


SPECIAL = {
    "read": _read, "live": _live, "lead": _lead, "tear": _tear, "wind": _wind, "wound": _wound,
    "bow": _bow, "bass": _bass, "dove": _dove,
}  # fmt: skip
