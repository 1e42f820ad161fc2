"""The figures of the bench, drawn with matplotlib: accuracy over bytes, curves, shares, times.

Knows plain numbers and names; reads no record. Every function returns a matplotlib Figure that
`to_svg` turns into text, equal for equal input.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from latentbank.bench.record import Series
from latentbank.bench.report.results import si_bytes

INK, MUTED, GRID = "#1c2127", "#59636e", "#e2e6ea"
# Okabe and Ito's palette (2008), which colour-blind readers can tell apart, darkened to a contrast
# of at least 3:1 on white (WCAG 1.4.11).
COLOURS = (
    "#0072b2", "#c24a00", "#008060", "#b0538f", "#9a6700", "#2f86b8", "#6b6f00", "#5b6470",
    "#8b1e3f", "#4a3fb5", "#6d4c2f", "#00606b",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)))
MOST_BANDS = 4  # the intervals of more curves would hide one another
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.family": ["DejaVu Sans"], "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.labelsize": 10,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": GRID, "text.parse_math": False, "legend.frameon": False,
}  # fmt: skip
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}  # behind names
LIMITS: dict[str, Any] = {"iter_lim": 300}  # a limit by the clock would give unequal drawings
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Point:
    """A row at one size: `x` in bytes (0: no bank), `y` with the ends of its interval if known.

    Points of one `row` are joined. `ceiling`: the row was told which document to read.
    """

    row: str
    method: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    ceiling: bool = False


@contextmanager
def canvas(width: float = 8.6, height: float = 4.4) -> Iterator[Any]:
    """An empty figure of `width` × `height` inches; what the block draws has the common style."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def to_svg(figure: Any, key: str) -> str:
    """The figure as SVG text on white. `key` makes the ids inside it differ from other figures'."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' id="[A-Za-z][\w.]*_\d+"', "", text)  # ids that every figure has
    return text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, Arial, sans-serif")


def colours(methods: Sequence[str]) -> dict[str, str]:
    """Method → colour, in the order given; the palette starts again after its last."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(methods))}


def frontier(points: Sequence[Point], tones: Mapping[str, str], x_name: str, y_name: str) -> Any:
    """Accuracy over bytes on a logarithmic axis; rows without a bank are dashed lines."""
    with canvas() as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: si_bytes(value))
        rows: dict[str, list[Point]] = {}
        for point in sorted(points, key=lambda p: p.x):
            rows.setdefault(point.row, []).append(point)
        variants = _variants({row: members[0].method for row, members in rows.items()})
        ends = []
        for row, members in rows.items():
            tone = tones[members[0].method]
            if members[-1].x <= 0:
                level = members[-1].y
                axes.axhline(level, color=tone, linewidth=1.2, linestyle=DASHES[1], zorder=1)
                ends.append((row, level, tone))
            else:
                _row(axes, [p for p in members if p.x > 0], tone, variants[row])
        axes.set_ylim(bottom=0)
        if len(sizes := {p.x for p in points if p.x > 0}) == 1:  # rounding must not be the range
            axes.set_xlim(min(sizes) / 2, 2 * min(sizes))
        axes.set(xlabel=f"{x_name} (logarithmic)", ylabel=y_name)
        axes.grid(axis="x", visible=False)
        label_ends(figure, axes, ends)
        sized = [members for members in rows.values() if members[-1].x > 0]
        _label_rows(axes, sized, tones, [level for _, level, _ in ends])
    return figure


def _row(axes: Any, members: Sequence[Point], tone: str, variant: int) -> None:
    x, y = [p.x for p in members], [p.y for p in members]
    known = [p for p in members if p.low is not None and p.high is not None]
    axes.vlines([p.x for p in known], [p.low for p in known], [p.high for p in known],
                color=tone, linewidth=1, alpha=0.35)  # fmt: skip
    axes.plot(
        x, y, color=tone, linewidth=1.6, linestyle=DASHES[variant % len(DASHES)],
        marker=MARKERS[variant % len(MARKERS)], markersize=6.5,
        markerfacecolor="white" if members[0].ceiling else tone,
        markeredgecolor=tone if members[0].ceiling else "white",
    )  # fmt: skip


