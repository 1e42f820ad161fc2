"""Whole files as one text: plain text, reStructuredText and others without a structure to read.

Knows bytes; nothing about documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from latentbank.documents.readers.chats.chat import chat_rows
from latentbank.documents.readers.chats.messenger import messenger_chat
from latentbank.documents.readers.encoding import decode, detect, sample_of
from latentbank.documents.readers.rows import Found, Note, ReadOptions, text_row
from latentbank.errors import InputError

__all__ = ["read_text", "text_rows"]


def text_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The file as one row, or the days of a chat that a messenger exported as text."""
    text, notes = read_text(file, path, options)
    yield from notes
    chat = messenger_chat(text, path, options)
    if chat is None:
        yield text_row(path, text, options)
    else:
        yield from chat_rows([chat], path, options)


def read_text(file: BinaryIO, path: str, options: ReadOptions) -> tuple[str, list[Note]]:
    """A whole file as text, and a note on its encoding.

    Raises `InputError` for what is binary or not in the encoding that it seems to be in.
    """
    encoding = detect(sample_of(file), options.encoding)
    file.seek(0)
    text = decode(file.read(), encoding, path)
    if (zero := text.find("\0")) >= 0:
        offset = len(text[:zero].encode(encoding.codec.removesuffix("-sig"), "replace"))
        raise InputError(
            f"{path}: the file is binary (a NUL byte at offset {offset}); expected text."
        )
    notes = [] if encoding.is_utf8 else [Note("encoding", path, f"read as {encoding.label}")]
    return text.removeprefix("\ufeff"), notes
