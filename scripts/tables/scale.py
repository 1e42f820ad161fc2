"""The tables of docs/scale.md: machines for many documents and questions, and ingests with Ray.

Knows the records of scripts/simulate_scale.py and scripts/measure_ray.py; measures nothing.
"""

from __future__ import annotations

from latentbank.bench.record import Record
from tables.markdown import table


def machines_table(record: Record) -> str:
    """A row for each number of documents and questions: parts, cores, disk, time, money."""
    values = {name: float(metric.value) for name, metric in record.metrics.items()}
    cases = [name.removesuffix(": parts") for name in values if name.endswith(": parts")]
    rows = []
    for case in cases:
        documents, questions, kind = case.split(", ")
        rows.append(
            [
                documents.removesuffix(" documents"),
                questions.removesuffix(" questions/s"),
                kind,
                f"{values[f'{case}: parts']:,.0f}",
                f"{values[f'{case}: cores that find']:,.0f}",
                f"{values[f'{case}: cores that read']:,.0f}",
                f"{values[f'{case}: memory']:,.0f}",
                f"{values[f'{case}: disk']:,.0f}",
                f"{values[f'{case}: finding, p95']:,.2g}",
                f"{values[f'{case}: price']:,.2f}",
                f"{values[f'{case}: price of 1,000 questions']:,.2g}",
            ]
        )
    head = [
        "documents", "questions/s", "found by", "parts", "cores that find", "cores that read",
        "memory, GiB", "disk, GiB", "finding, p95 s", "$/h", "$ for 1,000 questions",
    ]  # fmt: skip
    return f"{table(head, rows)}\n\n*`{record.command}`, code {record.code_revision}.*"


def ingest_table(record: Record) -> str:
    """A row for each number of workers."""
    values = {name: float(metric.value) for name, metric in record.metrics.items()}
    counts = [name.removesuffix(": seconds") for name in values if name.endswith(": seconds")]
    one = values[f"{counts[0]}: seconds"]
    rows = [
        [
            name,
            f"{values[f'{name}: seconds']:,.1f}",
            f"{values[f'{name}: merge']:,.1f}",
            f"{values['documents'] / values[f'{name}: seconds']:,.1f}",
            f"{one / values[f'{name}: seconds']:.2f}",
        ]
        for name in counts
    ]
    head = ["", "writing, s", "merging, s", "documents/s", "times as fast"]
    return f"{table(head, rows)}\n\n*`{record.command}`, code {record.code_revision}.*"
