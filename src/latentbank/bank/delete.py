"""Which documents to delete, and deleting them: atomic, traceless, with a receipt.

Knows ids, ledgers and pages; nothing about what a payload means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from latentbank.bank.append import check_size
from latentbank.bank.doomed import finish_deletion, pack_doomed
from latentbank.bank.items import Receipt, state_hash
from latentbank.bank.ladder import MASS
from latentbank.bank.pages import Page
from latentbank.bank.write import Write, writing
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.bank.core import BankCore
    from latentbank.bank.memory_bank import MemoryBank

__all__ = ["Selection", "erase_ids", "select_ids"]

_Wanted = dict[int, dict[int, str]]  # page -> number -> id

_MASS_REMAINS = (
    "Of {} of these documents only anonymous counts were left (level mass); those counts remain."
)


@dataclass(frozen=True)
class Selection:
    """Documents by what the ledger says of them; every condition that is given must hold.

    Attributes:
        source: the document's source, exactly.
        since, before: times, compared as text: ISO 8601 sorts by date. `before` is exclusive. A
            document without a time is in no range.
        metadata: names with the values that they must have.
    """

    source: str | None = None
    since: str | None = None
    before: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.source is None and self.since is None and self.before is None and not self.metadata:
            raise InputError(
                "A selection needs a condition: source, since, before or metadata; without one it "
                "would be the whole bank."
            )

    def holds(self, time: Any, source: Any, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with these values is selected."""
        if self.source is not None and source != self.source:
            return False
        if (self.since is not None or self.before is not None) and time is None:
            return False
        if self.since is not None and time < self.since:
            return False
        if self.before is not None and time >= self.before:
            return False
        wanted = [(metadata.get(name, _Missing), value) for name, value in self.metadata.items()]
        return all(_same(found, value) for found, value in wanted)


class _Missing:
    """Equal to no JSON value."""


def _same(found: Any, wanted: Any) -> bool:
    if found is _Missing:
        return False
    return json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)


def select_ids(bank: MemoryBank, selection: Selection) -> list[str]:
    """The ids of the selected documents, in the order of the pages; reads ledgers, no payloads.

    Raises `InputError` if the bank keeps no full ledger.
    """
    if bank.settings.ledger != "full":
        raise InputError(
            f"The bank {bank.name} keeps no times, sources or metadata (ledger "
            f"{bank.settings.ledger!r}), so documents can only be chosen by id."
        )
    found: list[str] = []
    for page in bank.payloads():
        found.extend(_selected(page, selection))
    return found


def _selected(page: Page, selection: Selection) -> Iterator[str]:
    if page.ledger is None:
        return
    empty: list[Any] = [None] * page.count
    times, sources = page.columns.get("time", empty), page.columns.get("source", empty)
    metadata = page.columns.get("metadata", empty)
    for at, id in enumerate(page.document_ids):
        if selection.holds(times[at], sources[at], metadata[at] or {}):
            yield id


def erase_ids(bank: BankCore, ids: Iterable[str], blobs: Mapping[str, bytes]) -> Receipt:
    """See `MemoryBank.erase`."""
    asked = list(dict.fromkeys(ids))
    with writing(bank) as work:
        before = state_hash(work.connection)
        wanted, found = _by_page(work, asked), _Found()
        if work.bank.settings.space.reckons:
            found = _erase_within(work, wanted, blobs)
        else:
            _put_blobs(work, blobs)
            for page, positions in _positions(work, wanted):
                found.take(page, positions)
                work.cut_page(page, positions)
        for number in found.gone.values():
            work.move(number, 0)
        after = state_hash(work.connection)
    bank._checkpoint()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    remains = _MASS_REMAINS.format(found.masses) if found.masses else ""
    missing = tuple(id for id in asked if id not in found.gone)
    return Receipt(tuple(found.gone), missing, not remains, remains, before, after, now)


def _erase_within(work: Write, wanted: _Wanted, blobs: Mapping[str, bytes]) -> _Found:
    """Erase with room for the log reckoned beforehand: at once where that fits, else by a list."""
    places, found = _places(work, wanted)
    sizes = [size for _, _, size in places.values()]
    blob_bytes, items = 2 * sum(map(len, blobs.values())), len(blobs)
    cost = work.cost(2 * sum(sizes) + blob_bytes, len(sizes), items)
    list_cost = work.cost(44 * len(sizes) + blob_bytes, items=items + 1)
    at_once = cost <= work.bank.settings.space.reserve
    work.reserve(cost if at_once else list_cost)
    if work.strangers:  # another process may have been here
        names = [id for ids in wanted.values() for id in ids.values()]
        places, found = _places(work, _by_page(work, names))
    _put_blobs(work, blobs)
    if not at_once:
        _decide(work, {seq: (hash[:8], at) for seq, (hash, at, _) in places.items()})
    else:
        for seq, (_, at, _) in places.items():
            work.cut_page(work.page(seq)[0], at)
    return found


def _put_blobs(work: Write, blobs: Mapping[str, bytes]) -> None:
    for name, data in blobs.items():
        work.bank._put(work.connection, "blob", name, data)
    if blobs:  # a deletion alone makes nothing larger; `commit` keeps the hard limit
        check_size(work)


@dataclass
class _Found:
    """What a deletion found: ids with their numbers, and how many were mass."""

    gone: dict[str, int] = field(default_factory=dict)
    masses: int = 0

    def take(self, page: Page, positions: frozenset[int]) -> None:
        """Note the entries of a page."""
        for at in sorted(positions):
            self.gone[page.document_id(at)] = int(page.id_keys[at])
        self.masses += len(positions) if page.level == MASS else 0


def _by_page(work: Write, ids: Iterable[str]) -> _Wanted:
    """The ids by the page that the index has for their numbers; unknown ones are left out."""
    wanted: _Wanted = {}
    for id in ids:
        number = work.bank._number(id)
        seq = None if number is None else work.find(number)
        if number is not None and seq is not None:
            wanted.setdefault(seq, {})[number] = id
    return wanted


def _positions(work: Write, wanted: _Wanted) -> Iterator[tuple[Page, frozenset[int]]]:
    """The pages that hold wanted ids, one after another, and where on them."""
    for seq, ids in wanted.items():
        page = work.bank._read_page(work.connection, seq)
        numbers = enumerate(page.id_keys.tolist())
        at = frozenset(i for i, n in numbers if n in ids and page.document_id(i) == ids[n])
        if at:
            yield page, at


def _places(
    work: Write, wanted: _Wanted
) -> tuple[dict[int, tuple[bytes, frozenset[int], int]], _Found]:
    """By page: its hash, positions, bytes; and what was found."""
    places: dict[int, tuple[bytes, frozenset[int], int]] = {}
    found = _Found()
    for page, at in _positions(work, wanted):
        places[page.seq] = page.hash, at, page.size_bytes
        found.take(page, at)
    return places, found


def _decide(work: Write, doomed: dict[int, tuple[bytes, frozenset[int]]]) -> None:
    """Store the decision in one transaction, then carry it out in as many as the log asks for."""
    bank, packed = work.bank, pack_doomed(doomed)
    bank._put(work.connection, "bank", "deleting", packed)
    work.commit()
    work.turns += 1
    bank._doomed = doomed
    work.begin()
    finish_deletion(work)
