"""The tables of retrieval: how often the right text is among the first, and by which features.

Knows the records of measure_retrieval.py, train_reranker.py and measure_paraphrases.py.
"""

from __future__ import annotations

from latentbank.bench.record import Record
from tables.markdown import table

_AMONG = "right among "


def recall_table(record: Record) -> str:
    """Markdown: a line for each ranking, a column for each number of first texts, times."""
    rows, columns = [], _columns(record)
    for name in _names(record):
        first = record.metrics[f"{name}: {_AMONG}{columns[0]}"]
        shares = [f"{record.metrics[f'{name}: {_AMONG}{k}'].value:.1f}" for k in columns]
        shares[0] += f" [{first.low:.1f}, {first.high:.1f}]"
        times = [f"{record.metrics[f'{name}: time, {k}'].value:.1f}" for k in ("cold", "hot")]
        rows.append((name, *shares, *times))
    head = ("right text, %", "first", *(f"among {k}" for k in columns[1:]), "ms cold", "ms hot")
    return table(head, rows) + _source(record)


def features_table(record: Record) -> str:
    """Markdown: BM25 with each feature, and all features without each."""
    columns, rows = _columns(record), []
    for name in _names(record):
        shares = (f"{record.metrics[f'{name}: {_AMONG}{k}'].value:.1f}" for k in columns)
        rows.append((name.replace("_", " "), *shares))
    head = ("right text, %", "first", *(f"among {k}" for k in columns[1:]))
    return table(head, rows) + _source(record)


def small_table(record: Record) -> str:
    """Markdown: what small collections read, a column for each way to rank."""
    cells: dict[str, dict[str, str]] = {}
    for name, metric in record.metrics.items():
        line, _, kind = name.rpartition(", ")
        cells.setdefault(line, {})[kind] = f"{metric.value:.1f}"
    kinds = list(next(iter(cells.values())))
    rows = [(line, *(row[kind] for kind in kinds)) for line, row in cells.items()]
    return table(("%", *kinds), rows) + _source(record)


def languages_table(record: Record) -> str:
    """Markdown: a line for each language, a column for each index."""
    cells: dict[str, dict[str, str]] = {}
    for name, metric in record.metrics.items():
        language, _, index = name.partition(", ")
        cells.setdefault(language.capitalize(), {})[index] = f"{metric.value:.0f}"
    columns = list(next(iter(cells.values())))
    rows = [(language, *(row[one] for one in columns)) for language, row in cells.items()]
    return table(("right text first, %", *columns), rows) + _source(record)


def _names(record: Record) -> list[str]:
    return list(dict.fromkeys(name.partition(": ")[0] for name in record.metrics))


def _columns(record: Record) -> list[str]:
    found = (name.partition(_AMONG)[2] for name in record.metrics)
    return list(dict.fromkeys(k for k in found if k))


def _source(record: Record) -> str:
    return f"\n\n*{record.data.name}; `{record.command}`, code {record.code_revision}.*"
