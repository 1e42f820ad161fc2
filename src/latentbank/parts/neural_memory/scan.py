"""Linear recurrences over a chunk, all tokens at once.

Titans writes the memory as M_t = (1 - α_t)·M_{t-1} + S_t with S_t = η_t·S_{t-1} - θ_t·∇ℓ_t
(equations 13 and 14). Both are linear, so each M_t is a weighted sum of M_0, S_0 and the gradients
of the chunk. Knows gates; knows no network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Gates(NamedTuple):
    """Gates [..., T] of T tokens: forget α, momentum η, step θ, and which tokens are real."""

    forget: Tensor
    momentum: Tensor
    step: Tensor
    real: Tensor


def associative_scan(decay: Tensor, added: Tensor) -> Tensor:
    """x_t = decay_t · x_{t-1} + added_t for all t, with x_0 = 0, in log2 T passes.

    `decay` [N, T]; `added` [N, T, ...]. The pairs (decay, added) compose associatively; each pass
    joins spans of twice the length (Hillis and Steele, 1986). No division, so a decay of 0 is fine.
    """
    length, span = decay.shape[1], 1
    trailing = (1,) * (added.dim() - 2)
    while span < length:
        reach = decay[:, span:].reshape(*decay[:, span:].shape, *trailing)
        joined = added[:, span:] + reach * added[:, :-span]
        added = torch.cat([added[:, :span], joined], 1)
        decay = torch.cat([decay[:, :span], decay[:, span:] * decay[:, :-span]], 1)
        span *= 2
    return added


def coefficients(gates: Gates) -> tuple[Tensor, Tensor]:
    """How much of what is in each weight of a chunk: (of M_t, of S_t), [N, T, T + 2] both.

    Gates are [N, T]. Column i < T is the share of token i's gradient, column T that of S_0, and
    column T + 1 that of M_0. Padding changes neither M nor S.
    """
    forget, momentum, step, real = gates
    count, length = forget.shape
    one = torch.ones_like(forget)
    added = forget.new_zeros(count, length, length + 2)
    added = added + torch.nn.functional.pad(torch.diag_embed(-step * real), (0, 2))
    momentum = torch.where(real > 0, momentum, one)
    first = torch.nn.functional.one_hot(torch.tensor(length), length + 2).to(added)
    added = torch.cat([added[:, :1] + momentum[:, :1, None] * first, added[:, 1:]], 1)
    of_momentum = associative_scan(momentum, added)
    keep = torch.where(real > 0, 1 - forget, one)
    first = torch.nn.functional.one_hot(torch.tensor(length + 1), length + 2).to(added)
    added = of_momentum * real[..., None]
    added = torch.cat([added[:, :1] + keep[:, :1, None] * first, added[:, 1:]], 1)
    return associative_scan(keep, added), of_momentum
