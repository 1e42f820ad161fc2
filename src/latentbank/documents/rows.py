"""Rows of fields from text, jsonl, csv and parquet files and from a stream of lines.

Knows bytes, encodings and formats; nothing about documents. Every row comes with the words that
name its place ("notes.jsonl, line 3"). In the place of a row that cannot be read stands its error,
which names the file and the line; reading goes on behind it where the format allows that.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from latentbank.errors import InputError

__all__ = ["SUFFIXES", "Found", "Row", "file_rows", "list_files", "stream_rows"]

_MAX_CSV_FIELD = 64 * 2**20  # characters


class Row(NamedTuple):
    """Named fields and the words that say where they stand."""

    where: str
    fields: dict[str, Any]


Found = Row | InputError
"""A row, or what is wrong with it."""


def list_files(path: Path) -> list[Path]:
    """The file itself, or a folder's supported files: recursive, sorted, without hidden ones.

    A file of an unknown suffix is refused, one without any suffix is taken as plain text. Raises
    `InputError` if the path does not exist or a folder holds nothing to read.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    known = ", ".join(SUFFIXES)
    if not path.is_dir():
        if path.suffix and path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{path} has the suffix {path.suffix}; readable are {known}, folders and - (stdin)."
            )
        return [path]
    with _named(path):
        found = sorted(
            item
            for item in path.rglob("*")
            if item.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in item.relative_to(path).parts)
            and item.is_file()
        )
    if not found:
        raise InputError(f"The folder {path} holds no file to read; readable are {known}.")
    return found


def file_rows(path: Path) -> Iterator[Found]:
    """Rows of one file, by its suffix.

    A bad line of jsonl costs that line, a csv row of too many fields that row; where a file itself
    is broken, its rest is lost.
    """
    try:
        with _named(path):
            yield from _READERS.get(path.suffix.lower(), _text_rows)(path)
    except InputError as error:
        yield error


def stream_rows(lines: Iterable[bytes], where: str) -> Iterator[Found]:
    """Rows of a stream: a line that starts with "{" is JSON, any other non-empty one a text."""
    for number, line in _decoded(lines, where):
        place = f"{where}, line {number}"
        if isinstance(line, InputError):
            yield line
        elif line.lstrip().startswith("{"):
            yield _json_row(line, place)
        elif line.strip():
            yield Row(place, {"text": line.strip()})


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _decode(data: bytes, where: str, offset: int = 0) -> str:
    """UTF-8 to text; `offset` is where `data` starts in its file, for the message."""
    if offset == 0 and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{where}: the file is UTF-16; convert it to UTF-8 first.")
    if (zero := data.find(b"\0")) >= 0:
        raise InputError(
            f"{where}: the file is binary (a NUL byte at offset {offset + zero}); expected text."
        )
    try:
        return data.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        at = offset + error.start + (3 if offset == 0 and data.startswith(b"\xef\xbb\xbf") else 0)
        raise InputError(
            f"{where}: byte 0x{error.object[error.start]:02x} at offset {at} is not UTF-8; "
            "convert the file to UTF-8 first."
        ) from error


def _decoded(lines: Iterable[bytes], where: str) -> Iterator[tuple[int, str | InputError]]:
    offset = 0
    for number, line in enumerate(lines, start=1):
        try:
            yield number, _decode(line, f"{where}, line {number}", offset)
        except InputError as error:
            yield number, error
        offset += len(line)


def _text_rows(path: Path) -> Iterator[Found]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = _decode(data, f"{path}, line {line}")
    if "\0" in text:
        text = _decode(data, str(path))
    yield Row(str(path), {"text": text})


def _jsonl_rows(path: Path) -> Iterator[Found]:
    with path.open("rb") as file:
        for number, line in _decoded(file, str(path)):
            if isinstance(line, InputError):
                yield line
            elif line.strip():
                yield _json_row(line, f"{path}, line {number}")


def _json_row(line: str, where: str) -> Found:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return InputError(f"{where}: not a JSON row: {error}.")
    if not isinstance(row, dict):
        return InputError(
            f'{where}: expected a JSON object such as {{"text": "…"}}, got {type(row).__name__}.'
        )
    return Row(where, row)


def _csv_rows(path: Path) -> Iterator[Found]:
    at = 0  # the line that the reader took last

    def lines(file: BinaryIO) -> Iterator[str]:
        nonlocal at
        for at, line in _decoded(file, str(path)):  # noqa: B007
            if isinstance(line, InputError):
                raise line
            yield line

    with path.open("rb") as file:
        reader = csv.DictReader(lines(file), strict=True)
        while True:
            previous = csv.field_size_limit(_MAX_CSV_FIELD)  # the module's limit is process-wide
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise InputError(f"{path}, line {at}: not CSV: {error}.") from error
            finally:
                csv.field_size_limit(previous)
            if row is None:
                return
            place = f"{path}, line {at}"
            if None in row:
                yield InputError(f"{place}: the row has more fields than the header names.")
            else:
                yield Row(place, {key: value for key, value in row.items() if value})


def _parquet_rows(path: Path) -> Iterator[Found]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError(f"{path}: reading parquet needs pyarrow: pip install pyarrow.") from error
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", fields)
    except pa.ArrowException as error:
        raise InputError(f"{path} is not a readable parquet file: {error}.") from error


_READERS: dict[str, Callable[[Path], Iterator[Found]]] = {
    ".csv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".md": _text_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}
SUFFIXES = tuple(_READERS)
