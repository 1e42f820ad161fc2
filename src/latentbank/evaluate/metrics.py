"""Scores of predicted answers (SQuAD's and the papers') and bootstrap statistics over them.

Knows texts and arrays of scores only; no model, no dataset, no record.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentbank.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DRAWS_PER_VALUE = 16  # drawing one count takes as long as drawing 16 single scores
_BLOCK = 2**22  # resampled scores held at once: 4 M indices of 8 bytes


@dataclass(frozen=True)
class BootstrapResult:
    """Outcome of `paired_bootstrap`: mean difference a - b, its 95 % interval, two-sided p."""

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval, in the unit of the scores."""

    value: float
    low: float
    high: float


def normalize_answer(text: str) -> str:
    """Lower-case, drop ASCII punctuation, drop a/an/the, collapse white space.

    The normalisation of SQuAD's evaluation script (Rajpurkar et al. 2016,
    https://arxiv.org/abs/1606.05250).
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the normalised prediction equals a normalised reference, else 0.0."""
    answer = normalize_answer(prediction)
    return float(any(answer == normalize_answer(text) for text in _known(references)))


def f1(prediction: str, references: Sequence[str]) -> float:
    """The largest token F1 (0 to 1) of the normalised prediction over the references.

    If one side has no tokens, the score is 1.0 if both have none, else 0.0 (SQuAD 2's rule,
    Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822).
    """
    tokens = normalize_answer(prediction).split()
    return max(_token_f1(tokens, normalize_answer(text).split()) for text in _known(references))


def contains_answer(prediction: str, references: Sequence[str]) -> float:
    """1.0 if a normalised reference occurs in the normalised prediction as whole tokens, else 0.0.

    A reference without tokens is contained only in a prediction without tokens.
    """
    answer = f" {normalize_answer(prediction)} "
    padded = (f" {normalize_answer(text)} " for text in _known(references))
    return float(any(text in answer if text.strip() else answer == text for text in padded))


def prefix_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction, cut to the length of the shortest reference, equals it, else 0.0.

    The published code of MAC (Tack et al. 2024, https://arxiv.org/abs/2403.04317) and MBC reports
    this as `EM`. White space around both is dropped and nothing else is normalised, so the
    reference "1" matches the answer "1998". It is not comparable with `exact_match`. An empty
    reference matches an empty prediction only.
    """
    shortest = min((text.strip() for text in _known(references)), key=len)
    answer = prediction.strip()
    return float(answer[: len(shortest)] == shortest if shortest else not answer)


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, samples: int = 10_000, seed: int = 0
) -> BootstrapResult:
    """Tests whether systems a and b, scored on the same n items, differ in their mean.

    `a`, `b` are `[n]` scores in the same order. The interval goes from the 2.5 to the 97.5
    percentile of the resampled mean difference. The two-sided p-value is twice the smaller share of
    resamples on either side of zero, where ties count for both sides. One is added to the count and
    to the samples, so that it is never 0 (Efron and Tibshirani 1993; Koehn 2004 for the paired
    form).

    Raises InputError for empty, unequal or multi-dimensional scores, or samples below 1.
    """
    import numpy as np

    left, right = _scores(a), _scores(b)
    if left.shape != right.shape:
        raise InputError(f"Paired scores must have equal length, got {left.size} and {right.size}.")
    difference = left - right
    means = _resampled_means(difference, samples, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (samples + 1))
    return BootstrapResult(float(difference.mean()), float(low), float(high), p_value)


def mean_interval(values: ArrayLike, seed: int = 0, samples: int = 10_000) -> Interval:
    """The mean of `[n]` scores with its 95 % percentile-bootstrap interval.

    Raises InputError for empty or multi-dimensional scores, or samples below 1.
    """
    import numpy as np

    scores = _scores(values)
    low, high = np.percentile(_resampled_means(scores, samples, seed), [2.5, 97.5])
    return Interval(float(scores.mean()), float(low), float(high))


def _known(references: Sequence[str]) -> Sequence[str]:
    if isinstance(references, str) or not references:
        raise InputError(f"References must be a non-empty list of texts, got {references!r}.")
    return references


def _token_f1(prediction: list[str], reference: list[str]) -> float:
    if not prediction or not reference:
        return float(prediction == reference)
    common = sum((Counter(prediction) & Counter(reference)).values())
    return 2 * common / (len(prediction) + len(reference))


def _scores(values: ArrayLike) -> NDArray[np.float64]:
    import numpy as np

    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise InputError(f"Scores must be a non-empty list of finite numbers, got {scores.shape}.")
    return scores


def _resampled_means(scores: NDArray[np.float64], samples: int, seed: int) -> NDArray[np.float64]:
    """`[samples]` means of `[n]` scores drawn with replacement, block by block.

    Where few different values occur, such as 0 and 1, it draws how often each value comes. The
    distribution is the same, and it takes a fraction of the time.
    """
    import numpy as np

    if samples < 1:
        raise InputError(f"The number of bootstrap samples must be at least 1, got {samples}.")
    random = np.random.default_rng(seed)
    values, counts = np.unique(scores, return_counts=True)
    if _DRAWS_PER_VALUE * values.size <= scores.size:
        drawn = random.multinomial(scores.size, counts / scores.size, size=samples)
        return np.asarray(drawn @ values / scores.size, dtype=np.float64)
    rows = max(1, _BLOCK // scores.size)
    means = [
        scores[random.integers(scores.size, size=(min(rows, samples - start), scores.size))].mean(1)
        for start in range(0, samples, rows)
    ]
    return np.concatenate(means)
