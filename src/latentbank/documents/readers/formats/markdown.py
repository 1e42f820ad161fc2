"""Markdown: a file as one text, with the outline of its headings, by markdown-it.

Knows Markdown and the few lines of front matter that name title and date; nothing about documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import BinaryIO

from latentbank.documents.outline import Section, nested
from latentbank.documents.readers.rows import Found, ReadOptions, text_row, told_time
from latentbank.documents.readers.text import read_text

__all__ = ["markdown_outline", "markdown_rows"]

_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"^(title|date)[ \t]*:[ \t]*(.+?)[ \t]*$", re.MULTILINE | re.IGNORECASE)


def markdown_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The file as one row. Its title is named by the front matter, or is the only first heading."""
    text, notes = read_text(file, path, options)
    yield from notes
    front = _FRONT.match(text)
    named = {} if front is None else {k.lower(): v for k, v in _FIELD.findall(front[1])}
    outline = markdown_outline(text, 0 if front is None else front.end())
    time, notes = told_time(named.get("date", "").strip("'\""), path, options)
    yield from notes
    title = named.get("title", "").strip("'\"") or _top(outline)
    yield text_row(path, text, options, outline, title=title, time=time)


def _top(outline: tuple[Section, ...]) -> str:
    """The heading above all others; "" where there are several."""
    tops = {section.path[0] for section in outline if section.path}
    return tops.pop() if len(tops) == 1 else ""


def markdown_outline(text: str, start: int = 0) -> tuple[Section, ...]:
    """The headings of a text from character `start` on; those in fences and lists do not count."""
    from markdown_it import MarkdownIt

    body = text[start:]
    parser = MarkdownIt("commonmark").disable(["inline", "reference"])
    # Counted as markdown-it counts lines: a lone "\r" does not end one here, for offsets.
    lines = body.replace("\r\n", " \n").replace("\r", " ").split("\n")
    starts = list(accumulate((len(line) + 1 for line in lines), initial=start))
    found: list[tuple[int, int, str]] = []
    tokens = parser.parse("\n".join(lines))
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            said = MarkdownIt("commonmark").parseInline(content.content)[0].children or []
            title = "".join(part.content for part in said if part.type != "html_inline")
            if title.strip():
                found.append((starts[token.map[0]], int(token.tag[1]), title))
    return nested(found)
