"""Next-token losses of documents with what is attached to the backbone now.

Knows the backbone and token ids; knows no way of learning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentbank.backbone.model import Backbone

__all__ = ["document_ids", "next_token_losses"]


def document_ids(backbone: Backbone, texts: Sequence[str], most: int) -> list[list[int]]:
    """Token ids of texts after the start token: at most `most`, and as many as fit the model."""
    limit = min(most + 1, backbone.geometry.max_positions)
    return [row[:limit] for row in backbone.encode(texts)]


def next_token_losses(backbone: Backbone, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(loss of each token but the first [B, T-1] float32, mask [B, T-1] bool) of token ids.

    Gradients flow to whatever is attached. Padded places have loss 0.
    """
    ids, mask = backbone.pad(rows)
    hidden = backbone.session(len(rows)).feed(ids, mask)
    kept, targets = mask[:, 1:], ids[:, 1:]
    logits = backbone.logits(hidden[:, :-1][kept]).float()
    losses = nn.functional.cross_entropy(logits, targets[kept], reduction="none")
    placed = torch.zeros(kept.shape, device=losses.device, dtype=losses.dtype)
    return placed.masked_scatter(kept, losses), kept
