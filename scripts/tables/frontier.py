"""The table of the frontier: F1 of each row at each budget, beside its paired difference from one.

Knows records and predictions; runs nothing.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from latentbank.bench.report.compare import question_scores
from latentbank.bench.report.results import MISSING, Result, load_results, newest, si_bytes
from latentbank.errors import InputError
from latentbank.evaluate.metrics import paired_bootstrap
from tables.markdown import table

_NO_LIMIT = float("inf")
Row = dict[float, Result]  # bytes per document -> result


def frontier_table(folder: Path, ours: str, other: str) -> str:
    """Markdown: F1 with its interval of each row of a folder at each budget, best rows first; then
    the difference of the row `ours` from `other` where both have a budget, with its p-value.

    Raises InputError if the folder holds no record of either.
    """
    rows = _rows(folder, ours, other)
    budgets = sorted({budget for row in rows.values() for budget in row})
    heads = ["no limit" if budget == _NO_LIMIT else f"{budget:,.0f} B" for budget in budgets]
    lines = [
        (name, *(_score(row[budget]) if budget in row else MISSING for budget in budgets))
        for name, row in sorted(rows.items(), key=lambda item: -_best(item[1]))
    ]
    pairs = [
        _difference(rows[ours][budget], rows[other][budget])
        if budget in rows[ours] and budget in rows[other]
        else MISSING
        for budget in budgets
    ]
    lines.append((f"*{ours} − {other}*", *pairs))
    note = _note([result for row in rows.values() for result in row.values()])
    return f"{table(['F1', *heads], lines)}\n\n{note}"


def shares_table(folder: Path, other: str) -> str:
    """Markdown: rows whose files take at most a hundredth of the bytes of the row `other`, fewest
    first, with their share of its bytes and how many times its F1 they have.

    Raises InputError if the folder holds no record of `other`.
    """
    rows = _rows(folder, other)
    against = max(rows.pop(other).values(), key=lambda result: result.value("f1") or 0.0)
    whole, base = against.value("bytes_per_document") or 0.0, against.value("f1") or 0.0
    found = sorted(
        (size, name, result)
        for name, row in rows.items()
        for result in row.values()
        if 0 < (size := result.value("bytes_per_document") or 0.0) <= whole / 100
    )
    head = [
        "", "budget", "file, bytes/document", f"share of `{other}`'s {si_bytes(whole)}", "F1",
        f"times `{other}`'s {base:.1f}",
    ]  # fmt: skip
    lines = []
    for size, name, result in found:
        budget = _budget(result)
        given = MISSING if budget == _NO_LIMIT else f"{budget:,.0f} B"
        f1 = result.record.metrics["f1"].value
        share, times = f"{100 * size / whole:.2g} %", f"{f1 / base:.2g}"
        lines.append((name, given, f"{size:.1f}", share, f"{f1:.1f}", times))
    return f"{table(head, lines)}\n\n{_note([against, *(result for _, _, result in found)])}"


def _rows(folder: Path, *needed: str) -> defaultdict[str, Row]:
    """The newest results of a folder by row and budget."""
    rows: defaultdict[str, Row] = defaultdict(dict)
    for result in newest(load_results(folder).results):
        if not result.record.skipped:
            rows[result.label][_budget(result)] = result
    for name in needed:
        if name not in rows:
            raise InputError(f"{folder} holds no record of {name!r}.")
    return rows


def _budget(result: Result) -> float:
    """Bytes for each document of the stream."""
    each = result.record.config.get("budget_per_document")
    return float(each) if isinstance(each, int) else _NO_LIMIT


def _best(row: Row) -> float:
    return max(result.value("f1") or 0.0 for result in row.values())


def _score(result: Result) -> str:
    """F1 with its interval; of a bank without a limit also what it took."""
    metric, size = result.record.metrics["f1"], result.value("bytes_per_document")
    text = f"{metric.value:.1f}"
    if metric.low is not None and metric.high is not None:
        text += f" [{metric.low:.0f}, {metric.high:.0f}]"
    if _budget(result) == _NO_LIMIT and size:
        text += f" at {si_bytes(size)}"
    return text


def _difference(ours: Result, other: Result) -> str:
    """The paired difference of F1 in points, and its p-value."""
    one, two = question_scores(ours.path), question_scores(other.path)
    if one.keys() != two.keys():
        raise InputError(f"{ours.name} and {other.name} were asked different questions.")
    names = sorted(one)
    found = paired_bootstrap(
        [100 * one[n]["f1"] for n in names], [100 * two[n]["f1"] for n in names]
    )
    return f"{found.difference:+.1f} (p = {found.p_value:.2g})"


def _note(results: list[Result]) -> str:
    """What the rows have in common, and which code revisions made them."""
    first = max(results, key=lambda result: result.value("documents") or 0.0)
    revisions = sorted({result.record.code_revision for result in results})
    return (
        f"*`{first.record.data.name}`, {first.value('documents'):,.0f} documents, "
        f"{first.value('questions'):,.0f} questions, seed {first.record.seed}; "
        f"code {', '.join(revisions)}.*"
    )
