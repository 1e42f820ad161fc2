"""PDF files, by pypdf: the text of all pages, with the page of each part and the bookmarks.

Knows PDF files; nothing about documents.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from latentbank.documents.outline import Section, nested
from latentbank.documents.readers.rows import (
    Found,
    Note,
    ReadOptions,
    missing,
    text_row,
    told_time,
)
from latentbank.errors import InputError

__all__ = ["pdf_rows"]

_HYPHEN = re.compile(r"(\w)-\n(?=[a-zà-ÿ])")
_WRAPPED = re.compile(r"(?<=[^\n.!?:])\n(?=[a-zà-ÿ(])")
_SHOWN = 8  # pages that are named one by one


def pdf_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The file as one row. A page that cannot be read costs that page only."""
    try:
        import pypdf
    except ImportError as error:
        raise missing(path, "PDF", error) from error
    if not file.read(1):
        raise InputError(f"{path}: the file is empty.")
    file.seek(0)
    with _quiet():
        reader, count = _opened(pypdf, file, path)
        texts: list[str] = []
        bare: list[int] = []
        for number in range(count):
            try:
                text = _clean(reader.pages[number].extract_text())
            except Exception as error:  # pypdf raises many types on damaged pages
                text = ""
                yield InputError(f"{path}, page {number + 1}: the page cannot be read: {error}.")
            else:
                if not text:
                    bare.append(number + 1)
            texts.append(text)
        if not any(texts):
            if bare:
                raise InputError(
                    f"{path} has no text on its {_pages(count)}, as in a scan; "
                    "run text recognition first, such as ocrmypdf."
                )
            return
        bookmarks = _bookmarks(reader)
        said = _information(reader)
    if bare:
        yield Note("part", path, f"without text, perhaps scanned: {_listed(bare)}")
    time, notes = told_time(said.get("time"), path, options)
    yield from notes
    title = said.get("title") or ""
    text, starts = _joined(title, texts)
    outline = _outline(text, starts, bookmarks)
    yield text_row(path, text, options, outline, title=title, time=time, author=said.get("author"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps pypdf's own remarks off the terminal."""
    logger = logging.getLogger("pypdf")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _opened(pypdf: Any, file: BinaryIO, path: str) -> tuple[Any, int]:
    """A reader and the number of pages; raises `InputError` for what cannot be opened."""
    from pypdf.errors import DependencyError

    protected = f"{path} is password-protected; save a copy without a password first."
    try:
        reader = pypdf.PdfReader(file)
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError(protected)
        return reader, len(reader.pages)
    except InputError:
        raise
    except DependencyError as error:
        raise InputError(
            f"{path}: reading an encrypted PDF needs cryptography: pip install 'latentbank[files]'."
        ) from error
    except Exception as error:  # pypdf raises many types on damaged files
        raise InputError(f"{path} is not a readable PDF: it is damaged or cut off.") from error


def _clean(text: str) -> str:
    """A page's text with words and sentences that run over lines put together."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")
    lines = (line.strip() for line in text.splitlines())
    return _WRAPPED.sub(" ", _HYPHEN.sub(r"\1", "\n".join(lines))).strip()


def _information(reader: Any) -> dict[str, Any]:
    """Title, author and time, as far as the file says them readably."""
    found: dict[str, Any] = {}
    try:
        said = reader.metadata
        if said is None:
            return {}
        for name in ("title", "author"):
            value = getattr(said, name)
            if isinstance(value, str):
                found[name] = _clean(" ".join(value.split()))
        found["time"] = said.modification_date or said.creation_date
    except Exception:  # a date or a string that is damaged: the text counts
        return found
    return found


def _bookmarks(reader: Any) -> list[tuple[int, int, str]]:
    """(page from 0, level from 1, title) of each bookmark, in their order."""
    found: list[tuple[int, int, str]] = []

    def walk(items: Any, level: int) -> None:
        for item in items:
            if isinstance(item, list):
                walk(item, level + 1)
                continue
            page = reader.get_destination_page_number(item)
            title = _clean(str(item.title)) if item.title else ""
            if page is not None and page >= 0 and title:
                found.append((page, level, title))

    try:
        walk(reader.outline, 1)
    except Exception:  # bookmarks that are damaged: the text counts
        return []
    return sorted(found, key=lambda one: one[0])


def _joined(title: str, texts: list[str]) -> tuple[str, list[int]]:
    """The text of all pages below the title, and where each page begins."""
    first = "" if not title or title in texts[0][:500] else title
    parts, starts = [first], []
    length = len(first)
    for text in texts:
        sign = "\n\n" if length else ""
        starts.append(length + len(sign) if text else length)
        if text:
            parts += [sign, text]
            length += len(sign) + len(text)
    return "".join(parts), starts


def _outline(
    text: str, starts: list[int], bookmarks: list[tuple[int, int, str]]
) -> tuple[Section, ...]:
    """Sections of bookmarks and pages; a bookmark begins at its words on its page."""
    ends = [*starts[1:], len(text)]
    headings = []
    for page, level, title in bookmarks:
        if page < len(starts):
            at = text.find(title, starts[page], ends[page])
            headings.append((starts[page] if at < 0 else at, level, title))
    sections = list(nested(sorted(headings, key=lambda one: one[0])))
    paged: list[Section] = []
    for number, start in enumerate(starts):
        while sections and sections[0].start < start:
            section = sections.pop(0)
            paged.append(section._replace(place=paged[-1].place if paged else "page 1"))
        here = f"page {number + 1}"
        if sections and sections[0].start == start:
            continue_ = [s for s in sections if s.start == start]
            del sections[: len(continue_)]
            paged += [s._replace(place=here) for s in continue_]
        else:
            paged.append(Section(start, paged[-1].path if paged else (), here))
    paged += [section._replace(place=paged[-1].place) for section in sections]
    return tuple(paged)


def _pages(count: int) -> str:
    return "1 page" if count == 1 else f"{count} pages"


def _listed(pages: list[int]) -> str:
    more = f" and {len(pages) - _SHOWN} more" if len(pages) > _SHOWN else ""
    word = "page" if len(pages) == 1 else "pages"
    return f"{word} {', '.join(map(str, pages[:_SHOWN]))}{more}"
