"""Contests of texts for questions, as features: what a reranker has to order.

Knows questions, word indexes and the reranker's features; knows no bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentbank.evaluate.data import QADataset
from latentbank.parts.retrieval.lexical import LexicalIndex
from latentbank.parts.retrieval.rerank.reranker import FEATURES, Reranker

__all__ = ["Contests", "contests", "join"]

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contests:
    """Features [questions, candidates, features], which are there, and the right one or -1."""

    features: Numbers
    there: npt.NDArray[np.bool_]
    right: npt.NDArray[np.int64]

    def logits(self, weights: Numbers) -> Numbers:
        """Logits [questions, candidates] of weights [features]."""
        return np.where(self.there, self.features @ weights, -np.inf)

    def first(self, weights: Numbers, among: int = 1) -> float:
        """Percent of the questions whose right text is among the best `among`."""
        logits, found = self.logits(weights), self.right >= 0
        own = logits[np.arange(len(logits)), self.right.clip(0)]
        better = (logits > own[:, None]).sum(1)
        return 100 * float((found & (better < among)).mean())


def contests(data: QADataset, first: int, last: int, every: int, top: int) -> Contests:
    """The contests of every `every`-th question on the paragraphs from `first` to `last`."""
    texts = {str(i): data.documents[i].text for i in range(first, min(last, len(data.documents)))}
    index = LexicalIndex()
    index.add(list(texts), list(texts.values()))
    reranker = Reranker(lambda ids: [texts[id] for id in ids], dict.fromkeys(FEATURES, 0.0))
    asked = [q for q in data.questions if first <= q.document < last][::every]
    features = np.zeros((len(asked), top, len(FEATURES)))
    there = np.zeros((len(asked), top), bool)
    right = np.full(len(asked), -1)
    for i, question in enumerate(asked):
        ranking = index.search(question.text, top)
        if not ranking:
            continue
        rows = reranker.features(question.text, index.weights(question.text), ranking)
        features[i, : len(rows)], there[i, : len(rows)] = rows, True
        ids = [id for id, _ in ranking]
        if str(question.document) in ids:
            right[i] = ids.index(str(question.document))
    return Contests(features, there, right)


def join(parts: Sequence[Contests]) -> Contests:
    """The contests of several blocks."""
    return Contests(
        np.concatenate([one.features for one in parts]),
        np.concatenate([one.there for one in parts]),
        np.concatenate([one.right for one in parts]),
    )
