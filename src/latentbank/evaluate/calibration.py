"""Fits a calibration to answers of held-out questions, and measures one.

Knows arrays of confidences and scores; knows no model and no data.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentbank.parts.calibration import Calibration

__all__ = ["expected_calibration_error", "fit_calibration", "isotonic"]

RATES = (0.005, 0.01, 0.02, 0.03, 0.035, 0.04, 0.045, 0.05, 0.06, 0.07, 0.08, 0.1, 0.15, 0.2, 0.3,
         0.5, 1.0)  # fmt: skip
KNOTS = 64  # of the curve that is kept, at most


def fit_calibration(
    confidence: Sequence[float],
    correct: Sequence[float],
    answerable: Sequence[bool],
    rates: Sequence[float] = RATES,
    fitted_on: Mapping[str, Any] | None = None,
    quality: str = "best",
) -> Calibration:
    """A calibration from N answers: how sure, whether right, whether the bank held the answer.

    `quality` is that of the answers.

    The threshold of a rate is the least at which no more than this share of the unanswerable
    questions is answered.
    """
    sure = np.asarray(confidence, float)
    x, y = isotonic(sure, correct)
    unknown = np.sort(sure[~np.asarray(answerable, bool)])[::-1]
    told = [rate for rate in rates if rate * len(unknown) >= 1 or rate == 1.0]
    thresholds = [_threshold(unknown, rate) for rate in told]
    curves = tuple(x), tuple(y), tuple(told), tuple(thresholds)
    return Calibration(*curves, dict(fitted_on or {}), quality, len(unknown))


def _threshold(unknown: NDArray[np.float64], rate: float) -> float:
    """The confidence above which at most `rate` of the descending confidences `unknown` lie."""
    allowed = int(rate * len(unknown))
    if allowed >= len(unknown):
        return 0.0
    return float(np.nextafter(unknown[allowed], np.inf))


def isotonic(x: ArrayLike, y: ArrayLike) -> tuple[list[float], list[float]]:
    """Knots of the curve that does not fall and is nearest to the points (x, y) [N].

    By pooling adjacent violators. Each block is a knot at the mean of its x.
    """
    order = np.argsort(np.asarray(x, float), kind="stable")
    points = np.stack([np.asarray(x, float)[order], np.asarray(y, float)[order]])
    blocks: list[list[float]] = []  # [points, sum of x, sum of y]
    for at, value in points.T:
        blocks.append([1.0, at, value])
        while len(blocks) > 1 and (
            blocks[-2][2] / blocks[-2][0] >= blocks[-1][2] / blocks[-1][0]
            or blocks[-2][1] / blocks[-2][0] >= blocks[-1][1] / blocks[-1][0]
        ):
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    while len(blocks) > KNOTS:  # the two smallest neighbours become one
        sizes = [a[0] + b[0] for a, b in itertools.pairwise(blocks)]
        at = int(np.argmin(sizes))
        blocks[at : at + 2] = [[a + b for a, b in zip(*blocks[at : at + 2], strict=True)]]
    return [b[1] / b[0] for b in blocks], [b[2] / b[0] for b in blocks]


def expected_calibration_error(probability: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    """Mean distance of probability and accuracy over `bins` bins of equal width (Naeini, 2015).

    Weighted by the answers in each bin; 0 for no answers.
    """
    sure, right = np.asarray(probability, float), np.asarray(correct, float)
    if not len(sure):
        return 0.0
    places = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [
        abs(sure[places == i].mean() - right[places == i].mean()) * (places == i).mean()
        for i in range(bins)
        if (places == i).any()
    ]
    return float(sum(gaps))
