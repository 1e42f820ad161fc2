"""What an expression is worth: an objective, and the cascade that rejects poor ones early."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from latentbank.errors import InputError
from latentbank.functions.expression import Expression

__all__ = ["Cascade", "Evaluation", "Objective"]

Array = npt.NDArray[np.float64]


class Objective(ABC):
    """Scores expressions over `names` on a part of its data.

    Attributes:
        target: what evolves, such as "policy".
        names: the signals that an expression may read.
        first: the text of the expression that is in use today; all others are compared with it.
        starts: further expressions to begin with.
        terms: parts of a weighted sum with their first weights; what is fitted by weights alone.
        scale: size of the constants that new expressions get.
    """

    target: str
    names: tuple[str, ...]
    first: str
    terms: Mapping[str, float]
    starts: tuple[str, ...] = ()
    scale: float = 1.0

    @abstractmethod
    def probe(self) -> Mapping[str, Array]:
        """Signals [n] of made-up things: an expression has to be finite on them."""

    @abstractmethod
    def figures(self, expression: Expression, share: float) -> dict[str, float]:
        """Figures on the first `share` of the data; "score" is what is maximised, higher better."""

    @abstractmethod
    def outcomes(self, expression: Expression) -> list[float]:
        """1 or 0 for each question of all data; their mean is the score."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a run's results depend on, for its record."""


@dataclass(frozen=True)
class Evaluation:
    """How far an expression came.

    `stages` that it passed, its `figures` of the last one, and why it was rejected ("" if it was
    not). `likeness` is the rank correlation of its values on the probe with those of the first
    expression, -1 … 1. Only where `rejected` is "" does `score` belong to the whole data.
    """

    stages: int
    figures: Mapping[str, float] = field(default_factory=dict)
    rejected: str = ""
    likeness: float = 0.0

    @property
    def score(self) -> float:
        """The score of the last stage; -inf where there was none."""
        return self.figures.get("score", -np.inf)


class Cascade:
    """Evaluates on growing shares of the data, and stops at the first that falls short.

    In stage i an expression must reach `thresholds[i]` times the score of the first expression on
    the same share. The last share is 1 and has no threshold.
    """

    def __init__(
        self,
        objective: Objective,
        shares: Sequence[float] = (0.25, 0.5, 1.0),
        thresholds: Sequence[float] = (0.75, 0.9),
    ) -> None:
        if len(thresholds) != len(shares) - 1 or shares[-1] != 1.0:
            raise InputError("A cascade has one threshold less than shares, and ends with share 1.")
        self.objective, self.shares, self.thresholds = objective, shares, thresholds
        self._probe = dict(objective.probe())
        self._first: list[float] | None = None
        self._first_ranks: Array | None = None
        self.evaluations = 0  # of shares of the data

    def start(self, first: Expression) -> Evaluation:
        """Evaluates the first expression on all shares; what it reaches is the others' measure."""
        self._first_ranks = _ranks(first.compute(self._probe))
        found = [self._figures(first, share) for share in self.shares]
        self._first = [one["score"] for one in found]
        return Evaluation(len(found), found[-1], likeness=1.0)

    def evaluate(self, expression: Expression) -> Evaluation:
        """See the class. Raises nothing for an expression that cannot be computed."""
        assert self._first is not None and self._first_ranks is not None, "start() comes first"
        try:
            values = expression.compute(self._probe)
        except InputError as error:
            return Evaluation(0, rejected=str(error))
        if np.ptp(values) == 0:
            return Evaluation(0, rejected="its value is the same for everything")
        likeness = float(np.corrcoef(_ranks(values), self._first_ranks)[0, 1])
        figures: dict[str, float] = {}
        for stage, share in enumerate(self.shares):
            figures = self._figures(expression, share)
            if stage < len(self.thresholds):
                least = self.thresholds[stage] * self._first[stage]
                if figures["score"] < least:
                    reason = f"{figures['score']:.4f} on {share:g} of the data, least {least:.4f}"
                    return Evaluation(stage, figures, reason, likeness)
        return Evaluation(len(self.shares), figures, likeness=likeness)

    def _figures(self, expression: Expression, share: float) -> dict[str, float]:
        self.evaluations += 1
        return self.objective.figures(expression, share)


def _ranks(values: Array) -> Array:
    """Mean ranks [n] of values [n]."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    middle: Array = (last - (count - 1) / 2)[place]
    return middle
