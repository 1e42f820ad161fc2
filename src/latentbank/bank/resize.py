"""A bank as a file: consistent copies while others write, other budgets, free space given back.

Knows transactions, pages and SQLite's backup; nothing about what entries mean.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from latentbank.bank.entry import Entry
from latentbank.bank.fading import Fading
from latentbank.bank.file import new_file, sqlite_errors
from latentbank.bank.items import AppendReport
from latentbank.bank.pages import PageBuilder, Slot
from latentbank.bank.space import Space
from latentbank.bank.write import Write, writing
from latentbank.errors import BankError, InputError

if TYPE_CHECKING:
    from latentbank.bank.core import BankCore

__all__ = ["compact_bank", "rebudget_bank", "shrink", "snapshot_bank"]

_PAGES_AT_ONCE = 256  # of a copy, between two reports of progress
_MOVED = 6  # pages that moving one page to the front may touch


def snapshot_bank(
    bank: BankCore, path: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """See `MemoryBank.snapshot`. The copy is whole or not there."""
    with new_file(path) as draft, sqlite_errors(bank.name):
        copy = sqlite3.connect(draft, isolation_level=None)
        try:
            # the transaction holds one state of the bank for the whole copy
            with bank._transaction(write=False) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                connection.backup(
                    copy,
                    pages=_PAGES_AT_ONCE,
                    progress=None
                    if progress is None
                    else lambda _, left, total: progress(total - left, total),
                )
            copy.execute("PRAGMA journal_mode=DELETE")
            if bank.settings.space.has_log:
                copy.execute("PRAGMA journal_mode=WAL")
        finally:
            copy.close()


def rebudget_bank(
    bank: BankCore,
    budget: int | None,
    fade: Callable[[Entry], Entry | None] | None,
    progress: Callable[[int, int], None] | None = None,
) -> AppendReport:
    """See `MemoryBank.rebudget`."""
    old, space = bank.budget_bytes, Space(budget)
    if space.has_log != bank.settings.space.has_log and bank.name != ":memory:":
        kinds = ("below", "from") if space.has_log else ("from", "below")
        raise InputError(
            f"A bank made {kinds[0]} 1 MiB has another kind of log than one {kinds[1]} 1 MiB; "
            "export it and import it with the new budget."
        )
    with writing(bank) as work:
        fading = Fading(work, fade)
        if budget is not None and (old is None or budget < old):
            _fit(work, fading, space)
    with writing(bank) as work:
        documents = len(bank._index)
        used = work.file_bytes() / max(1, documents)
        span = float(max(8, round(budget / used / 2))) if budget and documents else 0.0
        work.reserve(work.cost(256, items=2))
        for name, value in (("budget_bytes", budget), ("span", span)):
            bank._put_json(work.connection, "bank", name, value)
        work.commit()
        bank.settings = dataclasses.replace(bank.settings, budget_bytes=budget, span=span)
        bank._version = None
        work.begin()
        pages = work.connection.execute("SELECT seq FROM pages").fetchall()
        for done, (seq,) in enumerate(pages):
            if progress is not None:
                progress(done + 1, len(pages))
            work.reserve(work.cost(0, pages=1))
            if bank._stored_page(work.connection, seq) is not None:
                work.write_facts(*work.page(seq))
    bank._checkpoint()
    return AppendReport(0, 0, 0, tuple(fading.faded), tuple(fading.forgotten))


def _fit(work: Write, fading: Fading, space: Space) -> None:
    """Fade until the content fits into the smaller budget, then move it to the file's front."""
    _fade_to(work, fading, space)
    recut(work, space)
    _fade_to(work, fading, space)
    shrink(work)


def recut(work: Write, space: Space) -> None:
    """Make smaller pages of those that are too large for a smaller budget."""
    work.paging = space
    for (seq,) in work.connection.execute("SELECT seq FROM pages ORDER BY seq").fetchall():
        stored = work.bank._stored_page(work.connection, seq)
        size = 0 if stored is None else stored.size_bytes
        if size <= 2 * space.page_bytes and (stored is None or stored.count <= space.page_entries):
            continue
        parts = 2 + 4 * size // space.page_bytes
        work.reserve(work.cost(3 * size, pages=parts))
        if work.bank._stored_page(work.connection, seq) is None:
            continue
        page, facts = work.page(seq)
        counts, rows = page.counts(), facts.rows()
        work.drop_page(seq, page.slot)
        work.place([(page.slot, page.entry(at), counts[at], rows[at]) for at in range(page.count)])
    work.paging = None


def _fade_to(work: Write, fading: Fading, space: Space) -> None:
    page = work.bank.settings.space.sqlite_page
    while True:
        unused = work.connection.execute("PRAGMA freelist_count").fetchone()[0]
        over = work.file_bytes() - unused * page - space.file_limit(0)
        if over <= 0:
            break
        if fading.fade is None or not fading.step(over + space.slack):
            raise BankError(
                f"Bank {work.bank.name} holds {over} bytes more than a budget of {space.budget} "
                "has room for; nothing was changed."
            )


def shrink(work: Write) -> int:
    """Move pages from the file's end into its free space and cut it off; returns bytes saved."""
    before, page = work.file_bytes(), work.bank.settings.space.sqlite_page
    reserve = work.bank.settings.space.reserve
    at_once = max(1, reserve // (2 * _MOVED * page)) if reserve else 1 << 30
    free, last = work.connection.execute("PRAGMA freelist_count").fetchone()[0], None
    while free and free != last:  # a damaged file may claim free pages that it does not have
        work.reserve(min(reserve, work.cost(at_once * _MOVED * page)))
        # every row of this statement frees one page
        for _ in work.connection.execute(f"PRAGMA incremental_vacuum({at_once})"):
            pass
        last, free = free, work.connection.execute("PRAGMA freelist_count").fetchone()[0]
    return before - work.file_bytes()


def compact_bank(bank: BankCore, progress: Callable[[int, int], None] | None = None) -> int:
    """See `MemoryBank.compact`."""
    before = bank.file_bytes()
    with writing(bank) as work:
        last: dict[Slot, PageBuilder] = {}
        strangers = 0
        pages = work.connection.execute("SELECT seq FROM pages ORDER BY seq").fetchall()
        for done, (seq,) in enumerate(pages):
            if progress is not None:
                progress(done + 1, len(pages))
            stored = bank._stored_page(work.connection, seq)
            size = 0 if stored is None else stored.size_bytes
            work.reserve(work.cost(4 * bank.settings.space.page_bytes + 2 * size, pages=2))
            if strangers != work.strangers:  # another process may have been here
                last, strangers = {}, work.strangers
            if bank._stored_page(work.connection, seq) is None:
                continue
            page, facts = work.page(seq)
            builder = last.get(page.slot)
            if builder is None or not builder.join(page, facts):
                last[page.slot] = work.builder(seq)
                continue
            for number in page.id_keys.tolist():
                work.move(number, builder.seq)
            work.drop_page(seq, page.slot)
            work.write_page(builder)
        shrink(work)
    bank._checkpoint()
    return max(0, before - bank.file_bytes())
