"""Tables of knowledge bases: cost by the number of triples, pruning, and how keys are kept.

Knows the records of scripts/measure_kblam.py; measures nothing.
"""

from __future__ import annotations

from latentbank.bench.record import Record
from tables.markdown import table

_KEYS = ("text", "float16", "int8", "rvq", "vq")


def cost_table(record: Record) -> str:
    """A line for each number of triples, and what a line through the times says."""
    series, metrics = record.series, record.metrics
    sizes = sorted({x for one in series.values() for x in one.x})
    rows = []
    for size in sizes:
        cells = []
        for name in ("triples", "prompt", "opening"):
            one = series.get(name)
            points = {} if one is None else dict(zip(one.x, one.y, strict=True))
            cells.append(f"{points[size]:,.0f}" if size in points else "–")
        rows.append([f"{size:,.0f}", *cells])
    head = ["triples", "first token, ms", "the same, triples in the prompt", "encoding, ms"]
    value = {name: metric.value for name, metric in metrics.items()}
    start = value["milliseconds_without_triples"]
    text = (
        f"A line through the times from 100 triples on: {start:,.0f} ms and "
        f"{value['milliseconds_per_1000_triples']:,.1f} ms for each 1,000 triples; it "
        f"explains {100 * value['variance_explained_by_a_line']:.1f} % of the variance. Peak "
        f"memory at {value['triples']:,.0f} triples: {value['peak_memory_bytes'] / 2**30:.2f} GiB. "
        f"{value['prompt_triples']:,.0f} triples in the prompt take "
        f"{value['prompt_over_1000_triples']:.1f} times as long as 1,000 in the attention."
    )
    return f"{table(head, rows, words=0)}\n\n{text}"


def prune_table(record: Record) -> str:
    """A line for each `top_k`: right answers and answers that changed."""
    metrics = record.metrics
    names = [
        name.removeprefix("exact_match_") for name in metrics if name.startswith("exact_match_")
    ]
    rows = [
        [
            name.replace("_", " "),
            *(f"{metrics[f'{one}_{name}'].value:.1f}" for one in _PRUNED),
        ]
        for name in names
    ]
    return table(["triples read", "EM", "first source right", "answers changed, %"], rows, words=1)


_PRUNED = ("exact_match", "first_source_right", "answers_changed")


def keys_table(record: Record) -> str:
    """A line for each way to keep keys, from many bytes to few."""
    metrics = record.metrics
    kinds = [kind for kind in _KEYS if f"bytes_{kind}" in metrics]
    rows = [
        [
            f"`{kind}`",
            f"{metrics[f'bytes_{kind}'].value:,.0f}",
            f"{metrics[f'file_bytes_{kind}'].value:,.0f}",
            f"{metrics[f'exact_match_{kind}'].value:.1f}",
            f"{metrics[f'first_source_right_{kind}'].value:.1f}",
        ]
        for kind in sorted(kinds, key=lambda kind: metrics[f"bytes_{kind}"].value)
    ]
    head = ["`keys`", "bytes/triple", "with the file's own", "EM", "first source right"]
    return table(head, rows, words=1)
