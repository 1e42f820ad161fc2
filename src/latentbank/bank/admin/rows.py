"""Documents with all that a bank knows of them, out of one bank and into another.

Knows entries, depths, counts and facts; nothing about files. Export, merge, split and repair use
it.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from latentbank.bank.append import choose_span
from latentbank.bank.bank import MemoryBank
from latentbank.bank.entry import Entry, check_entry
from latentbank.bank.fading import Fading
from latentbank.bank.ladder import Fade
from latentbank.bank.reader import BankReader
from latentbank.bank.store.facts import Fact
from latentbank.bank.store.page_writer import Placed
from latentbank.bank.store.pages import MAX_DEPTH, Slot
from latentbank.bank.write import Write, writing
from latentbank.errors import BankError

__all__ = ["Progress", "Row", "bank_like", "bank_rows", "insert_rows"]

_ROWS_AT_ONCE = 4096
_PART_BYTES = 1 << 24  # of one part, without a budget

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Row:
    """One document of a bank: its entry, steps faded, times written, and (order, hits)."""

    entry: Entry
    depth: int
    count: int
    fact: Fact


def bank_rows(bank: BankReader, progress: Progress | None = None) -> Iterator[Row]:
    """Every document, page by page; raises `BankError` at damage."""
    total, done = len(bank), 0
    session = bank.session
    with session.reading():
        numbers = session.pages.numbers()
    for seq in numbers:
        with session.reading():
            both = session.page_and_facts(seq)
        if both is None:
            continue
        page, facts = both
        for at, (count, fact) in enumerate(zip(page.counts(), facts.rows(), strict=True)):
            yield Row(page.entry(at), page.depth, count, fact)
        done += page.count
        if progress is not None:
            progress(done, total)


def bank_like(bank: BankReader, path: str, budget: int | str | None) -> MemoryBank:
    """A new, empty bank with the fingerprint, settings and metadata of another."""
    settings = bank.settings
    return MemoryBank.create(
        path,
        bank.fingerprint,
        budget=budget,
        ledger=settings.ledger,
        policy=settings.policy,
        lossless=settings.lossless,
        meta=bank.meta(),
    )


def insert_rows(
    bank: MemoryBank,
    rows: Iterable[Row],
    span: float = 0.0,
    progress: Progress | None = None,
    fade: Fade | None = None,
) -> Fading:
    """Store documents whose ids are new to the bank, in the order given, at their levels.

    Returns the fading, which names the documents that left the bank for others. Raises `BankError`
    if they do not fit and `fade` is None.
    """
    waiting = deque(rows)
    for row in waiting:
        check_entry(row.entry)
    total, done = len(waiting), 0
    with writing(bank.session) as work:
        fading = Fading(work, fade)
        choose_span(work, [_size(row) for row in waiting], span)
        space = bank.settings.space
        while waiting:
            part = _part(waiting, space.part_bytes or _PART_BYTES)
            size = sum(_size(row) for row in part)
            cost = work.cost(size + 3 * space.tail_bytes, pages=2 + 2 * (size // space.page_bytes))
            while True:
                work.reserve(cost)
                if work.free_bytes() >= size + 2 * space.sqlite_page:
                    break
                fading.make_room(size + 2 * space.sqlite_page)
            _insert(work, part)
            work.check_size()
            done += len(part)
            if progress is not None:
                progress(done, total)
    return fading


def _size(row: Row) -> int:
    """Bytes that a document adds to the file; an upper bound."""
    entry = row.entry
    ledger = len(str((entry.time, entry.source, entry.metadata, entry.version)))
    return len(entry.payload) + len(entry.key) + ledger + len(entry.id) + 16


def _part(waiting: deque[Row], limit: int) -> list[Row]:
    """Take as many rows as one transaction may store; at least one."""
    part: list[Row] = []
    total = 0
    while waiting and total < limit and len(part) < _ROWS_AT_ONCE:
        part.append(waiting.popleft())
        total += _size(part[-1])
    return part


def _insert(work: Write, part: list[Row]) -> None:
    session, pages = work.session, work.pages
    items: list[Placed] = []
    numbers: set[int] = set()
    for row in part:
        entry = row.entry
        if session.settings.ledger == "none":
            id = f"{pages.changes.orders:08x}"
            entry = dataclasses.replace(entry, id=id, time=None, source=None, version="")
        number = session.number(entry.id)
        if number is None or number in numbers or pages.find(number) is not None:
            raise BankError(f"The id {entry.id!r} is in bank {session.name} already.")
        numbers.add(number)
        slot = Slot(entry.level, len(entry.key), min(max(0, row.depth), MAX_DEPTH))
        items.append(Placed(slot, entry, row.count, (pages.next_order(), row.fact[1])))
    pages.place(items)