def _label_rows(
    axes: Any,
    rows: Sequence[Sequence[Point]],
    tones: Mapping[str, str],
    levels: Sequence[float],
) -> None:
    """A name beside the best point of each row; adjustText moves it off lines, marks and names."""
    from adjustText import adjust_text

    best = [max(members, key=lambda p: p.y) for members in rows]
    texts = [
        axes.text(p.x, p.y, p.row, color=tones[p.method], ha="center", va="center", bbox=PAPER)
        for p in best
    ]
    if texts:
        x, y = _along(rows, levels)
        adjust_text(
            texts, x=x, y=y, target_x=[p.x for p in best], target_y=[p.y for p in best],
            ax=axes, expand=(1.12, 1.4), **LIMITS,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkB": 4},
        )  # fmt: skip


def _along(
    rows: Sequence[Sequence[Point]], levels: Sequence[float], steps: int = 8
) -> tuple[list[float], list[float]]:
    """Places that names should not cover: along the lines, at the ends of intervals, on `levels`.

    x is interpolated as logarithm.
    """
    import numpy as np

    points = [p for members in rows for p in members]
    ends = [(p.x, end) for p in points for end in (p.low, p.high) if end is not None]
    across = np.geomspace(min(p.x for p in points), max(p.x for p in points), 40)
    x = [*(x for x, _ in ends), *(float(v) for _ in levels for v in across)]
    y = [*(y for _, y in ends), *(level for level in levels for _ in across)]
    for members in rows:
        at = np.linspace(0, len(members) - 1, steps * (len(members) - 1) + 1)
        places = np.arange(len(members))
        x += np.exp(np.interp(at, places, np.log([p.x for p in members]))).tolist()
        y += np.interp(at, places, [p.y for p in members]).tolist()
    return x, y


def curves(
    lines: Sequence[tuple[str, str, Series]],
    tones: Mapping[str, str],
    x_name: str = "",
    y_name: str = "",
    direct: bool = False,
) -> Any:
    """One curve for each (label, method, series); the legend is in the order of the right ends.

    `direct` writes the names at the right ends in place of a legend: for few lines.
    """
    banded = len(lines) <= MOST_BANDS
    variants = _variants({label: method for label, method, _ in lines})
    with canvas(8.6, max(4.0, 0.22 * len(lines) + 1)) as figure:
        axes = figure.add_subplot()
        for label, method, series in lines:
            tone, variant = tones[method], variants[label]
            if banded and series.low is not None:
                axes.fill_between(series.x, series.low, series.high, color=tone, alpha=0.12, lw=0)
            axes.plot(
                series.x, series.y, color=tone, linewidth=1.8, label=label,
                linestyle=DASHES[variant % len(DASHES)], marker=MARKERS[variant % len(MARKERS)],
                markersize=5.5, markeredgecolor="white", markevery=max(1, len(series.x) // 6),
                clip_on=False,
            )  # fmt: skip
        _scale(axes, "x", [v for *_, s in lines for v in s.x], lines[0][2].x_unit)
        _scale(axes, "y", [v for *_, s in lines for v in s.y], lines[0][2].y_unit)
        axes.set(xlabel=x_name, ylabel=y_name)
        axes.grid(axis="x", visible=False)
        if direct:
            axes.set_xlim(right=max(s.x[-1] for *_, s in lines))
            label_ends(figure, axes, [(label, s.y[-1], tones[m]) for label, m, s in lines])
        else:
            handles = axes.get_legend_handles_labels()[0]
            order = sorted(range(len(lines)), key=lambda i: -lines[i][2].y[-1])
            figure.legend(handles=[handles[i] for i in order], loc="outside right upper")
    return figure


def _scale(axes: Any, axis: str, values: Sequence[float], unit: str) -> None:
    """Logarithmic where values of one sign span more than two decades; bytes and thousands."""
    if unit != "percent" and min(values) > 0 and max(values) >= 200 * min(values):
        axes.set(**{f"{axis}scale": "log"})
    elif axis == "y" and min(values) >= 0:
        axes.set_ylim(bottom=0)
    form = si_bytes if unit == "bytes" else "{:,.6g}".format
    getattr(axes, f"{axis}axis").set_major_formatter(lambda value, _: form(value))


def label_ends(figure: Any, axes: Any, ends: Sequence[tuple[str, float, str]]) -> None:
    """Names (text, y, colour) right of the axes, moved up or down until none covers another.

    A line leads from the right border at height y to the name. Ends the automatic layout.
    """
    from adjustText import adjust_text

    ends = sorted(ends, key=lambda end: end[1])
    texts = [
        axes.text(1.05, 0.5, text, color=tone, va="center", transform=axes.transAxes)
        for text, _, tone in ends
    ]
    figure.draw_without_rendering()  # makes room for the names
    figure.set_layout_engine("none")
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((axes.get_xlim()[1], y))[1]) for _, y, _ in ends]
    for i, (text, height) in enumerate(zip(texts, heights, strict=True)):
        text.set_y(height + 0.002 * i)  # equal heights get an order that adjustText keeps
    if len(texts) > 1:
        only = {name: "y" for name in ("text", "static", "explode", "pull")}
        adjust_text(
            texts, ax=axes, ensure_inside_axes=False, only_move=only, expand=(1, 1.25), **LIMITS
        )
    for text, height, (*_, tone) in zip(texts, heights, ends, strict=True):
        text.set(x=1.05, ha="left")  # adjustText centres its texts
        axes.plot(
            [1.005, 1.015, 1.035, 1.045], [height] * 2 + [text.get_position()[1]] * 2, color=tone,
            linewidth=0.8, transform=axes.transAxes, clip_on=False,
        )  # fmt: skip


def shares(parts: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]) -> Any:
    """A bar of 100 % for each (label, bytes of each part), its total at the end."""
    with canvas(8.6, 0.34 * len(rows) + 1.3) as figure:
        axes = figure.add_subplot()
        start = [0.0] * len(rows)
        places = range(len(rows))
        for i, part in enumerate(parts):
            width = [100 * sizes[i] / sum(sizes) for _, sizes in rows]
            axes.barh(places, width, left=start, label=part, color=COLOURS[i % len(COLOURS)])
            start = [a + b for a, b in zip(start, width, strict=True)]
        for place, (_, sizes) in zip(places, rows, strict=True):
            axes.text(101, place, si_bytes(sum(sizes)), va="center")
        axes.set(xlim=(0, 100), xlabel="share of the bytes (%)")
        _rows(figure, axes, [label for label, _ in rows])
    return figure


def times(kinds: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]]) -> Any:
    """A dot for each kind of time (ms; None: not measured) on the line of its row."""
    with canvas(8.6, 0.34 * len(rows) + 1.3) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for i, kind in enumerate(kinds):
            known = [(v[i], at) for at, (_, v) in enumerate(rows) if v[i]]
            axes.plot(
                [x for x, _ in known], [y for _, y in known], MARKERS[i % len(MARKERS)], label=kind,
                color=COLOURS[i % len(COLOURS)], markersize=7, markeredgecolor="white",
            )  # fmt: skip
        for at, (_, values) in enumerate(rows):
            if found := [v for v in values if v]:
                axes.hlines(at, min(found), max(found), color=GRID, linewidth=4, zorder=0.9)
        millisecond_axis(axes)
        _rows(figure, axes, [label for label, _ in rows])
    return figure


def millisecond_axis(axes: Any) -> None:
    """A logarithmic axis of milliseconds with ticks at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=9))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("milliseconds (logarithmic)")


def _rows(figure: Any, axes: Any, labels: Sequence[str]) -> None:
    """One line of the figure for each label, the first on top, and a legend above."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    figure.legend(loc="outside upper left", ncols=6, handletextpad=0.3, columnspacing=1.4)


def _variants(methods: Mapping[str, str]) -> dict[str, int]:
    """Row → how many rows of its method come before it: its marker and dashes."""
    seen: dict[str, int] = {}
    variants = {}
    for row, method in methods.items():
        variants[row] = seen[method] = seen.get(method, -1) + 1
    return variants
