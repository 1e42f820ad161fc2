"""Tables of the neural memory: needles, perplexity, what it costs.

Knows the records of bench_titans, bench_language, measure_memory and measure_queries; runs no
model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

from latentbank.bench.record import Record, read_record
from tables.markdown import table

KINDS = ("passkey", "number", "word")


def _by_model(records: Iterable[Record]) -> dict[str, dict[str, list[float]]]:
    """Model → what was measured → its values over the seeds."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for name, metric in record.metrics.items():
            label, _, what = name.partition(": ")
            found[label.partition(" seed ")[0]][what].append(metric.value)
    return found


def _notes(records: list[Record]) -> str:
    parts = dict.fromkeys(f"*`{r.command}`, code {r.code_revision}.*" for r in records)
    return "\n".join(parts)


def needle_table(path: Path) -> str:
    """Exact match by length: the three kinds of needle in one cell; then changing names."""
    record = read_record(path)
    found = _by_model([record])
    lengths = sorted({int(k.split()[1]) for row in found.values() for k in row if " " in k})
    recall = sorted({k for row in found.values() for k in row if k.startswith("recall ")})
    lengths = [n for n in lengths if any(f"passkey {n}" in row for row in found.values())]
    rows = []
    for model, values in found.items():
        cells = []
        for length in lengths:
            each = [values.get(f"{kind} {length}", []) for kind in KINDS]
            cells.append(" · ".join(f"{mean(one):.0f}" if one else "-" for one in each))
        cells += [f"{mean(values[k]):.0f}" if k in values else "-" for k in recall]
        seeds = len(values["parameters"])
        rows.append([f"`{model}`", str(seeds), f"{mean(values['parameters']):,.0f}", *cells])
    head = ["model", "seeds", "parameters", *(f"{n:,} tokens" for n in lengths)]
    head += ["changing names" for _ in recall]
    return f"{table(head, rows)}\n\n{_notes([record])}"


def language_table(path: Path) -> str:
    """Perplexity of each model: mean over the seeds, least and largest."""
    record = read_record(path)
    found = _by_model([record])
    tests = [
        name.partition(": ")[2]
        for name, metric in record.metrics.items()
        if metric.unit == "perplexity"
    ]
    tests = list(dict.fromkeys(tests))
    rows = []
    for model, values in found.items():
        cells = []
        for test in tests:
            each = values.get(test, [])
            span = f" ({min(each):.1f}–{max(each):.1f})" if len(each) > 1 else ""
            cells.append(f"{mean(each):.1f}{span}" if each else "-")
        seeds = len(values["parameters"])
        rows.append([f"`{model}`", str(seeds), f"{mean(values['parameters']):,.0f}", *cells])
    return f"{table(['model', 'seeds', 'parameters', *tests], rows)}\n\n{_notes([record])}"


def memory_table(folder: Path) -> str:
    """What was measured of the memory itself, from speed.json and stream.json."""
    rows, records = [], []
    for name in ("speed", "stream"):
        if (folder / f"{name}.json").exists():
            record = read_record(folder / f"{name}.json")
            records.append(record)
            for what, metric in record.metrics.items():
                digits = 0 if metric.value >= 100 or metric.value == int(metric.value) else 3
                rows.append([what, f"{metric.value:,.{digits}f}", metric.unit])
    return f"{table(['', 'value', 'unit'], rows)}\n\n{_notes(records)}"


def kept_table(path: Path) -> str:
    """The method on the frozen backbone: what is found again, gain by documents, F1."""
    record = read_record(path)
    values = record.metrics
    counts = [int(name.rpartition(" ")[2]) for name in values if name.startswith("gain of ")]
    words = f"found of {counts[0]}" in values
    rows = []
    for count in counts:
        if words:
            told = [f"{values[f'found of {count}'].value:.0f} %"]
        else:
            told = [
                f"{values[f'recall, {place} of {count}'].value:.2f}"
                for place in ("first", "middle", "last")
            ]
        gain = values[f"gain of {count}"]
        interval = f"{gain.value:+.3f} ({gain.low:+.3f} … {gain.high:+.3f})"
        rows.append([f"{count:,}", *told, interval])
    shown = ["answers found"] if words else ["recall, first", "middle", "last"]
    head = ["documents", *shown, "gain of answers, nats a token"]
    score = values["F1, difference"]
    said = (
        f"F1 after {counts[-1]:,} documents: {values['F1'].value:.1f}, without memory "
        f"{values['F1, no memory'].value:.1f}, difference {score.value:+.1f} "
        f"({score.low:+.1f} … {score.high:+.1f}), p {values['F1, p'].value:.3f}."
    )
    first = [name.partition(", ")[2] for name in values if name.startswith("first token, ")]
    if first:
        told = "; ".join(
            f"{name} {values[f'first token, {name}'].value:.2f} nats, right for "
            f"{values[f'first token right, {name}'].value:.0f} %"
            for name in first
        )
        said += f" First tokens of answers: {told}."
    if not words:
        said = f"An empty memory recalls {values['recall, empty memory'].value:.2f}. {said}"
    return f"{table(head, rows)}\n\n{said}\n\n{_notes([record])}"


def queries_table(record: Record) -> str:
    """Which share of questions finds the key of its answer: a line for each run, last figures."""
    names = [name.partition(": ") for name in record.metrics]
    kinds = list(dict.fromkeys(kind for _, _, kind in names))
    rows = [
        [label, *(f"{record.metrics[f'{label}: {kind}'].value:.0f}" for kind in kinds)]
        for label in dict.fromkeys(label for label, _, _ in names)
    ]
    asked = f"{record.config['seen']:,} questions seen, {record.config['unseen']} not"
    note = f"*Percent; {asked}. `{record.command}`, code {record.code_revision}.*"
    return f"{table(['learned from', *kinds], rows)}\n\n{note}"
