"""Similarity of a question and a document in amortised memory: one vector of each.

Knows tensors and networks; knows no bank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentbank.parts.pooling import whitening

__all__ = ["Matcher", "dequantised", "quantised"]

SHRINKAGE = 0.3  # as in `Aggregator.compare`
SPAN = 3.0  # a unit vector's coordinate is cut at so many times its mean size


class Matcher(nn.Module):
    """Memories [B, T, D] of questions or documents → unit vectors [B, K].

    The product of two vectors is the similarity of the question and the document.
    """

    def __init__(self, width: int, kept: int) -> None:
        super().__init__()
        self.means = nn.ParameterDict(
            {side: nn.Parameter(torch.zeros(width)) for side in ("questions", "documents")}
        )
        self.project = nn.Linear(width, min(width, kept), bias=False)
        nn.init.orthogonal_(self.project.weight)

    def forward(self, memories: Tensor, side: str) -> Tensor:
        """Unit vectors [B, K]; `side` is `questions` or `documents`."""
        centred = self._pooled(memories) - self.means[side]
        return nn.functional.normalize(self.project(centred), dim=-1)

    @property
    def measured(self) -> bool:
        """Whether `measure` or training has set the means."""
        return any(bool(mean.any()) for mean in self.means.values())

    @staticmethod
    def _pooled(memories: Tensor) -> Tensor:
        return nn.functional.layer_norm(memories.mean(1), memories.shape[-1:])

    @torch.no_grad()
    def measure(self, questions: Tensor, documents: Tensor) -> None:
        """Sets the means of both sides, and the map that whitens what is left of them."""
        asked, stored = self._pooled(questions), self._pooled(documents)
        centred = []
        for side, rows in (("questions", asked), ("documents", stored)):
            self.means[side].copy_(rows.mean(0))
            centred.append(rows - rows.mean(0))
        rows = torch.cat(centred)
        white = whitening(rows.T @ rows / len(rows), self.project.out_features, SHRINKAGE)
        self.project.weight.copy_(white.T)


def quantised(vectors: Tensor, bits: int) -> Tensor:
    """Whole numbers [..., K] from 0 to 2^bits - 1 of unit vectors [..., K], on an even grid."""
    steps = (1 << bits) - 1
    return ((vectors / _reach(vectors) + 1) / 2 * steps).round().clamp(0, steps).long()


def dequantised(numbers: Tensor, bits: int) -> Tensor:
    """Unit vectors [..., K] of what `quantised` gave."""
    steps = (1 << bits) - 1
    return nn.functional.normalize((2 * numbers.float() / steps - 1), dim=-1)


def _reach(vectors: Tensor) -> float:
    return float(SPAN / vectors.shape[-1] ** 0.5)
