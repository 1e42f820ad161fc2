"""Turns the states of a text into fewer vectors: standardisation and contiguous segment pooling.

Knows tensors only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardiser(nn.Module):
    """Mean and standard deviation of each state dimension, measured once before training.

    A few dimensions of mid-layer states have an enormous variance. Without standardisation they
    alone would decide what a codebook or a key keeps.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def measure(self, states: Tensor, mask: Tensor) -> None:
        """Sets the buffers from states [B, T, D], mask [B, T] bool."""
        rows = states[mask].float()
        self.mean.copy_(rows.mean(0))
        self.std.copy_(rows.std(0).clamp_min(1e-4))

    def forward(self, states: Tensor) -> Tensor:
        """Standardised states, same shape."""
        return (states - self.mean) / self.std

    def restore(self, states: Tensor) -> Tensor:
        """The inverse of `forward`."""
        return states * self.std + self.mean


class SegmentPooler(nn.Module):
    """States [B, T, D] → up to k vectors [B, k, D], one for each of k contiguous segments.

    A vector is the mean of its segment under learned softmax weights, plus a small residual MLP
    that starts at zero.
    """

    def __init__(self, width: int, hidden: int = 384) -> None:
        super().__init__()
        last, leave = nn.Linear(64, 1), nn.Linear(hidden, width)
        for layer in (last, leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.score = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), last)
        self.residual = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), leave
        )

    def forward(self, states: Tensor, mask: Tensor, segments: int) -> tuple[Tensor, Tensor]:
        """(vectors [B, k, D], mask [B, k] bool) of standardised states.

        A text of fewer tokens than `segments` gives one vector for each token.
        """
        score = self.score(states).squeeze(-1)
        score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
        weight = (score - score.amax(1, keepdim=True).detach()).exp() * mask
        pooled = _weighted_means(states, weight, mask, segments)
        count = mask.sum(1, keepdim=True).clamp(1, segments)
        kept = torch.arange(segments, device=mask.device)[None] < count
        return (pooled + self.residual(pooled)) * kept[..., None], kept & mask.any(1, keepdim=True)


def segment_means(states: Tensor, mask: Tensor, segments: int) -> Tensor:
    """Means [B, k, D] of k contiguous segments of states [B, T, D], mask [B, T] bool.

    In a text of fewer tokens than `segments` the last means are zero.
    """
    return _weighted_means(states, mask.to(states), mask, segments)


def _weighted_means(states: Tensor, weight: Tensor, mask: Tensor, segments: int) -> Tensor:
    """Weighted means [B, k, D] of contiguous segments; weight [B, T] >= 0, zero where masked."""
    batch, _, width = states.shape
    lengths = mask.sum(1, keepdim=True).clamp_min(1)
    count = lengths.clamp(max=segments)
    place = mask.cumsum(1) - 1
    segment = (place * count // lengths).clamp(0, segments - 1)
    total = states.new_zeros(batch, segments).scatter_add(1, segment, weight)
    index = segment[..., None].expand(-1, -1, width)
    summed = states.new_zeros(batch, segments, width).scatter_add(
        1, index, states * weight[..., None]
    )
    return summed / total[..., None].clamp_min(1e-9)


def whitening(scatter: Tensor, kept: int, shrinkage: float) -> Tensor:
    """The map [D, kept] that gives data with the covariance `scatter` [D, D] unit variance.

    Keeps the `kept` directions of largest variance. `shrinkage` times the mean variance is added to
    each variance, so that weak noise is not amplified.
    """
    size, axis = torch.linalg.eigh(scatter)
    white: Tensor = axis[:, -kept:] / (size[-kept:] + shrinkage * size.mean()).sqrt()
    return white
