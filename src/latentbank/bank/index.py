"""Where each document's page is: 8-byte ids to page numbers, in memory.

Knows numbers only; nothing about SQLite or entries. 12 bytes per document in sorted numpy arrays;
ids added, moved or removed lately wait in a dict until they are merged in.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["PageIndex"]

_MERGE_AT = 4096  # ids that may wait, or an eighth of the sorted ones if that is more
_GONE = 0  # pages are numbered from 1


class PageIndex:
    """A map from 8-byte ids (as numbers) to page numbers, built for many ids and few bytes."""

    def __init__(self, keys: npt.NDArray[np.uint64], pages: npt.NDArray[np.uint32]) -> None:
        """Start from ids [n] and their page numbers [n], in any order."""
        order = np.argsort(keys)
        self._keys, self._pages = keys[order], pages[order]
        self._recent: dict[int, int] = {}
        self._count = len(keys)

    def __len__(self) -> int:
        return self._count

    def find(self, key: int) -> int | None:
        """The page of an id, or None."""
        page = self._recent.get(key)
        if page is None:
            page = self._sorted(key)
        return page or None

    def _sorted(self, key: int) -> int:
        at = int(np.searchsorted(self._keys, np.uint64(key)))
        if at < len(self._keys) and int(self._keys[at]) == key:
            return int(self._pages[at])
        return _GONE

    def put(self, items: Iterable[tuple[int, int]]) -> None:
        """Set the pages of ids, new or known; page 0 removes an id."""
        for key, page in items:
            self._count += (page != _GONE) - (self.find(key) is not None)
            self._recent[key] = page
        if len(self._recent) > max(_MERGE_AT, len(self._keys) // 8):
            self._merge()

    def remove(self, keys: Iterable[int]) -> None:
        """Remove ids; those that are not there are passed over."""
        self.put((key, _GONE) for key in keys)

    def drop_pages(self, pages: Sequence[int]) -> None:
        """Remove every id that lies on one of the pages."""
        if pages:
            self._merge()
            stay = ~np.isin(self._pages, np.array(pages, np.uint32))
            self._keys, self._pages = self._keys[stay], self._pages[stay]
            self._count = len(self._keys)

    def __iter__(self) -> Iterator[int]:
        self._merge()
        yield from self._keys.tolist()

    def _merge(self) -> None:
        size = len(self._recent)
        keys = np.fromiter(self._recent.keys(), np.uint64, size)
        pages = np.fromiter(self._recent.values(), np.uint32, size)
        stay = ~np.isin(self._keys, keys)
        old_keys, old_pages = self._keys[stay], self._pages[stay]
        there = pages != _GONE
        keys, pages = keys[there], pages[there]
        order = np.argsort(keys)
        at = np.searchsorted(old_keys, keys[order])
        self._keys = np.insert(old_keys, at, keys[order])
        self._pages = np.insert(old_pages, at, pages[order])
        self._recent = {}
