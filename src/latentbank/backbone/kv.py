"""Keys and values: those that a text attends to as memory, and the caches that grow with a text.

Knows tensors only. The backbone makes and attaches them.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    def load(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Fills the empty cache with keys and values [B, H_kv, T, head_dim] of each layer."""
        self.layers = [LayerKV(*pair) for pair in zip(keys, values, strict=True)]

    def pairs(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(keys, values) [B, H_kv, T, head_dim] of each layer."""
        return tuple(one.keys for one in self.layers), tuple(one.values for one in self.layers)

    def select(self, rows: Tensor) -> None:
        """Keeps the batch rows `rows` [B'], repeated or reordered."""
        for one in self.layers:
            one.keys, one.values = one.keys.index_select(0, rows), one.values.index_select(0, rows)

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


def _load(own: Any, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """`load` of a cache that is filled by its `update`."""
    for i, pair in enumerate(zip(keys, values, strict=True)):
        own.update(*pair, own.offset + i)


_SPARE = 16  # tokens that a buffer has room for beside those that it is made for


class StackedCache:
    """Keys and values of the layers first … last-1 in one buffer with room to grow.

    `buffer` [L, B, 2 · H_kv, C, head_dim] holds keys, then values, float32, of `length` tokens; the
    places behind them are zero or old.
    """

    def __init__(self, first: int, last: int, heads: int, head_dim: int) -> None:
        self.first, self.last = first, last
        self._heads, self._head_dim = heads, head_dim
        self.length = 0
        self.buffer = torch.zeros(last - first, 0, 2 * heads, 0, head_dim)

    @property
    def capacity(self) -> int:
        """C, the number of places of each row."""
        return self.buffer.shape[3]

    def reserve(self, batch: int, count: int) -> None:
        """Makes room for `count` more tokens in each of `batch` rows."""
        if self.buffer.shape[1] == batch and self.length + count <= self.capacity:
            return
        layers, places = self.last - self.first, self.length + count + _SPARE
        wider = torch.empty(layers, batch, 2 * self._heads, places, self._head_dim)
        wider[..., self.length :, :] = 0.0  # masked, but a product with NaN would be NaN
        if self.length:
            wider[..., : self.length, :] = self.buffer[..., : self.length, :]
        self.buffer = wider

    def put(self, made: Tensor, first: int) -> None:
        """Writes new keys and values [L', B, 2 · H_kv, T, head_dim] of the layers from `first`.

        `length` is left as it is.
        """
        start, end = first - self.first, first - self.first + len(made)
        self.buffer[start:end, :, :, self.length : self.length + made.shape[3]] = made

    def load(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Fills the empty cache with keys and values [B, H_kv, T, head_dim] of each layer."""
        self.reserve(len(keys[0]), keys[0].shape[2])
        self.length = keys[0].shape[2]
        for own, key, value in zip(self.buffer, keys, values, strict=True):
            own[:, : self._heads, : self.length] = key
            own[:, self._heads :, : self.length] = value

    def pairs(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(keys, values) [B, H_kv, T, head_dim] of each layer; views of the buffer."""
        held = self.buffer[..., : self.length, :]
        keys, values = torch.split(held, self._heads, 2)
        return tuple(keys.unbind()), tuple(values.unbind())

    def select(self, rows: Tensor) -> None:
        """Keeps the batch rows `rows` [B'], repeated or reordered."""
        self.buffer = self.buffer.index_select(1, rows)


@cache
def stage_cache_class() -> Any:
    """The class of transformers' cache for a stage whose first layer has index `offset`."""
    from transformers import DynamicCache

    base: Any = DynamicCache

    class StageCache(base):  # type: ignore[misc]
        """Keeps layer `offset` as its first one."""

        load, pairs, select = _load, GrowingCache.pairs, GrowingCache.select

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
