"""Whole files as one text: plain text, Markdown, reStructuredText and HTML.

Knows bytes and markup; nothing about documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import BinaryIO

from latentbank.documents.readers.encoding import decode, detect, sample_of
from latentbank.documents.readers.rows import Found, Note, ReadOptions, Row
from latentbank.errors import InputError

__all__ = ["html_rows", "html_text", "text_rows"]

_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_HIDDEN = frozenset(["script", "style", "template", "noscript", "svg", "iframe"])
_BLOCKS = frozenset([
    "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hr", "html", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table",
    "tbody", "tfoot", "thead", "title", "tr", "ul",
])  # fmt: skip


def text_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The file as one row."""
    data, note = _read(file, path, options)
    if note is not None:
        yield note
    yield _whole(data, path, options)


def html_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The text of an HTML page as one row.

    Takes the encoding that the page declares, unless its bytes are UTF-8.
    """
    declared = _CHARSET.search(file.read(2048))
    file.seek(0)
    if declared is not None and options.encoding is None and not detect(sample_of(file)).is_utf8:
        options = replace(options, encoding=_declared(declared[1]))
    file.seek(0)
    data, note = _read(file, path, options)
    if note is not None:
        yield note
    yield _whole(html_text(data), path, options)


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


def _whole(text: str, path: str, options: ReadOptions) -> Row:
    return Row(path, {options.text_column or "text": text}, whole=True)


def _read(file: BinaryIO, path: str, options: ReadOptions) -> tuple[str, Note | None]:
    encoding = detect(sample_of(file), options.encoding)
    file.seek(0)
    text = decode(file.read(), encoding, path)
    if (zero := text.find("\0")) >= 0:
        offset = len(text[:zero].encode(encoding.codec.removesuffix("-sig"), "replace"))
        raise InputError(
            f"{path}: the file is binary (a NUL byte at offset {offset}); expected text."
        )
    note = None if encoding.is_utf8 else Note("encoding", path, f"read as {encoding.label}")
    return text.removeprefix("\ufeff"), note


def html_text(markup: str) -> str:
    """The visible text of HTML: a line per block, cells of a table row apart by a tab."""
    page = _Page()
    try:
        page.feed(markup)
        page.close()
    except AssertionError as error:  # html.parser, of a declaration that does not end
        raise InputError(f"The file is not readable HTML: {error}.") from error
    lines = (line.rstrip() for line in "".join(page.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Page(HTMLParser):
    """Collects text, with line breaks where blocks begin and end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: list[str] = []
        self._verbatim = 0

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

    def handle_endtag(self, tag: str) -> None:
        """Note what ends; a hidden element ends with its own tag only."""
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        elif tag in _BLOCKS:
            self._break("\n")
        self._verbatim = max(0, self._verbatim - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        """Collect text; white space outside `pre` is one space."""
        if self._hidden:
            return
        if not self._verbatim:
            data = re.sub(r"[ \t\r\n\f]+", " ", data)
            if not self.parts or self.parts[-1].endswith(("\n", " ", "\t")):
                data = data.lstrip(" ")
        if data:
            self.parts.append(data)

    def _break(self, sign: str) -> None:
        if self.parts and not self.parts[-1].endswith(sign):
            self.parts.append(sign)
