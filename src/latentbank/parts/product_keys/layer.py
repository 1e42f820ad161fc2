"""A memory layer: product keys choose slots, a gate scales what their values add.

Berges et al., 2024, "Memory Layers at Scale", https://arxiv.org/abs/2412.09764; product keys are by
Lample et al., 2019, https://arxiv.org/abs/1907.05242. Knows tensors; knows no backbone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Accesses", "MemoryLayer", "ProductKeys", "normalised"]

Rows = Callable[[Tensor, Tensor], Tensor]
"""(distinct slots [U], slots of each token [T, A]) → values [U, V]."""


class ProductKeys(nn.Module):
    """Finds the `top` best of side² slots for each head, at the cost of 2 · side scores.

    The key of slot i · side + j is the pair (first sub-key i, second sub-key j). Its score is the
    sum of both halves' scores, so the best slots are among the pairs of the `top` best halves.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, width: int, side: int, heads: int, key_width: int, top: int) -> None:
        super().__init__()
        self.side, self.heads, self.top = side, heads, min(top, side)
        self.half_width = half = key_width // 2
        self.query = nn.Linear(width, heads * 2 * half, bias=False)
        self.keys = nn.Parameter(torch.randn(heads, 2, side, half) * half**-0.5)
        self.register_buffer("centre", torch.zeros(heads * 2 * half))
        self.register_buffer("spread", torch.ones(heads * 2 * half))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(slots, weights), each [T, heads, top], of states [T, D]; weights of a head sum to 1."""
        query = (self.query(states) - self.centre) / self.spread
        query = query.view(-1, self.heads, 2, self.half_width)
        query = functional.layer_norm(query, (self.half_width,))
        scores = torch.einsum("thcd,hcsd->thcs", query, self.keys)  # (T, heads, 2, side)
        best, place = scores.topk(self.top, dim=-1)
        sums = (best[:, :, 0, :, None] + best[:, :, 1, None, :]).flatten(2)
        score, pair = sums.topk(self.top, dim=-1)
        first = place[:, :, 0].gather(-1, pair // self.top)
        second = place[:, :, 1].gather(-1, pair % self.top)
        return first * self.side + second, score.softmax(-1)

    @torch.no_grad()
    def measure(self, states: Tensor) -> None:
        """Takes mean and spread of the queries from states [T, D].

        States of a language model share a large mean. Without this most tokens find the same slots.
        """
        query = self.query(states)
        self.centre.copy_(query.mean(0))
        self.spread.copy_(query.std(0).clamp_min(1e-6))


class MemoryLayer(nn.Module):
    """W_o (o ⊙ SiLU(W_g x)) with o the weighted sum of the values of the chosen slots.

    x is normalised to mean 0 and variance 1 first, so that backbones of any scale fit.
    """

    def __init__(
        self, width: int, value_width: int, side: int, heads: int, key_width: int, top: int
    ) -> None:
        super().__init__()
        self.finder = ProductKeys(width, side, heads, key_width, top)
        self.gate = nn.Linear(width, value_width, bias=False)
        self.out = nn.Linear(value_width, width, bias=False)

    def forward(self, states: Tensor, rows: Rows) -> Tensor:
        """What the memory adds, [..., D] in the dtype of `states` [..., D].

        `rows` gives the values. It is asked once for each distinct slot.
        """
        flat = normalised(states)
        slots, weights = (one.flatten(1) for one in self.finder(flat))  # (T, heads · top)
        used, place = torch.unique(slots, return_inverse=True)
        values = rows(used, slots.view(*states.shape[:-1], -1))
        mixed = functional.embedding_bag(place, values, per_sample_weights=weights, mode="sum")
        added: Tensor = self.out(mixed * functional.silu(self.gate(flat)))
        return added.view(states.shape).to(states.dtype)


def normalised(states: Tensor) -> Tensor:
    """States [..., D] as rows [T, D] float32 of mean 0 and variance 1."""
    flat = states.flatten(0, -2).float()
    return functional.layer_norm(flat, flat.shape[-1:])


class Accesses:
    """The slots that one pass accessed, layer by layer, and the value rows that it read."""

    def __init__(self) -> None:
        self.slots: list[Tensor] = []  # of each token [B, T, A]
        self.used: list[Tensor] = []  # distinct [U]
        self.leaves: list[Tensor] = []  # their values [U, V]

    def counts(self, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(distinct slots, accesses) of the places where `mask` [B, T] holds, all layers."""
        read = [(one if mask is None else one[mask]).flatten() for one in self.slots]
        used, times = torch.unique(torch.cat(read), return_counts=True)
        return used, times
