"""Numbers of a stream: retention, transfer, forgetting, and answering under doubt.

Knows arrays of scores only; no model, no dataset, no record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RiskCoverage:
    """Risk [n] (share wrong) of the answers kept at each coverage [n], and the area under it."""

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float


def retention_area(x: Sequence[float], y: Sequence[float]) -> float:
    """Mean height of the curve y over x, by trapezoids; a single point is its own height."""
    if len(x) == 1:
        return float(y[0])
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def backward_transfer(after_write: Sequence[float], final: Sequence[float]) -> float:
    """Mean of final score minus score right after writing (Lopez-Paz and Ranzato 2017)."""
    return float(np.mean(np.subtract(final, after_write)))


def forgetting(before: Sequence[float], after: Sequence[float]) -> float:
    """Mean loss of score from before to after."""
    return float(np.mean(np.subtract(before, after)))


def risk_coverage(confidence: Sequence[float], correct: Sequence[float]) -> RiskCoverage:
    """The risk-coverage curve of answers kept in the order of falling confidence."""
    order = np.argsort(-np.asarray(confidence, float), kind="stable")
    wrong = 1.0 - np.asarray(correct, float)[order]
    kept = np.arange(1, len(wrong) + 1)
    risk = np.cumsum(wrong) / kept
    return RiskCoverage(tuple(kept / len(wrong)), tuple(risk), float(risk.mean()))


def accuracy_at_false_answer_rate(
    confidence: Sequence[float],
    correct: Sequence[float],
    answerable: Sequence[bool],
    rates: Sequence[float],
) -> tuple[float, ...]:
    """Share of answerable questions answered rightly when at most a rate of the others is."""
    score, can = np.asarray(confidence, float), np.asarray(answerable, bool)
    right = np.asarray(correct, float)
    found = []
    for rate in rates:
        others = np.sort(score[~can])[::-1]
        allowed = int(rate * len(others))
        threshold = others[allowed] if allowed < len(others) else -np.inf
        found.append(float((right[can] * (score[can] > threshold)).mean()))
    return tuple(found)
