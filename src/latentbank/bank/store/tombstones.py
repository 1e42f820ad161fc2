"""Tombstones: entries that are gone for every reader although their page still holds them.

Knows page numbers, hashes and bits. A deletion that one transaction cannot hold first stores its
tombstones, in one transaction. Then the pages are rewritten, one after another, by this process or,
if it dies, by the next one that writes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

from latentbank.bank.store.pages import PAGE_ENTRIES, Page
from latentbank.errors import BankError

__all__ = ["TOMBSTONE_BYTES", "Tombstones", "buried", "pack_tombstones", "unpack_tombstones"]

_HASH_BYTES = 8
_RECORD = struct.Struct(f"<I{_HASH_BYTES}s{PAGE_ENTRIES // 8}s")
TOMBSTONE_BYTES = _RECORD.size  # of one page: its number, the start of its hash, a bit per entry

Tombstones = dict[int, tuple[bytes, frozenset[int]]]  # page -> (start of its hash, positions)


def pack_tombstones(tombstones: Mapping[int, tuple[bytes, frozenset[int]]]) -> bytes:
    """The stored form: `TOMBSTONE_BYTES` for each page, in the order of the pages."""
    parts = []
    for seq, (hash, positions) in sorted(tombstones.items()):
        bits = np.zeros(PAGE_ENTRIES, np.uint8)
        bits[sorted(positions)] = 1
        parts.append(_RECORD.pack(seq, hash[:_HASH_BYTES], np.packbits(bits).tobytes()))
    return b"".join(parts)


def unpack_tombstones(data: bytes | None) -> Tombstones:
    """The inverse of `pack_tombstones`; None: no tombstones. Raises `BankError` for other bytes."""
    if data is None:
        return {}
    if len(data) % _RECORD.size:
        raise BankError("The bank's list of pending deletions is damaged.")
    tombstones: Tombstones = {}
    for seq, hash, bits in _RECORD.iter_unpack(data):
        positions = np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8)))
        tombstones[seq] = hash, frozenset(positions.tolist())
    return tombstones


def buried(page: Page, tombstones: Mapping[int, tuple[bytes, frozenset[int]]]) -> frozenset[int]:
    """The positions of the page's entries that have a tombstone.

    A page that was rewritten since then has another hash; none of its entries is buried.
    """
    hash, positions = tombstones.get(page.seq, (b"", frozenset()))
    return positions if hash[:_HASH_BYTES] == page.hash[:_HASH_BYTES] else frozenset()
