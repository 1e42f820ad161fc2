"""Metrics of a memory that learns from a stream.

Retention, transfer, forgetting, selective answering, codebook health, the accuracy-bytes frontier
and latency. Knows arrays of numbers only; no model, no data set, no record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentbank.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class RiskCoverage:
    """A risk-coverage curve.

    `risk` [n] is the share of wrong answers among the most confident ones, at each `coverage` [n]
    in (0, 1]. `area` is the area under the curve (AURC) in [0, 1]; smaller is better.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float


@dataclass(frozen=True)
class CodeUsage:
    """How the K codes of a codebook are used.

    `perplexity` is exp of the entropy of the counts: from 1 (one code used) to K (all used alike),
    and 0 without any count. `dead` counts the codes that are used less than the threshold.
    """

    perplexity: float
    dead: int


@dataclass(frozen=True)
class Latency:
    """Median, 95th percentile and mean, in the unit of the samples; `count` samples."""

    median: float
    p95: float
    mean: float
    count: int


# ---- what the stream does to old documents


def retention_area(x: Sequence[float], y: Sequence[float], relative: bool = False) -> float:
    """The mean height of the retention curve y over x: its area divided by the range of x.

    `x` is the number of documents written, or another strictly increasing amount. `y` is the score
    on the questions of the first documents at each x. The area is a sum of trapezoids; a curve of
    one point has that point's height. `relative` divides by y[0], so that 1 means no loss. MAC
    (Tack et al. 2024, https://arxiv.org/abs/2403.04317) draws its retention in this form.

    Raises InputError for empty, unequal or unordered values, or a relative curve that starts at 0.
    """
    import numpy as np

    across, height = _vector(x, "x"), _vector(y, "y")
    _same_length(across, height, "x and y")
    if (np.diff(across) <= 0).any():
        raise InputError("The x of a retention curve must be strictly increasing.")
    area = float(height[0])
    if across.size > 1:
        area = float(np.trapezoid(height, across) / (across[-1] - across[0]))
    if not relative:
        return area
    if height[0] == 0:
        raise InputError("A retention curve that starts at 0 has no relative area.")
    return area / float(height[0])


def backward_transfer(after_write: ArrayLike, final: ArrayLike) -> float:
    """BWT = 1/(T-1) · Σ_{i<T} (R_{T,i} - R_{i,i}), in the unit of the scores.

    It is negative where later writes hurt. `after_write` [T-1] are the scores of the parts of a
    stream (tasks, blocks or single questions) right after each was written. `final` [T-1] are their
    scores after all T parts, in the same order. The last part is left out: its two scores are the
    same measurement. Lopez-Paz and Ranzato 2017, equation 3, https://arxiv.org/abs/1706.08840.

    Raises InputError for empty or unequal scores.
    """
    first, last = _vector(after_write, "scores after writing"), _vector(final, "final scores")
    _same_length(first, last, "scores after writing and final scores")
    return float((last - first).mean())


def forgetting(before: ArrayLike, after: ArrayLike) -> float:
    """The mean over parts of (best earlier score - score after), in the unit of the scores.

    It is positive where something was lost. `before` is [T], or [L, T] with scores at L earlier
    times, of which each part's best is taken. `after` is [T]. As in `backward_transfer`, the part
    learned last is left out. Chaudhry et al. 2018, equation 3, https://arxiv.org/abs/1801.10112.

    Raises InputError for empty or unequal scores.
    """
    import numpy as np

    table = np.asarray(before, dtype=np.float64)
    best = _vector(table.max(0) if table.ndim == 2 and table.size else table, "scores before")
    now = _vector(after, "scores after")
    _same_length(best, now, "scores before and after")
    return float((best - now).mean())


# ---- selective answering


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """The risk-coverage curve of n answers and its area (AURC).

    `confidence` [n] may have any unit. `correct` [n] lies in [0, 1], so F1 is allowed; the loss is
    1 - correct. At coverage k/n the k most confident answers are kept, and the risk is their mean
    loss. AURC is the mean risk over k = 1 … n. Answers of equal confidence count with their mean
    loss, so that their order does not matter. Geifman and El-Yaniv 2017,
    https://arxiv.org/abs/1705.08500; Geifman et al. 2019, https://arxiv.org/abs/1805.08206.

    Raises InputError for empty or unequal values, or correctness outside [0, 1].
    """
    import numpy as np

    sure, right = _vector(confidence, "confidence"), _shares(correct, "correctness")
    _same_length(sure, right, "confidence and correctness")
    levels, place, sizes = np.unique(-sure, return_inverse=True, return_counts=True)
    loss = np.bincount(place, weights=1.0 - right, minlength=levels.size) / sizes
    kept = np.arange(1, sure.size + 1)
    risk = np.cumsum(np.repeat(loss, sizes)) / kept
    return RiskCoverage(
        tuple((kept / sure.size).tolist()), tuple(risk.tolist()), float(risk.mean())
    )


