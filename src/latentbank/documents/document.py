"""`Document`, the value that is written to a bank, and its chunks.

Knows what a document may hold; nothing about files, models, tokenizers or banks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from latentbank.documents.chunking import CountTokens, fits, split_text
from latentbank.documents.identity import content_hash, entry_id, find_entries
from latentbank.documents.outline import HEADING, PLACE, TITLE, Piece, Section, pieces
from latentbank.documents.time import Instant, parse_time
from latentbank.errors import InputError

__all__ = [
    "JSON",
    "CountTokens",
    "Counted",
    "Document",
    "Time",
    "chunk",
    "find_entries",
    "renamed",
    "whole",
]

JSON = str | int | float | bool | None | Sequence["JSON"] | Mapping[str, "JSON"]
Time = str | int | float | date | Instant
"""What `parse_time` reads; a `datetime` is a `date`."""

MAX_ID_BYTES = 1024
VERSION_DIGITS = 8  # of one id's versions only: two in 4 billion are taken for one
MAX_METADATA_BYTES = 60 * 1024  # as JSON, with the source; a bank keeps 64 KiB with id and time


@dataclass(frozen=True, init=False)
class Document:
    """A text to remember, with where it came from.

    Attributes:
        text: not empty and not only white space.
        id: the caller's key, or `content_hash(text)`; at most 1024 bytes of UTF-8.
        time: when the text was written or seen, in the canonical form of
            `latentbank.documents.time.Instant`; given as anything that `parse_time` reads.
        source: where it came from, such as a file's name or an address.
        metadata: JSON values of the caller's choice, at most 60 KiB with the source.
        version: 8 hex digits that tell text, time and metadata from those of another version of
            the same id; a chunk has that of the document it was cut from. "" where the id is the
            hash of the text: then another text is another document.
        outline: where the sections of the text begin. A chunk then carries the headings above it,
            in its text and as `heading` in its metadata; see `outline.Section`.
    Raises `InputError` if a value is empty, of another type, not JSON, no time or not Unicode.
    """

    text: str
    id: str
    time: str | None
    source: str | None
    metadata: Mapping[str, JSON] = field(hash=False)
    version: str = field(init=False, compare=False, repr=False)
    outline: tuple[Section, ...] = field(init=False, compare=False, repr=False)

    def __init__(
        self,
        text: str,
        id: str | None = None,
        time: Time | None = None,
        source: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
        outline: Sequence[Section] = (),
    ) -> None:
        if not isinstance(text, str):
            raise InputError(f"A document's text must be a string, got {type(text).__name__}.")
        if not text.strip():
            raise InputError("The document is empty: its text has no visible character.")
        digest = content_hash(text)  # also refuses text that UTF-8 cannot hold
        name = digest if id is None else id
        if not 1 <= _size(name, "id") <= MAX_ID_BYTES:
            raise InputError(f"A document's id must have 1 to {MAX_ID_BYTES} bytes.")
        if source is not None:
            _size(source, "source")
        _check_json(metadata or {}, source)
        values = {
            "text": text,
            "id": name,
            "time": None if time is None else str(parse_time(time)),
            "source": source,
            "metadata": dict(metadata or {}),
            "outline": tuple(outline),
        }
        for key, kept in values.items():
            object.__setattr__(self, key, kept)
        version = "" if name == digest else _version(digest, self)
        object.__setattr__(self, "version", version)


def _version(digest: str, document: Document) -> str:
    said = json.dumps([digest, document.time, document.metadata], sort_keys=True)
    return content_hash(said)[:VERSION_DIGITS]


def _size(value: object, what: str) -> int:
    """Bytes of a string in UTF-8."""
    if not isinstance(value, str):
        raise InputError(f"A document's {what} must be a string, got {type(value).__name__}.")
    try:
        return len(value.encode())
    except UnicodeEncodeError as error:
        raise InputError(
            f"A document's {what} is not valid Unicode: a lone surrogate at character "
            f"{error.start}."
        ) from error


def _check_json(metadata: Mapping[str, JSON], source: str | None) -> None:
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InputError("A document's metadata must be a mapping with string keys.")
    if not metadata and not source:
        return
    try:
        written = json.dumps([source, dict(metadata)], allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"A document's metadata must be JSON values: {error}.") from error
    size = _size(written, "metadata")
    if size > MAX_METADATA_BYTES:
        raise InputError(
            f"A document's metadata and source may take {MAX_METADATA_BYTES} bytes as JSON, got "
            f"{size}."
        )


def chunk(document: Document, count_tokens: CountTokens, chunk_tokens: int) -> list[Document]:
    """Split a document into chunks of at most `chunk_tokens` tokens, in order.

    `count_tokens` maps a batch of strings to their token counts. Boundaries, best first:
    paragraph, sentence or line, word, character. Chunks inherit time, source, metadata and
    version; their ids are entry ids, `entry_id(document.id, i)`. A document that fits becomes one
    entry, `entry_id(document.id)`. White space around a chunk is removed; joined, the chunks hold
    every character but some of the white space. Linear in the text's length.

    A document with an outline is cut at its sections first. Its chunks begin with the title and the
    headings above them, and name them as `heading`, beside a `place` such as a page. Raises
    `InputError` if `chunk_tokens` is under 1 or too small for a single character.
    """
    if document.outline and not fits(document.text, count_tokens, chunk_tokens):
        title = document.metadata.get(TITLE)
        cut = pieces(
            document.text,
            title if isinstance(title, str) else "",
            document.outline,
            count_tokens,
            chunk_tokens,
        )
    else:
        cut = [Piece(t, "", "") for t in split_text(document.text, count_tokens, chunk_tokens)]
    if len(cut) == 1:
        return [_part(document, cut[0].text, None)]
    return [
        _part(document, piece.text, index, {HEADING: piece.heading, PLACE: piece.place})
        for index, piece in enumerate(cut)
    ]


def whole(document: Document) -> Document:
    """A document that is not cut as one entry, with the entry's id."""
    return _part(document, document.text, None)


def renamed(entry: Document, id: str, version: str) -> Document:
    """An entry of a document under another entry id, with what its version says then."""
    part = Document(entry.text, None, entry.time, entry.source, entry.metadata)
    object.__setattr__(part, "id", id)
    object.__setattr__(part, "version", version)
    return part


def _part(
    document: Document, text: str, number: int | None, more: Mapping[str, str] | None = None
) -> Document:
    name = entry_id(document.id, number)
    if name == document.id and text == document.text:
        return document
    metadata = {**document.metadata, **{key: value for key, value in (more or {}).items() if value}}
    part = Document(text, document.id, document.time, document.source, metadata)
    object.__setattr__(part, "id", name)
    object.__setattr__(part, "version", document.version)
    return part


class Counted:
    """Iterates over documents; `count` is the number of those taken so far."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents, self.count = iter(documents), 0

    def __iter__(self) -> Iterator[Document]:
        for document in self._documents:
            self.count += 1
            yield document
