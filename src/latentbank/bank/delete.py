"""Which documents to delete, and deleting them: atomic, without trace, with a receipt.

Knows ids, ledgers and pages; nothing about what a payload means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from latentbank.bank.append import Carried
from latentbank.bank.reports import Receipt
from latentbank.bank.store.pages import Page
from latentbank.bank.store.session import Session
from latentbank.bank.store.tombstones import TOMBSTONE_BYTES, Tombstones
from latentbank.bank.write import Write, writing
from latentbank.documents.conditions import Conditions
from latentbank.documents.identity import document_id

__all__ = ["delete_ids", "selected_ids"]


def selected_ids(page: Page, conditions: Conditions) -> Iterator[str]:
    """The ids of a page's entries that meet the conditions. Reads the ledger, no payloads."""
    empty: list[Any] = [None] * page.count
    times, sources = page.columns.get("time", empty), page.columns.get("source", empty)
    metadata = page.columns.get("metadata", empty)
    for at, id in enumerate(page.document_ids):
        if conditions.holds(document_id(id), times[at], sources[at], metadata[at]):
            yield id


@dataclass(frozen=True)
class _Cut:
    """What leaves one page: the positions on it, the ids there with their numbers."""

    page: Page
    positions: frozenset[int]

    @property
    def numbers(self) -> dict[str, int]:
        """Id → its number in the directory."""
        page = self.page
        return {page.document_id(at): int(page.id_keys[at]) for at in sorted(self.positions)}


def delete_ids(session: Session, ids: Iterable[str], carried: Carried) -> Receipt:
    """See `MemoryBank.delete`."""
    asked = list(dict.fromkeys(ids))
    gone: dict[str, int] = {}
    with writing(session) as work:
        before = session.pages.state_hash()
        if session.settings.space.limits_log:
            gone = _delete_within(work, asked, carried)
        else:
            _put(work, carried)
            for cut in _cuts(work, asked):
                gone |= cut.numbers
                work.pages.cut(cut.page, cut.positions)
        work.pages.move(gone.values(), 0)
        after = session.pages.state_hash()
    session.checkpoint()
    return Receipt(
        deleted=tuple(gone),
        missing=tuple(id for id in asked if id not in gone),
        before=before,
        after=after,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _delete_within(work: Write, asked: Sequence[str], carried: Carried) -> dict[str, int]:
    """Delete within the log's limit: at once if that fits, else by tombstones first."""
    places, gone, size = _places(work, asked)
    item_bytes = sum(len(data) for _, items in carried.kinds() for data in items.values())
    items = len(carried.blobs) + len(carried.state)
    cost = work.cost(2 * (size + item_bytes), len(places), items)
    at_once = cost <= work.session.settings.space.reserve
    if not at_once:
        cost = work.cost(TOMBSTONE_BYTES * len(places) + 2 * item_bytes, items=items + 1)
    work.reserve(cost)
    if work.strangers:  # another process may have been here
        places, gone, _ = _places(work, asked)
    _put(work, carried)
    if not at_once:
        work.decide_deletion(places)
        return gone
    for seq, (_, positions) in places.items():
        work.pages.cut(work.pages.read(seq)[0], positions)
    return gone


def _put(work: Write, carried: Carried) -> None:
    grows = carried.needs(work)[0] > 0
    carried.put(work)
    if grows:  # otherwise a deletion is always possible; `commit` keeps the hard limit
        work.check_size()


def _cuts(work: Write, asked: Iterable[str]) -> Iterator[_Cut]:
    """The pages that hold wanted ids, one after another, and where on them. Skips unknown ids."""
    wanted: dict[int, dict[int, str]] = {}
    for id in asked:
        number, seq = work.session.number(id), work.pages.locate(id)
        if number is not None and seq is not None:
            wanted.setdefault(seq, {})[number] = id
    for seq, ids in wanted.items():
        page = work.session.read_page(seq)
        numbers = enumerate(page.id_keys.tolist())
        at = frozenset(i for i, n in numbers if n in ids and page.document_id(i) == ids[n])
        if at:
            yield _Cut(page, at)


def _places(work: Write, asked: Sequence[str]) -> tuple[Tombstones, dict[str, int], int]:
    """Page → (its hash, positions); the ids found with their numbers; bytes of the pages."""
    places: Tombstones = {}
    gone: dict[str, int] = {}
    size = 0
    for cut in _cuts(work, asked):
        places[cut.page.seq] = cut.page.hash[:8], cut.positions
        gone |= cut.numbers
        size += cut.page.size_bytes
    return places, gone, size
