"""The tables of lossless text levels: bytes and times for a text.

Knows the records of scripts/measure_exactness.py; no text and no codec.
"""

from __future__ import annotations

from pathlib import Path

from latentbank.bench.record import Record, read_record
from tables.markdown import table

_UTF8 = "UTF-8"


def levels_table(folder: Path) -> str:
    """Markdown: a table for each record of the folder. Raises InputError for a bad record."""
    records = [read_record(path) for path in sorted(folder.glob("*.json"))]
    records.sort(key=lambda record: -record.metrics["texts"].value)
    return "\n\n".join(_table(record) for record in records)


def _table(record: Record) -> str:
    values = {name: metric.value for name, metric in record.metrics.items()}
    kinds = [name.removeprefix("texts, ") for name in values if name.startswith("texts, ")]
    levels = [name.removesuffix(": lost") for name in values if name.endswith(": lost")]
    head = ("bytes of a text", "texts", "UTF-8", *(f"`{level}`" for level in levels))
    rows: list[tuple[str, ...]] = []
    for kind in kinds:
        sizes = [f"{values[f'{column}, {kind}']:,.0f}" for column in (_UTF8, *levels)]
        rows.append((kind, f"{values[f'texts, {kind}']:,.0f}", *sizes))
    for label, name in (
        ("ms to code", "{}: encoding"),
        ("ms to decode, 1 thread", "{}: decoding, 1 threads"),
        ("ms to decode, 2 threads", "{}: decoding, 2 threads"),
    ):
        times = [_number(values[name.format(level)]) for level in levels]
        rows.append((label, "", "", *times))
    lost = [f"{values[f'{level}: lost']:,.0f}" for level in levels]
    rows.append(("texts lost", "", "", *lost))
    return f"{table(head, rows)}\n\n*`{record.command}`, revision {record.code_revision}.*"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
