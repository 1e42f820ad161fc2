"""What a figure of a report consists of, as plain values: points, curves, shares, times, a table.

Knows records by name only; `figures` makes these values, `plots` draws them.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentbank.bench.record import Series
from latentbank.bench.results import Result

MOST_BANDS = 6


@dataclass(frozen=True)
class Mark:
    """How a row looks in every figure: `colour` by its method, `shape` its own; two indices."""

    colour: int
    shape: int


@dataclass(frozen=True)
class Table:
    """The numbers behind a figure; the first `texts` columns are words, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1


@dataclass(frozen=True)
class Point:
    """A row at one size: x in bytes, y with its interval if known. `row` joins the sizes of one
    row; `ceiling`: it was told which document to read.
    """

    label: str
    row: str
    x: float
    y: float
    low: float | None
    high: float | None
    mark: Mark
    ceiling: bool


@dataclass(frozen=True)
class Frontier:
    """Accuracy over bytes. `best`: indices of the Pareto-optimal points that are no ceilings."""

    x_name: str
    y_name: str
    y_unit: str
    points: tuple[Point, ...]
    best: tuple[int, ...]


@dataclass(frozen=True)
class Curves:
    """One series of each row, all over the same axes."""

    lines: tuple[tuple[str, Series, Mark], ...]

    @property
    def banded(self) -> bool:
        """Whether intervals are drawn: those of many rows would hide one another."""
        return len(self.lines) <= MOST_BANDS and any(s.low is not None for _, s, _ in self.lines)


@dataclass(frozen=True)
class Shares:
    """Parts of a whole: for each label its total in bytes and the bytes of each component."""

    components: tuple[str, ...]
    rows: tuple[tuple[str, float, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Times:
    """Durations in ms: for each label one value (None: not measured) for each of `kinds`."""

    kinds: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]


Plot = Frontier | Curves | Shares | Times


@dataclass(frozen=True)
class Figure:
    """A plot with its words, its numbers and the records that it was made from."""

    key: str
    title: str
    text: str
    plot: Plot
    table: Table
    results: tuple[Result, ...]

    @property
    def alt(self) -> str:
        """For those who do not see the plot; the table below it has the numbers."""
        return f"{self.title}. {self.text} The numbers are in the table below."
