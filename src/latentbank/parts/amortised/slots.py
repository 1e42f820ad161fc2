"""Slots: what a reader attends to, with masses and owners.

Knows tensors and ids. m identical slots and one slot of mass m give the same attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentbank.backbone.transports import Sources
from latentbank.errors import InputError

NAMED = 4  # documents that an answer names at most


@dataclass(frozen=True)
class Slots:
    """S slots.

    `values` are [S, D]. `log_mass` [S] is added to the attention scores. `owner` [S] is the number
    of the document that a slot came from, -1 for none.

    Raises:
        InputError: the three parts have different lengths.
    """

    values: Tensor
    log_mass: Tensor
    owner: Tensor

    def __post_init__(self) -> None:
        sizes = {t.shape[0] for t in (self.values, self.log_mass, self.owner)}
        if len(sizes) != 1:
            raise InputError(f"slots need one length for all parts, got {sorted(sizes)}")

    def __len__(self) -> int:
        return self.values.shape[0]

    @classmethod
    def empty(cls, width: int) -> Slots:
        """No slots of width D."""
        return cls(torch.zeros(0, width), torch.zeros(0), torch.zeros(0, dtype=torch.long))

    @classmethod
    def of(cls, latents: Tensor, owner: Tensor | None = None) -> Slots:
        """Slots of mass 1 from latents [S, D]."""
        owner = torch.full(latents.shape[:1], -1) if owner is None else owner
        return cls(latents, torch.zeros(latents.shape[0]), owner)

    @classmethod
    def append(cls, parts: Sequence[Slots]) -> Slots:
        """All slots of the parts, in order. Raises InputError for no parts."""
        if not parts:
            raise InputError("Slots.append needs at least one part, got none")
        return cls(
            torch.cat([p.values for p in parts]),
            torch.cat([p.log_mass for p in parts]),
            torch.cat([p.owner for p in parts]),
        )

    def bias(self, device: torch.device) -> Tensor | None:
        """Log masses [1, S] on `device`, or None where all are zero."""
        return self.log_mass[None].to(device) if bool((self.log_mass != 0).any()) else None


def top_sources(shares: Tensor, ids: Sequence[Sequence[str]]) -> Sources:
    """(id, share) of the `NAMED` largest shares [B, N] of each question; `ids` [B] rows of N."""
    best = shares.topk(min(NAMED, shares.shape[1]), dim=1)
    return tuple(
        tuple((row[i], share) for i, share in zip(places, values, strict=True))
        for row, places, values in zip(
            ids, best.indices.tolist(), best.values.tolist(), strict=True
        )
    )
