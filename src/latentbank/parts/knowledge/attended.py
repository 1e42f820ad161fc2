"""Which triples an answer attended to, known after it is decoded.

Knows scores and ids; knows no backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentbank.backbone.transports import Sources

__all__ = ["Attention", "Recorder"]

NAMED = 4  # triples that an answer names at most
LEAST = 0.01  # share of the attention below which a triple is not named


@dataclass(frozen=True)
class Attention:
    """Shares [B, L, M] of the attention that each of `layers` [L] gave to the triples `ids` [M].

    They are shares of what was given to the knowledge base; `none` [B, L] is that of the null slot.
    """

    layers: tuple[int, ...]
    ids: tuple[str, ...]
    shares: Tensor
    none: Tensor

    def sources(self) -> Sources:
        """(id, share) of the triples with the largest mean share of all layers, by question."""
        rows = []
        for shares in self.shares.mean(1):
            best = shares.topk(min(NAMED, len(self.ids)))
            pairs = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            kept = [pair for pair in pairs if pair[1] >= LEAST] or pairs[:1]
            rows.append(tuple((self.ids[i], share) for i, share in kept))
        return tuple(rows)


class Recorder:
    """Adds up the attention of an answer's tokens: the last token of the prompt, then each new one.

    With beams only the prompt's last token counts, because beams trade places.
    """

    def __init__(self, owner: Tensor, questions: int, ids: Sequence[str]) -> None:
        self._owner, self._questions, self.ids = owner, questions, tuple(ids)
        self._sums: dict[int, Tensor] = {}
        self._tokens: dict[int, Tensor] = {}

    def __call__(
        self, layer: int, scores: Tensor, real: Tensor | None, start: int, rows: int
    ) -> None:
        """See `Watch`."""
        if rows != self._questions:
            return
        if layer not in self._sums or self._sums[layer].shape[0] < start + len(scores):
            self._begin(layer, scores.detach(), start)
            return
        shares = self._shares(scores.detach())
        if real is not None:
            shares = shares * real[..., None].to(shares)
        part = slice(start, start + len(scores))
        self._sums[layer][part] += shares.sum(1)
        self._tokens[layer][part] += scores.shape[1] if real is None else real.sum(1).to(shares)

    def _begin(self, layer: int, scores: Tensor, start: int) -> None:
        shares = self._shares(scores[:, -1:]).sum(1)
        ones = torch.ones(len(shares), device=shares.device)
        if layer in self._sums:
            shares = torch.cat([self._sums[layer][:start], shares])
            ones = torch.cat([self._tokens[layer][:start], ones])
        self._sums[layer], self._tokens[layer] = shares, ones

    def _shares(self, scores: Tensor) -> Tensor:
        """Scores [B, T, G, S] → shares [B, T, N] of the N owners, the mean of the groups."""
        weights = scores.softmax(-1).mean(2)
        made = weights.new_zeros(*weights.shape[:2], len(self.ids) + 1)
        return made.index_add_(2, self._owner, weights)

    def attention(self) -> Attention:
        """What was attended so far."""
        layers = tuple(sorted(self._sums))
        means = [self._sums[one] / self._tokens[one][:, None] for one in layers]
        shares = torch.stack(means, 1).cpu()
        return Attention(layers, self.ids, shares[..., :-1], shares[..., -1])
