"""What the readers of all formats have in common: rows, notes and options.

Knows fields and the words for their place; nothing about formats or documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from latentbank.documents.outline import Section
from latentbank.documents.time import Instant, parse_time
from latentbank.errors import InputError

__all__ = ["Found", "Note", "ReadOptions", "Row", "missing", "named", "text_row", "told_time"]


@dataclass(frozen=True)
class ReadOptions:
    """How to read rows.

    Attributes:
        text_column, id_column, time_column, source_column: names of columns or JSON fields, in
            any case. None: `text`, `content`, `page_content` or `body` for the text; `id`, `time`
            and `source` for the others.
        dayfirst: how to read a date such as 01/02/2024; see `parse_time`.
        triples: rows are triples, with three columns named by `entity_column`, `property_column`
            and `value_column`. None: see `fields.COLUMN_NAMES`.
        encoding: of text and delimited files, as Python names it. None: detected.
    """

    text_column: str | None = None
    id_column: str | None = None
    time_column: str | None = None
    source_column: str | None = None
    dayfirst: bool | None = None
    encoding: str | None = None
    triples: bool = False
    entity_column: str | None = None
    property_column: str | None = None
    value_column: str | None = None


class Row(NamedTuple):
    """Named fields and the words that say where they stand ("notes.jsonl, line 3").

    `whole`: the row is a whole file, so the file's path is its identity. `outline`: the sections of
    its text. `file`: the file that the row comes from, where that lies inside of another one.
    """

    where: str
    fields: dict[str, Any]
    whole: bool = False
    outline: tuple[Section, ...] = ()
    file: str = ""


def text_row(
    where: str,
    text: str,
    options: ReadOptions,
    outline: tuple[Section, ...] = (),
    whole: bool = True,
    **fields: Any,
) -> Row:
    """A row of a format without columns: a text, and `id`, `time` or metadata where not empty."""
    names = {"id": options.id_column, "time": options.time_column}
    known = {names.get(name) or name: value for name, value in fields.items() if value}
    return Row(where, {options.text_column or "text": text, **known}, whole, outline)


@dataclass(frozen=True)
class Note:
    """Something that the reader did and the user may want to know; not an error.

    Attributes:
        kind: "skipped" (a file in a folder or mail), "encoding", "column" (a column left out),
            "part" (something within a file that is left out) or "plain" (read without structure).
        path: the file that it is about.
        text: what was done, in words without the path.
    """

    kind: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


Found = Row | Note | InputError
"""A row, a note about the file, or what is wrong at one place of it."""


@contextmanager
def named(path: object) -> Iterator[None]:
    """Turns the system's errors into an `InputError` that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def told_time(value: object, path: str, options: ReadOptions) -> tuple[Instant | None, list[Note]]:
    """When a file says it was written, and a note where that cannot be read as a time."""
    if value is None or value == "":
        return None, []
    try:
        return parse_time(value, options.dayfirst), []
    except InputError:
        return None, [Note("part", path, f"the date that it names, {value!r:.60}, cannot be read")]


def missing(path: str, what: str, error: ImportError) -> InputError:
    """The error for a library of the extra `files` that is not installed."""
    return InputError(
        f"{path}: reading {what} needs {error.name}: pip install 'latentbank[files]'."
    )
