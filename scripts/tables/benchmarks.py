"""The tables of the bench, one for each protocol.

Knows records by protocol; draws nothing and runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from latentbank.bench.record import Series
from latentbank.bench.report.results import (
    MISSING,
    Group,
    Result,
    any_cell,
    groups,
    load_results,
    size_cell,
)
from latentbank.bench.task import TASKS
from tables.markdown import table

NO_RECORDS = "*Not run yet: `make bench-full` makes the records of this protocol.*"
Columns = tuple[tuple[str, str], ...]

# (title, metric), in the order of the columns; a curve's points are added by `CURVES`.
_SIZE: Columns = (
    ("bytes/document", "bytes_per_document"),
    ("documents kept", "documents_kept"),
)
COLUMNS: dict[str, Columns] = {
    "online-qa": (
        ("F1", "f1"), ("EM", "exact_match"), ("contains", "contains_answer"),
        ("prefix match", "prefix_match"), ("document found", "gold_selected"), *_SIZE,
        ("ms/question", "milliseconds"), ("documents/s", "write_documents_per_second"),
    ),
    "retention": (
        ("area under F1", "retention_area_f1"), ("backward transfer F1", "backward_transfer_f1"),
        *_SIZE,
    ),
    "noise": _SIZE,
    "capacity": (
        ("bits in 100 bytes", "bits_per_100_bytes"), ("bits given back", "bits_recovered"),
        ("bits written", "bits_written"), ("numbers, EM", "exact_number"),
        ("names, EM", "exact_name"), ("dates, EM", "exact_date"), *_SIZE,
    ),
    "duplicates": (("growth of the bank", "bank_growth"), *_SIZE),
    "updates": (
        ("F1", "f1"), ("EM", "exact_match"), ("old answer, EM", "old_exact_match"),
        ("old answer, contains", "old_contains_answer"), ("clean bank, EM", "exact_match_clean"),
        ("of those, EM", "exact_match_of_clean"), *_SIZE,
    ),
    "delete": (
        ("F1, left", "f1"), ("F1 before", "f1_before_deletion"), ("F1 deleted", "f1_deleted"),
        ("F1 closed book", "f1_closed_book"), ("leak, F1", "leak_f1"),
        ("answers from deleted", "answers_from_deleted"), *_SIZE,
    ),
    "forgetting": (("F1 after, all sets", "f1"), *_SIZE),
    "abstain": (
        ("EM, written", "exact_match"),
        ("accuracy at 5 % false", "accuracy_at_5_percent_false"),
        ("accuracy at 20 % false", "accuracy_at_20_percent_false"),
        ("area of risk over coverage", "risk_coverage_area"), *_SIZE,
    ),
    "scale": (),
    "frontier-learning": (
        ("gain, nats", "gain_stream"), ("gain, other words", "gain_paraphrase"),
        ("EM", "exact_match"), ("EM, other words", "exact_match_paraphrase"),
        ("rise held out, nats", "rise"), ("F1 forgotten", "forgotten_f1"),
        ("rise of text, nats", "rise_text"), *_SIZE,
    ),
    "kb-qa": (),
}  # fmt: skip
CURVES = {"retention": "f1", "noise": "f1", "duplicates": "f1"}
"""Protocols whose table has a column for each point of this curve."""
Sized = tuple[tuple[str, str, Callable[[float], str]], ...]
SCALE: Sized = (
    ("bytes/document", "bytes_per_document", size_cell),
    ("written, documents/s", "write_documents_per_second", "{:,.1f}".format),
    ("appended, documents/s", "append_entries_per_second", "{:,.0f}".format),
    ("read, ms/question", "read_milliseconds", "{:,.1f}".format),
    ("opening, s", "open_seconds", "{:,.3f}".format),
    ("peak memory, MB", "peak_memory_bytes", lambda value: f"{value / 1e6:,.0f}"),
)
_ONE = "{:,.1f}".format
KNOWLEDGE: Sized = (
    ("EM", "exact_match", _ONE),
    ("names", "exact_name", _ONE), ("numbers", "exact_number", _ONE),
    ("dates", "exact_date", _ONE), ("places", "exact_place", _ONE),
    ("descriptions", "exact_description", _ONE),
    ("first source right", "first_source_right", _ONE),
    ("refusals: recall", "refusal_recall", _ONE), ("precision", "refusal_precision", _ONE),
    ("answerable refused", "false_refusals", _ONE),
    ("bytes/triple", "bytes_per_document", size_cell),
    ("first token, ms", "first_token_milliseconds", "{:,.0f}".format),
    SCALE[-1],
)  # fmt: skip
BY_SIZE: dict[str, tuple[str, Sized]] = {
    "scale": ("documents", SCALE),
    "kb-qa": ("triples", KNOWLEDGE),
}
"""Protocols whose table has a line for each size of the bank."""


def benchmark_tables(folder: Path) -> dict[str, str]:
    """Protocol → markdown: for each dataset what was run, its table, and what was not run and why.

    A protocol without records, or a folder that does not exist, gets a sentence that says so.
    Raises InputError for a damaged record.
    """
    found = load_results(folder, nested=True).results if any(folder.rglob("*.json")) else ()
    parts = groups(found)
    return {
        task: "\n\n".join(_part(group) for group in parts if group.task == task) or NO_RECORDS
        for task in TASKS.names()
    }


def _part(group: Group) -> str:
    lines = [_facts(group)]
    if group.results:
        sized = group.task in BY_SIZE
        head, rows = _by_size(group) if sized else _table(group)
        lines.append(table(head, rows, words=2 if sized else 1))
    if group.skipped:
        reasons = (f"- {_named(r)}: {r.record.skipped}." for r in group.skipped)
        lines.append("\n".join(["Not run:", "", *reasons]))
    return "\n\n".join(lines)


def _facts(group: Group) -> str:
    """Data, sizes and settings that the rows share."""
    members = (*group.results, *group.skipped)
    facts = [f"`{group.data_name}`"]
    for name in ("documents", "questions"):
        counts = sorted({v for r in group.results if (v := r.value(name)) is not None})
        if counts and group.task not in BY_SIZE:
            facts.append(f"{' or '.join(f'{v:,.0f}' for v in counts)} {name}")
    for name, values in (
        ("backbone", sorted({_backbone(r) for r in members} - {""})),
        ("seed", sorted({str(r.record.seed) for r in members})),
        ("code", sorted({r.record.code_revision for r in members})),
    ):
        if values:
            facts.append(f"{name} {', '.join(values)}")
    return f"{'; '.join(facts)}."


def _backbone(result: Result) -> str:
    return str(result.record.config.get("settings", {}).get("backbone", "")).split("/")[-1]


def _table(group: Group) -> tuple[list[str], list[list[str]]]:
    used = {name for r in group.results for name in r.record.metrics}
    columns = [c for c in COLUMNS.get(group.task, COLUMNS["online-qa"]) if c[1] in used]
    columns += [(f"forgotten, {name[14:]}", name) for name in sorted(used) if _is_forgotten(name)]
    key = CURVES.get(group.task, "")
    curves = [r.record.series.get(key) for r in group.results]
    xs = sorted({x for curve in curves if curve is not None for x in curve.x})
    axis = next((f"F1 at {c.x_name} =" for c in curves if c is not None), "")
    head = ["row", *(f"{axis} {x:,.10g}" if i == 0 else f"{x:,.10g}" for i, x in enumerate(xs))]
    head += [title for title, _ in columns]
    rows = []
    for label, result, curve in zip(group.labels, group.results, curves, strict=True):
        cells = [_at(curve, x, "{:,.1f}".format) for x in xs]
        metrics = result.record.metrics
        cells += [
            size_cell(metrics[name].value)
            if name == "bytes_per_document" and name in metrics
            else any_cell(metrics.get(name))
            for _, name in columns
        ]
        rows.append([_marked(label, result), *cells])
    return head, rows


def _by_size(group: Group) -> tuple[list[str], list[list[str]]]:
    """A line for each row and size; sizes with resampled documents are marked."""
    unit, every = BY_SIZE[group.task]
    used = {name for r in group.results for name in r.record.series}
    columns = [column for column in every if group.task == "scale" or column[1] in used]
    rows = []
    for label, result in zip(group.labels, group.results, strict=True):
        series = result.record.series
        real = result.record.config.get("resampled_above")
        sizes = sorted({x for _, name, _ in columns if name in series for x in series[name].x})
        for size in sizes:
            again = " (resampled)" if isinstance(real, int) and size > real else ""
            cells = [_at(series.get(name), size, form) for _, name, form in columns]
            rows.append([_marked(label, result), f"{size:,.0f}{again}", *cells])
        stopped = result.record.config.get("stopped")
        if stopped:
            rows.append([_marked(label, result), f"stopped: {stopped}", *("" for _ in columns)])
    return ["row", unit, *(title for title, _, _ in columns)], rows


def _at(curve: Series | None, x: float, form: Callable[[float], str]) -> str:
    points = {} if curve is None else dict(zip(curve.x, curve.y, strict=True))
    return form(points[x]) if x in points else MISSING


def _marked(label: str, result: Result) -> str:
    """The label, with what a reader must know beside its numbers."""
    notes = []
    if result.ceiling:
        notes.append("told the document")
    if result.record.config.get("untrained"):
        notes.append("untrained")
    return f"{label} ({', '.join(notes)})" if notes else label


def _named(result: Result) -> str:
    budget = result.record.config.get("budget_per_document")
    return result.label if budget is None else f"{result.label} at {budget:,} B/doc"


def _is_forgotten(name: str) -> bool:
    return name.startswith("forgetting_f1_")
