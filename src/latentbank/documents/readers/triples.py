"""From the fields of a row to a `Triple`, and which of two triples of one key counts.

Knows columns and triples; nothing about files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from latentbank.documents.facts import ENTITY, PROPERTY, VALUE, Triple
from latentbank.documents.readers.fields import (
    metadata_of,
    plain,
    row_key,
    row_time,
    triple_columns,
)
from latentbank.documents.readers.rows import ReadOptions, Row
from latentbank.documents.time import parse_time
from latentbank.errors import InputError

__all__ = ["newest", "row_triple"]

_PUBLISHED = ("Q", "A", "key_string", "entity_type")  # of the published layout: made from the rest
_QUOTED = 60  # characters of a value in a message


def row_triple(row: Row, source: str | None, options: ReadOptions) -> Triple:
    """Makes a triple of a row's fields; other fields become metadata.

    Raises `InputError`, naming the row's place, where a part is missing or empty.
    """
    fields = {name: value for name, value in row.fields.items() if value is not None}
    columns = triple_columns(row.fields, options, row.where, "the row")
    try:
        parts = {part: _text(fields.pop(column, ""), part) for part, column in columns.items()}
        if "description_type" in row.fields:
            fields = {name: value for name, value in fields.items() if name not in _PUBLISHED}
        fields.pop("text", None)
        when = row_time(fields.pop(options.time_column or "time", None), options)
        named = row_key(fields.pop(options.source_column or "source", None), "source")
        return Triple(
            parts[ENTITY],
            parts[PROPERTY],
            parts[VALUE],
            str(when) if when else None,
            named or source,
            metadata_of(fields),
        )
    except InputError as error:
        raise InputError(f"{row.where}: {error}") from error


def _text(value: Any, part: str) -> str:
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"A triple's {part} must be a text or a number, got {value!r:.60}.")
    return str(value)


def newest(
    triples: Iterable[Triple],
    held: Callable[[str], tuple[str, str | None] | None],
    tell: Callable[[str], None],
) -> Iterator[Triple]:
    """The triples, without those that are older than one of the same entity and property.

    Of two without a time, or of one time, the later row counts. `held` gives (value, time) of an id
    that is stored already. `tell` hears one sentence for each value that is replaced or left out.
    """
    seen: dict[str, tuple[str, str | None]] = {}
    for triple in triples:
        old = seen.get(triple.id) or held(triple.id)
        if old is not None and old[0] != triple.value:
            what = f"The {triple.property} of {triple.entity}"
            if triple.time and old[1] and parse_time(triple.time) < parse_time(old[1]):
                tell(
                    f"{what} stays {_quoted(old[0])}; the older "
                    f"{_quoted(triple.value)} is left out."
                )
                continue
            tell(f"{what} was {_quoted(old[0])} and is now {_quoted(triple.value)}.")
        seen[triple.id] = triple.value, triple.time
        yield triple


def _quoted(value: str) -> str:
    return repr(value if len(value) <= _QUOTED else f"{value[: _QUOTED - 1]}…")
