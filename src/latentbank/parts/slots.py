"""The slot algebra: what a reader attends to, with masses and owners.

Knows tensors only. m identical slots and one slot of mass m give the same attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentbank.errors import InputError


@dataclass(frozen=True)
class Slots:
    """S slots: `keys`, `values` [S, D]; `log_mass` [S] is added to attention scores; `owner` [S] is
    the number of the document a slot came from, -1 for none.
    """

    keys: Tensor
    values: Tensor
    log_mass: Tensor
    owner: Tensor

    def __post_init__(self) -> None:
        sizes = {t.shape[0] for t in (self.keys, self.values, self.log_mass, self.owner)}
        if len(sizes) != 1:
            raise InputError(f"slots need one length for all parts, got {sorted(sizes)}")

    def __len__(self) -> int:
        return self.keys.shape[0]

    @classmethod
    def empty(cls, width: int) -> Slots:
        """No slots of width D."""
        nothing = torch.zeros(0, width)
        return cls(nothing, nothing, torch.zeros(0), torch.zeros(0, dtype=torch.long))

    @classmethod
    def of(cls, latents: Tensor, owner: Tensor | None = None) -> Slots:
        """Slots of mass 1 whose keys are their values, from latents [S, D]."""
        owner = torch.full(latents.shape[:1], -1) if owner is None else owner
        return cls(latents, latents, torch.zeros(latents.shape[0]), owner)

    @classmethod
    def append(cls, parts: Sequence[Slots]) -> Slots:
        """All slots of the parts, in order. Raises InputError for no parts."""
        if not parts:
            raise InputError("nothing to append; use Slots.empty")
        return cls(
            torch.cat([p.keys for p in parts]),
            torch.cat([p.values for p in parts]),
            torch.cat([p.log_mass for p in parts]),
            torch.cat([p.owner for p in parts]),
        )

    def select(self, index: Tensor) -> Slots:
        """The slots at `index` (bool mask [S] or positions)."""
        return Slots(self.keys[index], self.values[index], self.log_mass[index], self.owner[index])

    def remove(self, owners: Tensor) -> Slots:
        """Without the slots of these documents."""
        return self.select(~torch.isin(self.owner, owners))

    def decay(self, factor: float) -> Slots:
        """Every mass times `factor` in (0, 1]."""
        if not 0 < factor <= 1:
            raise InputError(f"a decay factor lies in (0, 1], got {factor}")
        return Slots(self.keys, self.values, self.log_mass + torch.tensor(factor).log(), self.owner)

    def merge(self) -> Slots:
        """Identical slots become one whose mass is the sum; the owner stays where all agree."""
        if not len(self):
            return self
        both = torch.cat([self.keys, self.values], 1)
        unique, inverse = torch.unique(both, dim=0, return_inverse=True)
        count, width = unique.shape[0], self.keys.shape[1]
        peak = torch.full((count,), -torch.inf).scatter_reduce(0, inverse, self.log_mass, "amax")
        total = torch.zeros(count).index_add(0, inverse, (self.log_mass - peak[inverse]).exp())
        low = torch.full((count,), 1 << 62).scatter_reduce(0, inverse, self.owner, "amin")
        high = torch.full((count,), -(1 << 62)).scatter_reduce(0, inverse, self.owner, "amax")
        owner = torch.where(low == high, low, -1)
        return Slots(unique[:, :width], unique[:, width:], total.log() + peak, owner)
