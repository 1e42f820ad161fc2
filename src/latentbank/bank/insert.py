"""Documents with all that a bank knows of them, out of one bank and into another.

Knows entries, depths, counts and facts; nothing about files. What export, merge, split and repair
have in common.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from latentbank.bank.append import check_size
from latentbank.bank.entry import Entry, check_entry
from latentbank.bank.fading import Fading
from latentbank.bank.ladder import Fade
from latentbank.bank.memory_bank import MemoryBank
from latentbank.bank.pages import MAX_DEPTH, Slot
from latentbank.bank.write import Write, writing
from latentbank.errors import BankError

__all__ = ["Row", "bank_rows", "insert_rows"]

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Row:
    """One document of a bank: its entry, steps faded, times written, and (order, hits, surprise,
    redundancy).
    """

    entry: Entry
    depth: int
    count: int
    fact: tuple[int, int, int, int]


def bank_rows(
    bank: MemoryBank, progress: Callable[[int, int], None] | None = None
) -> Iterator[Row]:
    """Every document, page by page; raises `BankError` at damage."""
    total, done = len(bank), 0
    for page in bank.payloads():
        with bank._transaction(write=False) as connection:
            stored = bank._stored_page(connection, page.seq)
            facts = bank._read_facts(
                connection, page.seq, page.count if stored is None else stored.count
            )
        if stored is None:
            continue
        if stored.hash != page.hash:  # part of it is being deleted
            keep = set(page.document_ids)
            rows = [
                r for r, id in zip(facts.rows(), stored.document_ids, strict=True) if id in keep
            ]
        else:
            rows = facts.rows()
        for at, count in enumerate(page.counts()):
            yield Row(page.entry(at), page.depth, count, rows[at])
        done += page.count
        if progress is not None:
            progress(done, total)


def insert_rows(
    bank: MemoryBank,
    rows: Iterable[Row],
    span: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
    fade: Fade | None = None,
) -> Fading:
    """Store documents whose ids are new to the bank, in the order given, with their levels kept.

    Raises `BankError` if they do not fit and `fade` is None.
    """
    todo = list(rows)
    for row in todo:
        check_entry(row.entry)
    waiting, done = iter(todo), 0
    with writing(bank) as work:
        fading = Fading(work, fade)
        _choose_span(work, todo, span)
        space = bank.settings.space
        while part := _part(waiting, space.part_bytes):
            size = sum(_size(row) for row in part)
            cost = work.cost(size + 3 * space.tail_bytes, pages=2 + 2 * (size // space.page_bytes))
            while True:
                work.reserve(cost)
                if work.free_bytes() >= size + 2 * space.sqlite_page:
                    break
                fading.make_room(size + 2 * space.sqlite_page)
            _insert(work, part)
            check_size(work)
            done += len(part)
            if progress is not None:
                progress(done, len(todo))
    return fading


def _size(row: Row) -> int:
    entry = row.entry
    ledger = len(str((entry.time, entry.source, entry.metadata)))
    return len(entry.payload) + len(entry.key) + ledger + len(entry.id) + 16


def _part(rows: Iterator[Row], limit: int | None) -> list[Row]:
    found: list[Row] = []
    total = 0
    while total < (limit or 1 << 24) and len(found) < _ROWS_AT_ONCE:
        more = list(islice(rows, 1))
        if not more:
            break
        found += more
        total += _size(more[0])
    return found


def _choose_span(work: Write, rows: list[Row], span: float) -> None:
    bank = work.bank
    budget = bank.settings.budget_bytes
    if budget is None or bank.settings.span or not rows:
        return
    chosen = span or float(max(8, round(budget * len(rows) / sum(map(_size, rows)) / 2)))
    work.reserve(work.cost(64, items=1))
    bank._put_json(work.connection, "bank", "span", chosen)
    bank.settings = dataclasses.replace(bank.settings, span=chosen)


def _insert(work: Write, part: list[Row]) -> None:
    bank = work.bank
    items = []
    numbers: set[int] = set()
    for row in part:
        entry = row.entry
        if bank.settings.ledger == "none":
            entry = dataclasses.replace(entry, id=f"{work._orders:08x}", time=None, source=None)
        number = bank._number(entry.id)
        if number is None or number in numbers or work.find(number) is not None:
            raise BankError(f"The id {entry.id!r} is in bank {bank.name} already.")
        numbers.add(number)
        slot = Slot(entry.level, len(entry.key), min(max(0, row.depth), MAX_DEPTH))
        items.append((slot, entry, row.count, (work.next_order(), *row.fact[1:])))
    work.place(items)
