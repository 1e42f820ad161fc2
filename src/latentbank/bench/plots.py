"""Draws the figures of a report as SVG, each for a wide and for a narrow page.

Knows plain values (`figures`) and matplotlib; no record and no page. All sizes are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentbank.bench.figures import Curves, Figure, Frontier, Mark, Shares, Times
from latentbank.bench.labels import place, spread, text_width
from latentbank.bench.results import format_bytes
from latentbank.bench.svg import GRID, INK, MUTED, SURFACE, colour, style, to_svg
from latentbank.bench.words import title_of

WIDE, NARROW = 860.0, 360.0
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)))
LINE = 18.0  # height of a line of a legend


def draw(figure: Figure, key: str, narrow: bool = False) -> str:
    """The figure as an <svg>; `key` must be unique on the page."""
    key = f"{key}-{'n' if narrow else 'w'}"
    plot = figure.plot
    if isinstance(plot, Frontier):
        made = _frontier(plot, key, narrow)
    elif isinstance(plot, Curves):
        made = _curves(plot, key, narrow)
    elif isinstance(plot, Shares):
        made = _shares(plot, key, narrow)
    else:
        made = _times(plot, key, narrow)
    return to_svg(made, key, figure.alt, "narrow" if narrow else "wide")


class _Canvas:
    """A matplotlib figure with one pair of axes, placed by its margins in pixels."""

    def __init__(self, width: float, height: float, left: float, right: float, below: float):
        self.width, self.height, self.left, self.right = width, height, left, right
        self.below, self.above = below, 14.0

    def axes(self, figure: Any) -> Any:
        """Axes within the margins."""
        box = (
            self.left / self.width,
            self.below / self.height,
            (self.width - self.left - self.right) / self.width,
            (self.height - self.below - self.above) / self.height,
        )
        made = figure.add_axes(box)
        made.tick_params(length=4, pad=4)
        return made


# ---- accuracy over bytes


def _frontier(plot: Frontier, key: str, narrow: bool) -> Any:
    rows = _legend_rows([p.row for p in plot.points]) if narrow else 0.0
    levels = [i for i, p in enumerate(plot.points) if p.x <= 0]
    side = max((text_width(plot.points[i].label) for i in levels), default=0.0) + 34
    canvas = _Canvas(
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
            _legend(figure, canvas, [(_row_label(plot, p.row), p.mark, not p.ceiling)
                                     for p in _first_of_rows(plot)])  # fmt: skip
        else:
            _label_points(figure, axes, plot)
            _label_ends(figure, axes, canvas, [(plot.points[i].label, plot.points[i].y,
                        colour(plot.points[i].mark.colour)) for i in levels])  # fmt: skip
    return figure


def _byte_scale(axes: Any, sizes: Sequence[float], name: str, narrow: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = (min(sizes), max(sizes)) if sizes else (1.0, 1000.0)
    axes.set_xlim(low / 2.5, high * (2.5 if narrow else 6))
    axes.xaxis.set_major_locator(LogLocator(base=10, numticks=5 if narrow else 9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=2)
    axes.set_xlabel(f"{name}, logarithmic")


def _percent_scale(axes: Any, name: str) -> None:
    _, high = axes.get_ylim()
    axes.set_ylim(0, high * 1.05)
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
            axes.axhline(point.y, color=tone, linewidth=1.3, linestyle=(0, (5, 3)), zorder=1.5)
            continue
        rows.setdefault(point.row, []).append(i)
        known = point.low is not None and point.high is not None
        axes.errorbar(
            point.x, point.y,
            yerr=[[point.y - point.low], [point.high - point.y]] if known else None,
            marker=SHAPES[point.mark.shape % len(SHAPES)], markersize=8, color=tone,
            markerfacecolor=SURFACE if point.ceiling else tone,
            markeredgecolor=tone if point.ceiling else SURFACE,
            markeredgewidth=1.6 if point.ceiling else 0.8, elinewidth=1.2, zorder=3,
        )  # fmt: skip
    for members in rows.values():
        joined = sorted((plot.points[i] for i in members), key=lambda p: p.x)
        if len(joined) > 1:
            axes.plot([p.x for p in joined], [p.y for p in joined], linewidth=1.4,
                      color=colour(joined[0].mark.colour), zorder=2)  # fmt: skip


def _first_of_rows(plot: Frontier) -> list[Any]:
    """One point of each row, the best."""
    found: dict[str, Any] = {}
    for point in plot.points:
        if point.row not in found or point.y > found[point.row].y:
            found[point.row] = point
    return list(found.values())


def _row_label(plot: Frontier, row: str) -> str:
    """The label of a row's only point, or what its points' labels share."""
    labels = [p.label for p in plot.points if p.row == row]
    return labels[0] if len(labels) == 1 else labels[0].split(", ≤ ")[0]


def _label_points(figure: Any, axes: Any, plot: Frontier) -> None:
    """Names beside the marks, where they hide no mark and no other name."""
    figure.canvas.draw()
    shown = [p for p in plot.points if p.x > 0]
    spots = [tuple(axes.transData.transform((p.x, p.y))) for p in shown]
    named = [p for p in _first_of_rows(plot) if p.x > 0]
    chosen = [shown.index(p) for p in named]
    box = axes.get_window_extent()
    names = [_row_label(plot, p.row) for p in named]
    frame = (box.x0, box.y0, box.x1, box.y1)
    for text, (x, y, side) in zip(names, place(names, chosen, spots, frame), strict=True):
        figure.text(x / figure.bbox.width, y / figure.bbox.height, text, ha=side, va="center")


# ---- curves


def _curves(plot: Curves, key: str, narrow: bool) -> Any:
    labels = [label for label, _, _ in plot.lines]
    rows = _legend_rows(labels) if narrow else 0.0
    canvas = _Canvas(
        NARROW if narrow else WIDE,
        290 + rows if narrow else max(360.0, 90 + 17 * len(labels)),
        52 if narrow else 62,
        14 if narrow else max(map(text_width, labels)) + 34,
        48 + rows,
    )
    with style(canvas.width, canvas.height, key) as figure:
        axes = canvas.axes(figure)
        for _, series, mark in plot.lines:
            _curve(axes, series, mark)
        _curve_scales(axes, plot, narrow)
        if narrow:
            _legend(figure, canvas, [(label, mark, True) for label, _, mark in plot.lines], True)
        else:
            ends = [(label, s.y[-1], colour(mark.colour)) for label, s, mark in plot.lines]
            _label_ends(figure, axes, canvas, ends, [s.x[-1] for _, s, _ in plot.lines])
    return figure


def _curve(axes: Any, series: Any, mark: Mark) -> None:
    tone, many = colour(mark.colour), len(series.x) > 15
    if series.low is not None:
        axes.fill_between(series.x, series.low, series.high, color=tone, alpha=0.13, linewidth=0)
    axes.plot(
        series.x, series.y, color=tone, linewidth=1.8, linestyle=_dash(mark),
        marker=SHAPES[mark.shape % len(SHAPES)], markersize=6.5, markeredgecolor=SURFACE,
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
        if min(values) > 0 and max(values) >= 200 * min(values):
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


# ---- bars and dots


def _shares(plot: Shares, key: str, narrow: bool) -> Any:
    labels = [label for label, _, _ in plot.rows]
    with _rows_figure(labels, key, narrow, plot.components, 74.0) as (figure, axes, places):
        for place_, (_, total, parts) in zip(places, plot.rows, strict=True):
            start = 0.0
            for i, part in enumerate(parts):
                share = 100 * part / total
                axes.barh(place_, share, 0.62 if not narrow else 0.36, start, color=colour(i),
                          edgecolor=SURFACE, linewidth=1)  # fmt: skip
                start += share
            axes.text(101.5, place_, format_bytes(total), va="center", clip_on=False)
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of the bytes (%)")
    return figure


def _times(plot: Times, key: str, narrow: bool) -> Any:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    labels = [label for label, _ in plot.rows]
    with _rows_figure(labels, key, narrow, plot.kinds, 20.0) as (figure, axes, places):
        axes.set_xscale("log")
        for place_, (_, values) in zip(places, plot.rows, strict=True):
            known = [value for value in values if value]
            if known:
                axes.plot([min(known), max(known)], [place_] * 2, color=GRID, linewidth=4, zorder=1)
            for i, value in enumerate(values):
                if value:
                    axes.plot([value], [place_], SHAPES[i % len(SHAPES)], color=colour(i),
                              markersize=8, markeredgecolor=SURFACE, markeredgewidth=0.8)  # fmt: skip
        every = [v for _, values in plot.rows for v in values if v]
        axes.set_xlim(min(every) / 1.5, max(every) * 1.5)
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("milliseconds, logarithmic")
    return figure


class _rows_figure:
    """A figure with one line for each label; the label left of it, or above it on a narrow page.

    Yields (figure, axes, y of each line), and writes labels and legend at the end.
    """

    def __init__(
        self, labels: Sequence[str], key: str, narrow: bool, kinds: Sequence[str], right: float
    ) -> None:
        self.labels, self.narrow, self.kinds = labels, narrow, kinds
        self.legend = LINE * (-(-len(kinds) // 2) if narrow else 1) + 8
        height = len(labels) * (40 if narrow else 30) + 62 + self.legend
        left = 10 if narrow else max(map(text_width, labels)) + 22
        width = NARROW if narrow else WIDE
        self.canvas = _Canvas(width, height, left, right, 46)
        self.canvas.above = self.legend + 4
        self.style = style(width, height, key)

    def __enter__(self) -> tuple[Any, Any, list[float]]:
        self.figure = self.style.__enter__()
        self.axes = self.canvas.axes(self.figure)
        return self.figure, self.axes, [float(-i) for i in range(len(self.labels))]

    def __exit__(self, *error: Any) -> None:
        from matplotlib.lines import Line2D

        axes, last = self.axes, len(self.labels) - 1
        axes.set_ylim(-last - 0.6, 0.75 if self.narrow else 0.6)
        axes.set_yticks([-i for i in range(last + 1)], [] if self.narrow else list(self.labels))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        if self.narrow:
            for i, label in enumerate(self.labels):
                axes.annotate(label, (0, -i + 0.42), xycoords=("axes fraction", "data"),
                              va="center", annotation_clip=False)  # fmt: skip
        bar = axes.patches
        handles = [
            Line2D([], [], linestyle="", marker="s" if bar else SHAPES[i % len(SHAPES)],
                   markersize=8, color=colour(i), markeredgecolor=SURFACE, label=kind)
            for i, kind in enumerate(self.kinds)
        ]  # fmt: skip
        self.figure.legend(
            handles=handles, loc="upper left", ncols=2 if self.narrow else len(handles),
            bbox_to_anchor=(self.canvas.left / self.canvas.width - 0.01, 1.0), borderaxespad=0,
            handletextpad=0.2, columnspacing=1.4, borderpad=0.2,
        )  # fmt: skip
        self.style.__exit__(*error)


# ---- labels and legends


def _label_ends(
    figure: Any,
    axes: Any,
    canvas: _Canvas,
    ends: Sequence[tuple[str, float, str]],
    xs: Sequence[float] | None = None,
) -> None:
    """Names right of the axes at the height of each end, pushed apart, with a line to the end."""
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
    for (text, _, tone), x, y, height in zip(ends, x_of, wanted, heights, strict=True):
        along = [v / canvas.width for v in (x + 6, border + 12, border + 20)]
        up = [v / canvas.height for v in (y, height, height)]
        from matplotlib.lines import Line2D

        figure.add_artist(Line2D(along, up, color=tone, linewidth=1, alpha=0.8))
        figure.text((border + 24) / canvas.width, up[2], text, ha="left", va="center")


def _columns(labels: Sequence[str]) -> int:
    return 1 if max(map(text_width, labels)) > NARROW / 2 - 40 else 2


def _legend_rows(labels: Sequence[str]) -> float:
    """Height of a narrow page's legend."""
    distinct = list(dict.fromkeys(labels))
    return LINE * -(-len(distinct) // _columns(distinct)) + 6


def _legend(
    figure: Any, canvas: _Canvas, rows: Sequence[tuple[str, Mark, bool]], lines: bool = False
) -> None:
    """What the marks mean, below the axes of a narrow page."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=label, color=colour(mark.colour), markersize=7,
               linestyle=_dash(mark) if lines else "", marker=SHAPES[mark.shape % len(SHAPES)],
               markerfacecolor=colour(mark.colour) if full else SURFACE,
               markeredgecolor=SURFACE if full else colour(mark.colour))
        for label, mark, full in rows
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.02, 0), borderaxespad=0.2,
        ncols=_columns([label for label, _, _ in rows]), handlelength=2.2 if lines else 1.2,
        columnspacing=1.2, labelspacing=0.35, labelcolor=INK,
    )  # fmt: skip


def _dash(mark: Mark) -> Any:
    return DASHES[mark.shape % len(DASHES)]
