"""Keys and values: those that a text attends to as memory, and the caches that grow with a text.

Knows tensors only. The backbone makes and attaches them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class KVMemory:
    """Keys and values that text attends to, in the layers `layer` … L-1.

    `keys`, `values`: one tensor [B, H_kv, M, head_dim] per layer from `layer` upward. Keys are as
    in a cache: rotated, where they have a position. `bias` [B, M] is added to the attention scores:
    0, a log mass, or -inf for padding. `start` [B] is the position of the first text token.
    `positions` [B, M] makes sliding windows treat memory like text; with None every layer sees it.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    bias: Tensor
    start: Tensor
    layer: int = 0
    positions: Tensor | None = None

    def rows(self, index: Tensor) -> KVMemory:
        """The memory with batch rows `index` [B'], repeated or reordered."""
        return replace(
            self,
            keys=tuple(k.index_select(0, index) for k in self.keys),
            values=tuple(v.index_select(0, index) for v in self.values),
            bias=self.bias.index_select(0, index),
            start=self.start.index_select(0, index),
            positions=None if self.positions is None else self.positions.index_select(0, index),
        )

    @property
    def slots(self) -> int:
        """M, the number of memory positions of each row, padding included."""
        return self.bias.shape[1]


@dataclass
class LayerKV:
    """Keys and values [B, H_kv, T, head_dim] of one layer."""

    keys: Tensor
    values: Tensor


class GrowingCache:
    """Keys and values of a stage whose first layer has index `offset`, grown at each `update`."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.layers: list[LayerKV] = []

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values of layer `layer`, the new ones [B, H_kv, T, head_dim] at the end."""
        index = layer - self.offset
        if index == len(self.layers):
            self.layers.append(LayerKV(keys, values))
        else:
            held = self.layers[index]
            held.keys = torch.cat([held.keys, keys], 2)
            held.values = torch.cat([held.values, values], 2)
        return self.layers[index].keys, self.layers[index].values


@cache
def stage_cache_class() -> Any:
    """The class of transformers' cache for a stage whose first layer has index `offset`."""
    from transformers import DynamicCache

    base: Any = DynamicCache

    class StageCache(base):  # type: ignore[misc]
        """Keeps layer `offset` as its first one."""

        def __init__(self, offset: int) -> None:
            super().__init__()
            self.offset = offset

        def update(
            self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            """See `GrowingCache.update`."""
            updated: tuple[Tensor, Tensor] = super().update(
                keys, values, layer - self.offset, *args, **kwargs
            )
            return updated

    return StageCache
