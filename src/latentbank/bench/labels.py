"""Where names go in a plot: beside their marks, or in a column, without covering one another.

Knows boxes in pixels, y upwards; no drawing library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""

HEIGHT, GAP, RADIUS = 13.0, 9.0, 6.0


def text_width(text: str, size: float = 11.0) -> float:
    """About how wide a text is in a sans-serif font of that size."""
    return 0.58 * size * len(text)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least `gap` apart, near the wanted ones and in their order, within low … high.

    Where there is not enough room for all, they are as far apart as the room allows.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[float, int]] = []  # middle and size of places pushed together
    for i in order:
        groups.append((min(max(wanted[i], low), high), 1))
        while len(groups) > 1 and _meet(groups[-2], groups[-1], gap):
            (a, n), (b, m) = groups[-2], groups[-1]
            groups[-2:] = [_within((a * n + b * m) / (n + m), n + m, gap, low, high)]
    places = [middle + gap * (k - (size - 1) / 2) for middle, size in groups for k in range(size)]
    found = [0.0] * len(wanted)
    for i, place_ in zip(order, places, strict=True):
        found[i] = place_
    return found


def place(
    names: Sequence[str],
    owners: Sequence[int],
    marks: Sequence[tuple[float, float]],
    frame: Box,
    lines: Iterable[Sequence[Sequence[float]]] = (),
) -> list[tuple[float, float, str]]:
    """(x, y, "left" or "right" or "center": alignment) of each name.

    `owners`: the mark [index] that each name belongs to. The first of a few places around the mark
    that covers no mark, no earlier name, none of the `lines` (points of each) and stays in the
    frame; else the one that covers least.
    """
    taken = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in marks]
    crossed = [dot for line in lines for dot in _dots(line)]
    found = []
    for name, owner in zip(names, owners, strict=True):
        x, y = marks[owner]
        width = text_width(name)
        options = []
        for rank, (dx, dy, side) in enumerate(_AROUND):
            left = x + dx - (0 if side == "left" else width if side == "right" else width / 2)
            box = (left, y + dy - HEIGHT / 2, left + width, y + dy + HEIGHT / 2)
            cost = sum(_overlap(box, other) for other in taken) + 10 * _outside(box, frame)
            cost += 2 * sum(box[0] < a < box[2] and box[1] < b < box[3] for a, b in crossed)
            options.append((cost, rank, (x + dx, y + dy, side), box))
        _, _, spot, box = min(options)
        found.append(spot)
        taken.append(box)
    return found


_AROUND = (
    (GAP, 0.0, "left"), (-GAP, 0.0, "right"), (0.0, 15.0, "center"), (0.0, -15.0, "center"),
    (GAP, 11.0, "left"), (GAP, -11.0, "left"), (-GAP, 11.0, "right"), (-GAP, -11.0, "right"),
    (0.0, 28.0, "center"), (0.0, -28.0, "center"),
)  # fmt: skip


def _meet(below: tuple[float, int], above: tuple[float, int], gap: float) -> bool:
    (a, n), (b, m) = below, above
    return b - gap * (m - 1) / 2 - (a + gap * (n - 1) / 2) < gap - 1e-9


def _within(middle: float, size: int, gap: float, low: float, high: float) -> tuple[float, int]:
    half = gap * (size - 1) / 2
    return min(max(middle, low + half), high - half), size


def _dots(line: Sequence[Sequence[float]]) -> Iterator[tuple[float, float]]:
    """Points every 4 pixels along a line; one too long to be in the figure is passed over."""
    for (x0, y0), (x1, y1) in pairwise(line):
        count = int(max(abs(x1 - x0), abs(y1 - y0)) / 4) + 1
        for k in range(count + 1) if count < 2000 else ():
            yield x0 + (x1 - x0) * k / count, y0 + (y1 - y0) * k / count


def _overlap(a: Box, b: Box) -> float:
    across, up = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return across * up if across > 0 and up > 0 else 0.0


def _outside(box: Box, frame: Box) -> float:
    return (
        max(0.0, frame[0] - box[0]) + max(0.0, box[2] - frame[2])
        + max(0.0, frame[1] - box[1]) + max(0.0, box[3] - frame[3])
    )  # fmt: skip
