"""Where documents are from, in JSON and for people, and the list of a bank's documents.

Knows ledgers and the terminal; nothing about models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from latentbank.cli.common import console, count
from latentbank.documents.outline import HEADING, PLACE, SEPARATOR, TITLE

if TYPE_CHECKING:
    from latentbank.bank import Entry, MemoryBank

__all__ = ["headings_of", "known_of", "list_documents", "place_of", "print_documents", "states_of"]

_MOST = 20_000  # entries whose versions are looked for
_ZSTD = ("verbatim", "text")  # levels that need no tokenizer
_BLOCK = 500  # rows that are printed together
_WIDEST = 48  # characters of a cell, but for ids and sources
_COLUMNS = (
    "id", "chunk", "title", "heading", "state", "level", "faded", "hits", "bytes", "time", "source",
)  # fmt: skip


def known_of(name: str, entry: Entry | None) -> dict[str, Any]:
    """id, source and time of what was read; title, heading and place where the entry has them."""
    from latentbank.documents.identity import document_id

    if entry is None:
        return {"id": document_id(name), "source": None, "time": None}
    said = {key: entry.metadata[key] for key in (TITLE, HEADING, PLACE) if entry.metadata.get(key)}
    return {"id": document_id(name), "source": entry.source, "time": entry.time, **said}


def headings_of(document: Mapping[str, Any]) -> str:
    """Title, headings and place in one line; "" where there are none."""
    title, heading, place = (str(document.get(key) or "") for key in (TITLE, HEADING, PLACE))
    if heading == title or heading.startswith(title + SEPARATOR):
        title = ""
    names = SEPARATOR.join(filter(None, [title, heading]))
    return ", ".join(filter(None, [names, place]))


def place_of(document: Mapping[str, Any]) -> str:
    """Where a document comes from, its headings and its time, for people."""
    source, id, time = document["source"], document["id"], document["time"]
    place = f"{source} ({id})" if source and source != id else str(id)
    return ", ".join(filter(None, [place, headings_of(document), time]))


def list_documents(
    bank: MemoryBank, where: Sequence[str] = (), limit: int | None = None
) -> list[dict[str, Any]]:
    """Documents in their chunks: id, chunk, state, level, steps faded, hits, bytes and the ledger.

    The state is "active" or "superseded by ID"; None where the text cannot be read without the
    model, and in a bank of more than 20,000 entries. `where` are conditions that must all hold;
    `limit`: at most so many rows. Raises InputError for a condition that cannot be read.
    """
    from itertools import islice

    from latentbank.documents.conditions import parse_conditions

    return list(islice(_rows(bank, parse_conditions(where)), limit))


def _rows(bank: MemoryBank, conditions: Any) -> Iterator[dict[str, Any]]:
    from latentbank.bank.admin.rows import bank_rows
    from latentbank.documents.identity import split

    states = states_of(bank)
    for row in bank_rows(bank):
        entry = row.entry
        id, chunk = split(entry.id)
        if not conditions.holds(id, entry.time, entry.source, entry.metadata):
            continue
        yield {
            "id": id,
            "chunk": chunk,
            "entry": entry.id,
            "state": states.get(entry.id),
            "level": entry.level,
            "faded": row.depth,
            "written": row.count,
            "hits": row.fact[1],
            "bytes": len(entry.payload) + len(entry.key),
            "time": entry.time,
            "source": entry.source,
            "metadata": dict(entry.metadata),
        }


def states_of(bank: MemoryBank) -> dict[str, str]:
    """Entry → "active" or "superseded by ID", of texts that are read without a model."""
    if len(bank) > _MOST:
        return {}
    from latentbank.codec.packaged import packaged_dictionary
    from latentbank.codec.text import ZstdTextCodec
    from latentbank.documents.identity import document_id
    from latentbank.errors import BankError
    from latentbank.parts.retrieval.versions import superseded_by

    codec, texts = ZstdTextCodec(packaged_dictionary()), dict[str, str]()
    for entry in bank.entries():
        if entry.level in _ZSTD:
            with suppress(BankError):  # `verify` names damage
                texts[entry.id] = codec.decode(entry.payload)
    newer = superseded_by(texts, bank.age, document_id)
    return {
        id: f"superseded by {document_id(newer[id])}" if id in newer else "active" for id in texts
    }


def print_documents(rows: Sequence[Mapping[str, Any]], entries: int) -> None:
    """A table of documents, block by block; columns that are empty throughout are left out.

    `entries`: how many there are, some of which may not be shown.
    """
    from rich.markup import escape
    from rich.table import Table

    cells = [_cells(row) for row in rows]
    shown = [
        at for at, name in enumerate(_COLUMNS) if any(row[at] for row in cells) or name == "id"
    ]
    widths = [max([len(_COLUMNS[at]), *(len(row[at]) for row in cells)]) for at in shown]
    screen = console()
    for start in range(0, len(cells), _BLOCK):
        table = Table(box=None, header_style="dim", show_header=start == 0)
        for at, width in zip(shown, widths, strict=True):
            table.add_column(_COLUMNS[at], min_width=width if len(cells) > _BLOCK else None)
        for row in cells[start : start + _BLOCK]:
            table.add_row(*(escape(row[at]) for at in shown))
        screen.print(table)
    if len(rows) < entries:
        screen.print(f"[dim]{len(rows):,} of {count(entries, 'entry')}[/dim]")


def _cells(row: Mapping[str, Any]) -> list[str]:
    said = row["metadata"]
    title = str(said.get(TITLE) or "")
    heading = headings_of({**said, TITLE: title}).removeprefix(title).removeprefix(SEPARATOR)
    values = {**row, "title": _clipped(title), "heading": _clipped(heading.removeprefix(", "))}
    if row["source"] == row["id"]:
        values["source"] = None  # a file: its path is its id
    return ["" if values[name] is None else str(values[name]) for name in _COLUMNS]


def _clipped(text: str) -> str:
    from latentbank.documents.ends import clip

    return clip(" ".join(text.split()), _WIDEST)
