"""Table and plot of a search for expressions: what each way found, and what it reached on the test.

Knows the records of `latentbank evolve`; measures nothing.
"""

from __future__ import annotations

from typing import Any

from latentbank.bench.record import Record
from latentbank.bench.report import plots
from tables.markdown import table

_NAMES = {"default": "the default", "evolved": "evolved", "random": "random search", "cem": "CEM"}
_PARTS = {"old": "old documents, %", "new": "new ones, %", "f1": "F1 of answers"}


def evolve_table(record: Record) -> str:
    """A row for the default, the evolved expression, random search and CEM.

    The model answers for the default and the best other only: the F1 of the rest is empty.
    """
    known = record.metrics
    parts = [part for part in _PARTS if f"default_test_{part}" in known]
    rows = []
    for name, label in _NAMES.items():
        over = known.get(f"{name}_over_default_by_document")
        difference = (
            "" if over is None else f"{over.value:+.1f} [{over.low:+.1f}, {over.high:+.1f}]"
        )
        scores = [known[f"{name}_{kind}_score"].value for kind in ("train", "choice", "test")]
        cells = [f"{value:.1f}" for value in scores]
        told = [known.get(f"{name}_test_{part}") for part in parts]
        cells += ["" if one is None else f"{one.value:.1f}" for one in told]
        rows.append([label, *cells, difference, f"`{record.config['expressions'][name]}`"])
    head = ["", "search, %", "choice, %", "test, %", *(_PARTS[part] for part in parts)]
    questions = known["test_questions"].value
    return (
        f"{table([*head, 'over the default', 'expression'], rows)}\n\n"
        f"*{questions:,.0f} test questions; `{record.command}`, code {record.code_revision}.*"
    )


def evolve_drawing(record: Record) -> Any:
    """How far each way's expression lies above the default on the test, with 95 % intervals."""
    known = record.metrics
    found = {
        label: known[f"{name}_over_default_by_document"]
        for name, label in _NAMES.items()
        if f"{name}_over_default_by_document" in known
    }
    if not found:
        return None
    with plots.canvas(7.6, 0.42 * len(found) + 1.2) as figure:
        axes = figure.add_subplot()
        for at, one in enumerate(found.values()):
            axes.hlines(at, one.low, one.high, color=plots.COLOURS[0], linewidth=1.4)
            axes.plot(one.value, at, plots.MARKERS[0], color=plots.COLOURS[0])
        axes.axvline(0, color=plots.MUTED, linewidth=0.8, zorder=0.5)
        axes.set_yticks(range(len(found)), list(found))
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlabel("questions answered on the test, over the default (points)")
        axes.grid(axis="y", visible=False)
    return figure
