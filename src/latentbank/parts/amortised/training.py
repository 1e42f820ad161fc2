"""The slots of a training step: which documents get gradients, and which slots a question owns.

Knows batches and tensors; knows no network and no bank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from latentbank.parts.batch import Batch

__all__ = ["learned_share", "own_slots", "partly_learned"]

_SEED = 0x3AC


def learned_share(count: int, share: float, step: int) -> tuple[list[int], list[int]]:
    """(documents that get gradients at `step`, the others), in order; at least one gets them.

    This is MAC's back-propagation dropout.
    """
    if share >= 1:
        return list(range(count)), []
    draw = np.random.default_rng([_SEED, step]).permutation(count)
    learned = set(draw[: max(1, round(share * count))].tolist())
    return sorted(learned), [i for i in range(count) if i not in learned]


def partly_learned(
    amortise: Callable[[Sequence[str]], Tensor], texts: Sequence[str], share: float, step: int
) -> Tensor:
    """The latents [B, T, D] of texts, of which `learned_share` chooses those with gradients."""
    learned, rest = learned_share(len(texts), share, step)
    parts = amortise([texts[i] for i in learned])
    if not rest:
        return parts
    with torch.no_grad():
        frozen = amortise([texts[i] for i in rest])
    order = torch.tensor(learned + rest).argsort()
    return torch.cat([parts, frozen])[order.to(parts.device)]


def own_slots(batch: Batch, latents: int, aligned: bool = False) -> Tensor:
    """Which slots belong to each question's own document: [Q, D·T] bool.

    With `aligned` the answer is [Q, T, D·T] bool: memory token t owns only the document's slot t.
    """
    documents = torch.arange(len(batch.documents)).repeat_interleave(latents)
    own = documents[None] == torch.tensor(batch.owner)[:, None]
    if not aligned:
        return own
    places = torch.arange(latents).repeat(len(batch.documents))
    return own[:, None, :] & (places[None, None, :] == torch.arange(latents)[None, :, None])
