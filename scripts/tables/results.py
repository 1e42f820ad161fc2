"""The table of a folder of records: a line for each row, best F1 first.

Knows records; runs nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from latentbank.bench.report.results import MISSING, Result, best_first, cell, load_results, newest
from tables.markdown import table

# Column title, metric, digits after the point. `milliseconds` is per question.
COLUMNS = (
    ("F1", "f1", 1),
    ("EM", "exact_match", 1),
    ("contains", "contains_answer", 1),
    ("bank bytes", "bank_bytes", 0),
    ("bytes/document", "bytes_per_document", 1),
    ("ms/question", "milliseconds", 1),
)


METHOD_COLUMNS = ("F1", "bytes/document", "ms/question", "EM")


def results_table(folder: Path) -> str:
    """Markdown: the newest records of a folder, best F1 first; a skipped run shows its reason.

    Of records that agree in task, data, row, `read_as` and budget only the latest is shown. JSON
    files that are no records are left out. Raises InputError for a folder without records, or with
    a damaged one.
    """
    head = ["method", "read as", *(title for title, *_ in COLUMNS), "record"]
    found = best_first(newest(load_results(folder).results))
    text = table(head, map(_cells, found), words=2)
    first, rule, *rows = text.split("\n")
    return "\n".join([first, rule.removesuffix("---: |") + "--- |", *rows]) + "\n"


def method_table(folder: Path, method: str) -> str:
    """Markdown: the rows of one method, and of no memory beside it, as on the method's page."""
    kept = [(title, name, n) for title, name, n in COLUMNS if title in METHOD_COLUMNS]
    rows = [
        [
            result.label,
            *(cell(result.record.metrics.get(name), n, " [{}, {}]") for _, name, n in kept),
        ]
        for result in best_first(newest(load_results(folder).results))
        if re.split(r"[ +]", result.label)[0] in (method, "none") and not result.record.skipped
    ]
    return table(["method", *(title for title, *_ in kept)], rows)


def _cells(result: Result) -> list[str]:
    record = result.record
    numbers = [cell(record.metrics.get(name), n, " [{}, {}]") for _, name, n in COLUMNS]
    if record.skipped:
        numbers[0] = f"skipped: {record.skipped}"
    return [result.label, record.read_as or MISSING, *numbers, f"`{result.path.name}`"]
