"""Draws the figures with one line for each row of a table: shares of bytes, times.

Knows plain values (`figure`) and matplotlib; no record and no page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentbank.bench.canvas import LINE, NARROW, SHAPES, WIDE, Canvas
from latentbank.bench.figure import Shares, Times
from latentbank.bench.labels import text_width
from latentbank.bench.results import format_bytes
from latentbank.bench.svg import GRID, SURFACE, colour, style


def shares(plot: Shares, key: str, narrow: bool) -> Any:
    """A bar of 100 % for each row, parted by component, its bytes at the end."""
    labels = [label for label, _, _ in plot.rows]
    with _Rows(labels, key, narrow, plot.components, 74.0) as (figure, axes, places):
        for at, (_, total, parts) in zip(places, plot.rows, strict=True):
            start = 0.0
            for i, part in enumerate(parts):
                share = 100 * part / total
                axes.barh(at, share, 0.62 if not narrow else 0.36, start, color=colour(i),
                          edgecolor=SURFACE, linewidth=1)  # fmt: skip
                start += share
            axes.text(101.5, at, format_bytes(total), va="center", clip_on=False)
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of the bytes (%)")
    return figure


def times(plot: Times, key: str, narrow: bool) -> Any:
    """A dot for each kind of time on the line of its row, on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    labels = [label for label, _ in plot.rows]
    with _Rows(labels, key, narrow, plot.kinds, 20.0) as (figure, axes, places):
        axes.set_xscale("log")
        for at, (_, values) in zip(places, plot.rows, strict=True):
            axes.axhline(at, color=GRID, linewidth=1, zorder=0.5)
            known = [value for value in values if value]
            if known:
                axes.plot([min(known), max(known)], [at] * 2, color=GRID, linewidth=4, zorder=1)
            for i, value in enumerate(values):
                if value:
                    axes.plot(
                        [value], [at], SHAPES[i % len(SHAPES)], color=colour(i), markersize=8,
                        markeredgecolor=SURFACE, markeredgewidth=0.8,
                    )  # fmt: skip
        every = [v for _, values in plot.rows for v in values if v]
        axes.set_xlim(min(every) / 1.5, max(every) * 1.5)
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("milliseconds, logarithmic")
    return figure


class _Rows:
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
        self.canvas = Canvas(width, height, left, right, 46)
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
