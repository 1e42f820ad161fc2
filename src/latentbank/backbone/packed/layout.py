"""How packed texts lie in one line of tokens, and which of them see each other.

A group is a memory and texts after it that do not see each other. Knows lengths; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_MOST_SCORES = 1 << 19  # limit of the attention scores of one head in a bucket, on a CPU
_WASTE = 1.25  # limit of a bucket's longest group divided by its shortest


@dataclass(frozen=True)
class Group:
    """`memory` tokens, `shared` tokens with which all texts begin, then the rest of each text."""

    memory: int
    shared: int
    rests: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """The tokens of the group in the line."""
        return self.memory + self.shared + sum(self.rests)


@dataclass(frozen=True)
class Bucket:
    """Groups of like length that are attended to in one product.

    `mask` [G, n, n] is added to the scores. `index` [G, n] is the place of each token in the line,
    and N for padding. It is None for a bucket of one group, which starts at `start`.
    """

    mask: Tensor
    start: int
    index: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """(G, n): groups, and tokens of the longest group."""
        return self.mask.shape[0], self.mask.shape[1]

    def take(self, line: Tensor) -> Tensor:
        """The tokens [G, n, …] of the line [N, …]; padding is zero."""
        count, n = self.shape
        if self.index is None:
            return line[None, self.start : self.start + n]
        flat = self.index.view(-1)
        taken = line.index_select(0, flat.clamp(max=len(line) - 1))
        taken[flat == len(line)] = 0
        return taken.view(count, n, *line.shape[1:])

    def put(self, rows: Tensor, line: Tensor) -> None:
        """Writes the tokens [G, n, …] into the line [N, …]; padding is dropped."""
        if self.index is None:
            line[self.start : self.start + rows.shape[1]] = rows[0]
            return
        flat = self.index.view(-1)
        real = flat < len(line)
        line[flat[real]] = rows.flatten(0, 1)[real]


@dataclass(frozen=True)
class Layout:
    """The `positions` [N] of the tokens in their own texts; `buckets` cover each token once."""

    positions: Tensor
    buckets: tuple[Bucket, ...]

    @classmethod
    def of(cls, groups: Sequence[Group], dtype: torch.dtype, device: torch.device) -> Layout:
        """The layout of groups that lie one after the other."""
        positions = np.concatenate([_positions(group) for group in groups])
        starts = np.cumsum([0, *(group.tokens for group in groups)])
        total = int(starts[-1])
        buckets = []
        for members in _bucketed(groups, device):
            n = max(groups[i].tokens for i in members)
            seen = np.zeros((len(members), n, n), dtype=bool)
            index = np.full((len(members), n), total)
            for row, i in enumerate(members):
                own = groups[i].tokens
                seen[row, :own, :own] = _visible(groups[i])
                seen[row, own:, 0] = True  # padding: a finite row
                index[row, :own] = starts[i] + np.arange(own)
            mask = torch.zeros(seen.shape, dtype=dtype)
            mask.masked_fill_(~torch.from_numpy(seen), torch.finfo(dtype).min)
            whole = len(members) == 1
            buckets.append(
                Bucket(
                    mask.to(device),
                    int(starts[members[0]]),
                    None if whole else torch.from_numpy(index).to(device),
                )
            )
        return cls(torch.from_numpy(positions).to(device), tuple(buckets))


def _positions(group: Group) -> npt.NDArray[np.int64]:
    """Positions [N] of a group's tokens: each text continues after the shared tokens."""
    first = group.memory + group.shared
    rests = [first + np.arange(length) for length in group.rests]
    return np.concatenate([np.arange(first), *rests]).astype(np.int64)


def _visible(group: Group) -> npt.NDArray[np.bool_]:
    """What each token sees, [n, n]: earlier tokens of the memory, the shared part and its text."""
    n, first = group.tokens, group.memory + group.shared
    seen = np.tril(np.ones((n, n), dtype=bool))
    text = np.repeat(np.arange(len(group.rests)), group.rests)
    seen[first:, first:] &= text[:, None] == text[None, :]
    return seen


def _bucketed(groups: Sequence[Group], device: torch.device) -> list[list[int]]:
    """The groups of each bucket: on a CPU groups of like length, else all in one."""
    order = sorted(range(len(groups)), key=lambda i: groups[i].tokens)
    if device.type != "cpu":
        return [order]
    buckets: list[list[int]] = []
    for i in order:
        last = buckets[-1] if buckets else []
        n = groups[i].tokens
        fits = last and n <= _WASTE * groups[last[0]].tokens
        if fits and (len(last) + 1) * n * n <= _MOST_SCORES:
            last.append(i)
        else:
            buckets.append([i])
    return buckets
