"""Words of one spelling and two readings, told apart by the words beside them.

Rules on context instead of a part-of-speech tagger; docs/text.md has the figures.
"""

import re

from .phonemes import plural

# noun or adjective / verb
PAIRS = """
abuse AH B Y UW S / AH B Y UW Z
advocate AE D V AH K AH T / AE D V AH K EY T
appropriate AH P R OW P R IY AH T / AH P R OW P R IY EY T
approximate AH P R AA K S AH M AH T / AH P R AA K S AH M EY T
articulate AA R T IH K Y AH L AH T / AA R T IH K Y AH L EY T
associate AH S OW S IY AH T / AH S OW S IY EY T
attribute AE T R AH B Y UW T / AH T R IH B Y UW T
close K L OW S / K L OW Z
conduct K AA N D AH K T / K AH N D AH K T
conflict K AA N F L IH K T / K AH N F L IH K T
contest K AA N T EH S T / K AH N T EH S T
contract K AA N T R AE K T / K AH N T R AE K T
contrast K AA N T R AE S T / K AH N T R AE S T
convert K AA N V ER T / K AH N V ER T
convict K AA N V IH K T / K AH N V IH K T
coordinate K OW AO R D AH N AH T / K OW AO R D AH N EY T
delegate D EH L AH G AH T / D EH L AH G EY T
deliberate D IH L IH B ER AH T / D IH L IH B ER EY T
desert D EH Z ER T / D IH Z ER T
duplicate D UW P L AH K AH T / D UW P L AH K EY T
elaborate IH L AE B R AH T / IH L AE B ER EY T
estimate EH S T AH M AH T / EH S T AH M EY T
excuse IH K S K Y UW S / IH K S K Y UW Z
extract EH K S T R AE K T / IH K S T R AE K T
graduate G R AE JH AH W AH T / G R AE JH AH W EY T
house HH AW S / HH AW Z
intimate IH N T AH M AH T / IH N T AH M EY T
moderate M AA D ER AH T / M AA D ER EY T
object AA B JH EH K T / AH B JH EH K T
perfect P ER F IH K T / P ER F EH K T
present P R EH Z AH N T / P R IY Z EH N T
produce P R OW D UW S / P R AH D UW S
progress P R AA G R EH S / P R AH G R EH S
project P R AA JH EH K T / P R AH JH EH K T
protest P R OW T EH S T / P R AH T EH S T
rebel R EH B AH L / R IH B EH L
record R EH K ER D / R IH K AO R D
refuse R EH F Y UW Z / R IH F Y UW Z
reject R IY JH EH K T / R IH JH EH K T
resume R EH Z AH M EY / R IH Z UW M
separate S EH P ER IH T / S EH P ER EY T
subject S AH B JH IH K T / S AH B JH EH K T
subordinate S AH B AO R D AH N AH T / S AH B AO R D AH N EY T
use Y UW S / Y UW Z
"""
FORMS = {
    line.split()[0]: tuple(part.strip() for part in line.partition(" ")[2].split("/"))
    for line in PAIRS.strip().splitlines()
}
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
PAST = re.compile(
    r"(?:was|were|had|did|said|went|came|took|saw|told|yesterday|ago|then|last|[a-z]{2,}ed)"
)


def homograph(words: list[str], place: int) -> str | None:
    """Phones of the word at `place` among those of a sentence; None where there is one."""
    word = words[place]
    if word in SPECIAL:
        before, after = words[max(place - 3, 0) : place], words[place + 1 : place + 4]
        return SPECIAL[word](["", "", "", *before], [*after, "", "", ""], words)
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
    if before[-1] in BEFORE_VERBS - {"i", "you", "we", "they", "who"} or before[-1] in (
        "and",
        "or",
    ):
        return past if before[-1] in ("and", "or") and any(map(PAST.fullmatch, words)) else present
    if before[-1] in ("a", "the", "good", "", "you", "please"):
        return present
    told = any(PAST.fullmatch(word) for word in words)
    if before[-1] in ("i", "we", "they", "who"):
        return past if told else present
    return past


def _live(before: list[str], after: list[str], words: list[str]) -> str:
    adjective, verb = "L AY V", "L IH V"
    if before[-1] in BEFORE_VERBS or before[-1] in ("and", "people"):
        return verb
    things = "music show shows concert broadcast audience event stream wire album ammunition "
    things += "performance coverage television tv radio bait animals on from in"
    near = before[-1] in ("a", "the", "is", "are", "was", "were", "go", "went", "going", "this")
    return adjective if near or after[0] in things.split()[:-1] else verb


def _lives(before: list[str], after: list[str], words: list[str]) -> str:
    return "L IH V Z" if before[-1] in THIRD | {"man", "woman", "family"} else "L AY V Z"


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


def _tears(before: list[str], after: list[str], words: list[str]) -> str:
    rips = before[-1] in THIRD - {"that"} or after[0] in (
        "it",
        "them",
        "up",
        "apart",
        "off",
        "down",
    )
    return "T EH R Z" if rips else "T IH R Z"


TURNING = ("up", "around", "down", "through", "its", "round", "back", "along", "their")


def _wind(before: list[str], after: list[str], words: list[str]) -> str:
    turns = before[-1] in BEFORE_VERBS or (before[-1] not in BEFORE_NOUNS and after[0] == "up")
    return "W AY N D" if turns else "W IH N D"


def _winds(before: list[str], after: list[str], words: list[str]) -> str:
    path = before[-1] in THIRD | {"road", "river", "path", "trail", "stream", "street"}
    return "W AY N D Z" if path else "W IH N D Z"


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


def _minute(before: list[str], after: list[str], words: list[str]) -> str:
    things = "detail details amount amounts quantity quantities particle particles trace traces "
    things += "differences variations portions fragments"
    return "M AY N UW T" if after[0] in things.split() else "M IH N AH T"


def _content(before: list[str], after: list[str], words: list[str]) -> str:
    glad = before[-1] in (
        "is",
        "was",
        "are",
        "were",
        "be",
        "quite",
        "not",
        "very",
        "feel",
        "seemed",
    )
    return "K AH N T EH N T" if glad or after[0] in ("with", "to") else "K AA N T EH N T"


def _bows(before: list[str], after: list[str], words: list[str]) -> str:
    return "B AW Z" if before[-1] in THIRD or after[0] in ("to", "down") else "B OW Z"


SPECIAL = {
    "read": _read, "live": _live, "lives": _lives, "lead": _lead, "tear": _tear, "tears": _tears,
    "wind": _wind, "winds": _winds, "wound": _wound, "bow": _bow, "bows": _bows, "bass": _bass,
    "dove": _dove, "minute": _minute, "content": _content,
}  # fmt: skip
