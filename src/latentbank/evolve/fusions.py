"""The objective of fusions: which features of a question and a text put the right text first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset
from latentbank.evolve.contests import contests, join
from latentbank.evolve.objective import Array, Objective
from latentbank.functions.expression import Expression
from latentbank.parts.retrieval.rerank.reranker import FEATURES, packaged_weights

__all__ = ["FusionObjective", "linear_fusion"]

_BLOCK = 1700  # paragraphs that compete, as many as in the papers' test
_TOP = 16
_NONE = -1e12


def linear_fusion() -> str:
    """The shipped linear model as an expression."""
    return " + ".join(f"{weight:g} * {name}" for name, weight in packaged_weights().items())


class FusionObjective(Objective):
    """Scores fusions by the share of questions whose own text comes first of `_TOP` by BM25.

    `every`: only each such question is asked.

    Raises:
        InputError: the data has no questions.
    """

    target = "fusion: of the texts that were found for a question, the highest value is read"
    names = FEATURES
    scale = 0.5

    def __init__(self, data: QADataset, every: int = 1) -> None:
        if not data.questions:
            raise InputError(f"{data.name} has no questions to order texts for.")
        self._data, self._every = data, every
        starts = range(0, len(data.documents), _BLOCK)
        blocks = [contests(data, at, at + _BLOCK, every, _TOP) for at in starts]
        self._contests = join(blocks)
        self.first, self.terms = linear_fusion(), packaged_weights()

    def probe(self) -> Mapping[str, Array]:
        """The features of the first texts, and of one that has none."""
        there = self._contests.there
        rows = np.vstack([self._contests.features[there][:255], np.zeros(len(FEATURES))])
        return dict(zip(FEATURES, rows.T, strict=True))

    def identity(self) -> dict[str, Any]:
        """Data and how much of it."""
        return {
            "target": "fusion",
            "data": {"name": self._data.name, "hash": self._data.hash},
            "every": self._every,
            "questions": len(self._contests.right),
        }

    def figures(self, expression: Expression, share: float) -> dict[str, float]:
        """`score`: share of the questions whose own text comes first, 0 … 1."""
        first = self.first_right(expression, share)
        return {"score": float(first.mean()), "questions": float(len(first))}

    def outcomes(self, expression: Expression) -> list[float]:
        """1 for each question whose own text comes first, else 0."""
        return [float(one) for one in self.first_right(expression)]

    def first_right(self, expression: Expression, share: float = 1.0) -> Array:
        """1 for each question [n] whose own text comes first, else 0."""
        count = max(1, round(share * len(self._contests.right)))
        features = self._contests.features[:count]
        there, right = self._contests.there[:count], self._contests.right[:count]
        columns = features.reshape(-1, len(FEATURES)).T
        values = expression.bounded(dict(zip(FEATURES, columns, strict=True)))
        values = np.where(there, values.reshape(there.shape), _NONE)
        best = values.argmax(1)
        found: Array = ((best == right) & (right >= 0)).astype(np.float64)
        return found
