"""The pages that hold a bank's entries: entries to blobs and back.

Knows bytes only; nothing about SQLite, files or methods. A page holds up to 256 entries of one
level; its blobs are columns over them, so that an entry costs 8 bytes beside its payload.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentbank.bank.entry import ID_BYTES, JSON, Entry, compact_json, id_key, is_hex_id
from latentbank.bank.facts import Facts
from latentbank.bank.space import Space
from latentbank.codec.text import ZstdTextCodec
from latentbank.errors import BankError

__all__ = [
    "COLUMNS",
    "NUMBER_BYTES",
    "PAGE_ENTRIES",
    "Page",
    "PageBuilder",
    "Slot",
    "blob_hash",
    "pack_ledger",
    "pack_varints",
]

PAGE_ENTRIES = 256
HASH_BYTES = 16
NUMBER_BYTES = 4  # of an id in a bank that keeps none: the document's number
MAX_DEPTH = 64  # steps that a document may fade
MAX_LEDGER_BYTES = 32 * 1024  # of a page, before compression, unless one entry needs more
COLUMNS = "seq, level, depth, count, hash, ids, lengths, payload, keys, ledger"
_LEDGER: dict[str, type] = {"id": str, "time": str, "source": str, "metadata": dict, "count": int}


class Slot(NamedTuple):
    """What the entries of one page have in common."""

    level: str
    key_bytes: int
    depth: int


def blob_hash(*parts: bytes) -> bytes:
    """BLAKE2b of 16 bytes over parts of whatever lengths."""
    state = blake2b(digest_size=HASH_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def pack_varints(numbers: Iterable[int]) -> bytes:
    """LEB128: 7 bits a byte, the lowest first, the high bit set on all but the last."""
    packed = bytearray()
    for number in numbers:
        while number > 0x7F:
            packed.append(number & 0x7F | 0x80)
            number >>= 7
        packed.append(number)
    return bytes(packed)


def _unpack_varints(data: bytes) -> list[int]:
    numbers, number, shift = [], 0, 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
        elif shift > 35:
            break
    if shift:
        raise ValueError("a number without end")
    return numbers


def pack_ledger(columns: Mapping[str, list[JSON]]) -> bytes | None:
    """The stored form of a page's ledger columns, each [n]; None if there are none."""
    return ZstdTextCodec(level=6).encode(compact_json(columns)) if columns else None


