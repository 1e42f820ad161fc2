"""The table of recall: retrieval and time by the layers that are spent when writing.

Knows the record of scripts/measure_recall.py; measures nothing.
"""

from __future__ import annotations

import re
from typing import Any

from latentbank.bench.record import Record
from latentbank.bench.report import plots
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


def depths_drawing(record: Record) -> Any:
    """Found among ten over texts a second; lines for coarse keys and each refinement."""
    metrics = record.metrics
    depths = [found[1] for name in metrics if (found := _TEXTS.match(name))]
    counts = [int(found[1]) for name in metrics if (found := _REFINED.match(name))]
    speed = {depth: metrics[f"{depth}_texts_per_second"].value for depth in depths}
    depths.sort(key=lambda depth: speed[depth])
    kinds = {"coarse": "coarse keys", **{f"refined_{n}": f"{n} refined" for n in counts}}
    with plots.canvas() as figure:
        axes = figure.add_subplot()
        for at, (kind, label) in enumerate(kinds.items()):
            values = [metrics[f"{depth}_{kind}"].value for depth in depths]
            axes.plot(
                [speed[depth] for depth in depths], values, label=label, linewidth=1.4,
                color=plots.COLOURS[at], marker=plots.MARKERS[at],
            )  # fmt: skip
        best = metrics["full_coarse"].value
        axes.axhline(0.95 * best, color=plots.MUTED, linewidth=1, linestyle=plots.DASHES[1])
        for at, depth in enumerate(depths):
            top = max(metrics[f"{depth}_{kind}"].value for kind in kinds)
            axes.annotate(
                depth.replace("_", " "), (speed[depth], top), (0, 6 + 11 * (at % 2)), ha="center",
                textcoords="offset points", fontsize=9, color=plots.MUTED,
            )  # fmt: skip
        axes.set(xlabel="texts written a second", ylabel="own paragraph among ten (%)")
        axes.margins(y=0.15)
        axes.legend(loc="lower left")
    return figure
