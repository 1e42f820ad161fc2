"""The tables of answers beside llama.cpp.

Knows the records of scripts/bench_speed.py; times nothing.
"""

from __future__ import annotations

from latentbank.bench.record import Record
from tables.markdown import table

PARTS = ("first token", "whole answer")
QUALITIES = ("fast", "best")
COLUMNS = (("F1", 1), ("EM", 1), ("seconds a question", 2))
OTHERS = ("llama.cpp, prefix kept", "llama.cpp, passage in the prompt")


def contest_table(record: Record) -> str:
    """Markdown: median times of each system, and their ratios to llama.cpp where it took part."""
    values = {name: metric.value for name, metric in record.metrics.items()}
    systems = [
        name.removesuffix(f": {PARTS[0]}")
        for name, metric in record.metrics.items()
        if metric.unit == "ms" and name.endswith(PARTS[0])
    ]
    others = [name for name in OTHERS if name in systems]
    rows = []
    for system in systems:
        cells = [f"{values[f'{system}: {part}']:,.0f}" for part in PARTS]
        for other in others:
            found = [values.get(f"{system} over {other}: {part}") for part in PARTS]
            cells += ["1" if one is None else f"{one:.2f}" for one in found]
        rows.append([system, *cells])
    head = ["", *(f"{part}, ms" for part in PARTS)]
    head += [f"{part} ÷ {other}" for other in others for part in PARTS]
    beside = [
        f"{name} {metric.value:,.2f} {metric.unit}".removesuffix(" ratio")
        for name, metric in record.metrics.items()
        if " over " not in name and metric.unit != "ms"
    ]
    source = f"*`{record.command}`, code {record.code_revision}.*"
    return "\n\n".join([table(head, rows), *(["; ".join(beside) + "."] if beside else []), source])


def quality_table(record: Record) -> str:
    """Markdown: F1 and seconds of each engine and quality, and paired differences of F1."""
    names = [name.removesuffix(": F1") for name in record.metrics if name.endswith(": F1")]
    rows = []
    for name in names:
        found = [(record.metrics[f"{name}: {part}"].value, digits) for part, digits in COLUMNS]
        rows.append([name, *(f"{value:.{digits}f}" for value, digits in found)])
    differences = []
    for name, metric in record.metrics.items():
        if name.endswith(": F1 value"):
            pair = name.removesuffix(": F1 value")
            low, high = (record.metrics[f"{pair}: F1 {end}"].value for end in ("low", "high"))
            differences.append(f"{pair}: {metric.value:+.1f} [{low:.1f}, {high:.1f}]")
    head = ["engine, quality", *(part for part, _ in COLUMNS)]
    source = f"*`{record.command}`, code {record.code_revision}.*"
    return "\n\n".join([table(head, rows), f"F1, paired: {'; '.join(differences)}.", source])


def ratio_table(record: Record) -> str:
    """Markdown: strata's times over those of llama.cpp, cached and cold."""
    rows = []
    for state, other, words in (
        ("cached", OTHERS[0], "cached ÷ the passage's prefix kept"),
        ("cold", OTHERS[1], "cold ÷ the passage in the prompt"),
    ):
        names = [
            f"strata {quality}, {state} over {other}: {part}"
            for quality in QUALITIES
            for part in PARTS
        ]
        found = [record.metrics.get(name) for name in names]
        rows.append([words, *("–" if one is None else f"{one.value:.2f}" for one in found)])
    return table(["", *(f"{q}: {part}" for q in QUALITIES for part in PARTS)], rows)
