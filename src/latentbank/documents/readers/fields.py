"""From the fields of a row to a `Document`: which column is which, and what can be stored.

Knows values of JSON, Python, parquet and data sets; nothing about files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from latentbank.documents.document import Document
from latentbank.documents.facts import ENTITY, PROPERTY, VALUE
from latentbank.documents.readers.rows import ReadOptions, Row
from latentbank.documents.time import Instant, parse_time
from latentbank.errors import InputError

__all__ = [
    "COLUMN_NAMES",
    "TEXT_NAMES",
    "UNSTORABLE",
    "Columns",
    "check_header",
    "columns_of",
    "metadata_of",
    "plain",
    "row_document",
    "row_key",
    "row_time",
    "triple_columns",
]

TEXT_NAMES = ("text", "content", "page_content", "body")
"""Names of the column that holds the text, the preferred one first; in any case."""


COLUMN_NAMES: Mapping[str, Sequence[str]] = {
    ENTITY: (ENTITY, "subject", "subj", "head", "name"),
    PROPERTY: (PROPERTY, "predicate", "prop", "relation", "description_type"),
    VALUE: (VALUE, "object", "obj", "tail", "description"),
}
"""Names of the three columns, the preferred one first; in any case."""


class _Unstorable:
    """What `plain` gives for a value that no metadata can hold."""


UNSTORABLE = _Unstorable()


class Columns(NamedTuple):
    """The names, as a row spells them, of the fields with a meaning; None where it has none."""

    text: str
    id: str | None
    time: str | None
    source: str | None


def columns_of(names: Iterable[str], options: ReadOptions, where: str) -> Columns:
    """Which columns are text, id, time and source; raises `InputError` if there is no text."""
    known = list(names)
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.strip().casefold(), name)

    def one(wanted: str | None, defaults: Iterable[str]) -> str | None:
        for name in [wanted] if wanted else defaults:
            if name in known:
                return name
            if name.casefold() in folded:
                return folded[name.casefold()]
        return None

    text = one(options.text_column, TEXT_NAMES)
    listed = ", ".join(sorted(known)) or "none"
    if text is None:
        wanted = options.text_column or "text"
        hint = "" if options.text_column else "; name the one with the text (--text-column)"
        raise InputError(f"{where}: the row has no {wanted}; its fields are: {listed}{hint}.")
    columns = []
    for name in ("id", "time", "source"):
        given = getattr(options, f"{name}_column")
        column = one(given, [name])
        columns.append(None if column == text else column)
    return Columns(text, *columns)


def check_header(names: Iterable[str], options: ReadOptions, where: str) -> None:
    """Raise `InputError` if a table has no text or triples, or no column that `options` names."""
    known = list(names)
    if options.triples:
        triple_columns(known, options, where)
        return
    columns = columns_of(known, options, where)
    for name in ("id", "time", "source"):
        wanted = getattr(options, f"{name}_column")
        if wanted is not None and getattr(columns, name) is None:
            raise InputError(
                f"{where}: there is no column {wanted!r} for the {name}; the columns are: "
                f"{', '.join(sorted(known))}."
            )


def triple_columns(
    names: Iterable[str], options: ReadOptions, where: str, what: str = "the table"
) -> dict[str, str]:
    """entity, property, value → the column of each, as the table or row `what` spells it.

    Raises `InputError` where a column is missing, or two parts have one column.
    """
    known = list(names)
    folded = {name.strip().casefold(): name for name in reversed(known)}
    given = {
        ENTITY: options.entity_column,
        PROPERTY: options.property_column,
        VALUE: options.value_column,
    }
    found: dict[str, str] = {}
    for part, wanted in given.items():
        for name in [wanted] if wanted else COLUMN_NAMES[part]:
            if name.casefold() in folded:
                found[part] = folded[name.casefold()]
                break
        else:
            hint = "" if wanted else f"; name its column with --{part}-column"
            raise InputError(
                f"{where}: {what} has no {wanted or part}; its fields are: "
                f"{', '.join(sorted(known)) or 'none'}{hint}."
            )
    if len(set(found.values())) < len(found):
        raise InputError(
            f"{where}: entity, property and value need three columns, got "
            f"{', '.join(found.values())}."
        )
    return found


def row_document(row: Row, source: str | None, options: ReadOptions, id: str | None) -> Document:
    """Make a document of a row's fields.

    `source` and `id` are for a row that has none. Values that metadata cannot hold are left out;
    decimals, dates and durations become text. Raises `InputError`, naming the row's place.
    """
    fields = {name: value for name, value in row.fields.items() if value is not None}
    try:
        columns = columns_of(fields, options, row.where)
    except InputError:
        text = columns_of(row.fields, options, row.where).text  # raises for a row without the field
        raise InputError(
            f"{row.where}: the row has no text; its field {text!r} is empty."
        ) from None
    try:
        text = fields.pop(columns.text)
        if isinstance(text, bytes):
            text = plain(text)  # of a binary column; `Document` refuses what is no text
        name = row_key(fields.pop(columns.id, None), "id") if columns.id else None
        when = row_time(fields.pop(columns.time, None), options) if columns.time else None
        given = row_key(fields.pop(columns.source, None), "source") if columns.source else None
        metadata = metadata_of(fields)
        return Document(text, name or id, when, given or source, metadata, row.outline)
    except InputError as error:
        raise InputError(f"{row.where}: {error}") from error
    except RecursionError as error:
        raise InputError(f"{row.where}: its metadata is nested too deeply.") from error


def _object(value: Any) -> Mapping[Any, Any]:
    """A row's metadata; in delimited text it is JSON."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, Mapping):
        raise InputError(f"metadata must be an object, got {value!r:.80}.")
    return value


def metadata_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that metadata can hold, those of a field `metadata` beside the others."""
    own = dict(fields)
    return dict(_storable({**_object(own.pop("metadata", {})), **own}))


def row_key(value: Any, what: str) -> str | None:
    """An id or a source as text, None where it is empty; raises `InputError` for another type."""
    value = plain(value)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"A document's {what} must be a string, got {type(value).__name__}.")


def row_time(value: Any, options: ReadOptions) -> Instant | None:
    """A time as the options read it, None where it is empty; raises `InputError` for another."""
    if hasattr(value, "tolist"):  # numpy
        value = value.tolist()
    if value is None or value == "":
        return None
    if isinstance(value, float | datetime) and value != value:  # NaN, NaT
        return None
    return parse_time(value, options.dayfirst)


def _storable(values: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        kept = plain(value)
        if kept is not None and kept is not UNSTORABLE:
            yield str(name), kept


def plain(value: Any) -> Any:
    """A value as JSON can hold it, `UNSTORABLE` if it cannot.

    Decimals, dates, times, durations and UUIDs become text, UTF-8 bytes too; other bytes are
    unstorable. NaN becomes None, infinity "inf". Lists and mappings keep what can be stored.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return None if math.isnan(value) else str(value)
    if isinstance(value, datetime | date | time):
        return None if value != value else value.isoformat()  # pandas' NaT is not itself
    if isinstance(value, Decimal | timedelta | UUID):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _decoded(bytes(value))
    if isinstance(value, Mapping):
        return dict(_storable(value))
    if isinstance(value, list | tuple | set):
        kept = [plain(item) for item in value]
        return [item for item in kept if item is not UNSTORABLE]
    if hasattr(value, "tolist"):  # numpy: an array or a scalar
        return plain(value.tolist())
    return UNSTORABLE


def _decoded(value: bytes) -> Any:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return UNSTORABLE
    return UNSTORABLE if "\0" in text else text
