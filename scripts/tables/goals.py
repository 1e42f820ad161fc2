"""A table of figures from several records, with what each must reach.

Knows records; measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentbank.bench.record import Metric, Record, read_record
from tables.markdown import table

__all__ = ["Row", "goals_table"]

Row = tuple[str, str, tuple[str, float] | None]
"""Record, metric, what must be reached ("≥" or "≤", number); None: shown only."""


def goals_table(folder: Path, wanted: Sequence[Row]) -> str:
    """Markdown: a row for each figure that has a record. Raises InputError for a bad record."""
    records: dict[str, Record] = {}
    for name in dict.fromkeys(name for name, *_ in wanted):
        path = folder / f"{name}.json"
        if path.exists():
            records[name] = read_record(path)
    rows = []
    for name, key, goal in wanted:
        metric = records[name].metrics.get(key) if name in records else None
        if metric is not None:
            rows.append((f"`{name}.json`", key, _text(metric), _goal(metric, goal)))
    return table(("record", "figure", "measured", "must reach"), rows, words=2)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _text(metric: Metric) -> str:
    return f"{_number(metric.value)} {metric.unit}".strip()


def _goal(metric: Metric, goal: tuple[str, float] | None) -> str:
    if goal is None:
        return ""
    sign, bound = goal
    reached = metric.value >= bound if sign == "≥" else metric.value <= bound
    return f"{sign} {_number(bound)}" + ("" if reached else " — missed")
