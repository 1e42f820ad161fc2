"""Storing entries: duplicates counted, new ones placed on pages, room made for them.

Knows a write and its bank; nothing about files or what a payload means.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from latentbank.bank.entry import Entry, check_entry, is_hex_id
from latentbank.bank.facts import Facts, hint_byte
from latentbank.bank.fading import Fading
from latentbank.bank.items import AppendReport
from latentbank.bank.pages import Slot
from latentbank.bank.write import Write, writing
from latentbank.errors import BankError, InputError

if TYPE_CHECKING:
    from latentbank.bank.core import BankCore

__all__ = ["append_entries", "flush_hits", "store_blobs"]

_ENTRY_BYTES = 14  # of an entry beside payload, key and ledger, generously
_LEDGER_BYTES = 40  # of the brackets and names around an entry's ledger
_HIT_PAGES = 64  # whose hits are written at once


def append_entries(
    bank: BankCore,
    batch: list[Entry],
    blobs: Mapping[str, bytes],
    fade: Callable[[Entry], Entry | None] | None,
) -> AppendReport:
    """See `MemoryBank.append`."""
    for entry in batch:
        check_entry(entry)
    times = Counter(entry.id for entry in batch)
    unique: dict[str, Entry] = {}
    for entry in batch:
        unique.setdefault(entry.id, entry)
    _check_blobs(blobs)
    with writing(bank) as work:
        appender = _Appender(work, Fading(work, fade), times)
        if bank.settings.budget_bytes is not None and not bank.settings.span:
            appender.choose_span(unique.values())
        if bank._hits:
            flush_hits(work)
        # documents that are there first: a part with few of them and of new ones costs least
        entries = iter(sorted(unique.values(), key=lambda one: appender.page_of(one) is None))
        appender.store(list(appender.next_part(entries)), blobs)
        while part := list(appender.next_part(entries)):
            appender.store(part, {})
        work.merge_tails()
    return appender.report(len(batch), unique)


def store_blobs(bank: BankCore, blobs: Mapping[str, bytes]) -> None:
    """Blobs alone, in one write; nothing fades for them."""
    _check_blobs(blobs)
    with writing(bank) as work:
        put_blobs(work, Fading(work, None), blobs)


def _check_blobs(blobs: Mapping[str, bytes]) -> None:
    for name, data in blobs.items():
        if not name or not isinstance(data, bytes):
            raise InputError(f"Blob {name!r} must have a name and be bytes.")


def put_blobs(work: Write, fading: Fading, blobs: Mapping[str, bytes], kind: str = "blob") -> None:
    """Blobs in one transaction, with room in log and file made for them."""
    if blobs:
        need, cost = blob_needs(work, blobs, kind)
        cost += work.cost(0)
        while True:
            work.reserve(cost)
            if work.free_bytes() >= need:
                break
            fading.make_room(need)
        for name, data in blobs.items():
            work.bank._put(work.connection, kind, name, data)
        check_size(work)


def blob_needs(work: Write, blobs: Mapping[str, bytes], kind: str = "blob") -> tuple[int, int]:
    """Bytes that blobs add to the file, and to the log."""
    query = "SELECT length(data) FROM items WHERE kind = ? AND name = ?"
    rows = [work.connection.execute(query, (kind, name)).fetchone() for name in blobs]
    old, new = sum((row[0] or 0) if row else 0 for row in rows), sum(map(len, blobs.values()))
    page = work.bank.settings.space.sqlite_page
    added = 2 * page * len(blobs) if new > old else 0
    cost = work.cost(new + old, items=len(blobs)) - work.cost(0)
    return max(0, new - old) + added, cost


def check_size(work: Write) -> None:
    """Raise `BankError` if the file is now larger than its budget allows."""
    if work.trim() > 0:
        kept = "nothing of this write was kept"
        kept = "earlier parts of this write were kept" if work.turns else kept
        raise BankError(
            f"Bank {work.bank.name} would take {work.file_bytes()} bytes with its log, more than "
            f"its budget of {work.bank.settings.budget_bytes}; {kept}. Delete documents or make a "
            "larger bank."
        )


class _Appender:
    """One append: what has been stored so far."""

    def __init__(self, work: Write, fading: Fading, times: Counter[str]) -> None:
        self.work, self.fading, self.times = work, fading, times
        self.stored: dict[str, int] = {}  # id as given -> bytes
        self.names: dict[str, str] = {}

    def choose_span(self, entries: Iterable[Entry]) -> None:
        """One level counts as much as the age of half the documents that the budget holds."""
        sizes = [self._size(entry) for entry in entries]
        if sizes:
            bank = self.work.bank
            budget = bank.settings.budget_bytes or 0
            span = float(max(8, round(budget * len(sizes) / sum(sizes) / 2)))
            self.work.reserve(self.work.cost(64, items=1))
            bank._put_json(self.work.connection, "bank", "span", span)
            bank.settings = dataclasses.replace(bank.settings, span=span)

    def _size(self, entry: Entry) -> int:
        """Bytes that an entry adds to the file, generously."""
        size = len(entry.payload) + len(entry.key) + _ENTRY_BYTES
        if self.work.bank.settings.ledger == "full":
            extra = [entry.time, entry.source, *(entry.metadata or ())]
            if any(extra):
                size += _LEDGER_BYTES + len(str(extra)) + len(str(entry.metadata))
        return size if is_hex_id(entry.id) else size + 2 * len(entry.id)

    def next_part(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """As many entries as one transaction takes; at least one."""
        limit = self.work.bank.settings.space.part_bytes
        if limit is None:
            yield from entries
            return
        pages: set[int] = set()
        total, most = 0, self.work.bank.settings.space.part_pages
        while total < limit and len(pages) < most and (part := list(islice(entries, 1))):
            seq = self.page_of(part[0])
            if seq is None:
                total += self._size(part[0])
            else:
                pages.add(seq)
                total += self._size(part[0]) // 8  # its count
            yield part[0]

    def store(self, part: list[Entry], blobs: Mapping[str, bytes]) -> None:
        """One part, all or nothing: blobs, counts of what is there, room, then the new entries."""
        work, space = self.work, self.work.bank.settings.space
        if space.budget is None:
            self.stored |= self._write(part, blobs)
            return
        new = [entry for entry in part if self.page_of(entry) is None]
        size = sum(self._size(entry) for entry in new)
        tails = len({(entry.level, len(entry.key)) for entry in new})
        again = len({self.page_of(entry) for entry in part}) - bool(new)
        pages = tails + again + min(len(new), 2 * (size // space.page_bytes) + 1)
        old = 2 * tails * (space.tail_bytes if size <= space.tail_bytes else space.page_bytes)
        blob_bytes, blob_cost = blob_needs(work, blobs)
        cost = work.cost(size + old + 3 * again * space.page_bytes, pages) + blob_cost
        need = size + blob_bytes + (space.margin_bytes if new else 0)
        while True:
            work.reserve(cost)
            if work.free_bytes() < need:
                self.fading.make_room(need)
                continue
            before = work.save()
            stored = self._write(part, blobs)
            over = work.trim()
            if over <= 0:
                self.stored |= stored
                return
            work.restore(before)  # pages are not filled to the last byte: more room, once more
            need = work.free_bytes() + over + space.sqlite_page
            self.fading.make_room(need)

    def page_of(self, entry: Entry) -> int | None:
        number = self.work.bank._number(entry.id)
        return None if number is None else self.work.find(number)

    def _write(self, part: list[Entry], blobs: Mapping[str, bytes]) -> dict[str, int]:
        """Stores blobs, counts duplicates and places the others; ids placed, with their bytes."""
        work, bank = self.work, self.work.bank
        for name, data in blobs.items():
            bank._put(work.connection, "blob", name, data)
        again: dict[int, list[Entry]] = {}
        new, numbers, stored = [], set(), {}
        for entry in part:
            seq = self.page_of(entry)
            if seq is not None:
                again.setdefault(seq, []).append(entry)
                continue
            kept = self._kept(entry)
            number = bank._number(kept.id)
            if number in numbers:  # two ids of this call with one hash
                raise _collision(entry.id)
            numbers.add(number)
            hints = (hint_byte(entry.surprise), hint_byte(entry.redundancy))
            slot = Slot(entry.level, len(entry.key), 0)
            new.append((slot, kept, self.times[entry.id], (work.next_order(), 0, *hints)))
            stored[entry.id] = len(entry.payload) + len(entry.key)
        for seq, entries in again.items():
            builder = work.builder(seq)
            for entry in entries:
                if not builder.holds(entry.id):
                    raise _collision(entry.id)
                builder.bump(entry.id, self.times[entry.id])
            work.write_page(builder)
        work.place(new, fill=sum(stored.values()) > work.space.tail_bytes)
        return stored

    def _kept(self, entry: Entry) -> Entry:
        """The entry as far as the bank's ledger keeps it."""
        ledger = self.work.bank.settings.ledger
        if ledger == "full":
            return entry
        id = entry.id
        if ledger == "none":
            id = self.names[entry.id] = f"{self.work._orders:08x}"
        return dataclasses.replace(entry, id=id, time=None, source=None, metadata={})

    def report(self, given: int, unique: Mapping[str, Entry]) -> AppendReport:
        """What happened to the `given` entries."""
        return AppendReport(
            len(self.stored),
            given - len(self.stored),
            sum(self.stored.values()),
            tuple(self.fading.faded),
            tuple(self.fading.forgotten),
            self.names,
        )


def _collision(id: str) -> BankError:
    return BankError(
        f"The id {id!r} has the same 8-byte hash as another id of the bank; give it another id."
    )


def flush_hits(work: Write) -> None:
    """Write the hits that wait, page by page; more than a few pages' worth waits for the next."""
    bank = work.bank
    waiting, bank._hits = bank._hits, Counter()
    by_page: dict[int, dict[int, int]] = {}
    for id, times in waiting.items():
        number = bank._number(id)
        seq = None if number is None else work.find(number)
        if number is None or seq is None:
            continue  # it has left the bank since
        if seq not in by_page and len(by_page) >= _HIT_PAGES:
            bank._hits[id] = times
        else:
            by_page.setdefault(seq, {})[number] = times
    for seq, hits in by_page.items():
        work.reserve(work.cost(0, pages=1))
        if bank._stored_page(work.connection, seq) is None:
            continue
        page, facts = work.page(seq)
        rows = facts.rows()
        for at, number in enumerate(page.id_keys.tolist()):
            if number in hits:
                order, known, surprise, redundancy = rows[at]
                rows[at] = order, known + hits[number], surprise, redundancy
        work.write_facts(page, Facts.of(rows))
