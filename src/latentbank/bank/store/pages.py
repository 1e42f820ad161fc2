"""`Page`, the stored form of up to 256 entries of one level: blobs that are columns over them.

Knows bytes only; nothing about SQLite, files or methods. A page costs an entry 8 bytes beside its
payload.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentbank.bank.entry import ID_BYTES, JSON, Entry, compact_json
from latentbank.codec.text import ZstdTextCodec
from latentbank.errors import BankError

__all__ = [
    "COLUMNS",
    "MAX_DEPTH",
    "NUMBER_BYTES",
    "PAGE_ENTRIES",
    "Page",
    "Slot",
    "blob_hash",
    "id_numbers",
    "pack_ledger",
    "pack_varints",
]

PAGE_ENTRIES = 256
HASH_BYTES = 16
NUMBER_BYTES = 4  # of an id in a bank that keeps none: the document's number
_VARINT_BYTES = 6  # of the largest number
MAX_DEPTH = 64  # steps that a document may fade
COLUMNS = "seq, level, depth, count, hash, ids, lengths, payload, keys, ledger"
_LEDGER: dict[str, type] = {
    "id": str, "time": str, "source": str, "metadata": dict, "count": int, "version": str
}  # fmt: skip


class Slot(NamedTuple):
    """What the entries of one page have in common."""

    level: str
    key_bytes: int
    depth: int


def blob_hash(*parts: bytes) -> bytes:
    """BLAKE2b of 16 bytes over parts of any lengths."""
    state = blake2b(digest_size=HASH_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def pack_varints(numbers: Iterable[int]) -> bytes:
    """LEB128: 7 bits a byte, the lowest first. The high bit is set on all bytes but the last."""
    packed = bytearray()
    for number in numbers:
        while number > 0x7F:
            packed.append(number & 0x7F | 0x80)
            number >>= 7
        packed.append(number)
    return bytes(packed)


def _unpack_varints(data: bytes) -> list[int]:
    if not data or max(data) < 0x80:
        return list(data)
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts[: len(ends)] + 1
    if raw[-1] >= 0x80 or sizes.max() > _VARINT_BYTES:
        raise ValueError("a number without end")
    places = np.arange(len(raw)) - np.repeat(starts, sizes)
    numbers: list[int] = np.add.reduceat(
        (raw & 0x7F).astype(np.int64) << 7 * places, starts
    ).tolist()
    return numbers


def pack_ledger(columns: Mapping[str, list[JSON]]) -> bytes | None:
    """The stored form of a page's ledger columns, each [n]; None if there are none."""
    return ZstdTextCodec(level=6).encode(compact_json(columns)) if columns else None


@dataclass(frozen=True)
class Page:
    """The stored form of up to 256 entries of one level.

    Attributes:
        seq: the page's number. Pages sorted by number are in the order of writing.
        level: the level of all its entries.
        depth: how many steps they have faded.
        count: its number of entries, n.
        hash: BLAKE2b over everything else; see `check`.
        ids: 8 bytes per entry, or 4 in a bank without ids.
        lengths: varints of the n payload lengths, or a single one if all are equal.
        payload: all payloads, one after the other.
        keys: all keys, one after the other, equally long; None if empty.
        ledger: JSON columns, compressed by zstd: "id" (long ids), "time", "source", "metadata",
            "version" and "count" (how often the document was written, where more than once). Each
            is a list of n values or nulls. None if no entry has any.
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
        """Raise `BankError` if a column has a wrong type. SQLite itself checks no types."""
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
        """The decoded ledger. A column is missing if no entry has a value for it."""
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
        """The n ids in full. Reads the ledger, not the payloads."""
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
            self.document_id(index),
            self.level,
            self.payload[self.edges[index] : self.edges[index + 1]],
            values.get("time"),
            values.get("source"),
            values.get("metadata") or {},
            (self.keys or b"")[index * width : (index + 1) * width],
            values.get("version") or "",
        )

    def without(self, gone: frozenset[int]) -> Page | None:
        """The page without the entries at positions `gone`; None if no entry is left.

        The page must be whole (see `check`). The result equals, byte for byte, the page that the
        remaining entries would make. Raises `BankError` if the ledger is damaged.
        """
        if len(gone) >= self.count:
            return None
        ends = [-1, *sorted(gone), self.count]
        runs = [(one + 1, two) for one, two in pairwise(ends) if two > one + 1]
        edges, width = self.edges, self.key_bytes
        kept = [at for start, end in runs for at in range(start, end)]
        lengths = self.lengths
        if edges[1] * self.count != edges[-1] or len(lengths) >= self.count:
            sizes = [edges[at + 1] - edges[at] for at in kept]
            lengths = pack_varints(sizes[:1] if len(set(sizes)) == 1 else sizes)
        columns = {
            name: [column[at] or None for at in kept]
            for name, column in sorted(self.columns.items())
        }
        left = replace(
            self,
            count=len(kept),
            ids=_cut(self.ids, runs, range(0, len(self.ids) + 1, self.id_bytes)),
            lengths=lengths,
            payload=_cut(self.payload, runs, edges),
            keys=self.keys and _cut(self.keys, runs, range(0, len(self.keys) + 1, width)),
            ledger=pack_ledger({name: column for name, column in columns.items() if any(column)}),
        )
        return replace(left, hash=left.checksum())


def _cut(blob: bytes, runs: Sequence[tuple[int, int]], edges: Sequence[int]) -> bytes:
    """What lies between the edges of each run of positions."""
    return b"".join([blob[edges[start] : edges[end]] for start, end in runs])


def id_numbers(ids: bytes, width: int) -> npt.NDArray[np.uint64]:
    """Ids of `width` bytes each, as numbers."""
    return np.frombuffer(ids, f">u{width}").astype(np.uint64)
