"""Changes to a few rows of a large table, kept as sorted row numbers and their differences.

The table is never written. Knows rows and codecs; knows no model and no bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from latentbank.codec.arrays import array_codec
from latentbank.errors import BankError

__all__ = ["SparseDelta"]


@dataclass
class SparseDelta:
    """Differences `values` [R, V] float32 to the rows `index` [R], which rise."""

    width: int
    index: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    values: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def __post_init__(self) -> None:
        self.values = self.values.view(len(self.index), self.width)

    def __len__(self) -> int:
        """Number of changed rows."""
        return len(self.index)

    def copy(self) -> SparseDelta:
        """A delta that does not change with this one."""
        return SparseDelta(self.width, self.index.clone(), self.values.clone())

    def find(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(place [U] of each row in `index`, whether it is there [U]); costs U · log R."""
        if not len(self):
            return torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
        place = torch.searchsorted(self.index, rows).clamp_max(len(self) - 1)
        return place, self.index[place] == rows

    def added_to(self, values: Tensor, rows: Tensor) -> Tensor:
        """`values` [U, V] of the rows [U] with their differences; gradients flow to `values`."""
        place, there = self.find(rows.to(self.index.device))
        if not bool(there.any()):
            return values
        changed = there.nonzero().flatten()
        added = self.values[place[changed]].to(values)
        return values.index_add(0, changed.to(values.device), added)

    def add(self, rows: Tensor, step: Tensor) -> None:
        """Adds `step` [U, V] to the distinct rows [U] in rising order; others are not touched."""
        place, there = self.find(rows)
        if bool(there.any()):
            self.values.index_add_(0, place[there], step[there])
        if not bool(there.all()):
            index = torch.cat([self.index, rows[~there]])
            values = torch.cat([self.values, step[~there]])
            order = index.argsort()
            self.index, self.values = index[order], values[order]

    def rounded(self, codec: str) -> SparseDelta:
        """The delta as it comes back from its bytes."""
        return SparseDelta.of(self.tensors(codec), codec, self.width, 1 << 62)

    def tensors(self, codec: str) -> dict[str, Tensor]:
        """`rows` int32 [R] and `values` uint8, the bytes of the array codec `codec`.

        Raises:
            InputError: a value outside of the codec's range.
        """
        data = array_codec(codec).encode(self.values.numpy())
        raw = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
        return {"rows": self.index.to(torch.int32), "values": raw}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], codec: str, width: int, slots: int) -> SparseDelta:
        """From what `tensors` gave, for a table of `slots` rows.

        Raises:
            BankError: rows and values do not belong to such a table.
        """
        rows, raw = tensors.get("rows"), tensors.get("values")
        if rows is None or raw is None:
            raise BankError("the bank's sparse delta has no rows or no values")
        index = rows.to(torch.int64)
        values = array_codec(codec).decode(raw.numpy().tobytes(), width)
        rising = bool((index[1:] > index[:-1]).all())
        if len(values) != len(index) or not rising:
            raise BankError(
                f"the bank's sparse delta names {len(index)} rows and has values of {len(values)}; "
                "it belongs to another table or is damaged"
            )
        if len(index) and not 0 <= int(index[0]) <= int(index[-1]) < slots:
            raise BankError(
                f"the bank's sparse delta changes row {int(index[-1])}; the table has {slots} rows"
            )
        return cls(width, index, torch.from_numpy(values))

    @classmethod
    def merged(cls, deltas: Sequence[SparseDelta], width: int, mean: bool = False) -> SparseDelta:
        """The sum of several deltas, or in each row the mean of those that change it."""
        total = cls(width)
        times = cls(1)
        for one in deltas:
            total.add(one.index, one.values)
            times.add(one.index, torch.ones(len(one), 1))
        return cls(width, total.index, total.values / times.values) if mean else total
