"""Where each document's page is: 8-byte ids to page numbers, in memory.

Knows numbers only; nothing about SQLite or entries. 12 bytes per document in sorted numpy arrays;
ids added lately wait in a dict until they are merged in.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["PageIndex"]

_MERGE_AT = 4096  # ids that may wait, or an eighth of the sorted ones if that is more


class PageIndex:
    """A map from 8-byte ids (as numbers) to page numbers, built for many ids and few bytes."""

    def __init__(self, keys: npt.NDArray[np.uint64], pages: npt.NDArray[np.uint32]) -> None:
        """Start from ids [n] and their page numbers [n], in any order."""
        order = np.argsort(keys, kind="stable")
        self._keys, self._pages = keys[order], pages[order]
        self._recent: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._keys) + len(self._recent)

    def find(self, key: int) -> int | None:
        """The page of an id, or None."""
        page = self._recent.get(key)
        if page is not None:
            return page
        at = int(np.searchsorted(self._keys, np.uint64(key)))
        if at < len(self._keys) and int(self._keys[at]) == key:
            return int(self._pages[at])
        return None

    def add(self, items: Iterable[tuple[int, int]]) -> None:
        """Add pairs of id and page number; the ids must be new."""
        self._recent.update(items)
        if len(self._recent) > max(_MERGE_AT, len(self._keys) // 8):
            self._merge()

    def remove(self, keys: Iterable[int]) -> None:
        """Remove ids; those that are not there are passed over."""
        old = np.array([key for key in keys if self._recent.pop(key, None) is None], np.uint64)
        if len(old):
            keep = ~np.isin(self._keys, old)
            self._keys, self._pages = self._keys[keep], self._pages[keep]

    def __iter__(self) -> Iterator[int]:
        yield from self._keys.tolist()
        yield from self._recent

    def _merge(self) -> None:
        size = len(self._recent)
        keys = np.fromiter(self._recent.keys(), np.uint64, size)
        pages = np.fromiter(self._recent.values(), np.uint32, size)
        order = np.argsort(keys, kind="stable")
        at = np.searchsorted(self._keys, keys[order])
        self._keys = np.insert(self._keys, at, keys[order])
        self._pages = np.insert(self._pages, at, pages[order])
        self._recent = {}
