"""The tables of what was tried for strata: forms of a text, and ways to train on it.

Knows the records of scripts/measure_states.py and scripts/search_strata.py; tries nothing.
"""

from __future__ import annotations

from latentbank.bench.record import Metric, Record

__all__ = ["forms_table", "training_table"]


def forms_table(record: Record) -> str:
    """Markdown: bytes and F1 of every form of a text, in the order of the record."""
    lines = ["| what is read of a text | bytes | F1 |", "|---|---:|---:|"]
    for name, metric in record.metrics.items():
        if name.endswith(": F1"):
            form = name.removesuffix(": F1")
            taken = record.metrics[f"{form}: bytes"].value
            lines.append(f"| {form} | {taken:,.0f} | {_with_interval(metric)} |")
    return "\n".join([*lines, *_source(record)])


def training_table(record: Record) -> str:
    """Markdown: a line for each way to train, a column for each form that was read."""
    cells: dict[str, dict[str, str]] = {}
    for name, metric in record.metrics.items():
        variant, _, form = name.partition(": F1, ")
        cells.setdefault(variant, {})[form] = _with_interval(metric)
    forms = list(next(iter(cells.values())))
    lines = [f"| F1 | {' | '.join(forms)} |", "|---|" + "---:|" * len(forms)]
    for variant, row in cells.items():
        lines.append(f"| {variant} | {' | '.join(row[form] for form in forms)} |")
    return "\n".join([*lines, *_source(record)])


def _with_interval(metric: Metric) -> str:
    return f"{metric.value:.1f} [{metric.low:.0f}, {metric.high:.0f}]"


def _source(record: Record) -> tuple[str, str]:
    return "", f"*{record.data.name}; `{record.command}`, code {record.code_revision}.*"
