"""The pages that hold a bank's entries: entries to blobs and back.

Knows bytes only; nothing about SQLite, files or methods. A page holds up to 256 entries of one
level; its blobs are columns over them, so that an entry costs 8 bytes beside its payload.
"""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from latentbank.bank_entry import ID_BYTES, JSON, Entry, compact_json, id_key, is_hex_id
from latentbank.codec_text import ZstdTextCodec
from latentbank.errors import BankError

__all__ = ["PAGE_BYTES", "PAGE_ENTRIES", "Page", "PageBuilder"]

PAGE_ENTRIES = 256
PAGE_BYTES = 32 * 1024  # of payloads, and of the ledger before compression, unless one needs more
_COLUMNS: dict[str, type] = {"id": str, "time": str, "source": str, "metadata": dict, "count": int}


def _pack_varints(numbers: Iterable[int]) -> bytes:
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


@dataclass(frozen=True)
class Page:
    """The stored form of up to 256 entries of one level.

    Attributes:
        seq: the page's number; pages in the order of their numbers are in the order of writing.
        level: the level of all its entries.
        count: its number of entries, n.
        crc: CRC-32 over everything else; see `check`.
        ids: 8 bytes per entry.
        lengths: varints of the n payload lengths, or a single one if all are equal.
        payload: all payloads, one after the other.
        keys: all keys, one after the other, equally long; None if empty.
        ledger: zstd-compressed JSON columns "id" (long ids), "time", "source", "metadata" and
            "count" (how often the document was written, where more than once), each a list of n
            values or nulls; None if no entry has any.
    """

    seq: int
    level: str
    count: int
    crc: int
    ids: bytes
    lengths: bytes
    payload: bytes
    keys: bytes | None
    ledger: bytes | None

    def checksum(self) -> int:
        """CRC-32 that this page's content should have."""
        crc = zlib.crc32(f"{self.seq}/{self.level}/{self.count}".encode(errors="replace"))
        for blob in (self.ids, self.lengths, self.payload, self.keys or b"", self.ledger or b""):
            crc = zlib.crc32(blob, zlib.crc32(len(blob).to_bytes(8, "little"), crc))
        return crc

    def check(self) -> None:
        """Raise `BankError` if the page's content and its checksum or sizes disagree."""
        blobs = (self.ids, self.lengths, self.payload, self.keys or b"", self.ledger or b"")
        typed = isinstance(self.level, str) and isinstance(self.count, int)
        if not typed or not all(isinstance(blob, bytes) for blob in blobs):
            raise BankError(f"Page {self.seq} of the bank is damaged: a column has a wrong type.")
        if self.checksum() != self.crc:
            raise BankError(f"Page {self.seq} of the bank is damaged: its checksum does not match.")
        if not 0 < self.count <= PAGE_ENTRIES or len(self.ids) != ID_BYTES * self.count:
            raise BankError(f"Page {self.seq} of the bank is damaged: its count is wrong.")
        if len(self.keys or b"") % self.count or self.edges[-1] != len(self.payload):
            raise BankError(f"Page {self.seq} of the bank is damaged: its lengths are wrong.")

    @cached_property
    def edges(self) -> list[int]:
        """Where payloads begin and end: n + 1 offsets. Raises `BankError` if damaged."""
        try:
            sizes = _unpack_varints(self.lengths)
        except ValueError as error:
            raise BankError(f"Page {self.seq} of the bank is damaged: {error}.") from error
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
        """The 8-byte ids as big-endian numbers, [n]."""
        return np.frombuffer(self.ids, ">u8").astype(np.uint64)

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
            name in _COLUMNS
            and isinstance(column, list)
            and len(column) == self.count
            and all(value is None or isinstance(value, _COLUMNS[name]) for value in column)
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
        width = 2 * ID_BYTES
        short = [hexed[at : at + width] for at in range(0, len(hexed), width)]
        if long_ids is None:
            return short
        return [long or brief for long, brief in zip(long_ids, short, strict=True)]

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


class PageBuilder:
    """A page being filled: takes entries until it is full, then `build` gives the stored form."""

    def __init__(self, seq: int, level: str, key_bytes: int) -> None:
        self.seq, self.level, self.key_bytes = seq, level, key_bytes
        self.index: dict[bytes, int] = {}  # 8-byte id -> position
        self._lengths: list[int] = []
        self._payload = bytearray()
        self._keys = bytearray()
        self._columns: dict[str, dict[int, JSON]] = {}
        self._ledger_bytes = 0  # before compression, roughly

    @classmethod
    def reopen(cls, page: Page, without: frozenset[int] = frozenset()) -> "PageBuilder":
        """Start from a stored page, leaving out the entries at the positions `without`."""
        builder = cls(page.seq, page.level, page.key_bytes)
        if without:
            counts = page.counts()
            for position in sorted(set(range(page.count)) - without):
                builder.add(page.entry(position), counts[position])
            return builder
        keys = (page.ids[at : at + ID_BYTES] for at in range(0, len(page.ids), ID_BYTES))
        builder.index = {key: position for position, key in enumerate(keys)}
        builder._lengths = [end - start for start, end in pairwise(page.edges)]
        builder._payload, builder._keys = bytearray(page.payload), bytearray(page.keys or b"")
        for name, column in page.columns.items():
            builder._columns[name] = {at: value for at, value in enumerate(column) if value}
            builder._ledger_bytes += len(compact_json(column))
        return builder

    def __len__(self) -> int:
        return len(self._lengths)

    def fits(self, entry: Entry) -> bool:
        """Whether the entry may join; an empty page takes any."""
        if not self._lengths:
            return True
        return (
            len(self._lengths) < PAGE_ENTRIES
            and len(self._payload) + len(entry.payload) <= PAGE_BYTES
            and self._ledger_bytes <= PAGE_BYTES
        )

    def add(self, entry: Entry, count: int = 1) -> None:
        """Append an entry whose level and key length are the page's."""
        position = len(self._lengths)
        self.index[id_key(entry.id)] = position
        self._lengths.append(len(entry.payload))
        self._payload += entry.payload
        self._keys += entry.key
        ledger: dict[str, JSON] = {
            "id": None if is_hex_id(entry.id) else entry.id,
            "time": entry.time,
            "source": entry.source,
            "metadata": dict(entry.metadata),
            "count": count if count > 1 else None,
        }
        for name, value in ledger.items():
            if value:
                self._columns.setdefault(name, {})[position] = value
                self._ledger_bytes += len(compact_json(value))

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
            self.level,
            size,
            0,
            b"".join(self.index),
            _pack_varints(self._lengths[:1] if same else self._lengths),
            bytes(self._payload),
            bytes(self._keys) or None,
            ZstdTextCodec(level=6).encode(compact_json(columns)) if columns else None,
        )
        return Page(**{**vars(page), "crc": page.checksum()})