@dataclass(frozen=True)
class Page:
    """The stored form of up to 256 entries of one level.

    Attributes:
        seq: the page's number; pages in the order of their numbers are in the order of writing.
        level: the level of all its entries.
        depth: how many steps they have faded.
        count: its number of entries, n.
        hash: BLAKE2b over everything else; see `check`.
        ids: 8 bytes per entry, or 4 in a bank without ids.
        lengths: varints of the n payload lengths, or a single one if all are equal.
        payload: all payloads, one after the other.
        keys: all keys, one after the other, equally long; None if empty.
        ledger: zstd-compressed JSON columns "id" (long ids), "time", "source", "metadata" and
            "count" (how often the document was written, where more than once), each a list of n
            values or nulls; None if no entry has any.
    """

    seq: int
    level: str
    depth: int
    count: int
    hash: bytes
    ids: bytes
    lengths: bytes
    payload: bytes
    keys: bytes | None
    ledger: bytes | None

    def checksum(self) -> bytes:
        """The hash that this page's content should have."""
        head = f"{self.seq}/{self.level}/{self.depth}/{self.count}".encode(errors="replace")
        keys, ledger = self.keys or b"", self.ledger or b""
        return blob_hash(head, self.ids, self.lengths, self.payload, keys, ledger)

    def check_types(self) -> None:
        """Raise `BankError` if a column is not of its type; SQLite stores anything anywhere."""
        blobs = [self.hash, self.ids, self.lengths, self.payload]
        blobs += [blob for blob in (self.keys, self.ledger) if blob is not None]
        numbers = (self.seq, self.depth, self.count)
        typed = isinstance(self.level, str) and all(isinstance(n, int) for n in numbers)
        typed = typed and all(isinstance(blob, bytes) for blob in blobs)
        if not typed or not 0 < self.count <= PAGE_ENTRIES or not 0 < self.seq < 1 << 32:
            raise BankError(f"Page {self.seq} of the bank is damaged: a column has a wrong type.")

    def check(self) -> None:
        """Raise `BankError` if the page's content and its checksum or sizes disagree."""
        self.check_types()
        if self.checksum() != self.hash:
            raise BankError(f"Page {self.seq} of the bank is damaged: its checksum does not match.")
        whole = 0 < self.count <= PAGE_ENTRIES and 0 <= self.depth <= MAX_DEPTH
        if not whole or len(self.ids) not in (ID_BYTES * self.count, NUMBER_BYTES * self.count):
            raise BankError(f"Page {self.seq} of the bank is damaged: its count is wrong.")
        if len(self.keys or b"") % self.count or self.edges[-1] != len(self.payload):
            raise BankError(f"Page {self.seq} of the bank is damaged: its lengths are wrong.")

    @property
    def id_bytes(self) -> int:
        """Bytes of each id: 8, or 4 in a bank without ids."""
        return len(self.ids) // self.count

    @property
    def slot(self) -> Slot:
        """What its entries have in common."""
        return Slot(self.level, self.key_bytes, self.depth)

    @property
    def size_bytes(self) -> int:
        """Bytes of its blobs."""
        return sum(
            len(blob or b"")
            for blob in (self.ids, self.lengths, self.payload, self.keys, self.ledger)
        )

    @cached_property
    def edges(self) -> list[int]:
        """Where payloads begin and end: n + 1 offsets. Raises `BankError` if damaged."""
        try:
            sizes = _unpack_varints(self.lengths)
        except ValueError as error:
            raise BankError(f"Page {self.seq} of the bank is damaged: {error}.") from error
        if len(sizes) == 1 and sizes[0]:
            return list(range(0, sizes[0] * self.count + 1, sizes[0]))
        if len(sizes) == 1:
            sizes *= self.count
        if len(sizes) != self.count:
            raise BankError(f"Page {self.seq} of the bank is damaged: its lengths are wrong.")
        return [0, *accumulate(sizes)]

    @cached_property
    def payloads(self) -> list[bytes]:
        """The n payloads."""
        return [self.payload[start:end] for start, end in pairwise(self.edges)]

    @property
    def key_bytes(self) -> int:
        """Bytes of each entry's retrieval key."""
        return len(self.keys or b"") // self.count

    @cached_property
    def id_keys(self) -> npt.NDArray[np.uint64]:
        """The ids' bytes as big-endian numbers, [n]."""
        return id_numbers(self.ids, self.id_bytes)

    @cached_property
    def columns(self) -> dict[str, list[JSON]]:
        """The decoded ledger; columns that nobody uses are missing."""
        if self.ledger is None:
            return {}
        try:
            columns = json.loads(ZstdTextCodec().decode(self.ledger))
        except (ValueError, RecursionError) as error:
            raise BankError(f"The ledger of page {self.seq} is damaged: {error}.") from error
        whole = isinstance(columns, dict) and all(
            name in _LEDGER
            and isinstance(column, list)
            and len(column) == self.count
            and all(value is None or isinstance(value, _LEDGER[name]) for value in column)
            for name, column in columns.items()
        )
        if not whole:
            raise BankError(f"The ledger of page {self.seq} is damaged: its columns are wrong.")
        return columns  # type: ignore[no-any-return]

    @cached_property
    def document_ids(self) -> list[str]:
        """The n ids in full; reads the ledger, but not the payloads."""
        long_ids = self.columns.get("id")
        hexed = self.ids.hex()
        width = 2 * self.id_bytes
        short = [hexed[at : at + width] for at in range(0, len(hexed), width)]
        if long_ids is None:
            return short
        return [long or brief for long, brief in zip(long_ids, short, strict=True)]

    def document_id(self, index: int) -> str:
        """The id of the entry at `index` in full."""
        long_ids, width = self.columns.get("id"), self.id_bytes
        long = None if long_ids is None else long_ids[index]
        return long or self.ids[index * width : (index + 1) * width].hex()

    def counts(self) -> list[int]:
        """How often each of the n documents was written."""
        return [count or 1 for count in self.columns.get("count", [None] * self.count)]

    def entry(self, index: int) -> Entry:
        """The entry at `index`, 0 <= index < n."""
        values = {name: column[index] for name, column in self.columns.items()}
        width = self.key_bytes
        return Entry(
            self.document_ids[index],
            self.level,
            self.payload[self.edges[index] : self.edges[index + 1]],
            values.get("time"),
            values.get("source"),
            values.get("metadata") or {},
            (self.keys or b"")[index * width : (index + 1) * width],
        )


def id_numbers(ids: bytes, width: int) -> npt.NDArray[np.uint64]:
    """Ids of `width` bytes each, as numbers."""
    return np.frombuffer(ids, f">u{width}").astype(np.uint64)


class PageBuilder:
    """A page being filled or changed; `build` gives the stored form."""

    def __init__(self, seq: int, slot: Slot, id_bytes: int, space: Space) -> None:
        self.seq, self.slot, self.id_bytes, self.space = seq, slot, id_bytes, space
        self.index: dict[bytes, int] = {}  # the id's bytes -> position
        self.facts: list[tuple[int, int, int, int]] = []
        self._lengths: list[int] = []
        self._payload = bytearray()
        self._keys = bytearray()
        self._columns: dict[str, dict[int, JSON]] = {}
        self._ledger_bytes = 0  # before compression, roughly

    @classmethod
    def reopen(cls, page: Page, facts: Facts, space: Space) -> "PageBuilder":
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
            and self._ledger_bytes <= min(MAX_LEDGER_BYTES, 2 * self.space.page_bytes)
        )

    def add(self, entry: Entry, count: int, fact: tuple[int, int, int, int]) -> None:
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
