"""Statements read wrongly that no limit was chosen on: `python -m benchmarks.fresh` makes them.

As statements.py, but by other voices, with other names, and wrong in other words. Needs flite,
espeak-ng and festival; about 3 s a reading.
"""

import argparse

from benchmarks.statements import VOICES, Author, collect
from sayso.inference.recognisers import load_ears

VARIANTS = "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-us+f3", "en-gb+f2", "en-us+m7"
FRESH = {
    "kal": [["flite", "-voice", "kal"]],
    "festival": [["text2wave"]],
    "variants": [["espeak-ng", "-s", "140", "-v", voice] for voice in VARIANTS],
}
COUNTS = {"kal": (4, 32), "festival": (4, 32), "variants": (6, 36)}  # right, wrong
NAMES = {
    "speakers": "Grace Hopper,Samuel Green,Nora Fields,Victor,Helen Parker,Simon Walsh,Theresa",
    "controllers": "Harbour Studio,City Library,Blue River Clinic,Susan Taylor,Open Speech Group",
    "users": "Gabriel,Veronica,Dominic,Marianne,Leonard,Beatrice,Gregory,Isabel",
    "purposes": "podcasts,train announcements,school plays,voice mail,children's stories,subtitles",
    "negations": "scarcely,seldom,rarely,by no means,in no way,fail to,decline to,hate to,won't,"
    "wouldn't,shouldn't,didn't,used to,might,pretend to,nowhere,anything but,stop,object and,nor,"
    "instead,as if,would,only if paid,least of all,not at all,under duress,supposedly",
}
REPLACED = {
    "allows": (
        *("I will not allow", "I have never allowed", "I used to allow", "I might allow"),
        *("I object to", "I will stop", "You may not allow", "I allow nobody but"),
    ),
    "freely": (
        *("I say so because I must.", "I say so of somebody else's will.", "I say so unwillingly."),
        *("I was told to say so.", "I would not say so of my own will.", "I am paid to say so."),
    ),
    "revocable": (
        *("I can't take it back at any time.", "I may not ever take it back."),
        *("They may take it back at any time.", "I may take it back in ten years time."),
        *("I give up taking it back.", "I may take it back at one time."),
    ),
    "users": ("None of them may use it,", "Others may use it,", "they may not use it,"),
    "amount": ("as often as I like,", "just once,", "as seldom as they like,", "not very often,"),
    "alteration": ("My voice may hardly be altered.", "My voice may be altered by nobody."),
}
AROUND = (
    ("I was told to say", ""),
    ("If they paid me,", ""),
    ("In a play,", ""),
    ("Suppose that", ""),
    ("", "That was a lie."),
    ("", "I was only joking."),
    ("", "Forget what I said."),
    ("", "This does not count."),
    ("", "Unless I change my mind."),
    ("", "Or maybe I won't."),
)


def main() -> None:
    """Collect the statements of some readers, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help=", ".join(COUNTS), metavar="READER")
    parser.add_argument("--draw", type=int, default=1, help="1 made rules change, 2 came after")
    asked, ears = parser.parse_args(), load_ears()
    VOICES.update(FRESH)
    for name in asked.readers or COUNTS:
        author = Author(name, 20261124 + asked.draw, NAMES, REPLACED, AROUND)
        kept = f"fresh_{name}" if asked.draw == 1 else f"fresh{asked.draw}_{name}"
        collect(kept, author, *COUNTS[name], ears)


if __name__ == "__main__":
    main()
