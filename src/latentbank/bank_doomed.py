"""Deletions that one transaction cannot hold: which entries of which pages are as good as gone.

Knows page numbers, hashes and bits. A bank with a tight budget writes this list first, in one
transaction; from then on nobody sees the documents, and the pages are rewritten one after another,
by this process or, should it die, by the next one that writes.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping

import numpy as np

from latentbank.bank_facts import Facts
from latentbank.bank_pages import PAGE_ENTRIES, Page, PageBuilder
from latentbank.bank_space import Space
from latentbank.errors import BankError

__all__ = ["Doomed", "pack_doomed", "read_doomed", "visible"]

_RECORD = struct.Struct(f"<I8s{PAGE_ENTRIES // 8}s")  # page, start of its hash, one bit per entry

Doomed = dict[int, tuple[bytes, frozenset[int]]]


def pack_doomed(doomed: Mapping[int, tuple[bytes, frozenset[int]]]) -> bytes:
    """44 bytes for each page: its number, the start of its hash, the positions of the entries."""
    parts = []
    for seq, (hash, positions) in sorted(doomed.items()):
        bits = np.zeros(PAGE_ENTRIES, np.uint8)
        bits[sorted(positions)] = 1
        parts.append(_RECORD.pack(seq, hash[:8], np.packbits(bits).tobytes()))
    return b"".join(parts)


def read_doomed(data: bytes | None) -> Doomed:
    """The inverse of `pack_doomed`; None is nothing. Raises `BankError` for other bytes."""
    if data is None:
        return {}
    if len(data) % _RECORD.size:
        raise BankError("The bank's list of pending deletions is damaged.")
    found: Doomed = {}
    for seq, hash, bits in _RECORD.iter_unpack(data):
        positions = np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8)))
        found[seq] = hash, frozenset(positions.tolist())
    return found


def visible(page: Page, doomed: Mapping[int, tuple[bytes, frozenset[int]]]) -> Page | None:
    """The page without its doomed entries; None if none is left. A page that was rewritten since
    has another hash and is as it should be.
    """
    if page.seq not in doomed or doomed[page.seq][0] != page.hash[:8]:
        return page
    page.check()
    blank = Facts.of([(0, 0, 0, 0)] * page.count)
    rest = PageBuilder.reopen(page, blank, Space(None), doomed[page.seq][1])
    return dataclasses.replace(rest.build(), seq=page.seq) if len(rest) else None
