"""HTML pages: visible text, title, headings and the time that the page names.

Knows bytes and markup; nothing about documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import BinaryIO

from latentbank.documents.outline import Section, marked
from latentbank.documents.readers.encoding import detect, sample_of
from latentbank.documents.readers.rows import Found, ReadOptions, text_row, told_time
from latentbank.documents.readers.text import read_text
from latentbank.errors import InputError

__all__ = ["Page", "html_page", "html_rows", "html_text"]

_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_HIDDEN = frozenset(["script", "style", "template", "noscript", "svg", "iframe"])
_BLOCKS = frozenset([
    "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hr", "html", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table",
    "tbody", "tfoot", "thead", "title", "tr", "ul",
])  # fmt: skip


_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_TIMES = (
    "article:modified_time", "og:updated_time", "datemodified", "article:published_time",
    "datepublished", "date", "dc.date", "dcterms.modified", "last-modified",
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    """What an HTML page says: its text with the outline, its title, and its metadata."""

    text: str
    outline: tuple[Section, ...]
    title: str = ""
    meta: dict[str, str] = field(default_factory=dict)

    @property
    def time(self) -> str:
        """When the page says it was changed, or published; "" if it does not say."""
        return next((self.meta[name] for name in _TIMES if self.meta.get(name)), "")


def html_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The text of an HTML page as one row.

    Takes the encoding that the page declares, unless its bytes are UTF-8.
    """
    declared = _CHARSET.search(file.read(2048))
    file.seek(0)
    if declared is not None and options.encoding is None and not detect(sample_of(file)).is_utf8:
        options = replace(options, encoding=_declared(declared[1]))
    file.seek(0)
    data, notes = read_text(file, path, options)
    yield from notes
    page = html_page(data)
    time, notes = told_time(page.time, path, options)
    yield from notes
    yield text_row(path, page.text, options, page.outline, title=page.title, time=time)


def _declared(name: bytes) -> str | None:
    """The encoding that a page names, as browsers read it; None for an unknown one."""
    text = name.decode("ascii").lower()
    if text in ("iso-8859-1", "latin1", "ascii", "us-ascii"):
        return "cp1252"
    try:
        detect(b"", text)
    except InputError:
        return None
    return text


def html_text(markup: str) -> str:
    """The visible text of HTML: a line per block, cells of a table row apart by a tab."""
    return html_page(markup).text


def html_page(markup: str, title_in_text: bool = True) -> Page:
    """What a page of HTML says; raises `InputError` if it cannot be read."""
    parser = _Page(title_in_text)
    try:
        parser.feed(markup)
        parser.close()
    except AssertionError as error:  # html.parser, of a declaration that does not end
        raise InputError(f"The file is not readable HTML: {error}.") from error
    lines = (line.rstrip() for line in "".join(parser.parts).split("\n"))
    text, outline = marked(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip())
    return Page(text, outline, " ".join("".join(parser.title).split()), parser.meta)


class _Page(HTMLParser):
    """Collects text, with line breaks around blocks and a mark in front of each heading."""

    def __init__(self, title_in_text: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._title_in_text = title_in_text
        self.parts: list[str] = []
        self.title: list[str] = []
        self.meta: dict[str, str] = {}
        self._hidden: list[str] = []
        self._verbatim = 0
        self._in_title = False
        self._mark = ""  # of a heading that has no text yet

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what starts."""
        if tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag in _BLOCKS:
            self._break("\n\n" if tag in ("p", "table", "h1", "h2", "h3", "h4") else "\n")
        elif tag == "br":
            self.parts.append("\n")
        elif tag in ("td", "th") and self.parts and not self.parts[-1].endswith("\n"):
            self.parts.append("\t")
        self._verbatim += tag == "pre"
        if tag in _HEADINGS:
            self._mark = f"\0{_HEADINGS[tag]}\0"
        elif tag == "title":
            self._in_title = not self.title and "svg" not in self._hidden
        elif tag == "meta":
            self._note_meta({name: value or "" for name, value in attrs})

    def _note_meta(self, values: dict[str, str]) -> None:
        name = values.get("property") or values.get("name") or values.get("itemprop")
        if name and values.get("content"):
            self.meta.setdefault(name.lower(), values["content"].strip())

    def handle_endtag(self, tag: str) -> None:
        """Note what ends; a hidden element ends with its own tag only."""
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        elif tag in _BLOCKS:
            self._break("\n")
        self._verbatim = max(0, self._verbatim - (tag == "pre"))
        if tag in _HEADINGS:
            self._mark = ""
        elif tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        """Collect text; white space outside `pre` is one space."""
        if self._hidden:
            return
        data = data.replace("\0", "")
        if self._in_title:
            self.title.append(data)
            if not self._title_in_text:
                return
        if not self._verbatim:
            data = re.sub(r"[ \t\r\n\f]+", " ", data)
            if not self.parts or self.parts[-1].endswith(("\n", " ", "\t")):
                data = data.lstrip(" ")
        if data:
            if self._mark and data.strip():
                data, self._mark = self._mark + data, ""
            self.parts.append(data)

    def _break(self, sign: str) -> None:
        if self.parts and not self.parts[-1].endswith(sign):
            self.parts.append(sign)
