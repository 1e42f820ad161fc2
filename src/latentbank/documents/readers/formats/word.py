"""Word files (.docx), by python-docx: paragraphs and tables in their order, with the headings.

Knows Word files; nothing about documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from latentbank.documents.outline import marked
from latentbank.documents.readers.formats.packed import open_packed
from latentbank.documents.readers.rows import Found, ReadOptions, missing, text_row, told_time
from latentbank.errors import InputError

__all__ = ["word_rows"]

_WHAT = "a Word file (.docx)"
_TEMPLATE = "2013-12-23T23:15:00"  # in files that python-docx made, whenever it was
_HEADING = re.compile(r"heading ([1-9])", re.IGNORECASE)


def word_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The file as one row; headers, footers, notes and text boxes are left out."""
    try:
        import docx
    except ImportError as error:
        raise missing(path, "Word files", error) from error
    with open_packed(file, path, _WHAT):
        pass
    file.seek(0)
    try:
        document = docx.Document(file)
        text, outline = marked("\n\n".join(_blocks(document)))
        said = document.core_properties
        title, changed, author = said.title, said.modified or said.created, said.author
        if changed is not None and changed.isoformat()[:19] == _TEMPLATE:
            changed = None
    except Exception as error:  # python-docx and lxml raise many types on damaged files
        raise InputError(f"{path} is damaged; it is not readable as {_WHAT}.") from error
    if not text.strip():
        raise InputError(f"{path}: the Word file has no text.")
    time, notes = told_time(changed, path, options)
    yield from notes
    if title and title.strip() and not text.lstrip().startswith(title.strip()):
        shift = len(title) + 2
        text = f"{title}\n\n{text}"
        outline = tuple(one._replace(start=one.start + shift) for one in outline)
    yield text_row(
        path, text, options, outline, title=(title or "").strip(), time=time, author=author
    )


def _blocks(document: Any) -> Iterator[str]:
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            yield "\n".join(_rows(block))
            continue
        line = block.text.replace("\0", "").strip()
        if not line:
            continue
        name = block.style.name if block.style is not None else ""
        found = _HEADING.fullmatch(name or "")
        level = int(found[1]) if found else 1 if name == "Title" else 0
        yield f"\0{level}\0{' '.join(line.split())}" if level else line


def _rows(table: Any) -> Iterator[str]:
    """The rows of a table, cells apart by a tab; cells that are joined are said once."""
    for row in table.rows:
        cells: list[str] = []
        before = None
        for cell in row.cells:
            if cell._tc is not before:
                cells.append(" ".join(cell.text.replace("\0", "").split()))
            before = cell._tc
        if any(cells):
            yield "\t".join(cells)
