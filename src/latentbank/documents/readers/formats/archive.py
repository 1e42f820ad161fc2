"""Zip files: the files inside are read as those of a folder.

Knows zip files and which reader is for which name; nothing about the formats inside.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import PurePath, PurePosixPath
from typing import BinaryIO

from latentbank.documents.readers.formats.packed import member, open_packed
from latentbank.documents.readers.rows import Found, Note, ReadOptions, Row
from latentbank.errors import InputError

__all__ = ["archive_rows"]

RowsOf = Callable[[BinaryIO, PurePath, str, ReadOptions], Iterator[Found]]


def archive_rows(
    file: BinaryIO,
    path: str,
    options: ReadOptions,
    reads: Callable[[PurePath], bool],
    rows_of: RowsOf,
) -> Iterator[Found]:
    """The rows of the files in a zip file, sorted; a file that is damaged costs that file only.

    `reads` says of a name whether such files are read, and `rows_of` reads one.
    """
    read = 0
    with open_packed(file, path, "a zip file") as packed:
        for info in sorted(packed.infolist(), key=lambda one: one.filename):
            name = PurePosixPath(info.filename)
            where = f"{path}/{info.filename}"
            if info.is_dir():
                continue
            if any(part.startswith(".") or part == "__MACOSX" for part in name.parts):
                yield Note("skipped", where, "skipped, a hidden file")
                continue
            if not reads(name):
                yield Note("skipped", where, f"skipped, the suffix {name.suffix} is not read")
                continue
            read += 1
            try:
                data = member(packed, info.filename, where)
                for found in rows_of(io.BytesIO(data), name, where, options):
                    yield found._replace(file=where) if isinstance(found, Row) else found
            except InputError as error:
                yield error
    if read == 0:
        raise InputError(f"The zip file {path} holds no file to read.")
