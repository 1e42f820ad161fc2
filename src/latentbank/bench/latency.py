"""First tokens of strata's levels, hot and cold, and whole answers, beside rag: a figure, tables.

Knows the records of scripts/measure_latency.py; times nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentbank.bench.figure import Figure, Table, Times
from latentbank.bench.record import Record
from latentbank.bench.words import MISSING

__all__ = ["answers_table", "latency_figure", "latency_table"]

_KINDS = ("hot", "cold", "passage in the prompt")


def latency_figure(record: Record) -> Figure:
    """Milliseconds to the first token: a line for each level, and one for rag."""
    values = {name: metric.value for name, metric in record.metrics.items()}
    levels = _levels(record)
    rows: list[tuple[str, tuple[float | None, ...]]] = [
        (
            f"{level}, {values[f'{level}: bytes']:,.0f} B",
            (values[f"{level}: hot"], values[f"{level}: cold"], None),
        )
        for level in levels
    ]
    rows.append(("rag", (None, None, values[f"{levels[0]}: rag"])))
    cells = [(a, *(MISSING if v is None else f"{v:,.0f}" for v in vs)) for a, vs in rows]
    return Figure(
        "latency",
        "Time to the first token",
        "Milliseconds, logarithmic, of one question with one document, selection included; to the "
        "left is better. Hot: keys and values of the document are cached. Cold: it is decoded from "
        "its entry and run first. Beside each level the bytes of a text in it.",
        Times(_KINDS, tuple(rows)),
        Table(("level", *(f"{kind} (ms)" for kind in _KINDS)), tuple(cells)),
        (),
    )


def latency_table(record: Record) -> str:
    """Markdown: times of each level and how many times sooner its first token comes than rag's."""
    values = {name: metric.value for name, metric in record.metrics.items()}
    lines = [
        "| level | bytes | hot, ms | cold, ms | rag, ms | rag over hot | rag over cold |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for level in _levels(record):
        times = [values[f"{level}: {name}"] for name in ("bytes", "hot", "cold", "rag")]
        ratios = [values[f"{level}: rag over {name}"] for name in ("hot", "cold")]
        cells = [*(f"{value:,.0f}" for value in times), *(f"{ratio:.2g}" for ratio in ratios)]
        lines.append(f"| `{level}` | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"*`{record.command}`, code {record.code_revision}.*"])


def answers_table(records: Sequence[Record]) -> str:
    """Markdown: mean times of whole answers, a column for each record, named by its cores."""
    ordered = sorted(records, key=lambda record: record.machine.cores)
    rows = [name for name in ordered[0].metrics if ordered[0].metrics[name].unit == "ms"]
    cores = [f"{record.machine.cores}-core ms" for record in ordered]
    lines = [f"| | {' | '.join(cores)} |", f"|---|{'---:|' * len(cores)}"]
    for name in rows:
        times = [f"{record.metrics[name].value:,.0f}" for record in ordered]
        lines.append(f"| {name.removeprefix('answer, ')} | {' | '.join(times)} |")
    sources = [f"`{one.command}`, code {one.code_revision}" for one in ordered]
    return "\n".join([*lines, "", *(f"*{source}.*  " for source in sources)])


def _levels(record: Record) -> list[str]:
    return [name.removesuffix(": hot") for name in record.metrics if name.endswith(": hot")]
