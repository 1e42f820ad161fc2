"""Makes the figures of a report from groups of records.

Knows records and the values of `figure`; draws nothing (`plots` does), writes no page (`page`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from latentbank.bench.figure import Curves, Figure, Frontier, Mark, Point, Shares, Table, Times
from latentbank.bench.record import Machine, Metric, Series
from latentbank.bench.results import Group, Result
from latentbank.bench.stream_metrics import frontier
from latentbank.bench.words import (
    MISSING,
    TITLES,
    cell,
    in_unit,
    machine_name,
    size_cell,
    slug,
    time_name,
    title_of,
)  # fmt: skip

FOOTPRINT = ("codes", "codebook", "keys", "ledger", "index", "overhead")
TABLE_ROWS = 40
SCORES = ("f1", "exact_match", "contains_answer", "prefix_match")


def marks(results: Iterable[Result]) -> dict[tuple[str, str], Mark]:
    """(method, label) → mark, the same in every figure of a page.

    Methods take colours in the order of their best F1: should they come again, then not among the
    best ones.
    """
    best: dict[str, float] = {}
    pairs = set()
    for result in results:
        method, score = result.record.method, result.value("f1") or 0.0
        pairs.add((method, result.label))
        best[method] = max(score, best.get(method, 0.0))
    methods = sorted(best, key=lambda method: (-best[method], method))
    ordered = sorted(pairs, key=lambda pair: (methods.index(pair[0]), pair[1]))
    return {pair: Mark(methods.index(pair[0]), shape) for shape, pair in enumerate(ordered)}


def figures(group: Group, looks: Mapping[tuple[str, str], Mark]) -> list[Figure]:
    """Every figure that the group's records have numbers for."""
    found = [frontier_figure(group, looks), *curve_figures(group, looks), footprint_figure(group)]
    found += [time_figure(group, machine) for machine in group.machines]
    return [figure for figure in found if figure is not None]


def frontier_figure(group: Group, looks: Mapping[tuple[str, str], Mark]) -> Figure | None:
    """Accuracy over bytes per document; None for fewer than two rows with both."""
    score = next((s for s in SCORES if any(s in r.record.metrics for r in group.results)), "")
    sizes = ("bytes_per_document", "bank_bytes")
    size = next((s for s in sizes if any(s in r.record.metrics for r in group.results)), "")
    chosen = [
        (label, r)
        for label, r in zip(group.labels, group.results, strict=True)
        if score in r.record.metrics and size in r.record.metrics
    ]
    if len(chosen) < 2:
        return None
    points = tuple(_point(label, r, score, size, looks) for label, r in chosen)
    fair = [i for i, point in enumerate(points) if not point.ceiling]
    best = tuple(fair[i] for i in frontier([(points[i].x, points[i].y) for i in fair]))
    rows = tuple(
        (p.label, cell(r.record.metrics[score]), size_cell(p.x), _standing(i in best, p.ceiling))
        for i, (p, (_, r)) in enumerate(zip(points, chosen, strict=True))
    )
    text = (
        f"{TITLES[score]} over the bank's {TITLES[size]} (logarithmic); up and to the left is "
        "better. The stepped line joins the rows that no other beats with as few bytes."
    )
    if any(not p.x for p in points):
        text += " Dashed: rows without a bank."
    if any(p.ceiling for p in points):
        text += " Hollow: rows that were told which document to read, a ceiling."
    return Figure(
        "frontier",
        "Accuracy for the bytes",
        text,
        Frontier(TITLES[size], TITLES[score], "%", points, best),
        Table(("row", f"{TITLES[score]} (%)", TITLES[size], ""), rows),
        tuple(r for _, r in chosen),
    )


def curve_figures(group: Group, looks: Mapping[tuple[str, str], Mark]) -> list[Figure]:
    """One figure for each curve that the records have; curves over other axes stay apart."""
    axes: dict[tuple[str, str, str, str, str], list[tuple[str, Result, Series]]] = {}
    for label, result in zip(group.labels, group.results, strict=True):
        for name, series in result.record.series.items():
            key = (name, series.x_name, series.x_unit, series.y_name, series.y_unit)
            axes.setdefault(key, []).append((label, result, series))
    order = [*SCORES]
    found = []
    for key, members in sorted(axes.items(), key=lambda item: _rank(item[0][0], order)):
        name, x_name, x_unit, y_name, y_unit = key
        title = f"{title_of(y_name)} over {x_name}"
        text = f"{title_of(y_name)}{in_unit(y_unit)} over {x_name}{in_unit(x_unit, x_name)}."
        text = text[0].upper() + text[1:]
        plot = Curves(tuple((label, s, looks[r.record.method, r.label]) for label, r, s in members))
        if plot.banded:
            text += " Bands: 95 % intervals."
        if len({x for _, _, series in members for x in series.x}) > TABLE_ROWS:
            text += " The table has a part of the points; the records have all."
        found.append(
            Figure(
                slug(f"{name} {x_name}" if _repeated(axes, name) else name),
                title[0].upper() + title[1:],
                text,
                plot,
                _curve_table(x_name, x_unit, members),
                tuple(r for _, r, _ in members),
            )
        )
    return found


