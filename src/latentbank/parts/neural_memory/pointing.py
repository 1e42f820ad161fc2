"""Which of many keys a query picks, as a loss: a contrast that makes keys findable.

Contrastive learning after van den Oord, Li, Vinyals, 2018, https://arxiv.org/abs/1807.03748, with
several right keys for a query. Knows vectors; knows no texts and no memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["pointing_loss"]

SHARPNESS = 12.0  # keys and queries have norm 1


def pointing_loss(
    queries: Tensor, keys: Tensor, spots: Sequence[Sequence[int]], sharpness: float = SHARPNESS
) -> tuple[Tensor, float]:
    """(loss, share of the queries whose nearest key is a right one).

    Args:
        queries: [Q, d], each of norm 1.
        keys: [K, d], each of norm 1.
        spots: for each query the places of the right keys; a query without any does not count.

    Returns:
        The mean of -log of what a softmax over all keys gives to the right ones; 0 if no query
        counts.
    """
    asked = [at for at, places in enumerate(spots) if places]
    if not asked:
        return queries.sum() * 0, 0.0
    scores = queries[asked] @ keys.T
    right = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    for row, at in enumerate(asked):
        right[row, list(spots[at])] = True
    logs = (sharpness * scores).log_softmax(-1)
    loss = -logs.masked_fill(~right, -torch.inf).logsumexp(-1).mean()
    hits = right[torch.arange(len(asked)), scores.argmax(-1)]
    return loss, float(hits.float().mean())
