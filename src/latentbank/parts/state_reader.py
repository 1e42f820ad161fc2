"""Turns mid-layer states of documents into keys and values of the layers above, and caches them.

Knows states, the backbone and its low-rank weights; knows no bank, level or retrieval.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.model import Backbone

__all__ = ["HotCache", "StateReader"]

_TOGETHER = 16  # documents that run through the upper layers side by side
_LONGER = 1.2  # the longest of them over the shortest


class StateReader:
    """Reads states of layer `layer` through the layers above it, with `lora` attached."""

    def __init__(
        self, backbone: Backbone, layer: int, lora: LoraWeights | None, hot_bytes: int
    ) -> None:
        """`hot_bytes` limits the cache `hot` of keys and values by document id."""
        self.hot = HotCache(hot_bytes)
        self._backbone, self._layer, self._lora = backbone, layer, lora

    @torch.no_grad()
    def memory(
        self, rows: Sequence[Sequence[str]], states_of: Callable[[str], Tensor | None]
    ) -> KVMemory | None:
        """The keys and values of the documents of each row; None where no row names a document.

        `rows` hold document ids. `states_of` gives the states [M, D] of a document, the start
        token's first, or None for an unknown id.
        """
        needed = list(dict.fromkeys(id for row in rows for id in row))
        held = {id: self.hot.get(id) for id in needed}
        cold = [id for id in needed if held[id] is None]
        for at in range(0, len(cold), _TOGETHER):
            part = {id: states_of(id) for id in cold[at : at + _TOGETHER]}
            found = {id: row for id, row in part.items() if row is not None}
            for group in _alike(found):
                held |= self._read(group)
        if not needed:
            return None
        memories = [[item for id in row if (item := held[id]) is not None] for row in rows]
        return join_rows(memories, self._layer, self._backbone)

    def _read(self, states: dict[str, Tensor]) -> dict[str, KVMemory]:
        """Runs documents through the upper layers and puts the results into the cache."""
        if not states:
            return {}
        longest = max(len(row) for row in states.values())
        mask = torch.zeros(len(states), longest, dtype=torch.bool)
        padded = torch.zeros(*mask.shape, next(iter(states.values())).shape[1])
        for i, row in enumerate(states.values()):
            padded[i, : len(row)], mask[i, : len(row)] = row, True
        filled = self._fill(padded.to(self._backbone.device), mask.to(self._backbone.device))
        memories: dict[str, KVMemory] = {}
        for i, (id, row) in enumerate(states.items()):
            length = len(row)
            memories[id] = one = KVMemory(
                tuple(k[i : i + 1, :, :length].clone() for k in filled.keys),
                tuple(v[i : i + 1, :, :length].clone() for v in filled.values),
                filled.bias[i : i + 1, :length].clone(),
                filled.start[i : i + 1].clone(),
                filled.layer,
                None if filled.positions is None else filled.positions[i : i + 1, :length].clone(),
            )
            self.hot.put(id, one)
        return memories

    def _fill(self, states: Tensor, mask: Tensor) -> KVMemory:
        if self._lora is None:
            return self._backbone.fill(states, mask, self._layer)
        with self._lora.attach(self._backbone):
            return self._backbone.fill(states, mask, self._layer)


def _alike(states: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Documents in groups of like length: what pads a group is computed for nothing."""
    groups: list[dict[str, Tensor]] = []
    shortest = 0
    for id, row in sorted(states.items(), key=lambda pair: len(pair[1])):
        if not groups or len(row) > _LONGER * shortest:
            groups.append({})
            shortest = len(row)
        groups[-1][id] = row
    return groups


def join_rows(rows: Sequence[Sequence[KVMemory]], layer: int, backbone: Backbone) -> KVMemory:
    """Puts memories of single documents side by side: one row for each question, right-padded.

    Documents do not see each other. Each starts at position 0. The question's text starts after the
    longest of them.
    """
    if len(rows) == 1 and len(rows[0]) == 1:  # nothing to pad, nothing to copy
        return rows[0][0]
    g = backbone.geometry
    sizes = [sum(item.slots for item in row) for row in rows]
    shape = (len(rows), g.kv_heads, max([*sizes, 1]), g.head_dim)
    dtypes = [item.keys[0].dtype for row in rows for item in row]
    empty = torch.zeros(shape, dtype=(dtypes or [backbone.dtype])[0], device=backbone.device)
    keys = [empty.clone() for _ in range(layer, g.layers)]
    values = [empty.clone() for _ in range(layer, g.layers)]
    bias = torch.full((len(rows), shape[2]), -torch.inf, device=backbone.device)
    positions = torch.zeros(len(rows), shape[2], dtype=torch.long, device=backbone.device)
    start = torch.zeros(len(rows), dtype=torch.long, device=backbone.device)
    for i, row in enumerate(rows):
        at = 0
        for item in row:
            span = slice(at, at + item.slots)
            for own, given in ((keys, item.keys), (values, item.values)):
                for target, source in zip(own, given, strict=True):
                    target[i, :, span] = source[0]
            bias[i, span] = item.bias[0]
            if item.positions is not None:
                positions[i, span] = item.positions[0]
            start[i] = torch.maximum(start[i], item.start[0])
            at += item.slots
    return KVMemory(tuple(keys), tuple(values), bias, start, layer, positions)


class HotCache:
    """Keys and values of the documents that were read last, within a limit in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.bytes = limit_bytes, 0
        self._items: OrderedDict[str, KVMemory] = OrderedDict()

    def clear(self) -> None:
        """Forgets everything."""
        self._items.clear()
        self.bytes = 0

    def get(self, id: str) -> KVMemory | None:
        """The keys and values of a document, which becomes the last one read; None if absent."""
        item = self._items.get(id)
        if item is not None:
            self._items.move_to_end(id)
        return item

    def drop(self, ids: Sequence[str]) -> None:
        """Forgets documents; unknown ids are ignored."""
        for id in ids:
            item = self._items.pop(id, None)
            self.bytes -= 0 if item is None else _memory_bytes(item)

    def put(self, id: str, item: KVMemory) -> None:
        """Adds an item and drops those read longest ago. An item above the limit is not added."""
        size = _memory_bytes(item)
        if size > self.limit_bytes or id in self._items:
            return
        self._items[id] = item
        self.bytes += size
        while self.bytes > self.limit_bytes:
            _, dropped = self._items.popitem(last=False)
            self.bytes -= _memory_bytes(dropped)


def _memory_bytes(item: KVMemory) -> int:
    return sum(t.numel() * t.element_size() for t in (*item.keys, *item.values))
