"""The tables of the long training: where each method stands, and what a step costs.

Knows the records of scripts/record_training.py and scripts/measure_step.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentbank.bench.record import Metric, Record
from tables.markdown import table

_STEP = ("questions", "operations", "step", "step, plain path", "share of the matmul peak")


def step_table(record: Record) -> str:
    """Markdown: a line for each method with the cost of one step."""
    names = list(dict.fromkeys(name.partition(": ")[0] for name in record.metrics if ": " in name))
    rows = []
    for name in names:
        values = [record.metrics.get(f"{name}: {kind}") for kind in _STEP]
        hour = record.metrics[f"{name}: questions an hour"]
        cells = [_shown(value, 1 if kind.startswith("step") else 0)
                 for kind, value in zip(_STEP, values, strict=True)]  # fmt: skip
        rows.append([f"`{name}`", *cells, _shown(hour, 0)])
    head = [
        "method", "questions", "GFLOP", "step, s", "plain path, s", "of the matmul peak, %",
        "questions an hour",
    ]  # fmt: skip
    return f"{table(head, rows)}\n\n*`{record.command}`, code {record.code_revision}.*"


def standing_table(records: Sequence[Record]) -> str:
    """Markdown: a line for each method with its presentations, hours and last figures."""
    if not records:
        return "No run has been recorded."
    rows = []
    for record in records:
        metrics = record.metrics
        found = [metrics.get("presentations"), metrics.get("processor time of the steps")]
        rows.append([
            f"`{record.method}`", _shown(found[0], 0), _shown(found[1], 2),
            _shown(metrics.get("validation f1"), 1), _shown(_last(record, "answer"), 2),
            _shown(_last(record, "share"), 2), _shown(_last(record, "perplexity"), 0),
        ])  # fmt: skip
    head = [
        "method", "questions", "processor hours", "validation F1", "answer loss",
        "attention on the right paragraph", "codebook perplexity",
    ]  # fmt: skip
    return f"{table(head, rows)}\n\n*`{records[0].command}`, code {records[0].code_revision}.*"


def _last(record: Record, part: str) -> Metric | None:
    """The last point of a loss part's curve; of `strata` the loss of the steps on all states."""
    curve = record.series.get(part) or record.series.get(f"{part}_all")
    return None if curve is None else Metric(curve.y[-1], curve.y_unit)


def _shown(metric: Metric | None, digits: int) -> str:
    return "–" if metric is None else f"{metric.value:,.{digits}f}"
