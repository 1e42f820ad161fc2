"""What the plots share: axes within margins, shapes of marks, legends of a narrow page.

Knows pixels and matplotlib; nothing about what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentbank.bench.figure import Mark
from latentbank.bench.labels import text_width
from latentbank.bench.svg import INK, SURFACE, colour

WIDE, NARROW = 860.0, 360.0
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)))
LEVEL: Any = (0, (5, 3))  # a row without a bank
LINE = 15.4  # height of a line of a legend
_SIZES = {"*": 1.5, "P": 1.15, "X": 1.1, "D": 0.88, "s": 0.95, "p": 1.1, "h": 1.1}


def shape(mark: Mark) -> str:
    """matplotlib's sign of the mark."""
    return SHAPES[mark.shape % len(SHAPES)]


def shape_size(mark: Mark, size: float) -> float:
    """The size at which the mark looks as large as the others."""
    return size * _SIZES.get(shape(mark), 1.0)


def dash(mark: Mark) -> Any:
    """The line style of the mark's curve."""
    return DASHES[mark.shape % len(DASHES)]


class Canvas:
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


def _columns(labels: Sequence[str]) -> int:
    return 1 if max(map(text_width, labels)) > NARROW / 2 - 40 else 2


def legend_height(labels: Sequence[str]) -> float:
    """Height of a narrow page's legend."""
    distinct = list(dict.fromkeys(labels))
    return LINE * -(-len(distinct) // _columns(distinct)) + 6


def legend(figure: Any, rows: Sequence[tuple[str, Mark, str]], size: float = 7.0) -> None:
    """What the marks mean, below the axes of a narrow page.

    The third of a row says how it is drawn: "mark", "hollow", "curve" or "level".
    """
    from matplotlib.lines import Line2D

    handles = []
    for label, mark, kind in rows:
        tone, hollow = colour(mark.colour), kind == "hollow"
        handles.append(
            Line2D(
                [], [], label=label, color=tone,
                linestyle={"curve": dash(mark), "level": LEVEL}.get(kind, ""),
                marker="" if kind == "level" else shape(mark), markersize=shape_size(mark, size),
                markerfacecolor=SURFACE if hollow else tone,
                markeredgecolor=tone if hollow else SURFACE,
            )
        )  # fmt: skip
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.02, 0), borderaxespad=0.2,
        ncols=_columns([label for label, _, _ in rows]), handlelength=2.2,
        columnspacing=1.2, labelspacing=0.35, labelcolor=INK,
    )  # fmt: skip
