"""Documents for `write --skip-bad`: reading goes on behind a bad row, and each bad one is listed.

Knows paths and rows; the checks and the sentences are those of `latentbank.document`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from latentbank.document import Document, _row_document
from latentbank.document_rows import Row, _decode, _json_row, file_rows, list_files, stream_rows
from latentbank.errors import InputError

OnBad = Callable[[InputError], None]


def read_tolerantly(paths: Sequence[str], on_bad: OnBad) -> Iterator[Document]:
    """Documents as `read_documents` gives them; a bad path, file or row goes to `on_bad` instead.

    In jsonl and standard input one line is skipped, in csv and parquet a bad row (or, where the
    file itself is broken, its rest), a text file as a whole.
    """
    for path in paths:
        if path == "-":
            yield from _documents(_lines(sys.stdin.buffer, "standard input", on_bad), None, on_bad)
            continue
        try:
            files = list_files(Path(path))
        except InputError as error:
            on_bad(error)
            continue
        for file in files:
            yield from _documents(_file(file, on_bad), str(file), on_bad)


def _documents(rows: Iterable[Row], source: str | None, on_bad: OnBad) -> Iterator[Document]:
    for row in rows:
        try:
            document = _row_document(row, source)
        except InputError as error:
            on_bad(error)
        else:
            yield document


def _file(file: Path, on_bad: OnBad) -> Iterator[Row]:
    try:
        if file.suffix.lower() == ".jsonl":
            with file.open("rb") as handle:
                yield from _lines(handle, str(file), on_bad, json_only=True)
        else:
            yield from file_rows(file)
    except InputError as error:
        on_bad(error)
    except OSError as error:
        on_bad(InputError(f"{file} cannot be read: {error.strerror or error}."))


def _lines(
    lines: Iterable[bytes], where: str, on_bad: OnBad, json_only: bool = False
) -> Iterator[Row]:
    offset = 0
    for number, line in enumerate(lines, start=1):
        place = f"{where}, line {number}"
        try:
            text = _decode(line, place, offset)
            if json_only and text.strip():
                yield Row(place, _json_row(text, place))
            elif text.strip():
                for row in stream_rows([text.encode()], place):
                    yield Row(place, row.fields)
        except InputError as error:
            on_bad(error)
        offset += len(line)
