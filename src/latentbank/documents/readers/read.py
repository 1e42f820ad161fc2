"""Documents from files, folders and standard input, in the order given.

Knows paths and rows; nothing about formats. Reading is lazy: a row is checked, and its error
raised or reported, when it is reached.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from latentbank.documents.document import MAX_ID_BYTES, Document
from latentbank.documents.readers.fields import row_document
from latentbank.documents.readers.folder import file_rows, list_files, shown
from latentbank.documents.readers.json_rows import stream_rows
from latentbank.documents.readers.rows import Found, Note, ReadOptions, Row
from latentbank.documents.readers.triples import row_triple
from latentbank.errors import InputError

__all__ = ["read_documents"]

_Plan = tuple[list[Path], list[Note]] | InputError | None


def read_documents(
    paths: Sequence[str | Path],
    on_bad: Callable[[InputError], None] | None = None,
    options: ReadOptions | None = None,
    on_note: Callable[[Note], None] | None = None,
) -> Iterator[Document]:
    """Read documents from files, folders and "-" (standard input), in the order given.

    - `.txt`, `.md`, `.rst`, `.html` or no suffix: the file is one document (split it with
      `chunk`). Its path is its id, so an edited file replaces what it was before.
    - `.jsonl`: one object per line: `text`, and optionally `id`, `time`, `source`, `metadata`.
    - `.json`: a list of such objects or of texts, one object, or an object that holds one list.
    - `.csv`, `.tsv`, `.parquet`: the same names as columns.
    - `.nt`, `.ttl`: a document for each statement, by rdflib.
    - any of these with `.gz` behind it.
    - a folder: its readable files, recursive, sorted, without hidden ones.
    - `-`: a line that starts with "{" is a jsonl row, every other non-empty line a document.

    With `options.triples` each row is a `Triple`; see `fields.COLUMN_NAMES` for its columns.

    Other fields of a row become metadata. Without a `source`, a document's source is the path as
    given (None for standard input). Raises `InputError`, naming the file and line, if something
    is missing, unreadable, empty, binary, malformed, has no text or a time that cannot be read;
    whether every path exists is checked before the first document is read. With `on_bad`, nothing
    is raised: it is called with each error when it is reached, and reading goes on behind the bad
    path, file, row or line. `on_note` hears what is no error: files that a folder leaves out,
    encodings that were detected, columns that cannot be stored.
    """
    if isinstance(paths, str | Path):
        raise InputError(f"read_documents expects a list of paths, got one: {str(paths)!r}.")
    options = options or ReadOptions()
    plans = [None if os.fspath(path) == "-" else _planned(path) for path in paths]
    missing = [plan for plan in plans if isinstance(plan, InputError)]
    if missing and on_bad is None:
        raise missing[0]
    for plan in plans:
        for found in _found(plan, options):
            if isinstance(found, Document):
                yield found
            elif isinstance(found, Note):
                if on_note is not None:
                    on_note(found)
            elif on_bad is None:
                raise found
            else:
                on_bad(found)


def _planned(path: str | Path) -> _Plan:
    try:
        return list_files(path)
    except InputError as error:
        return error


def _found(plan: _Plan, options: ReadOptions) -> Iterator[Document | Note | InputError]:
    """The documents of some files, or of standard input for None."""
    if isinstance(plan, InputError):
        yield plan
    elif plan is None:
        for row in stream_rows(sys.stdin.buffer, "standard input", options):
            yield _checked(row, None, options)
    else:
        yield from plan[1]
        for file in plan[0]:
            for row in file_rows(file, options):
                yield _checked(row, shown(file), options)


def _checked(row: Found, source: str | None, options: ReadOptions) -> Document | Note | InputError:
    if isinstance(row, Note | InputError):
        return row
    try:
        if options.triples:
            return row_triple(row, source, options)
        place = row.file or source
        return row_document(row, place, options, _file_id(row, place))
    except InputError as error:
        return error


def _file_id(row: Row, path: str | None) -> str | None:
    """The id of a document that is a whole file: its path, without `./`; None if too long."""
    if not row.whole or path is None:
        return None
    name = os.path.normpath(path).replace(os.sep, "/")
    return name if len(name.encode()) <= MAX_ID_BYTES else None
