"""EPUB books: the chapters in their order as one text, by `zipfile` and the reader of HTML.

Knows EPUB files; nothing about documents.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import ZipFile

from latentbank.documents.outline import Section
from latentbank.documents.readers.encoding import decode, detect
from latentbank.documents.readers.formats.html import html_page
from latentbank.documents.readers.formats.packed import member, open_packed
from latentbank.documents.readers.rows import Found, ReadOptions, text_row, told_time
from latentbank.errors import InputError

__all__ = ["epub_rows"]

_WHAT = "an EPUB book"
_DC = "{http://purl.org/dc/elements/1.1/}"


def epub_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The book as one row. A chapter that cannot be read costs that chapter only."""
    with open_packed(file, path, _WHAT) as packed:
        container = _xml(packed, "META-INF/container.xml", path)
        root = next(
            (one.get("full-path", "") for one in container.iter() if _is(one, "rootfile")), ""
        )
        book = _xml(packed, root, path)
        if protected := _protected(packed):
            names = [name for name in _chapters(book, root) if name in protected]
            if names:
                raise InputError(f"{path} is protected against copying (DRM) and cannot be read.")
        said = {
            name: next((one.text.strip() for one in book.iter(_DC + name) if one.text), "")
            for name in ("title", "creator", "date", "language")
        }
        text, sections = said["title"], list[Section]()
        for name in _chapters(book, root):
            try:
                data = member(packed, name, path)
                page = html_page(decode(data, detect(data), f"{path}, {name}"), False)
            except InputError as error:
                yield error
                continue
            if page.text:
                text += "\n\n" if text else ""
                sections += (one._replace(start=one.start + len(text)) for one in page.outline)
                text += page.text
    if text == said["title"]:
        raise InputError(f"{path}: the book has no text.")
    time, notes = told_time(said["date"], path, options)
    yield from notes
    yield text_row(
        path,
        text,
        options,
        tuple(sections),
        title=said["title"],
        time=time,
        author=said["creator"],
        language=said["language"],
    )


def _xml(packed: ZipFile, name: str, path: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(member(packed, name, path))
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is damaged: its part {name} is not XML.") from error


def _is(element: ElementTree.Element, name: str) -> bool:
    return isinstance(element.tag, str) and element.tag.rpartition("}")[2] == name


def _chapters(book: ElementTree.Element, root: str) -> list[str]:
    """The names of the chapters in the zip file, in the order of reading."""
    files = {
        one.get("id"): posixpath.normpath(
            posixpath.join(posixpath.dirname(root), unquote(one.get("href", "")))
        )
        for one in book.iter()
        if _is(one, "item") and "html" in one.get("media-type", "")
    }
    order = [one.get("idref") for one in book.iter() if _is(one, "itemref")]
    return [files[id] for id in order if id in files]


def _protected(packed: ZipFile) -> set[str]:
    """The parts that are encrypted, such as fonts, or chapters of a book with DRM."""
    try:
        data = packed.read("META-INF/encryption.xml")
        found = ElementTree.fromstring(data)
    except (KeyError, ElementTree.ParseError, RuntimeError, OSError):
        return set()
    return {unquote(one.get("URI", "")) for one in found.iter() if _is(one, "CipherReference")}
