"""`PageBuilder`: a page that is being filled or changed, one entry at a time.

Knows pages and the limits of their size; nothing about SQLite, files or methods.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from latentbank.bank.entry import JSON, Entry, compact_json, id_key, is_hex_id
from latentbank.bank.space import Space
from latentbank.bank.store.facts import Fact, Facts
from latentbank.bank.store.pages import NUMBER_BYTES, Page, Slot, pack_ledger, pack_varints

__all__ = ["PageBuilder"]

_MAX_LEDGER_BYTES = 32 * 1024  # of a page, before compression, unless one entry needs more


class PageBuilder:
    """A page being filled or changed. `build` gives the stored form."""

    def __init__(self, seq: int, slot: Slot, id_bytes: int, space: Space) -> None:
        self.seq, self.slot, self.id_bytes, self.space = seq, slot, id_bytes, space
        self.index: dict[bytes, int] = {}  # the id's bytes -> position
        self.facts: list[Fact] = []
        self._lengths: list[int] = []
        self._payload = bytearray()
        self._keys = bytearray()
        self._columns: dict[str, dict[int, JSON]] = {}
        self._ledger_bytes = 0  # before compression, about

    @classmethod
    def reopen(cls, page: Page, facts: Facts, space: Space) -> PageBuilder:
        """Start from a stored page."""
        builder = cls(page.seq, page.slot, page.id_bytes, space)
        width = page.id_bytes
        for at in range(page.count):
            builder.index[page.ids[at * width : (at + 1) * width]] = at
        builder._lengths = [end - start for start, end in pairwise(page.edges)]
        builder.facts = facts.rows()
        builder._payload, builder._keys = bytearray(page.payload), bytearray(page.keys or b"")
        for name, column in page.columns.items():
            values = {at: value for at, value in enumerate(column) if value}
            if values:
                builder._columns[name] = values
                builder._ledger_bytes += len(compact_json(list(values.values())))
        return builder

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def size_bytes(self) -> int:
        """Bytes of its blobs, the ledger before compression."""
        ids = len(self.index) * self.id_bytes
        return len(self._payload) + len(self._keys) + ids + self._ledger_bytes

    def fits(self, entry: Entry) -> bool:
        """Whether the entry may join; an empty page takes any."""
        if not self._lengths:
            return True
        return (
            len(self._lengths) < self.space.page_entries
            and len(self._payload) + len(entry.payload) <= self.space.page_bytes
            and self._ledger_bytes <= min(_MAX_LEDGER_BYTES, 2 * self.space.page_bytes)
        )

    def add(self, entry: Entry, count: int, fact: Fact) -> None:
        """Append an entry whose level and key length are the page's."""
        position = len(self._lengths)
        compact = self.id_bytes == NUMBER_BYTES
        self.index[bytes.fromhex(entry.id) if compact else id_key(entry.id)] = position
        self._lengths.append(len(entry.payload))
        self._payload += entry.payload
        self._keys += entry.key
        self.facts.append(fact)
        ledger: dict[str, JSON] = {
            "id": None if compact or is_hex_id(entry.id) else entry.id,
            "time": entry.time,
            "source": entry.source,
            "metadata": entry.metadata,
            "count": count if count > 1 else None,
            "version": entry.version,
        }
        for name, value in ledger.items():
            if value:
                value = dict(value) if name == "metadata" else value
                self._columns.setdefault(name, {})[position] = value
                self._ledger_bytes += len(compact_json(value))

    def join(self, page: Page, facts: Facts) -> bool:
        """Take in all entries of another page of the same slot, if they fit."""
        room = len(self) + page.count <= self.space.page_entries
        if not room or len(self._payload) + len(page.payload) > self.space.page_bytes:
            return False
        counts = page.counts()
        for at, fact in enumerate(facts.rows()):
            self.add(page.entry(at), counts[at], fact)
        return True

    def holds(self, id: str) -> bool:
        """Whether the page holds this very id; False also for another id of the same 8 bytes."""
        position = self.index.get(id_key(id))
        if position is None:
            return False
        return self._columns.get("id", {}).get(position) == (None if is_hex_id(id) else id)

    def bump(self, id: str, times: int) -> None:
        """Count a document of the page that is written again."""
        counts = self._columns.setdefault("count", {})
        position = self.index[id_key(id)]
        counts[position] = counts.get(position, 1) + times

    def build(self) -> Page:
        """The stored form; raises `InputError` if a ledger value is not JSON."""
        size = len(self._lengths)
        same = len(set(self._lengths)) == 1
        columns = {
            name: [values.get(position) for position in range(size)]
            for name, values in sorted(self._columns.items())
        }
        page = Page(
            self.seq,
            self.slot.level,
            self.slot.depth,
            size,
            b"",
            b"".join(self.index),
            pack_varints(self._lengths[:1] if same else self._lengths),
            bytes(self._payload),
            bytes(self._keys) or None,
            pack_ledger(columns),
        )
        return replace(page, hash=page.checksum())
