"""Numbers of a memory that learns from a stream: retention, transfer, forgetting, answering under
doubt, health of a codebook, the accuracy-bytes frontier and latency.

Knows arrays of numbers only; no model, no dataset, no record.
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
    """`risk` [n]: share of wrong answers among the most confident ones, at each `coverage` [n] in
    (0, 1]; `area` is the area under that curve (AURC, in [0, 1], smaller is better).
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float


@dataclass(frozen=True)
class CodeUsage:
    """`perplexity`: exp of the entropy of the counts, 1 (one code used) … K (all used alike); 0
    where nothing was counted. `dead`: how many codes are used less than the threshold.
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
    """Return the mean height of the retention curve y over x: its area divided by the range of x.

    `x`: documents written (or another growing amount), strictly increasing; `y`: the score of the
    first documents' questions at each. Trapezoids between the points; a curve of one point has that
    point's height. `relative` divides by y[0], so that 1 means that nothing was lost (the form in
    which MAC, Tack et al. 2024, https://arxiv.org/abs/2403.04317, draws its retention).

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
    """Return BWT = 1/(T-1) · Σ_{i<T} (R_{T,i} - R_{i,i}): negative where later writes hurt.

    `after_write` [T-1]: scores of the parts of a stream (tasks, blocks or single questions) right
    after each was written; `final` [T-1]: their scores after all T parts, in the same order. The
    part written last is not among them, because its two scores are one measurement (Lopez-Paz and
    Ranzato 2017, equation 3, https://arxiv.org/abs/1706.08840). In the unit of the scores.

    Raises InputError for empty or unequal scores.
    """
    first, last = _vector(after_write, "scores after writing"), _vector(final, "final scores")
    _same_length(first, last, "scores after writing and final scores")
    return float((last - first).mean())


def forgetting(before: ArrayLike, after: ArrayLike) -> float:
    """Return the mean over parts of (best score ever had before - score after).

    `before` [T], or [L, T] for scores at L earlier times, of which each part's best counts; `after`
    [T]. Positive where something was lost (Chaudhry et al. 2018, equation 3,
    https://arxiv.org/abs/1801.10112; as with `backward_transfer`, the part learned last is not
    among them). In the unit of the scores.

    Raises InputError for empty or unequal scores.
    """
    import numpy as np

    table = np.asarray(before, dtype=np.float64)
    best = _vector(table.max(0) if table.ndim == 2 and table.size else table, "scores before")
    now = _vector(after, "scores after")
    _same_length(best, now, "scores before and after")
    return float((best - now).mean())


# ---- answering under doubt


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """Return the risk-coverage curve of n answers and its area (AURC).

    `confidence` [n] in any unit, higher is surer; `correct` [n] in [0, 1] (F1 is fine: the loss is
    1 - correct). At coverage k/n the k surest answers are kept and the risk is their mean loss;
    AURC is the mean risk over k = 1 … n (Geifman and El-Yaniv 2017,
    https://arxiv.org/abs/1705.08500; Geifman et al. 2019, https://arxiv.org/abs/1805.08206).
    Answers of equal confidence count with their mean loss, so that their order does not matter.

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
    """Return, for each rate, the accuracy on answerable questions when at most that share of the
    unanswerable ones gets an answer.

    A question is answered where its confidence [n] is above a threshold, the lowest one that keeps
    the false answers within the rate (in [0, 1]); `correct` [n] in [0, 1] counts for the answerable
    ones only, an answerable question left unanswered is wrong. This is the correct classification
    rate at a false positive rate of open-set recognition (Dhamija et al. 2018,
    https://arxiv.org/abs/1811.04110). In [0, 1].

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
    found = []
    for rate in rates:
        if not 0 <= rate <= 1:
            raise InputError(f"A false answer rate is between 0 and 1, got {rate}.")
        allowed = math.floor(rate * others.size + 1e-9)
        threshold = others[allowed] if allowed < others.size else -np.inf
        found.append(float((right * (sure > threshold))[can].mean()))
    return tuple(found)


# ---- codes


def codebook_health(counts: ArrayLike, dead_below: float = 0.1) -> CodeUsage:
    """Return perplexity and dead codes of usage counts [K].

    A code is dead if its count is 0 or below `dead_below` × the mean count, the threshold of
    `quantizer.Codebook`. Perplexity as in VQ-VAE's telemetry (van den Oord et al. 2017,
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
    """Return Σ‖x - x̂‖² / Σ‖x - mean x‖²: the share of the latents' variance that is lost.

    `latents`, `decoded`: [N, D]. 0 is perfect; 1 is as good as their mean for all (the fraction of
    variance unexplained, as `quantizer.Codebook.health` reports it).

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
    """Return the indices of the Pareto-optimal (bytes, accuracy) points, fewest bytes first.

    A point is on the frontier unless another has no more bytes and no less accuracy, and is better
    in one of them. Of equal points the first stays.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    found: list[int] = []
    for i in order:
        if not all(math.isfinite(number) for number in points[i]):
            raise InputError(f"A point of the frontier must be finite, got {points[i]}.")
        if not found or points[i][1] > points[found[-1]][1]:
            found.append(i)
    return tuple(found)


def latency(samples: ArrayLike) -> Latency:
    """Return median, 95th percentile (linear between order statistics) and mean of [n] durations.

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

    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        raise InputError(f"{name} must be a non-empty list of finite numbers, got {found.shape}.")
    return found


def _shares(values: ArrayLike, name: str) -> NDArray[np.float64]:
    found = _vector(values, name)
    if found.min() < 0 or found.max() > 1:
        raise InputError(f"{name} must lie between 0 and 1, got {found.min()} to {found.max()}.")
    return found


def _same_length(a: NDArray[np.generic], b: NDArray[np.generic], names: str) -> None:
    if a.size != b.size:
        raise InputError(f"{names} must have equal length, got {a.size} and {b.size}.")
