"""Pages from which a few entries leave: their columns are cut, no entry is taken apart.

Knows pages; nothing about SQLite, or why the entries leave. What comes out is, byte for byte, the
page that its remaining entries would make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from latentbank.bank.pages import Page, pack_ledger, pack_varints

__all__ = ["page_without"]


def page_without(page: Page, gone: frozenset[int]) -> Page | None:
    """The page, which must be whole, without the entries at positions `gone`; None if none is left.

    Raises `BankError` where its ledger is damaged.
    """
    if len(gone) >= page.count:
        return None
    ends = [-1, *sorted(gone), page.count]
    runs = [(one + 1, two) for one, two in pairwise(ends) if two > one + 1]
    edges, width = page.edges, page.key_bytes
    kept = [at for start, end in runs for at in range(start, end)]
    lengths = page.lengths
    if edges[1] * page.count != edges[-1] or len(lengths) >= page.count:
        sizes = [edges[at + 1] - edges[at] for at in kept]
        lengths = pack_varints(sizes[:1] if len(set(sizes)) == 1 else sizes)
    columns = {
        name: [column[at] or None for at in kept] for name, column in sorted(page.columns.items())
    }
    columns = {name: column for name, column in columns.items() if any(column)}
    left = replace(
        page,
        count=len(kept),
        ids=_cut(page.ids, runs, range(0, len(page.ids) + 1, page.id_bytes)),
        lengths=lengths,
        payload=_cut(page.payload, runs, edges),
        keys=page.keys and _cut(page.keys, runs, range(0, len(page.keys) + 1, width)),
        ledger=pack_ledger(columns),
    )
    return replace(left, hash=left.checksum())


def _cut(blob: bytes, runs: Sequence[tuple[int, int]], edges: Sequence[int]) -> bytes:
    """What lies between the edges of each run of positions."""
    return b"".join([blob[edges[start] : edges[end]] for start, end in runs])