def footprint_figure(group: Group) -> Figure | None:
    """What a bank's bytes are spent on; None where no record tells."""
    members = []
    for label, result in zip(group.labels, group.results, strict=True):
        parts = components(result)
        if sum(parts):
            members.append((label, sum(parts), parts, result))
    if not members:
        return None
    used = [i for i in range(len(FOOTPRINT)) if any(parts[i] for _, _, parts, _ in members)]
    names = tuple(FOOTPRINT[i] for i in used)
    return Figure(
        "footprint",
        "What the bytes are spent on",
        "Share of each component in the bank's file; the file's size stands at the end of the bar.",
        Shares(names, tuple((b, t, tuple(p[i] for i in used)) for b, t, p, _ in members)),
        Table(
            ("row", *(f"{name} (bytes)" for name in names), "total (bytes)"),
            tuple((b, *(f"{p[i]:,.0f}" for i in used), f"{t:,.0f}") for b, t, p, _ in members),
        ),
        tuple(r for *_, r in members),
    )


def time_figure(group: Group, machine: Machine) -> Figure | None:
    """How long a question takes, on one machine; None where no record tells."""
    pairs = zip(group.labels, group.results, strict=True)
    here = [(label, r) for label, r in pairs if r.record.machine == machine]
    present = {
        n: None for _, r in here for n, m in r.record.metrics.items() if is_time(m) and m.value > 0
    }
    if not present:
        return None
    kinds = tuple(present)
    rows = tuple((label, tuple(r.value(kind) for kind in kinds)) for label, r in here)
    place = machine_name(machine)
    several = len(group.machines) > 1
    return Figure(
        slug(f"time {group.machines.index(machine)}") if several else "time",
        f"Time for a question{f', {place}' if several else ''}",
        f"Milliseconds on a logarithmic scale{'' if several else f', measured on {place}'}; to the "
        "left is better. Questions are asked in batches, and all of a batch wait for its first "
        "token.",
        Times(tuple(map(time_name, kinds)), rows),
        Table(
            ("row", *(f"{time_name(kind)} (ms)" for kind in kinds)),
            tuple((b, *(MISSING if v is None else f"{v:,.1f}" for v in vs)) for b, vs in rows),
        ),
        tuple(r for _, r in here),
    )


def components(result: Result) -> tuple[float, ...]:
    """Bytes of the bank by `FOOTPRINT`, from metrics or from the configuration; zeros if unknown.

    An empty bank's file has a size too; where the record counts it as 0 bytes, so does this.
    """
    noted = result.record.config.get("footprint")
    given = noted if isinstance(noted, Mapping) else {}
    if result.value("bank_bytes") == 0:
        given = {}
    found = []
    for name in FOOTPRINT:
        value = result.value(f"footprint_{name}")
        noted_value = given.get(name, 0)
        known = noted_value if isinstance(noted_value, int | float) else 0
        found.append(float(known if value is None else value))
    return tuple(found)


def is_ceiling(result: Result) -> bool:
    """Whether the row was told which document to read."""
    return bool(result.record.config.get("gold")) or result.record.read_as == "gold"


def is_time(metric: Metric) -> bool:
    """Whether it is a duration that the figure of times shows."""
    return metric.unit == "ms"


def _point(
    label: str, result: Result, score: str, size: str, looks: Mapping[tuple[str, str], Mark]
) -> Point:
    metric = result.record.metrics[score]
    scale = 100.0 if metric.unit == "fraction" else 1.0
    known = metric.low is not None and metric.high is not None
    return Point(
        label,
        _row(result),
        result.record.metrics[size].value,
        scale * metric.value,
        scale * (metric.low or 0.0) if known else None,
        scale * (metric.high or 0.0) if known else None,
        looks[result.record.method, result.label],
        is_ceiling(result),
    )


def _row(result: Result) -> str:
    """What the points of one row at several budgets have in common."""
    record = result.record
    return repr((result.label, record.read_as, record.dtype, record.machine))


def _standing(best: bool, ceiling: bool) -> str:
    return "on the frontier" if best else "ceiling" if ceiling else ""


def _curve_table(x_name: str, x_unit: str, members: Sequence[tuple[str, Result, Series]]) -> Table:
    """One line for each x, one column for each row; thinned out to `TABLE_ROWS` lines."""
    xs = sorted({x for _, _, series in members for x in series.x})
    step = -(-len(xs) // TABLE_ROWS)
    known = [dict(zip(series.x, series.y, strict=True)) for _, _, series in members]
    digits = 0 if members[0][2].y_unit in ("bytes", "documents") else 1
    unit = {"percent": " (%)", "": ""}.get(x_unit, f" ({x_unit})" if x_unit not in x_name else "")
    rows = tuple(
        (f"{x:,.10g}", *(f"{k[x]:,.{digits}f}" if x in k else MISSING for k in known))
        for x in xs[::step]
    )
    return Table((f"{x_name}{unit}", *(label for label, _, _ in members)), rows, texts=0)


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    return order.index(name) if name in order else len(order), name


def _repeated(axes: Iterable[tuple[str, ...]], name: str) -> bool:
    return sum(key[0] == name for key in axes) > 1
