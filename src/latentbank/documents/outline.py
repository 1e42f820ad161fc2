"""The outline of a text: where its sections begin, and what a chunk of it says about its place.

Knows strings and a function that counts tokens; nothing about documents, files or formats.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from latentbank.documents.chunking import CountTokens, Span, split_spans

__all__ = [
    "HEADING",
    "PLACE",
    "SEPARATOR",
    "TITLE",
    "Piece",
    "Section",
    "marked",
    "nested",
    "pieces",
]

TITLE, HEADING, PLACE = "title", "heading", "place"
"""Names in the metadata of a chunk: title of the document, headings above it, page or time code."""
SEPARATOR = " › "
MAX_HEADING = 200  # characters of one heading
_SMALL = 4  # neighbours are joined up to a quarter of what a chunk may hold
_LONG = 16  # characters for each token that is allowed; a longer text is not counted
_MOST_CONTEXT = 4  # the headings in front of a chunk take a quarter of it at most

_MARK = re.compile("\0([1-9])\0")


class Section(NamedTuple):
    """Where a part of a text begins.

    `path`: its headings, the outermost first; () before the first. The text repeats the last of
    them at `start`, as a Markdown file does. `place`: a page or a time code, for people.
    """

    start: int
    path: tuple[str, ...] = ()
    place: str = ""


class Piece(NamedTuple):
    """A chunk's text with the headings in front of it, and its heading and place for people."""

    text: str
    heading: str
    place: str


def nested(headings: Iterable[tuple[int, int, str]]) -> tuple[Section, ...]:
    """The outline of headings (start, level, title), in their order; level 1 is the outermost."""
    stack: list[tuple[int, str]] = []
    sections: list[Section] = []
    for start, level, title in headings:
        while stack and stack[-1][0] >= level:
            stack.pop()
        name = " ".join(title.split())[:MAX_HEADING]
        if name:
            stack.append((level, name))
        sections.append(Section(start, tuple(text for _, text in stack)))
    return tuple(sections)


def marked(text: str) -> tuple[str, tuple[Section, ...]]:
    """A text and its outline, from one with marks of NUL, level, NUL in front of its headings."""
    parts: list[str] = []
    headings: list[tuple[int, int, str]] = []
    length = end = 0
    for match in _MARK.finditer(text):
        parts.append(text[end : match.start()])
        length += match.start() - end
        end = match.end()
        stop = text.find("\n", end)
        line = text[end : len(text) if stop < 0 else stop]
        headings.append((length, int(match[1]), _MARK.sub("", line)))
    parts.append(text[end:])
    return "".join(parts), nested(one for one in headings if one[2].strip())


def pieces(
    text: str,
    title: str,
    outline: Sequence[Section],
    count_tokens: CountTokens,
    chunk_tokens: int,
) -> list[Piece]:
    """Split a text with an outline into pieces of at most `chunk_tokens` tokens, in order.

    A piece lies within one section; small neighbours of one parent are joined. In front of it
    stand the document's title and the headings that its own text does not repeat. Raises
    `InputError` as `split_text` does.
    """
    found: list[Piece] = []
    sections = _Sections(outline)
    for span in _groups(text, outline, count_tokens, chunk_tokens):
        longest = _context(title, sections.at(span[0]).path, count_tokens, chunk_tokens)
        room = chunk_tokens - (count_tokens([longest + "\n\n"])[0] + 1 if longest else 0)
        for start, end in split_spans(text, count_tokens, room, span):
            here = sections.at(start)
            above = here.path[:-1] if sections.begins(text, start) else here.path
            context = _context(title, above, count_tokens, chunk_tokens)
            body = text[start:end]
            whole = f"{context}\n\n{body}" if context and not body.startswith(context) else body
            if whole != body and count_tokens([whole])[0] > chunk_tokens:
                whole = body  # the headings here are longer than those at the start
            heading = _heading(
                text, [here._replace(start=start), *sections.within(start, end)], end
            )
            found.append(Piece(whole, SEPARATOR.join(heading), here.place))
    return found


def _groups(
    text: str, outline: Sequence[Section], count_tokens: CountTokens, limit: int
) -> list[Span]:
    """Spans of one section each, or of several small ones below one parent."""
    starts = [0]
    paths: list[tuple[str, ...]] = [()]
    for section in outline:
        if section.path == paths[-1]:
            continue
        if not text[starts[-1] : section.start].strip():
            paths[-1] = section.path
            continue
        starts.append(section.start)
        paths.append(section.path)
    small = limit // _SMALL
    spans = list(pairwise([*starts, len(text)]))
    # what is long is not counted: a token is a few characters at most
    short = [span for span in spans if span[1] - span[0] <= _LONG * small]
    counts = dict(zip(short, count_tokens([text[a:b] for a, b in short]), strict=True))
    groups: list[Span] = []
    parent: tuple[str, ...] = ()
    size = 0
    for span, path in zip(spans, paths, strict=True):
        count = counts.get(span, limit)
        joined = bool(groups) and path[: len(parent)] == parent
        if joined and (size + count <= small or _is_bare(text, groups[-1])):
            groups[-1] = (groups[-1][0], span[1])
            size += count
            continue
        groups.append(span)
        parent, size = path[:-1], count
    return groups


def _is_bare(text: str, span: Span) -> bool:
    """Whether a part of a text is a heading alone."""
    if span[1] - span[0] > _LONG * MAX_HEADING:
        return False
    body = text[slice(*span)].strip()
    return "\n" not in body and len(body) <= MAX_HEADING


class _Sections:
    """An outline that finds the section of a character."""

    def __init__(self, outline: Sequence[Section]) -> None:
        self._outline = outline
        self._starts = [section.start for section in outline]

    def at(self, start: int) -> Section:
        """The last section that begins at or before a character."""
        number = bisect_right(self._starts, start)
        return self._outline[number - 1] if number else Section(0)

    def within(self, start: int, end: int) -> Sequence[Section]:
        """The sections that begin behind `start` and before `end`."""
        return self._outline[bisect_right(self._starts, start) : bisect_left(self._starts, end)]

    def begins(self, text: str, start: int) -> bool:
        """Whether a section with a heading of its own begins here, white space aside."""
        here = self.at(start)
        before = self.at(here.start - 1) if here.start else Section(0)
        return here.path != before.path and not text[here.start : start].strip()


def _context(title: str, path: Sequence[str], count_tokens: CountTokens, chunk_tokens: int) -> str:
    """Title and headings in one line; fewer of them where they would take too much of a chunk."""
    names = [*([title] if title and title not in path[:1] else []), *path]
    while names:
        line = SEPARATOR.join(names)
        if count_tokens([line])[0] <= chunk_tokens // _MOST_CONTEXT:
            return line
        names = names[1:]
    return ""


def _heading(text: str, sections: Sequence[Section], end: int) -> tuple[str, ...]:
    """The headings that all parts of a piece are below; a part that is a heading alone is none."""
    ends = [*(section.start for section in sections[1:]), end]
    full = [
        section.path
        for section, stop in zip(sections, ends, strict=True)
        if stop == end or not _is_bare(text, (section.start, stop))
    ]
    return _common(full) or sections[0].path


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    shortest = min(paths, key=len)
    for at, name in enumerate(shortest):
        if any(path[at] != name for path in paths):
            return shortest[:at]
    return shortest
