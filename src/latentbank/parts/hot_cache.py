"""Keys and values of documents that were read lately, under a byte limit.

Knows names and tensors; knows no bank and no method.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from latentbank.backbone.kv import KVMemory


class HotCache:
    """Least-recently-used keys and values of documents, under a byte limit."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._items: OrderedDict[str, KVMemory] = OrderedDict()

    def clear(self) -> None:
        self._items.clear()
        self.bytes = 0

    def get(self, name: str) -> KVMemory | None:
        item = self._items.get(name)
        if item is not None:
            self._items.move_to_end(name)
        return item

    def drop(self, names: Sequence[str]) -> None:
        for name in names:
            item = self._items.pop(name, None)
            self.bytes -= 0 if item is None else _memory_bytes(item)

    def put(self, name: str, item: KVMemory) -> None:
        size = _memory_bytes(item)
        if size > self.limit or name in self._items:
            return
        self._items[name] = item
        self.bytes += size
        while self.bytes > self.limit:
            _, dropped = self._items.popitem(last=False)
            self.bytes -= _memory_bytes(dropped)


def _memory_bytes(item: KVMemory) -> int:
    return sum(t.numel() * t.element_size() for t in (*item.keys, *item.values))
