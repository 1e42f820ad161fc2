"""A bank as a file: consistent copies while others write, other budgets, free space given back.

Knows transactions, pages and SQLite's backup; nothing about what entries mean.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from pathlib import Path

from latentbank.bank.fading import Fading
from latentbank.bank.ladder import Fade
from latentbank.bank.reports import AppendReport
from latentbank.bank.space import Space
from latentbank.bank.store.builder import PageBuilder
from latentbank.bank.store.file import new_file, sqlite_errors
from latentbank.bank.store.items import BANK
from latentbank.bank.store.page_writer import Placed
from latentbank.bank.store.pages import Slot
from latentbank.bank.store.session import MEMORY, Session
from latentbank.bank.write import Write, writing
from latentbank.errors import BudgetError, InputError

__all__ = ["compact_session", "rebudget_session", "snapshot_session"]

_PAGES_AT_ONCE = 256  # of a copy, between two reports of progress
_MOVED = 6  # SQLite's pages that moving one page to the front may touch

Progress = Callable[[int, int], None]  # (done, total) in pages


def snapshot_session(session: Session, path: Path, progress: Progress | None = None) -> None:
    """See `MemoryBank.snapshot`. The copy is whole or not there."""
    with new_file(path) as draft, sqlite_errors(session.name):
        copy = sqlite3.connect(draft, isolation_level=None)
        try:
            # the transaction holds one state of the bank for the whole copy
            with session.reading():
                session.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                session.connection.backup(
                    copy,
                    pages=_PAGES_AT_ONCE,
                    progress=None
                    if progress is None
                    else lambda _, left, total: progress(total - left, total),
                )
            copy.execute("PRAGMA journal_mode=DELETE")
            if session.settings.space.has_log:
                copy.execute("PRAGMA journal_mode=WAL")
        finally:
            copy.close()


def rebudget_session(
    session: Session, budget: int | None, fade: Fade | None, progress: Progress | None = None
) -> AppendReport:
    """See `MemoryBank.rebudget`. One transaction: what fails or is killed has changed nothing."""
    with session.reading():
        old = session.settings.space
    space = Space(budget)
    if space.has_log != old.has_log and session.name != MEMORY:
        kinds = ("below", "from") if space.has_log else ("from", "below")
        raise InputError(
            f"A bank made {kinds[0]} 1 MiB has another kind of log than one {kinds[1]} 1 MiB; "
            "export it and import it with the new budget."
        )
    with writing(session) as work:
        work.as_one()
        fading = Fading(work, fade)
        if budget is not None and (old.budget is None or budget < old.budget):
            _fit(work, fading, space)
        _set_budget(work, budget)
        numbers = session.pages.numbers()
        for done, seq in enumerate(numbers):
            if progress is not None:
                progress(done + 1, len(numbers))
            work.pages.put_facts(*work.pages.read(seq))
    session.invalidate()  # the budget decides how the log is emptied
    session.checkpoint()
    return AppendReport(0, 0, 0, tuple(fading.faded), tuple(fading.forgotten))


def _set_budget(work: Write, budget: int | None) -> None:
    """Store the budget and the span that follows from it, and go on under it."""
    session = work.session
    documents = session.pages.documents()
    each = session.size_bytes() / max(1, documents)
    span = float(max(8, round(budget / each / 2))) if budget and documents else 0.0
    session.items.put_json(BANK, "budget_bytes", budget)
    session.items.put_json(BANK, "span", span)
    session.settings = dataclasses.replace(session.settings, budget_bytes=budget, span=span)


def _fit(work: Write, fading: Fading, space: Space) -> None:
    """Fade until the content fits into the smaller budget, then move it to the file's front."""
    _fade_to(work, fading, space)
    _split_large_pages(work, space)
    _fade_to(work, fading, space)
    _cut_file(work)


def _split_large_pages(work: Write, space: Space) -> None:
    """Make smaller pages of those that are too large for a smaller budget."""
    pages = work.pages
    pages.paging = space
    for seq in work.session.pages.numbers():
        stored = work.session.pages.find(seq)
        size = 0 if stored is None else stored.size_bytes
        if size <= 2 * space.page_bytes and (stored is None or stored.count <= space.page_entries):
            continue
        work.reserve(work.cost(3 * size, pages=2 + 4 * size // space.page_bytes))
        if work.session.pages.find(seq) is None:
            continue
        page, facts = pages.read(seq)
        counts, rows = page.counts(), facts.rows()
        pages.drop(seq, page.slot)
        pages.place(
            [Placed(page.slot, page.entry(at), counts[at], rows[at]) for at in range(page.count)]
        )
    pages.paging = None


def _fade_to(work: Write, fading: Fading, space: Space) -> None:
    """Fade until the content fits into a budget."""
    session = work.session
    while True:
        used = session.size_bytes() - session.unused_bytes()
        over = used - space.file_limit(0)
        if over <= 0:
            break
        if fading.fade is None or not fading.step(over + space.slack):
            raise BudgetError(
                f"Bank {session.name} holds {over} bytes more than a budget of {space.budget} "
                "has room for; nothing was changed."
            )


def _cut_file(work: Write) -> None:
    """Move pages from the file's end into its free space and cut the end off."""
    session, space = work.session, work.session.settings.space
    at_once = 1 << 30
    if space.reserve:
        at_once = max(1, space.reserve // (2 * _MOVED * space.sqlite_page))
    free, last = session.unused_pages(), -1
    while free and free != last:  # a damaged file may claim free pages that it does not have
        work.reserve(min(space.reserve, work.cost(at_once * _MOVED * space.sqlite_page)))
        session.give_back(at_once)
        last, free = free, session.unused_pages()


def compact_session(session: Session, progress: Progress | None = None) -> int:
    """See `MemoryBank.compact`."""
    before = session.file_bytes()
    with writing(session) as work:
        last: dict[Slot, PageBuilder] = {}
        strangers = 0
        numbers = session.pages.numbers()
        for done, seq in enumerate(numbers):
            if progress is not None:
                progress(done + 1, len(numbers))
            stored = session.pages.find(seq)
            size = 0 if stored is None else stored.size_bytes
            work.reserve(work.cost(4 * session.settings.space.page_bytes + 2 * size, pages=2))
            if strangers != work.strangers:  # another process may have been here
                last, strangers = {}, work.strangers
            if session.pages.find(seq) is None:
                continue
            page, facts = work.pages.read(seq)
            builder = last.get(page.slot)
            if builder is None or not builder.join(page, facts):
                last[page.slot] = work.pages.builder(seq)
                continue
            work.pages.move(page.id_keys.tolist(), builder.seq)
            work.pages.drop(seq, page.slot)
            work.pages.store(builder)
        _cut_file(work)
    session.checkpoint()
    return max(0, before - session.file_bytes())
