"""Candidates: documents, or the closed book, whose answers compete for one question.

Knows ids, scores and weights; knows no index and no backbone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from latentbank.parts.retrieval.lexical import Ranking

__all__ = ["Candidate", "QuestionGain", "shares", "supported", "weighed"]


@dataclass(frozen=True)
class Candidate:
    """What may answer a question: the document with this id, or the closed book (None).

    An answer counts by its confidence times `weight`, which lies in [0, 1].
    """

    document: str | None
    weight: float


@dataclass(frozen=True)
class QuestionGain:
    """Reranks by query likelihood (Ponte and Croft, 1998) under the model that answers.

    The gain is how many nats more likely a document makes the question than no memory does. A
    candidate's weight is multiplied by σ((gain − half) / scale); both settings are in nats.
    """

    half: float
    scale: float

    @classmethod
    def of(cls, half: float, scale: float) -> QuestionGain | None:
        """None where `scale` is 0: candidates keep their weights."""
        return cls(half, scale) if scale else None

    def weight(self, gain: float) -> float:
        """The factor, from 0 to 1; 0.5 at a gain of `half`."""
        return 0.5 + 0.5 * math.tanh((gain - self.half) / self.scale / 2)


def weighed(
    ranking: Ranking, matches: Sequence[float], least: float, closed: float = 0.0
) -> list[Candidate]:
    """The candidates of one question, best first.

    A document's weight is its match, the share of the question that it holds, times the square of
    its score divided by the best score. Of reranked texts the square is the odds against the best.
    The closed book follows with the weight `closed`, unless that is 0. Where no document matches at
    least `least`, the closed book is the only candidate and has the best match as its weight.
    """
    if not ranking or max(matches) < least:
        return [Candidate(None, max(matches, default=0.0))]
    top = max(ranking[0][1], 1e-9)
    documents = [
        Candidate(id, fit * min(1.0, max(score, 0.0) / top) ** 2)
        for (id, score), fit in zip(ranking, matches, strict=True)
    ]
    return [*documents, Candidate(None, closed)] if closed else documents


def supported(
    rankings: Sequence[Ranking], matches: Sequence[Sequence[float]], least: float
) -> tuple[list[Ranking], tuple[float, ...]]:
    """(documents to read for each question, best match of each question).

    A question whose best document matches less than `least` reads nothing.
    """
    support = tuple(max(row, default=0.0) for row in matches)
    kept = [row if fit >= least else [] for row, fit in zip(rankings, support, strict=True)]
    return kept, support


def shares(ranking: Ranking) -> tuple[tuple[str, float], ...]:
    """The scores of one ranking as shares that sum to 1."""
    total = sum(max(score, 0.0) for _, score in ranking) or 1.0
    return tuple((id, max(score, 0.0) / total) for id, score in ranking)
