"""The figures of the report, made from groups of records: what is drawn, its words, its numbers.

Knows records; `plots` draws, `report` makes the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentbank.bench.record import Metric, Series
from latentbank.bench.report import plots
from latentbank.bench.report.results import (
    MISSING,
    TITLES,
    Group,
    Result,
    cell,
    machine_name,
    size_cell,
    title_of,
)
from latentbank.evaluate.stream_metrics import frontier

FOOTPRINT = ("codes", "codebook", "state", "keys", "ledger", "index", "overhead")
SCORES = ("f1", "exact_match", "contains_answer", "prefix_match")
TABLE_ROWS = 40


@dataclass(frozen=True)
class Table:
    """The numbers behind a figure; the first `texts` columns hold words."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


@dataclass(frozen=True)
class Figure:
    """A drawn figure, its text, its numbers and the records that it was made from."""

    key: str
    title: str
    text: str
    drawing: Any
    table: Table
    results: Sequence[Result]


def method_order(results: Sequence[Result]) -> list[str]:
    """The methods by their best F1: the order in which they take colours."""
    best: dict[str, float] = {}
    for r in results:
        best[r.record.method] = max(r.value("f1") or 0.0, best.get(r.record.method, 0.0))
    return sorted(best, key=lambda method: (-best[method], method))


def figures(group: Group, tones: Mapping[str, str]) -> list[Figure]:
    """Every figure that the group's records have numbers for; `tones`: method → colour."""
    drawn = [frontier_figure(group, tones), *curve_figures(group, tones), footprint_figure(group)]
    return [figure for figure in (*drawn, *time_figures(group)) if figure is not None]


def frontier_figure(group: Group, tones: Mapping[str, str]) -> Figure | None:
    """Accuracy over bytes per document; None if fewer than two rows have both."""
    used = {name for r in group.results for name in r.record.metrics}
    score = next((name for name in SCORES if name in used), "")
    size = "bytes_per_document" if "bytes_per_document" in used else "bank_bytes"
    pairs = zip(group.labels, group.results, strict=True)
    chosen = [(label, r) for label, r in pairs if {score, size} <= r.record.metrics.keys()]
    if len(chosen) < 2:
        return None
    names = _row_names([r for _, r in chosen])
    points = [_point(name, r, score, size) for name, (_, r) in zip(names, chosen, strict=True)]
    fair = [i for i, (_, r) in enumerate(chosen) if not r.ceiling]
    best = {fair[i] for i in frontier([(points[i].x, points[i].y) for i in fair])}
    rows = [
        (label, cell(r.record.metrics[score]), size_cell(points[i].x),
         "on the frontier" if i in best else "ceiling" if r.ceiling else "")
        for i, (label, r) in enumerate(chosen)
    ]  # fmt: skip
    y_name, x_name = TITLES[score], TITLES[size]
    text = f"{y_name} over the bank's {x_name}. Up and to the left is better."
    if any(not point.x for point in points):
        text += " Dashed: rows without a bank."
    if any(point.ceiling for point in points):
        text += " Hollow: rows that were told which document to read, a ceiling."
    return Figure(
        "frontier", "Accuracy for the bytes", text,
        plots.frontier(points, tones, x_name, f"{y_name} (%)"),
        Table(("row", f"{y_name} (%)", x_name, ""), rows), [r for _, r in chosen],
    )  # fmt: skip


def curve_figures(group: Group, tones: Mapping[str, str]) -> list[Figure]:
    """A figure for each curve in the records. Curves over other axes have their own figures."""
    axes: dict[tuple[str, str, str, str, str], list[tuple[str, Result, Series]]] = {}
    for label, r in zip(group.labels, group.results, strict=True):
        for name, s in r.record.series.items():
            key = (name, s.x_name, s.x_unit, s.y_name, s.y_unit)
            axes.setdefault(key, []).append((label, r, s))
    order = {name: i for i, name in enumerate(SCORES)}
    drawn = []
    for key, members in sorted(axes.items(), key=lambda item: (order.get(item[0][0], 9), item[0])):
        name, x_name, x_unit, y_name, y_unit = key
        x_axis, y_axis = _axis(x_name, x_unit), _axis(title_of(y_name), y_unit)
        text = _capital(f"{y_axis} over {x_axis}.")
        lines = [(label, r.record.method, s) for label, r, s in members]
        if len(lines) <= plots.MOST_BANDS and any(s.low is not None for *_, s in lines):
            text += " Bands: 95 % intervals."
        if len({x for *_, s in members for x in s.x}) > TABLE_ROWS:
            text += " The table has a part of the points; the records have all."
        several = sum(other[0] == name for other in axes) > 1
        drawn.append(
            Figure(
                slug(f"{name} {x_name}" if several else name),
                _capital(f"{title_of(y_name)} over {x_name}"), text,
                plots.curves(lines, tones, x_axis, y_axis),
                _curve_table(x_axis, members), [r for _, r, _ in members],
            )
        )  # fmt: skip
    return drawn


