"""Markdown tables made from result records, and their place in a README.

Knows records and text files; runs nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from latentbank.bench.record import Metric, write_atomically
from latentbank.bench.results import Result, best_first, load_results, newest
from latentbank.errors import InputError

# Column title, metric name in the record, digits after the point. `milliseconds` is per question.
COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("F1", "f1", 1),
    ("EM", "exact_match", 1),
    ("contains", "contains_answer", 1),
    ("bank bytes", "bank_bytes", 0),
    ("bytes/document", "bytes_per_document", 1),
    ("ms/question", "milliseconds", 1),
)
_MISSING = "\N{EN DASH}"


def results_table(folder: str | Path) -> str:
    """Return a markdown table of the newest records in `folder`, best F1 first.

    Newest: of records equal in task, data, method, reading, budget and configuration name
    (`config["name"]`, if there is one) only the latest is shown. A metric with the unit "fraction"
    appears in percent, others as they are, with their 95 % interval if there is one. A skipped run
    has its reason in place of numbers. JSON files that are no records are left out. Raises
    InputError if the folder holds no record, or a damaged one.
    """
    titles = ["method", "read as", *(title for title, _, _ in COLUMNS), "record"]
    lines = [_row(titles), _row(["---", "---", *("---:" for _ in COLUMNS), "---"])]
    lines += [_row(_cells(result)) for result in best_first(newest(load_results(folder).results))]
    return "\n".join(lines) + "\n"


def update_readme(path: str | Path, marker: str, text: str) -> None:
    """Replace what lies between `<!-- results:MARKER -->` and `<!-- /results:MARKER -->`.

    The markers stay, each on its own line; the file is replaced as a whole or not at all. Raises
    InputError if the file cannot be read or does not hold the pair exactly once.
    """
    path = Path(path)
    start, end = f"<!-- results:{marker} -->", f"<!-- /results:{marker} -->"
    try:
        content = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}).") from error
    if content.count(start) != 1 or content.count(end) != 1:
        raise InputError(f"{path} must hold {start} and {end} once each.")
    before, rest = content.split(start)
    if end not in rest:
        raise InputError(f"{path} holds {end} before {start}.")
    _, after = rest.split(end)
    write_atomically(path, f"{before}{start}\n{text.strip()}\n{end}{after}")


def _cells(result: Result) -> list[str]:
    record = result.record
    numbers = [_cell(record.metrics.get(name), digits) for _, name, digits in COLUMNS]
    if record.skipped:
        numbers[0] = f"skipped: {record.skipped}"
    return [result.label, record.read_as or _MISSING, *numbers, f"`{result.path.name}`"]


def _cell(metric: Metric | None, digits: int) -> str:
    if metric is None:
        return _MISSING
    scale = 100.0 if metric.unit == "fraction" else 1.0
    text = f"{metric.value * scale:,.{digits}f}"
    if metric.low is None or metric.high is None:
        return text
    low, high = metric.low * scale, metric.high * scale
    return f"{text} [{low:,.{digits}f}, {high:,.{digits}f}]"


def _row(cells: list[str]) -> str:
    escaped = (re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