def accuracy_at_false_answer_rate(
    confidence: ArrayLike,
    correct: ArrayLike,
    answerable: ArrayLike,
    rates: Sequence[float],
) -> tuple[float, ...]:
    """For each false answer rate, the accuracy on answerable questions, in [0, 1].

    A question is answered if its `confidence` [n] is above a threshold. The threshold is the lowest
    one at which the share of unanswerable questions with an answer stays within the rate. `correct`
    [n] in [0, 1] counts for answerable questions only; one without an answer is wrong. In open-set
    recognition this is the correct classification rate at a false positive rate (Dhamija et al.
    2018, https://arxiv.org/abs/1811.04110).

    Raises InputError for unequal lengths, a rate outside [0, 1], or where one of the two kinds of
    question is missing.
    """
    import numpy as np

    sure, right = _vector(confidence, "confidence"), _shares(correct, "correctness")
    can = np.asarray(answerable, dtype=bool).ravel()
    _same_length(sure, right, "confidence and correctness")
    _same_length(sure, can, "confidence and answerability")
    if can.all() or not can.any():
        kind = "unanswerable" if can.all() else "answerable"
        raise InputError(f"Accuracy at a false answer rate needs {kind} questions, got none.")
    others = np.sort(sure[~can])[::-1]
    accuracies = []
    for rate in rates:
        if not 0 <= rate <= 1:
            raise InputError(f"A false answer rate is between 0 and 1, got {rate}.")
        allowed = math.floor(rate * others.size + 1e-9)
        threshold = others[allowed] if allowed < others.size else -np.inf
        accuracies.append(float((right * (sure > threshold))[can].mean()))
    return tuple(accuracies)


# ---- codes


def codebook_health(counts: ArrayLike, dead_below: float = 0.1) -> CodeUsage:
    """Perplexity and number of dead codes of usage counts [K].

    A code is dead if its count is 0 or below `dead_below` × the mean count; `quantizer.Codebook`
    uses the same threshold. Perplexity as for VQ-VAE (van den Oord et al. 2017,
    https://arxiv.org/abs/1711.00937).

    Raises InputError for no codes or negative counts.
    """
    import numpy as np

    usage = _vector(counts, "counts")
    if (usage < 0).any():
        raise InputError("Counts of codes must not be negative.")
    if not usage.any():
        return CodeUsage(0.0, int(usage.size))
    share = usage[usage > 0] / usage.sum()
    dead = (usage == 0) | (usage < dead_below * usage.mean())
    return CodeUsage(float(np.exp(-(share * np.log(share)).sum())), int(dead.sum()))


def relative_residual(latents: ArrayLike, decoded: ArrayLike) -> float:
    """Σ‖x - x̂‖² / Σ‖x - mean x‖²: the fraction of the latents' variance that is unexplained.

    `latents`, `decoded` are [N, D]. 0 is perfect; 1 is as good as the mean of the latents for all.
    `quantizer.Codebook.health` reports the same figure.

    Raises InputError for other shapes, or latents that are all equal.
    """
    import numpy as np

    true, close = np.asarray(latents, np.float64), np.asarray(decoded, np.float64)
    if true.ndim != 2 or true.shape != close.shape or not true.size:
        raise InputError(f"Latents must be [N, D] twice, got {true.shape} and {close.shape}.")
    spread = float(((true - true.mean(0)) ** 2).sum())
    if spread == 0:
        raise InputError("Latents that are all equal have no variance to reconstruct.")
    return float(((true - close) ** 2).sum()) / spread


# ---- cost


def frontier(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Indices of the Pareto-optimal (bytes, accuracy) points, fewest bytes first.

    A point is left out if another has no more bytes, no less accuracy, and is better in one of the
    two. Of equal points the first stays.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    optimal: list[int] = []
    for i in order:
        if not all(math.isfinite(number) for number in points[i]):
            raise InputError(f"A point of the frontier must be finite, got {points[i]}.")
        if not optimal or points[i][1] > points[optimal[-1]][1]:
            optimal.append(i)
    return tuple(optimal)


def latency(samples: ArrayLike) -> Latency:
    """Median, 95th percentile (linear between order statistics) and mean of [n] durations.

    Raises InputError for no samples or a negative one.
    """
    import numpy as np

    times = _vector(samples, "durations")
    if (times < 0).any():
        raise InputError("Durations must not be negative.")
    median, high = np.percentile(times, [50, 95])
    return Latency(float(median), float(high), float(times.mean()), int(times.size))


# ---- checks


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    import numpy as np

    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise InputError(f"{name} must be a non-empty list of finite numbers, got {vector.shape}.")
    return vector


def _shares(values: ArrayLike, name: str) -> NDArray[np.float64]:
    shares = _vector(values, name)
    low, high = shares.min(), shares.max()
    if low < 0 or high > 1:
        raise InputError(f"{name} must lie between 0 and 1, got {low} to {high}.")
    return shares


def _same_length(a: NDArray[np.generic], b: NDArray[np.generic], names: str) -> None:
    if a.size != b.size:
        raise InputError(f"{names} must have equal length, got {a.size} and {b.size}.")
