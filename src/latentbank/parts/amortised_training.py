"""What amortised memories do in training only: gradients for a share of the documents, and the
slots of a question's own document.

Knows batches and tensors; no network and no bank. MAC and MBC share these parts.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from latentbank.method import Batch

SEED = 0x3AC


def learned_share(count: int, share: float, step: int) -> tuple[list[int], list[int]]:
    """(documents that get gradients at `step`, the others), in order: MAC's back-propagation
    dropout. At least one is learned.
    """
    if share >= 1:
        return list(range(count)), []
    draw = np.random.default_rng([SEED, step]).permutation(count)
    learned = set(draw[: max(1, round(share * count))].tolist())
    return sorted(learned), [i for i in range(count) if i not in learned]


def own_slots(batch: Batch, latents: int, aligned: bool = False) -> Tensor:
    """Which slots belong to each question's own document: [Q, D·T] bool, or where `aligned`, which
    of them is memory token t's own: its t-th, [Q, T, D·T].
    """
    documents = torch.arange(len(batch.documents)).repeat_interleave(latents)
    own = documents[None] == torch.tensor(batch.owner)[:, None]
    if not aligned:
        return own
    places = torch.arange(latents).repeat(len(batch.documents))
    return own[:, None, :] & (places[None, None, :] == torch.arange(latents)[None, :, None])
