"""Rows of delimited text: comma, semicolon, tab or pipe, with a header line.

Knows bytes and delimiters; nothing about documents. A record that cannot be read costs its first
line only: reading goes on at the line behind it.
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from latentbank.documents.readers.encoding import Encoding, bad_byte, detect, sample_of
from latentbank.documents.readers.fields import check_header
from latentbank.documents.readers.rows import Found, Note, ReadOptions, Row
from latentbank.errors import InputError

__all__ = ["delimited_rows", "sniff"]

DELIMITERS = ",;\t|"
_OPEN = "a quotation mark is not closed"
_MAX_FIELD = 64 * 2**20  # characters
_SNIFF_LINES = 50
_SNIFF_CHARACTERS = 1 << 16


def delimited_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The rows of a file with a header, one `Row` or `InputError` per record."""
    encoding = detect(sample_of(file), options.encoding)
    file.seek(0)
    if not encoding.is_utf8:
        yield Note("encoding", path, f"read as {encoding.label}")
    lines = _Lines(file, encoding, path)
    delimiter = sniff(lines.peek(_SNIFF_LINES))
    header: list[str] | None = None
    for place, record in _records(lines, delimiter, path):
        if isinstance(record, InputError):
            yield record
        elif header is None:
            header = _names(record)
            lines.width = len(header)
            check_header(header, options, place)
        elif len(record) > len(header):
            yield InputError(
                f"{place}: the row has more fields than the header names: expected "
                f"{len(header)}, got {len(record)}."
            )
        else:
            yield Row(place, {k: v for k, v in zip(header, record, strict=False) if v})


def _names(header: Sequence[str]) -> list[str]:
    """Column names, stripped and each once; an empty one is named by its number."""
    names: list[str] = []
    for number, given in enumerate(header, start=1):
        name = given.strip() or f"column {number}"
        names.append(f"{name} ({number})" if name in names else name)
    return names


def sniff(lines: Sequence[str]) -> str:
    """The delimiter of a file's first lines.

    It is the one that cuts most lines into as many fields as the header; a comma where none cuts
    the header.
    """
    best, chosen = (0.0, 0), ","
    for delimiter in DELIMITERS:
        records = [record for record in _sample(lines, delimiter) if record]
        width = len(records[0]) if records else 0
        if width < 2:
            continue
        rest = records[1:] or records
        same = sum(len(record) == width for record in rest) / len(rest)
        if (same, width) > best:
            best, chosen = (same, width), delimiter
    return chosen


def _sample(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The records of some lines, the last one left out where it is cut off."""
    records: list[list[str]] = []
    try:
        for record in csv.reader(lines, delimiter=delimiter, strict=True):
            records.append(record)
    except csv.Error:
        if not records:  # a broken header: cut at the delimiters alone
            records = [line.rstrip("\r\n").split(delimiter) for line in lines]
    return records


class _Lines:
    """Numbered lines that can be given back; an unreadable one is an `InputError`."""

    def __init__(self, file: BinaryIO, encoding: Encoding, path: str) -> None:
        errors = "surrogateescape" if encoding.is_utf8 else "replace"
        text = io.TextIOWrapper(file, encoding.codec, errors, newline="")
        self.width: int | None = None  # fields of the header, once it is known
        self._waiting: deque[tuple[int, str | InputError]] = deque()
        self._source = self._numbered(text, encoding, path)

    def _numbered(
        self, text: io.TextIOWrapper, encoding: Encoding, path: str
    ) -> Iterator[tuple[int, str | InputError]]:
        for number, line in enumerate(text, start=1):
            yield number, _checked(line, encoding, f"{path}, line {number}")

    def next(self) -> tuple[int, str | InputError] | None:
        """The next line with its number, or None at the end."""
        return self._waiting.popleft() if self._waiting else next(self._source, None)

    def give_back(self, lines: Sequence[tuple[int, str | InputError]]) -> None:
        """Put lines in front of what comes next, in their order."""
        self._waiting.extendleft(reversed(lines))

    def peek(self, count: int) -> list[str]:
        """Up to `count` readable lines from here on, which stay."""
        taken: list[tuple[int, str | InputError]] = []
        characters = 0
        while len(taken) < count and characters < _SNIFF_CHARACTERS:
            if (line := self.next()) is None:
                break
            taken.append(line)
            characters += len(line[1]) if isinstance(line[1], str) else 0
        self.give_back(taken)
        return [line for _, line in taken if isinstance(line, str)]


def _checked(line: str, encoding: Encoding, place: str) -> str | InputError:
    if "\0" in line:
        return InputError(f"{place}: the line is binary (a NUL character); expected text.")
    if not encoding.is_utf8 and "\ufffd" in line:
        return InputError(f"{place}: the line is not valid {encoding.label}.")
    if encoding.is_utf8 and not line.isascii():
        bad = next((char for char in line if "\udc80" <= char <= "\udcff"), None)
        if bad is not None:
            return InputError(f"{place}: {bad_byte(bad)}")
    return line


def _records(
    lines: _Lines, delimiter: str, path: str
) -> Iterator[tuple[str, list[str] | InputError]]:
    """Records, each with the place of its first line; blank ones are left out.

    A broken record is an error, and gives all of its lines but the first back. So does one over
    several lines that has not as many fields as the header: a quotation mark in its first line
    was never closed.
    """
    taken: list[tuple[int, str | InputError]] = []

    def feed() -> Iterator[str]:
        while (line := lines.next()) is not None:
            taken.append(line)
            if isinstance(line[1], InputError):
                raise line[1]
            yield line[1]

    while True:
        taken.clear()
        error: InputError | None = None
        record: list[str] | None = []
        previous = csv.field_size_limit(_MAX_FIELD)  # the module's limit is process-wide
        try:
            record = next(csv.reader(feed(), delimiter=delimiter, strict=True), None)
        except csv.Error as found:
            error = InputError(f"{path}, line {taken[0][0]}: not CSV: {found}.")
        except InputError as found:
            error = found
            if len(taken) > 1:
                error = InputError(f"{path}, line {taken[0][0]}: not CSV: {_OPEN}.")
        finally:
            csv.field_size_limit(previous)
        if record is None:
            return
        place = f"{path}, line {taken[0][0]}"
        if error is None and len(taken) > 1 and lines.width not in (None, len(record)):
            error = InputError(f"{place}: not CSV: {_OPEN}.")
        if error is not None:
            lines.give_back(taken[1:])
            yield place, error
        elif any(field.strip() for field in record):
            yield place, record
