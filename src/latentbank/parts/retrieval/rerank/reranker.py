"""Orders the texts that a word index found by a weighted sum of their features.

The weights ship with the package; scripts/train_reranker.py learns them on SQuAD's `train` split.
Knows ids, scores and texts; knows no index, no bank and no backbone.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib import resources

import numpy as np

from latentbank.functions.expression import parse
from latentbank.parts.retrieval.lexical import Ranking
from latentbank.parts.retrieval.rerank.evidence import Asked, Evidence, evidence
from latentbank.parts.retrieval.rerank.passages import Passages

__all__ = ["FEATURES", "Reranker", "packaged_weights"]

FEATURES = tuple(one.name for one in fields(Evidence))
_ASSET = "assets/rerank.json"


@functools.cache
def packaged_weights() -> Mapping[str, float]:
    """Feature → weight, in nats for one unit of the feature."""
    found = json.loads(resources.files("latentbank").joinpath(_ASSET).read_text("utf-8"))
    return {name: float(found["weights"][name]) for name in FEATURES}


class Reranker:
    """Reranks by a logit: of a linear model with one weight for each feature, or of an expression.

    The softmax of the logits over the candidates estimates how likely each text is the one that the
    question is about. `fusion` is an expression over `FEATURES`; "" takes the linear model.
    """

    def __init__(
        self,
        texts_of: Callable[[Sequence[str]], Sequence[str]],
        weights: Mapping[str, float] | None = None,
        fusion: str = "",
    ) -> None:
        self.passages = Passages(texts_of)
        self._fusion = parse(fusion, FEATURES) if fusion else None
        chosen = packaged_weights() if weights is None else weights
        self._weights = [chosen[name] for name in FEATURES]

    def features(
        self, question: str, words: Mapping[str, float], ranking: Ranking
    ) -> list[list[float]]:
        """The features [candidates, features] of a ranking by BM25; see `Evidence`.

        `words`: content word of the question → its inverse document frequency.
        """
        asked = Asked.of(question, words, self.passages.stemmer)
        found = self.passages.get([id for id, _ in ranking])
        pairs = zip(ranking, found, strict=True)
        return [evidence(asked, passage, score).values() for (_, score), passage in pairs]

    def _logits(self, rows: list[list[float]]) -> list[float]:
        """A logit for each row of features."""
        if self._fusion is None:
            return [sum(map(float.__mul__, self._weights, row)) for row in rows]
        columns = np.array(rows, np.float64).reshape(-1, len(FEATURES)).T
        found = self._fusion.bounded(dict(zip(FEATURES, columns, strict=True)))
        return [float(value) for value in found[: len(rows)]]

    def rerank(self, question: str, words: Mapping[str, float], ranking: Ranking) -> Ranking:
        """The texts of a ranking by BM25 in the order of their logits, best first.

        The square of a score is how likely a text is in proportion to the first, which has 1. Texts
        of equal logits keep their order.
        """
        logits = self._logits(self.features(question, words, ranking))
        order = sorted(range(len(ranking)), key=lambda i: -logits[i])
        return [(ranking[i][0], math.exp((logits[i] - logits[order[0]]) / 2)) for i in order]
