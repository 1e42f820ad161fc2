"""Rows of JSON Lines, of JSON files and of a stream of lines.

Knows JSON and UTF-8; nothing about documents. A bad line costs that line only.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from latentbank.documents.readers.chats.chat import chat_rows
from latentbank.documents.readers.chats.exports import exported_chats
from latentbank.documents.readers.encoding import UTF8, Encoding, decode, detect
from latentbank.documents.readers.fields import TEXT_NAMES
from latentbank.documents.readers.rows import Found, Note, ReadOptions, Row
from latentbank.errors import InputError

__all__ = ["json_rows", "jsonl_rows", "stream_rows"]


def jsonl_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """One JSON object per line, in UTF-8, or in UTF-16 or UTF-32 with a byte order mark."""
    head = file.read(4)
    file.seek(0)
    lines: Iterable[bytes] = file
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        encoding = detect(head)
        yield Note("encoding", path, f"read as {encoding.label}")
        text = decode(file.read(), encoding, path)
        lines = (line.encode() for line in text.splitlines(keepends=True))
    for number, line in _decoded(lines, path):
        if isinstance(line, InputError):
            yield line
        elif line.strip():
            yield _json_row(line, f"{path}, line {number}", options)


def json_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """A JSON file: a list of rows or texts, one row, or an object that holds one list of rows.

    Chats that a program exported give a row for each day of each chat. A file of several JSON
    values is read as JSON Lines.
    """
    data = file.read()
    encoding = _json_encoding(data)
    if not encoding.is_utf8:
        yield Note("encoding", path, f"read as {encoding.label}")
    text = decode(data, encoding, path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            file.seek(0)
            yield from jsonl_rows(file, path, options)
            return
        raise InputError(f"{path}, line {error.lineno}: not JSON: {error.msg}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}.") from error
    try:
        chats = exported_chats(value, path)
    except RecursionError as error:
        raise InputError(f"{path}: its values are nested too deeply.") from error
    if chats is not None:
        yield from chat_rows(chats, path, options)
        return
    rows = _rows_in(value)
    if rows is None:
        yield _checked(value, path, options)
        return
    for number, row in enumerate(rows, start=1):
        yield _checked(row, f"{path}, item {number}", options)


def _json_encoding(data: bytes) -> Encoding:
    """RFC 8259: UTF-8; a byte order mark or zero bytes tell UTF-16 and UTF-32."""
    wide = data[:4].count(0) > 0 or data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return detect(data[:4096]) if wide else UTF8


def _rows_in(value: Any) -> list[Any] | None:
    """The rows that a JSON value holds; None if it is a row itself."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or any(name.casefold() in TEXT_NAMES for name in value):
        return None
    lists = [
        item
        for item in value.values()
        if isinstance(item, list) and item and all(isinstance(row, dict) for row in item)
    ]
    return lists[0] if len(lists) == 1 else None


def stream_rows(lines: Iterable[bytes], where: str, options: ReadOptions) -> Iterator[Found]:
    """Rows of a stream: a line that starts with "{" is JSON, any other non-empty one a text."""
    for number, line in _decoded(lines, where):
        place = f"{where}, line {number}"
        if isinstance(line, InputError):
            yield line
        elif line.lstrip().startswith("{"):
            yield _json_row(line, place, options)
        elif line.strip():
            yield _text_row(line.strip(), place, options)


def _decoded(lines: Iterable[bytes], where: str) -> Iterator[tuple[int, str | InputError]]:
    offset = 0
    for number, line in enumerate(lines, start=1):
        try:
            yield number, _decode(line, f"{where}, line {number}", offset)
        except InputError as error:
            yield number, error
        offset += len(line)


def _decode(data: bytes, where: str, offset: int) -> str:
    """UTF-8 to text; `offset` is where `data` starts in its file, for the message."""
    if (zero := data.find(b"\0")) >= 0:
        raise InputError(
            f"{where}: the file is binary (a NUL byte at offset {offset + zero}); expected text."
        )
    try:
        return data.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        at = offset + error.start + (3 if offset == 0 and data.startswith(codecs.BOM_UTF8) else 0)
        raise InputError(
            f"{where}: byte 0x{error.object[error.start]:02x} at offset {at} is not UTF-8; "
            "convert the file to UTF-8 first."
        ) from error


def _json_row(line: str, where: str, options: ReadOptions) -> Found:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return InputError(f"{where}: not a JSON row: {error}.")
    return _checked(row, where, options, texts=False)


def _checked(row: Any, where: str, options: ReadOptions, texts: bool = True) -> Found:
    if texts and isinstance(row, str):
        return _text_row(row, where, options)
    if not isinstance(row, dict):
        return InputError(
            f'{where}: expected a JSON object such as {{"text": "…"}}, got {type(row).__name__}.'
        )
    return Row(where, row)


def _text_row(text: str, where: str, options: ReadOptions) -> Row:
    return Row(where, {options.text_column or "text": text})
