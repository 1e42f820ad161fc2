"""Deletions that one transaction cannot hold: which entries of which pages are as good as gone.

Knows page numbers, hashes and bits. A bank with a tight budget writes this list first, in one
transaction; from then on nobody sees the documents, and the pages are rewritten one after another,
by this process or, should it die, by the next one that writes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from latentbank.bank.pages import PAGE_ENTRIES, Page
from latentbank.bank.shrink import page_without
from latentbank.errors import BankError

if TYPE_CHECKING:
    from latentbank.bank.write import Write

__all__ = ["Doomed", "finish_deletion", "pack_doomed", "read_doomed", "visible"]

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
    return page_without(page, doomed[page.seq][1])


def finish_deletion(work: Write) -> None:
    """Rewrite the pages of a deletion that has been decided, then forget the list."""
    doomed = work.bank._doomed
    for seq, (hash, positions) in sorted(doomed.items()):
        page = work.bank._stored_page(work.connection, seq)
        if page is None or page.hash[:8] != hash:
            continue
        strangers = work.strangers
        rewritten = 2 if len(positions) < page.count else 1
        work.reserve(work.cost(rewritten * page.size_bytes, pages=1))
        if strangers != work.strangers:  # another process may have been here
            page = work.bank._stored_page(work.connection, seq)
        if page is not None and page.hash[:8] == hash:
            page.check()
            for at, number in enumerate(page.id_keys.tolist()):
                if at in positions:
                    work.move(number, 0)
            work.cut_page(page, positions)
    work.reserve(work.cost(len(doomed) * 44, items=1))
    work.connection.execute("DELETE FROM items WHERE kind = 'bank' AND name = 'deleting'")
    work.bank._doomed = {}
