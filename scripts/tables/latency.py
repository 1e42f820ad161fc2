"""The tables of first tokens at each level and of whole answers.

Knows the records of scripts/measure_latency.py; times nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentbank.bench.record import Record
from tables.markdown import table


def latency_table(record: Record) -> str:
    """Markdown: times at each level, and rag's time to the first token divided by each."""
    values = {name: metric.value for name, metric in record.metrics.items()}
    rows = []
    for level in levels(record):
        times = [values[f"{level}: {name}"] for name in ("bytes", "hot", "cold", "rag")]
        ratios = [values[f"{level}: rag over {name}"] for name in ("hot", "cold")]
        cells = [*(f"{value:,.0f}" for value in times), *(f"{ratio:.2g}" for ratio in ratios)]
        rows.append([f"`{level}`", *cells])
    head = ["level", "bytes", "hot, ms", "cold, ms", "rag, ms", "rag over hot", "rag over cold"]
    return f"{table(head, rows)}\n\n*`{record.command}`, code {record.code_revision}.*"


def answers_table(records: Sequence[Record]) -> str:
    """Markdown: mean times of whole answers, a column for each record, titled with its cores."""
    ordered = sorted(records, key=lambda record: record.machine.cores)
    rows = [name for name in ordered[0].metrics if ordered[0].metrics[name].unit == "ms"]
    head = ["", *(f"{record.machine.cores}-core ms" for record in ordered)]
    lines = [
        [name.removeprefix("answer, "), *(f"{r.metrics[name].value:,.0f}" for r in ordered)]
        for name in rows
    ]
    sources = (f"*`{one.command}`, code {one.code_revision}.*  " for one in ordered)
    return "\n".join([table(head, lines), "", *sources])


def levels(record: Record) -> list[str]:
    """The levels that the record has times of, in its order."""
    return [name.removesuffix(": hot") for name in record.metrics if name.endswith(": hot")]
