"""The slots of a training step: which documents get gradients, and which slots a question owns.

Knows batches and tensors; knows no network and no bank.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from latentbank.parts.batch import Batch

__all__ = ["learned_share", "own_slots"]

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
