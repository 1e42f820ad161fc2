"""The values that a bank stores and the pages that hold them: entries to blobs and back.

Knows bytes only; nothing about SQLite, files or methods. A page holds up to 256 entries of one
level; its blobs are columns over them, so that an entry costs 8 bytes beside its payload.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from latentbank.codec_text import ZstdTextCodec
from latentbank.errors import BankError, InputError

__all__ = [
    "ID_BYTES",
    "PAGE_BYTES",
    "PAGE_ENTRIES",
    "Entry",
    "Page",
    "PageBuilder",
    "id_key",
]

JSON = Any  # a JSON value read back from a ledger; `document.JSON` is what may be written

PAGE_ENTRIES = 256
PAGE_BYTES = 32 * 1024  # of payloads, and of the ledger before compression, unless one needs more
ID_BYTES = 8
MAX_PAYLOAD_BYTES = 64 * 2**20
MAX_LEDGER_BYTES = 64 * 1024  # of one entry's time, source, metadata and long id
_COLUMNS = ("id", "time", "source", "metadata", "count")


@dataclass(frozen=True)
class Entry:
    """One document (or chunk) as a bank keeps it.

    Attributes:
        id: the document's id. 16 lower-case hex digits take 8 bytes; any other id takes 8 bytes
            and its text in the ledger.
        level: what the payload is, such as "verbatim" or "codes"; a page holds one level only.
        payload: the codes or compressed text.
        time, source, metadata: kept in the ledger.
        key: the quantised retrieval key, counted apart; may be empty. Entries with keys of one
            length share pages.
    """

    id: str
    level: str
    payload: bytes
    time: str | None = None
    source: str | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict, hash=False)
    key: bytes = b""


def is_hex_id(id: str) -> bool:
    """Whether the id is exactly 16 lower-case hex digits."""
    return len(id) == 2 * ID_BYTES and not id.strip("0123456789abcdef")


def id_key(id: str) -> bytes:
    """The 8 bytes that stand for an id: its hex value, or BLAKE2b of its UTF-8."""
    if is_hex_id(id):
        return bytes.fromhex(id)
    return blake2b(id.encode(errors="replace"), digest_size=ID_BYTES).digest()


def check_entry(entry: Entry) -> None:
    """Raise `InputError` if an entry cannot be stored: empty id, wrong type, too large."""
    if not isinstance(entry.id, str) or not entry.id:
        raise InputError("An entry's id must be a non-empty string.")
    if not isinstance(entry.level, str) or not 1 <= len(entry.level) <= 64:
        raise InputError(f"Entry {entry.id}: its level must be a name of 1 to 64 characters.")
    if len(entry.payload) > MAX_PAYLOAD_BYTES or len(entry.key) > PAGE_BYTES:
        raise InputError(
            f"Entry {entry.id}: the payload may have {MAX_PAYLOAD_BYTES} bytes and the key "
            f"{PAGE_BYTES}, got {len(entry.payload)} and {len(entry.key)}."
        )
    if is_hex_id(entry.id) and not (entry.time or entry.source or entry.metadata):
        return
    try:
        size = len(_json([entry.id, entry.time, entry.source, dict(entry.metadata)]).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"Entry {entry.id}: its ledger is not JSON text: {error}.") from error
    if size > MAX_LEDGER_BYTES:
        raise InputError(
            f"Entry {entry.id[:80]}: id, time, source and metadata may take {MAX_LEDGER_BYTES} "
            f"bytes, got {size}."
        )


def _json(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


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
            name in _COLUMNS and isinstance(column, list) and len(column) == self.count
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
            builder._ledger_bytes += len(_json(column))
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
        long_id = None if is_hex_id(entry.id) else entry.id
        columns = zip(
            _COLUMNS, (long_id, entry.time, entry.source, entry.metadata, count), strict=True
        )
        for name, value in columns:
            if value and not (name == "count" and value == 1):
                value = dict(value) if name == "metadata" else value
                self._columns.setdefault(name, {})[position] = value
                self._ledger_bytes += len(_json(value))

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
            ZstdTextCodec(level=6).encode(_json(columns)) if columns else None,
        )
        return Page(**{**vars(page), "crc": page.checksum()})
