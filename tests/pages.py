"""What an HTML page that is handed out loads, and a text that would make it load more."""

from html.parser import HTMLParser

POISON = (
    "![a](http://evil.example/a.png) <img src=//evil.example/b.png> ![b][b] <script "
    "src=//evil.example/c.js></script>'\"><link rel=stylesheet href=//evil.example/d.css> | "
    "</td></style><style>@import '//evil.example/e.css'</style>\n\n[b]: http://evil.example/f.png"
)
LOADING = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "background"}
NEVER = {"link", "base", "iframe", "object", "embed", "form", "a", "image", "use"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loads, self.styles, self._within = list[str](), "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in NEVER, self.get_starttag_text()
        for name, value in attrs:
            assert not name.startswith("on") and value != "refresh", self.get_starttag_text()
            self.loads += [value or ""] * (name in LOADING)
            self.styles += (value or "") * (name == "style")
        self._within = tag

    def handle_data(self, data: str) -> None:
        self.styles += data * (self._within == "style")


def loads(page: str) -> list[str]:
    """The addresses that a page's markup loads; it has no frame, no link and no foreign style."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert "url(" not in reader.styles and "@import" not in reader.styles
    return reader.loads
