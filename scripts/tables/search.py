"""The tables of experiments: forms of a text, ways to train, settings when answering.

Knows the records of measure_states.py, search_strata.py and sweep_cmt.py; tries nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentbank.bench.record import Metric, Record
from tables.markdown import table


def forms_table(record: Record) -> str:
    """Markdown: bytes and F1 of every form of a text, in the order of the record."""
    rows = []
    for name, metric in record.metrics.items():
        if name.endswith(": F1"):
            form = name.removesuffix(": F1")
            taken = record.metrics[f"{form}: bytes"].value
            rows.append((form, f"{taken:,.0f}", _with_interval(metric)))
    return table(("what is read of a text", "bytes", "F1"), rows) + _source(record)


def training_table(record: Record) -> str:
    """Markdown: a line for each way to train, a column for each form that was read."""
    names = (name.partition(": F1, ") for name in record.metrics)
    return _grid(record, [(variant, form) for variant, _, form in names], list(record.metrics))


def sweep_table(record: Record) -> str:
    """Markdown: F1 with a line for each top-k and a column for each α."""
    names = [name for name in record.metrics if name.startswith("F1, ")]
    places = (name.removeprefix("F1, ").partition(", ") for name in names)
    return _grid(record, [(top_k, weight) for top_k, _, weight in places], names)


def _grid(record: Record, places: Sequence[tuple[str, str]], names: Sequence[str]) -> str:
    """The metrics `names` at their places (line, column)."""
    cells: dict[str, dict[str, str]] = {}
    for (line, column), name in zip(places, names, strict=True):
        cells.setdefault(line, {})[column] = _with_interval(record.metrics[name])
    columns = list(next(iter(cells.values())))
    rows = [(line, *(row[column] for column in columns)) for line, row in cells.items()]
    return table(("F1", *columns), rows) + _source(record)


def _with_interval(metric: Metric) -> str:
    return f"{metric.value:.1f} [{metric.low:.0f}, {metric.high:.0f}]"


def _source(record: Record) -> str:
    return f"\n\n*{record.data.name}; `{record.command}`, code {record.code_revision}.*"
