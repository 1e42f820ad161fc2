"""The table of recall: retrieval and time by the layers that are spent when writing.

Knows the record of scripts/measure_recall.py; measures nothing.
"""

from __future__ import annotations

import re

from latentbank.bench.record import Record
from tables.markdown import table

_TEXTS = re.compile(r"(.+)_texts_per_second$")
_REFINED = re.compile(r"full_refined_(\d+)$")


def depths_table(record: Record) -> str:
    """A row for each depth: layers, texts a second, how much faster, among the best ten."""
    metrics = record.metrics
    depths = [found[1] for name in metrics if (found := _TEXTS.match(name))]
    counts = [int(found[1]) for name in metrics if (found := _REFINED.match(name))]
    kinds = ["coarse", *(f"refined_{count}" for count in counts)]
    rows = []
    for depth in depths:
        faster = metrics.get(f"{depth}_faster")
        cells = [
            f"{metrics[f'{depth}_layers'].value:.2f}",
            f"{metrics[f'{depth}_texts_per_second'].value:,.0f}",
            "1" if faster is None else f"{faster.value:.1f}",
        ]
        for kind in kinds:
            value = metrics[f"{depth}_{kind}"]
            cells.append(f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]")
        rows.append([depth.replace("_", " "), *cells])
    head = ["stops after layer", "layers, mean", "texts/s", "times as fast", "among ten, coarse"]
    head += [f"{count} refined" for count in counts]
    return f"{table(head, rows)}\n\n*`{record.command}`, code {record.code_revision}.*"
