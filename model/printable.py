"""What comes from outside, made safe to print: no control characters, breaks or hidden turns."""

import unicodedata

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of what moves the cursor, turns the writing round or cannot be seen."""


def printable(text: object) -> str:
    """The text with whatever a terminal would obey or not show as escapes, such as \\x1b, \\u202e.

    The result is one line.
    """
    return "".join(
        char if unicodedata.category(char) not in HIDDEN else _escaped(char) for char in str(text)
    )


def _escaped(char: str) -> str:
    code = ord(char)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )
