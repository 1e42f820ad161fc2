"""Draws the figures of a report as SVG, each for a wide and for a narrow page.

Knows plain values (`figure`) and matplotlib; no record and no page. All sizes are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentbank.bench.canvas import LEVEL, NARROW, WIDE, Canvas, dash, shape, shape_size
from latentbank.bench.canvas import legend as add_legend
from latentbank.bench.canvas import legend_height as height_of_legend
from latentbank.bench.figure import Curves, Figure, Frontier, Mark, Point, Shares
from latentbank.bench.labels import place, spread, text_width
from latentbank.bench.plots_rows import shares, times
from latentbank.bench.results import format_bytes
from latentbank.bench.svg import MUTED, SURFACE, colour, style, to_svg
from latentbank.bench.words import title_of


def draw(figure: Figure, key: str, narrow: bool = False) -> str:
    """The figure as an <svg>; `key` must be unique on the page."""
    key = f"{key}-{'n' if narrow else 'w'}"
    plot = figure.plot
    if isinstance(plot, Frontier):
        made = _frontier(plot, key, narrow)
    elif isinstance(plot, Curves):
        made = _curves(plot, key, narrow)
    elif isinstance(plot, Shares):
        made = shares(plot, key, narrow)
    else:
        made = times(plot, key, narrow)
    return to_svg(made, key, figure.alt, "narrow" if narrow else "wide")


# ---- accuracy over bytes


def _frontier(plot: Frontier, key: str, narrow: bool) -> Any:
    rows = height_of_legend([_row_label(plot, p.row) for p in _best(plot)]) if narrow else 0.0
    levels = [i for i, p in enumerate(plot.points) if p.x <= 0]
    side = max((text_width(plot.points[i].label) for i in levels), default=0.0) + 34
    canvas = Canvas(
        NARROW if narrow else WIDE,
        300 + rows if narrow else 440,
        46 if narrow else 58,
        14 if narrow or not levels else side,
        48 + rows,
    )
    with style(canvas.width, canvas.height, key) as figure:
        axes = canvas.axes(figure)
        _byte_scale(axes, [p.x for p in plot.points if p.x > 0], plot.x_name, narrow)
        _frontier_marks(axes, plot)
        _percent_scale(axes, f"{plot.y_name} ({plot.y_unit})")
        if narrow:
            add_legend(figure, [(_row_label(plot, p.row), p.mark, _kind(p)) for p in _best(plot)])
        else:
            _label_points(figure, axes, plot)
            ends = [(plot.points[i].label, plot.points[i].y, plot.points[i].mark) for i in levels]
            _label_ends(figure, axes, canvas, ends)
    return figure


def _byte_scale(axes: Any, sizes: Sequence[float], name: str, narrow: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = (min(sizes), max(sizes)) if sizes else (1.0, 1000.0)
    axes.set_xlim(low / 2.5, high * (2.5 if narrow else 6))
    steps = (1.0,) if high > 30 * low else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=5 if narrow else 9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=2)
    axes.set_xlabel(f"{name}, logarithmic")


def _percent_scale(axes: Any, name: str) -> None:
    _, high = axes.get_ylim()
    axes.set_ylim(0, max(1.0, high * 1.05))
    axes.set_ylabel(name)
    axes.grid(axis="x", visible=False)


def _frontier_marks(axes: Any, plot: Frontier) -> None:
    steps = [plot.points[i] for i in plot.best if plot.points[i].x > 0]
    if steps:
        end = axes.get_xlim()[1]
        axes.step(
            [*(p.x for p in steps), end], [*(p.y for p in steps), steps[-1].y], where="post",
            color=MUTED, linewidth=1.2, alpha=0.7, zorder=1,
        )  # fmt: skip
    rows: dict[str, list[int]] = {}
    for i, point in enumerate(plot.points):
        tone = colour(point.mark.colour)
        if point.x <= 0:
            axes.axhline(point.y, color=tone, linewidth=1.3, linestyle=LEVEL, zorder=1.5)
            continue
        rows.setdefault(point.row, []).append(i)
        bar = None
        if point.low is not None and point.high is not None:
            bar = [[max(0.0, point.y - point.low)], [max(0.0, point.high - point.y)]]
        axes.errorbar(
            point.x, point.y, yerr=bar,
            marker=shape(point.mark), markersize=shape_size(point.mark, 8), color=tone,
            markerfacecolor=SURFACE if point.ceiling else tone,
            markeredgecolor=tone if point.ceiling else SURFACE,
            markeredgewidth=1.6 if point.ceiling else 0.8, elinewidth=1.2, zorder=3,
        )  # fmt: skip
    for members in rows.values():
        joined = sorted((plot.points[i] for i in members), key=lambda p: p.x)
        if len(joined) > 1:
            axes.plot([p.x for p in joined], [p.y for p in joined], linewidth=1.4,
                      color=colour(joined[0].mark.colour), zorder=2)  # fmt: skip


def _best(plot: Frontier) -> list[Point]:
    """One point of each row, the best."""
    found: dict[str, Point] = {}
    for point in plot.points:
        if point.row not in found or point.y > found[point.row].y:
            found[point.row] = point
    return list(found.values())


def _row_label(plot: Frontier, row: str) -> str:
    """The label of a row's only point, or what its points' labels share."""
    labels = [p.label for p in plot.points if p.row == row]
    return labels[0] if len(labels) == 1 else labels[0].split(", ≤ ")[0]


def _kind(point: Point) -> str:
    return "level" if point.x <= 0 else "hollow" if point.ceiling else "mark"


def _label_points(figure: Any, axes: Any, plot: Frontier) -> None:
    """Names beside the marks, where they hide no mark, no other name and, if possible, no line."""
    figure.canvas.draw()
    shown = [p for p in plot.points if p.x > 0]
    spots = [tuple(axes.transData.transform((p.x, p.y))) for p in shown]
    named = [p for p in _best(plot) if p.x > 0]
    names = [_row_label(plot, p.row) for p in named]
    box = axes.get_window_extent()
    frame = (box.x0, box.y0, box.x1, box.y1)
    lines = [
        line.get_transform().transform(line.get_xydata())
        for line in axes.get_lines()
        if line.get_linestyle() != "None"
    ]
    places = place(names, [shown.index(p) for p in named], spots, frame, lines)
    for text, (x, y, side) in zip(names, places, strict=True):
        figure.text(x / figure.bbox.width, y / figure.bbox.height, text, ha=side, va="center")


# ---- curves


def _curves(plot: Curves, key: str, narrow: bool) -> Any:
    labels = [label for label, _, _ in plot.lines]
    rows = height_of_legend(labels) if narrow else 0.0
    wide_ticks = 18 if plot.lines[0][1].y_unit == "bytes" else 0
    canvas = Canvas(
        NARROW if narrow else WIDE,
        290 + rows if narrow else max(360.0, 90 + 17 * len(labels)),
        (52 if narrow else 62) + wide_ticks,
        14 if narrow else max(map(text_width, labels)) + 34,
        48 + rows,
    )
    with style(canvas.width, canvas.height, key) as figure:
        axes = canvas.axes(figure)
        for _, series, mark in plot.lines:
            _curve(axes, series, mark, plot.banded)
        _curve_scales(axes, plot, narrow)
        if narrow:
            add_legend(figure, [(label, mark, "curve") for label, _, mark in plot.lines])
        else:
            ends = [(label, series.y[-1], mark) for label, series, mark in plot.lines]
            _label_ends(figure, axes, canvas, ends, [s.x[-1] for _, s, _ in plot.lines])
    return figure


def _curve(axes: Any, series: Any, mark: Mark, banded: bool) -> None:
    tone, many = colour(mark.colour), len(series.x) > 15
    if banded and series.low is not None:
        axes.fill_between(series.x, series.low, series.high, color=tone, alpha=0.13, linewidth=0)
    axes.plot(
        series.x, series.y, color=tone, linewidth=1.8, linestyle=dash(mark),
        marker=shape(mark), markersize=shape_size(mark, 6.5), markeredgecolor=SURFACE,
        markeredgewidth=0.8, markevery=max(1, len(series.x) // 6) if many else 1, clip_on=False,
    )  # fmt: skip


def _curve_scales(axes: Any, plot: Curves, narrow: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    first = plot.lines[0][1]
    for axis, unit, values in (
        ("x", first.x_unit, [v for _, s, _ in plot.lines for v in s.x]),
        ("y", first.y_unit, [v for _, s, _ in plot.lines for v in s.y]),
    ):
        scale = getattr(axes, f"{axis}axis")
        if unit != "percent" and min(values) > 0 and max(values) >= 200 * min(values):
            getattr(axes, f"set_{axis}scale")("log")
        else:
            scale.set_major_locator(MaxNLocator(4 if narrow and axis == "x" else 6))
        shown = format_bytes if unit == "bytes" else "{:,.6g}".format
        scale.set_major_formatter(FuncFormatter(lambda value, _, shown=shown: shown(value)))
    if axes.get_yscale() == "linear" and min(v for _, s, _ in plot.lines for v in s.y) >= 0:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(_axis_name(first.x_name, first.x_unit))
    axes.set_ylabel(_axis_name(title_of(first.y_name), first.y_unit))
    axes.grid(axis="x", visible=False)


def _axis_name(name: str, unit: str) -> str:
    if not unit or unit == "bytes" or unit in name:
        return name
    return f"{name} ({'%' if unit == 'percent' else unit})"


# ---- labels and legends


def _label_ends(
    figure: Any,
    axes: Any,
    canvas: Canvas,
    ends: Sequence[tuple[str, float, Mark]],
    xs: Sequence[float] | None = None,
) -> None:
    """Names right of the axes at the height of each end, pushed apart, with a line to the end."""
    from matplotlib.lines import Line2D

    if not ends:
        return
    figure.canvas.draw()
    border = canvas.width - canvas.right
    x_of = [border] * len(ends)
    if xs is not None:
        x_of = [float(axes.transData.transform((x, 0 if axes.get_yscale() == "linear" else 1))[0])
                for x in xs]  # fmt: skip
    wanted = [float(axes.transData.transform((axes.get_xlim()[1], y))[1]) for _, y, _ in ends]
    heights = spread(wanted, 16.0, canvas.below, canvas.height - 8)
    for (text, _, mark), x, y, height in zip(ends, x_of, wanted, heights, strict=True):
        along = [v / canvas.width for v in (x + 6, border + 12, border + 20)]
        up = [v / canvas.height for v in (y, height, height)]
        tone = colour(mark.colour)
        figure.add_artist(Line2D(along, up, color=tone, linewidth=1, alpha=0.8))
        figure.text((border + 24) / canvas.width, up[2], text, ha="left", va="center")
