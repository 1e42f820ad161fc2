"""Reads mid-layer states of documents: as keys and values of the layers above, cached by document.

Knows states, the backbone and its low-rank weights; knows no bank, level or retrieval.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from latentbank.backbone.kv import KVMemory, join_rows
from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.model import Backbone

__all__ = ["HotCache", "StateReader"]

_TOGETHER = 16  # documents that run through the upper layers side by side


class StateReader:
    """Reads states of layer `layer` through the layers above it, with `lora` attached."""

    def __init__(
        self, backbone: Backbone, layer: int, lora: LoraWeights | None, hot_bytes: int
    ) -> None:
        """`hot_bytes`: limit of the keys and values that are remembered by name in `hot`."""
        self.hot = HotCache(hot_bytes)
        self._backbone, self._layer, self._lora = backbone, layer, lora

    @torch.no_grad()
    def memory(
        self, rows: Sequence[Sequence[str]], states_of: Callable[[str], Tensor | None]
    ) -> KVMemory | None:
        """The keys and values of the documents of each row; None where no row names any.

        `states_of` gives the states [M, D] of a document by its name, the start token's first, or
        None for one that is not there.
        """
        needed = list(dict.fromkeys(name for row in rows for name in row))
        held = {name: self.hot.get(name) for name in needed}
        cold = [name for name in needed if held[name] is None]
        for at in range(0, len(cold), _TOGETHER):
            part = {name: states_of(name) for name in cold[at : at + _TOGETHER]}
            held |= self._read({name: row for name, row in part.items() if row is not None})
        if not needed:
            return None
        return join_rows(
            [[item for name in row if (item := held[name]) is not None] for row in rows],
            self._layer,
            self._backbone.geometry.layers - self._layer,
            self._backbone,
        )

    def _read(self, states: dict[str, Tensor]) -> dict[str, KVMemory]:
        """Runs documents through the upper layers and remembers the result."""
        if not states:
            return {}
        longest = max(len(row) for row in states.values())
        mask = torch.zeros(len(states), longest, dtype=torch.bool)
        padded = torch.zeros(*mask.shape, next(iter(states.values())).shape[1])
        for i, row in enumerate(states.values()):
            padded[i, : len(row)], mask[i, : len(row)] = row, True
        filled = self._fill(padded.to(self._backbone.device), mask.to(self._backbone.device))
        found: dict[str, KVMemory] = {}
        for i, (name, row) in enumerate(states.items()):
            length = len(row)
            found[name] = one = KVMemory(
                tuple(k[i : i + 1, :, :length].clone() for k in filled.keys),
                tuple(v[i : i + 1, :, :length].clone() for v in filled.values),
                filled.bias[i : i + 1, :length].clone(),
                filled.start[i : i + 1].clone(),
                filled.layer,
                None if filled.positions is None else filled.positions[i : i + 1, :length].clone(),
            )
            self.hot.put(name, one)
        return found

    def _fill(self, states: Tensor, mask: Tensor) -> KVMemory:
        if self._lora is None:
            return self._backbone.fill(states, mask, self._layer)
        with self._lora.attach(self._backbone):
            return self._backbone.fill(states, mask, self._layer)


class HotCache:
    """Keys and values of the documents that were read last, under a limit in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.bytes = limit_bytes, 0
        self._items: OrderedDict[str, KVMemory] = OrderedDict()

    def clear(self) -> None:
        """Forgets everything."""
        self._items.clear()
        self.bytes = 0

    def get(self, id: str) -> KVMemory | None:
        """The keys and values of a document, now the one read last; None if it is not there."""
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
        """Keeps an item and drops those read longest ago; one above the limit is not kept."""
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
