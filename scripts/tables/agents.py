"""Tables and the plot of agents with a memory: success by row, and by policy at equal bytes.

Knows the record of scripts/bench_agents.py; measures nothing.
"""

from __future__ import annotations

import re
from typing import Any

from latentbank.bench.record import Metric, Record
from latentbank.bench.report import plots
from tables.markdown import table

_LIMITED = re.compile(r"(flood )?([\d.]+) (\w+)$")
_NAMES = {
    "random": "any action",
    "none": "no passages",
    "fixed": "the same passages at each step",
    "memory": "memory",
    "flood": "memory, flooded",
}


def agents_table(record: Record) -> str:
    """A row for each agent without a limit of bytes; then `policies_table`, if there are such."""
    rows = []
    for name, label in _NAMES.items():
        if f"{name}: success" in record.metrics:
            rows.append([label, *_cells(record, name)])
    head = ["agent", "solved in the trials, %", "in the first, %", "episodes", "bytes"]
    parts = [table(head, rows), *([policies_table(record)] if _limited(record) else [])]
    return "\n\n".join([*parts, f"*`{record.command}`, code {record.code_revision}.*"])


def policies_table(record: Record) -> str:
    """A row for each stream, share of its bytes and policy: success, and its share of the gain."""
    rows = []
    for name, flooded, share, policy in _limited(record):
        whole = "flood" if flooded else "memory"
        none = record.metrics["none: success"].value
        gain = record.metrics[f"{whole}: success"].value - none
        own = record.metrics[f"{name}: success"].value - none
        cells = _cells(record, name)
        part = f"{100 * own / gain:.0f}" if gain > 0 else "-"
        rows.append(["flooded" if flooded else "plain", share, policy, cells[0], part, *cells[2:]])
    head = ["stream", "share of the bytes", "policy", "solved, %", "% of the gain"]
    return table([*head, "episodes", "bytes"], rows, words=3)


def policies_drawing(record: Record) -> Any:
    """Success by policy with intervals, one colour for each stream; lines mark unlimited memory."""
    limited = _limited(record)
    if not limited:
        return None
    kinds = sorted({(flooded, share) for _, flooded, share, _ in limited})
    names = list(dict.fromkeys(policy for *_, policy in limited))
    with plots.canvas(8.6, 0.42 * len(names) + 1.4) as figure:
        axes = figure.add_subplot()
        for at, (flooded, share) in enumerate(kinds):
            tone, whole = plots.COLOURS[at], "flood" if flooded else "memory"
            label = f"{share} of the bytes{', flooded' if flooded else ''}"
            for name, own, part, policy in limited:
                if (own, part) == (flooded, share):
                    one = record.metrics[f"{name}: success"]
                    y = names.index(policy) + 0.18 * (at - (len(kinds) - 1) / 2)
                    axes.hlines(y, one.low, one.high, color=tone, linewidth=1.4)
                    axes.plot(one.value, y, plots.MARKERS[at], color=tone, label=label)
                    label = ""
            value = record.metrics[f"{whole}: success"].value
            axes.axvline(value, color=tone, linewidth=1.2, linestyle=plots.DASHES[1], zorder=0.8)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("tasks solved in three trials (%)")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _limited(record: Record) -> list[tuple[str, bool, str, str]]:
    """(row, whether flooded, share of the bytes, policy) of all rows with a limit."""
    found = []
    for name in record.metrics:
        row = name.removesuffix(": success")
        if row != name and (match := _LIMITED.match(row)):
            found.append((row, bool(match[1]), match[2], match[3]))
    return found


def _cells(record: Record, name: str) -> list[str]:
    known = record.metrics
    episodes, size = known.get(f"{name}: episodes"), known.get(f"{name}: bytes")
    return [
        _spread(known[f"{name}: success"]),
        f"{known[f'{name}: first trial'].value:.1f}",
        "" if episodes is None else f"{episodes.value:,.0f}",
        "" if size is None else f"{size.value:,.0f}",
    ]


def _spread(metric: Metric) -> str:
    return f"{metric.value:.1f} [{metric.low:.1f}, {metric.high:.1f}]"
