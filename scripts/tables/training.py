"""The tables of the long training: where each method stands, and what a step costs.

Knows the records of scripts/record_training.py, measure_step.py and measure_drift.py.
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


def drift_table(record: Record) -> str:
    """Markdown: a frozen codebook and one that learns, on both domains of a stream."""
    kinds = (("residual", "{:.2f}"), ("perplexity", "{:.0f}"), ("F1", "{:.1f}"))
    names = [name.split(": ") for name in record.metrics]
    domains = list(dict.fromkeys(parts[1] for parts in names if len(parts) == 3))
    rows = []
    for form in dict.fromkeys(parts[0] for parts in names):
        cells = [
            shape.format(record.metrics[f"{form}: {domain}: {kind}"].value)
            for domain in domains
            for kind, shape in kinds
        ]
        size = record.metrics[f"{form}: codewords"].value
        rows.append([form, *cells, f"{size / 1000:,.0f}"])
    head = ["codebook", *(f"{domain}: {kind}" for domain in domains for kind, _ in kinds)]
    note = f"*`{record.command}`, code {record.code_revision}.*"
    return f"{table([*head, 'codewords, kB'], rows)}\n\n{note}"
