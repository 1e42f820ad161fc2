"""What an open bank remembers of its file: where each id is, and which pages take more entries.

Knows numbers, hashes and sizes of pages; reads tables, writes nothing. `refresh` brings it up to
date after another process has written; `apply` after a transaction of this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from latentbank.bank.entry import ID_BYTES, id_key
from latentbank.bank.reports import Settings
from latentbank.bank.space import Space
from latentbank.bank.store.pages import NUMBER_BYTES, Slot, id_numbers
from latentbank.bank.store.tables import PageTable

__all__ = ["Changes", "Directory", "PageIndex", "Tails", "id_number"]

_MERGE_AT = 4096  # ids that may wait, or an eighth of the sorted ones if that is more
_GONE = 0  # pages are numbered from 1


def id_number(id: str, ledger: str) -> int | None:
    """The number that stands for an id in the index; None if the bank cannot hold such an id."""
    if ledger != "none":
        return int.from_bytes(id_key(id), "big")
    named = len(id) == 2 * NUMBER_BYTES and not id.strip("0123456789abcdef")
    return int(id, 16) if named else None


class PageIndex:
    """A map from 8-byte ids (as numbers) to page numbers: 12 bytes per id in sorted arrays.

    Ids that were added, moved or removed lately wait in a dict until they are merged in.
    """

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
        """Remove ids; skips those that are not there."""
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

    def keys(self) -> npt.NDArray[np.uint64]:
        """All ids, ascending, [n]."""
        self._merge()
        return self._keys

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


class Tails:
    """The small pages at the end of each slot, which take the entries that are written next."""

    def __init__(self, small: dict[Slot, list[tuple[int, int]]] | None = None) -> None:
        """`small`: (number, bytes) of the small pages of each slot, in the order of writing."""
        self._small = {} if small is None else small

    def copy(self) -> Tails:
        """A copy that changes on its own."""
        return Tails({slot: list(pages) for slot, pages in self._small.items()})

    def slots(self) -> list[Slot]:
        """All slots that were noted."""
        return list(self._small)

    def pages(self, slot: Slot) -> list[tuple[int, int]]:
        """(number, bytes) of the small pages at the end of a slot."""
        return self._small.get(slot, [])

    def note(self, slot: Slot, seq: int, size: int, count: int, space: Space) -> None:
        """Note a page that was written: a large one closes those before it."""
        small = self._small.setdefault(slot, [])
        if small and seq < small[0][0]:
            return
        place = next((at for at, item in enumerate(small) if item[0] == seq), len(small))
        if size < space.open_bytes and count < space.page_entries:
            small[place : place + 1] = [(seq, size)]
        else:
            small[: place + 1] = []

    def drop(self, slot: Slot, seq: int) -> None:
        """Note that a page is gone."""
        self._small[slot] = [item for item in self.pages(slot) if item[0] != seq]

    def close_first(self, slot: Slot) -> None:
        """Leave the first small page of a slot alone from now on."""
        self._small[slot] = self.pages(slot)[1:]


@dataclass
class Changes:
    """What one transaction changed.

    Attributes:
        moved: an id's number → its page; 0: gone.
        written: a page → its hash; None: gone.
        tails: the small pages afterwards.
        orders: documents numbered so far.
    """

    moved: dict[int, int] = field(default_factory=dict)
    written: dict[int, bytes | None] = field(default_factory=dict)
    tails: Tails = field(default_factory=Tails)
    orders: int = 0

    def copy(self) -> Changes:
        """A copy that changes on its own."""
        return Changes(dict(self.moved), dict(self.written), self.tails.copy(), self.orders)


class Directory:
    """Ids, pages and sizes of one bank."""

    def __init__(self) -> None:
        self.tails = Tails()
        self.largest_bytes = 0  # of a page, over the time that the bank was open
        self.orders = 0  # documents numbered so far
        self._index = PageIndex(np.empty(0, np.uint64), np.empty(0, np.uint32))
        self._hashes: dict[int, bytes] = {}  # of each page, as the index knows it
        self._hidden: set[int] = set()  # pages of which the index does not name every id

    def __len__(self) -> int:
        """Number of documents."""
        return len(self._index)

    @property
    def hashes(self) -> Mapping[int, bytes]:
        """Number of each page → its hash."""
        return self._hashes

    def find(self, number: int) -> int | None:
        """The page of an id's number, or None."""
        return self._index.find(number)

    def numbers(self) -> npt.NDArray[np.uint64]:
        """The numbers of all ids, ascending, [n]."""
        return self._index.keys()

    def hide(self, seq: int, numbers: Iterable[int]) -> None:
        """Take ids of a page out of the index, until the next `refresh`."""
        self._index.remove(numbers)
        self._hidden.add(seq)

    def start(self) -> Changes:
        """The changes of a transaction that has changed nothing yet."""
        return Changes(tails=self.tails.copy(), orders=self.orders)

    def apply(self, changes: Changes) -> None:
        """Take over what a committed transaction changed."""
        self._index.put(changes.moved.items())
        for seq, hash in changes.written.items():
            if hash is None:
                self._hashes.pop(seq, None)
            else:
                self._hashes[seq] = hash
        self.tails, self.orders = changes.tails, changes.orders

    def refresh(self, pages: PageTable, settings: Settings) -> None:
        """Bring everything up to date with the file. Reads the ids of changed pages only."""
        hashes: dict[int, bytes] = {}
        self.tails, space = Tails(), settings.space
        for seq, level, depth, count, hash, *lengths in pages.overview():
            sizes = [size or 0 for size in lengths]  # of ids, keys, payload, ledger
            typed = isinstance(level, str) and isinstance(depth, int) and isinstance(hash, bytes)
            if typed and isinstance(count, int) and count > 0 and 0 < seq < 1 << 32:
                hashes[seq] = hash
                size = sum(sizes)
                self.largest_bytes = max(self.largest_bytes, size)
                self.tails.note(Slot(level, sizes[1] // count, depth), seq, size, count, space)
        changed = [
            seq for seq in hashes if hashes[seq] != self._hashes.get(seq) or seq in self._hidden
        ]
        self._reload(changed, hashes, pages, settings.ledger)
        self._hashes, self._hidden, self.orders = hashes, set(), pages.next_order()

    def _reload(
        self, changed: list[int], hashes: dict[int, bytes], pages: PageTable, ledger: str
    ) -> None:
        """Put the ids of changed pages into the index, take those of vanished pages out."""
        width = NUMBER_BYTES if ledger == "none" else ID_BYTES
        first = not self._hashes
        found = [
            (seq, ids)
            for seq, count, ids in pages.ids(None if first else changed)
            if seq in hashes and isinstance(ids, bytes) and len(ids) == count * width
        ]
        numbers = id_numbers(b"".join(ids for _, ids in found), width)
        sizes = [len(ids) // width for _, ids in found]
        places = np.repeat(np.array([seq for seq, _ in found], np.uint32), sizes)
        if first:
            self._index = PageIndex(numbers, places)
        else:
            self._index.drop_pages([*changed, *(self._hashes.keys() - hashes.keys())])
            self._index.put(zip(numbers.tolist(), places.tolist(), strict=True))