def footprint_figure(group: Group) -> Figure | None:
    """What a bank's bytes are spent on; None if no record has that."""
    pairs = zip(group.labels, group.results, strict=True)
    members = [(label, parts, r) for label, r in pairs if sum(parts := _components(r))]
    if not members:
        return None
    used = [i for i in range(len(FOOTPRINT)) if any(parts[i] for _, parts, _ in members)]
    names = [FOOTPRINT[i] for i in used]
    sizes = [(label, [parts[i] for i in used]) for label, parts, _ in members]
    return Figure(
        "footprint", "What the bytes are spent on",
        "Share of each component in the bank's file. The file's size stands beside the bar.",
        plots.shares(names, sizes),
        Table(
            ("row", *(f"{name} (bytes)" for name in names), "total (bytes)"),
            [(label, *(f"{v:,.0f}" for v in (*parts, sum(parts)))) for label, parts in sizes],
        ),
        [r for *_, r in members],
    )  # fmt: skip


def time_figures(group: Group) -> list[Figure]:
    """How long a question takes: a figure for each machine."""
    drawn = []
    for number, machine in enumerate(group.machines):
        pairs = zip(group.labels, group.results, strict=True)
        here = [(label, r) for label, r in pairs if r.record.machine == machine]
        timed = (n for _, r in here for n, m in r.record.metrics.items() if is_time(m) and m.value)
        kinds = list(dict.fromkeys(timed))
        if not kinds:
            continue
        rows = [(label, [r.value(kind) for kind in kinds]) for label, r in here]
        names, place = [_time_name(kind) for kind in kinds], machine_name(machine)
        several = len(group.machines) > 1
        drawn.append(
            Figure(
                f"time-{number}" if several else "time",
                f"Time for a question, {place}" if several else "Time for a question",
                f"Measured on {place}. To the left is better. Questions are asked in batches; all "
                "questions of a batch wait for its first token.",
                plots.times(names, rows),
                Table(
                    ("row", *(f"{name} (ms)" for name in names)),
                    [(b, *(MISSING if v is None else f"{v:,.1f}" for v in vs)) for b, vs in rows],
                ),
                [r for _, r in here],
            )
        )  # fmt: skip
    return drawn


def is_time(metric: Metric) -> bool:
    """Whether the metric is a duration that `time_figures` shows."""
    return metric.unit == "ms"


def _curve_table(x_axis: str, members: Sequence[tuple[str, Result, Series]]) -> Table:
    """A line for each x, thinned out to `TABLE_ROWS`, and a column for each row."""
    xs = sorted({x for *_, s in members for x in s.x})
    known = [dict(zip(s.x, s.y, strict=True)) for *_, s in members]
    digits = 0 if members[0][2].y_unit in ("bytes", "documents") else 1
    rows = [
        (f"{x:,.10g}", *(f"{k[x]:,.{digits}f}" if x in k else MISSING for k in known))
        for x in xs[:: -(-len(xs) // TABLE_ROWS)]
    ]
    return Table((x_axis, *(label for label, *_ in members)), rows, texts=0)


def _components(result: Result) -> list[float]:
    """Bytes by `FOOTPRINT`, from metrics or the config; zeros if unknown or without a bank."""
    noted = result.record.config.get("footprint")
    given = noted if isinstance(noted, Mapping) and result.value("bank_bytes") else {}
    values = [(result.value(f"footprint_{name}"), given.get(name, 0)) for name in FOOTPRINT]
    return [float(other if value is None else value) for value, other in values]


def _point(row: str, result: Result, score: str, size: str) -> plots.Point:
    metric, x = result.record.metrics[score], result.record.metrics[size].value
    scale = 100.0 if metric.unit == "fraction" else 1.0
    low, high = (None if end is None else scale * end for end in (metric.low, metric.high))
    return plots.Point(
        row, result.record.method, x, scale * metric.value, low, high, result.ceiling
    )


def _row_names(results: Sequence[Result]) -> list[str]:
    """The name of each result's row, the same at every budget; `read_as` tells equal ones apart."""
    keys = [(r.label, r.record.read_as, r.record.dtype, r.record.machine) for r in results]
    labels = [label for label, *_ in dict.fromkeys(keys)]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    twins = {key: [k for k in number if k[0] == key[0]] for key in number}
    names = {
        key: key[0] if labels.count(key[0]) == 1 else f"{key[0]}, {key[1]}"
        if len({k[1] for k in twins[key]}) == len(twins[key]) else f"{key[0]} ({number[key] + 1})"
        for key in number
    }  # fmt: skip
    return [names[key] for key in keys]


def _axis(name: str, unit: str) -> str:
    sign = {"percent": "%", "bytes": ""}.get(unit, unit)
    return name if not sign or sign in name else f"{name} ({sign})"


def _time_name(name: str) -> str:
    """ "read_milliseconds" → "read"."""
    plain = re.sub(r"_?milliseconds_?", " ", name).replace("_", " ").strip()
    known = {
        "": "a question's share of its batch",
        "p95": "a question's share, 95th percentile",
        "first token": "first token of the batch",
    }
    return known.get(plain, plain)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def slug(text: str) -> str:
    """Lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
