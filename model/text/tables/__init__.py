"""Tables of what is written and what is said for it: tab-separated, a head, then a row a line."""

from pathlib import Path


def rows(name: str) -> list[list[str]]:
    """The cells of each row of a table, without its head, in order."""
    lines = (Path(__file__).parent / f"{name}.tsv").read_text("utf-8").splitlines()
    return [line.split("\t") for line in lines[1:]]


def pairs(name: str) -> dict[str, str]:
    """The second column of a table by its first, in order."""
    return {row[0]: row[1] for row in rows(name)}
