"""An EPUB (3.3, W3C; also 2) as Markdown: headings and paragraphs of its spine, in reading order.

By the standard library: an EPUB is a ZIP of XHTML, and the known reader (ebooklib) is under AGPL.
"""

import os
import posixpath
import zipfile
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from ..errors import InputError
from ..files import open_regular

MOST_BYTES = 2**25
"""Of all its documents, unpacked."""
MOST_PACKED = 2**26
"""Of the file: its list of contents, some hundred bytes in memory for 46 in the file, is in it."""
HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
BLOCKS = {"p", "div", "section", "li", "dt", "dd", "blockquote", "pre", "tr", "figcaption", "body"}
SKIPPED = {"head", "script", "style", "nav", "svg", "math", "rt"}


def read_epub(path: Path) -> str:
    """The text of an EPUB as Markdown.

    Raises:
        InputError: It is damaged, encrypted, or too large.
    """
    try:
        with open_regular(path) as packed:
            if os.fstat(packed.fileno()).st_size > MOST_PACKED:
                most = MOST_PACKED / 2**20
                raise InputError(f"{path} is larger than {most:g} MiB: take its pictures out.")
            file = zipfile.ZipFile(packed)
            file.filename = str(path)  # what was opened knows only its number
            left = MOST_BYTES
            container = _xml(file, "META-INF/container.xml", left)
            package = next(e.attrib["full-path"] for e in container.iter() if _is(e, "rootfile"))
            opf = _xml(file, package, left)
            items = {e.attrib["id"]: e.attrib["href"] for e in opf.iter() if _is(e, "item")}
            found: list[str] = []
            for reference in (e for e in opf.iter() if _is(e, "itemref")):
                if reference.attrib.get("linear") == "no":
                    continue  # notes, beside the reading order
                place = unquote(items[reference.attrib["idref"]])
                name = posixpath.normpath(posixpath.join(posixpath.dirname(package), place))
                data = _bytes(file, name, left)
                left -= len(data)
                page = _Page()
                page.feed(data.decode("utf-8-sig"))
                page.close()
                page.flush()
                found += page.blocks
    except (zipfile.BadZipFile, zlib.error, ElementTree.ParseError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no whole EPUB ({error}).") from None
    except (KeyError, StopIteration, RuntimeError, NotImplementedError, EOFError) as error:
        raise InputError(f"{path} is damaged or encrypted ({error}).") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    return "\n\n".join(found)


class _Page(HTMLParser):
    """Blocks of one XHTML document."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self.words, self.prefix, self.skipping = list[str](), "", 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in SKIPPED:
            self.skipping += 1
        elif tag in HEADINGS or tag in BLOCKS:
            self.flush()
            self.prefix = f"{HEADINGS[tag]} " if tag in HEADINGS else self.prefix
        elif tag == "br":
            self.words.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in SKIPPED:
            self.skipping = max(0, self.skipping - 1)
        elif tag in HEADINGS or tag in BLOCKS:
            self.flush()
            self.prefix = ""

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.words.append(data)  # a text would be copied for each

    def flush(self) -> None:
        """End a block."""
        if words := "".join(self.words).split():
            self.blocks.append(self.prefix + " ".join(words))
        self.words = []


def _is(element: ElementTree.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


def _xml(file: zipfile.ZipFile, name: str, most: int) -> ElementTree.Element:
    return ElementTree.fromstring(_bytes(file, name, most))


def _bytes(file: zipfile.ZipFile, name: str, most: int) -> bytes:
    with file.open(name) as member:
        data = member.read(most + 1)
    if len(data) > most:
        raise InputError(f"{file.filename} holds more than {MOST_BYTES} bytes of text.")
    return data
