"""One write to a bank: its transactions, the pages that it changes, and room for them.

Knows pages, the index and the budget; nothing about what entries mean. Without a budget a write is
one transaction. With one it is split where the log would outgrow the reserve; each part is durable
before the next begins, and no part leaves a document half-stored.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from latentbank.bank.doomed import finish_deletion
from latentbank.bank.entry import ID_BYTES, Entry
from latentbank.bank.facts import Facts, key_redundancy
from latentbank.bank.file import empty_log, sqlite_errors
from latentbank.bank.pages import COLUMNS, NUMBER_BYTES, Page, PageBuilder, Slot
from latentbank.bank.policy import make_policy
from latentbank.bank.shrink import page_without
from latentbank.bank.space import Space
from latentbank.errors import BankError

if TYPE_CHECKING:
    from latentbank.bank.core import BankCore

__all__ = ["Write", "writing"]

_TRIES = 50  # to begin behind another process that writes without pause
_UNKNOWN = 1 << 61
_MERGE_PAGES = 8
_LOSSLESS = 1e10  # more than any policy's value: what can give bytes without loss goes first
DEFAULT_SPAN = 10_000.0


class Write:
    """The state of one write. `reserve` begins a group of changes that belong together; `commit`
    and `reserve` end transactions, and what the bank's index knows follows them.
    """

    def __init__(self, bank: BankCore) -> None:
        self.bank = bank
        self.turns = 0  # transactions committed before the present one
        self.strangers = 0  # how often another process had written before one of them
        self.grown = 0  # bytes that the log may grow to in the present transaction, if not reserve
        self.paging: Space | None = None  # how pages are cut, if not as the budget has it
        self._spent = self._room = 0
        self._moved: dict[int, int] = {}  # id's number -> page, 0: gone
        self._written: dict[int, bytes | None] = {}  # page -> hash, None: gone
        self._tails: dict[Slot, list[tuple[int, int]]] = {}
        self._orders = 0
        self._policy = make_policy("blend")
        self.connection: sqlite3.Connection

    # ------------------------------------------------------------------------- transactions

    def begin(self, cost: int = 0) -> None:
        """Start a transaction that may cost `cost` bytes of log; at least the reserve is had."""
        bank = self.bank
        for _ in range(_TRIES):
            self.connection = connection = bank._begin(write=True)
            try:
                version = bank._version
                bank._sync(connection)
                self.strangers += self.turns > 0 and version != bank._version
                space = bank.settings.space
                limit = max(space.reserve, cost)
                if space.reckons:
                    limit = min(limit, space.log_limit(bank._size(connection)))
                self._room = limit - bank._logged
                if not space.reckons:
                    self._room = _UNKNOWN
                    break
                if not space.has_log:  # each transaction has a journal of its own
                    self._room = limit
                    break
                alone = version is not None and version == bank._version
                if bank.name == ":memory:" or (alone and cost <= self._room):
                    self._room = limit if bank.name == ":memory:" else self._room
                    break
                if bank._logged == 0:  # just emptied, and nobody wrote in between
                    self._room = limit
                    break
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("ROLLBACK")
            self._empty_log(cost > space.reserve)
        else:
            raise BankError(f"Bank {bank.name}: other processes write without pause; try again.")
        self.grown = cost
        self._spent, self._orders = 0, bank._orders
        self._moved, self._written = {}, {}
        self._tails = {slot: list(small) for slot, small in bank._tails.items()}
        self._policy = make_policy(bank.settings.policy)

    def _empty_log(self, truncate: bool) -> None:
        """Move the log into the file, so that the next transaction starts it anew."""
        kind = "TRUNCATE" if truncate else "RESTART"
        if not empty_log(self.bank._open_connection, kind):  # type: ignore[arg-type]
            raise BankError(
                f"Bank {self.bank.name}: another process has been reading for so long that the log "
                "cannot be emptied within the budget; try again when it is done."
            )
        self.bank._logged = 0

    def commit(self) -> None:
        """Make the transaction durable and tell the index."""
        bank = self.bank
        if self.trim() > 0 and self.file_bytes() > bank.settings.space.hard_limit():
            raise BankError(
                f"Bank {bank.name}: this change and its log do not fit into the budget of "
                f"{bank.settings.budget_bytes}; change less at a time."
            )
        version, bank._version = bank._version, None  # if interrupted here, all is read anew
        self.connection.execute("COMMIT")
        bank._index.put(self._moved.items())
        for seq, hash in self._written.items():
            if hash is None:
                bank._known.pop(seq, None)
            else:
                bank._known[seq] = hash
        bank._tails, bank._orders = self._tails, self._orders
        bank._logged = min(bank._logged + self._spent, _UNKNOWN)
        bank._version = version

    def save(self) -> Any:
        """The present state within the transaction, to `restore` later."""
        self.connection.execute("SAVEPOINT part")
        tails = {slot: list(small) for slot, small in self._tails.items()}
        return dict(self._moved), dict(self._written), tails, self._orders

    def restore(self, state: Any) -> None:
        """Take back everything since `save`."""
        self.connection.execute("ROLLBACK TO part")
        self._moved, self._written, self._tails, self._orders = state

    def reserve(self, cost: int) -> None:
        """Have room in the log for the next `cost` bytes, in a new transaction if need be."""
        if self._spent + cost > self._room:
            self.commit()
            self.turns += 1
            self.begin(cost)
            space = self.bank.settings.space
            if cost > space.reserve and self.file_bytes() > self.file_limit():
                size = self.bank.settings.budget_bytes
                raise BankError(
                    f"Bank {self.bank.name}: a change of {cost} bytes at once does not fit into "
                    f"its budget of {size}; write less at a time or make a larger bank."
                )
        self._spent += cost

    def refund(self, cost: int) -> None:
        """Give back what was reserved and not needed."""
        self._spent -= cost

    # ------------------------------------------------------------------------------- space

    def file_limit(self) -> int:
        """The largest file that the budget allows beside the present log."""
        largest = self.cost(self.bank._largest, pages=1)  # what deleting it takes
        return self.bank.settings.space.file_limit(max(self.grown, largest))

    def file_bytes(self) -> int:
        """Bytes of the file after this transaction."""
        return self.bank._size(self.connection)

    def free_bytes(self) -> int:
        """Bytes of the file, free or still to grow, that new content may take."""
        unused = self.connection.execute("PRAGMA freelist_count").fetchone()[0]
        space = self.bank.settings.space  # the margin here is for what fading itself has to write
        unused = unused * space.sqlite_page - space.margin_bytes
        return int(self.file_limit() - self.file_bytes() + unused)

    def fill(self) -> None:
        """Let the file grow to its limit: a full bank has one size, whatever was written."""
        page = self.bank.settings.space.sqlite_page
        gap = self.file_limit() - self.file_bytes()
        if gap >= page and self.bank.settings.budget_bytes is not None:
            self.reserve(self.cost(gap + 2 * page, items=1))
            query = "INSERT INTO items VALUES ('bank', 'fill', zeroblob(?), x'')"
            self.connection.execute(query, (gap + 2 * page,))
            self.connection.execute("DELETE FROM items WHERE kind = 'bank' AND name = 'fill'")
            self.trim()

    def trim(self) -> int:
        """Give free pages back while the file is over its limit; returns the bytes still over."""
        over = self.file_bytes() - self.file_limit()
        if over > 0:
            pages = -(-over // self.bank.settings.space.sqlite_page)
            self.connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
        return self.file_bytes() - self.file_limit()

    @property
    def space(self) -> Space:
        """How large pages are."""
        return self.paging or self.bank.settings.space

    def cost(self, changed_bytes: int, pages: int = 0, items: int = 0) -> int:
        """Log bytes of a change; see `Space.cost`."""
        return self.bank.settings.space.cost(changed_bytes, pages, items)

    # ------------------------------------------------------------------------------- pages

    def find(self, number: int) -> int | None:
        """The page of an id's number, or None."""
        if number in self._moved:
            return self._moved[number] or None
        return self.bank._index.find(number)

    def page(self, seq: int) -> tuple[Page, Facts]:
        """A page and the facts of its documents; raises `BankError` if either is damaged."""
        page = self.bank._stored_page(self.connection, seq)
        if page is None:
            raise BankError(f"Bank {self.bank.name} is damaged: page {seq} is missing.")
        page.check()
        return page, self.bank._read_facts(self.connection, seq, page.count)

    def builder(self, seq: int) -> PageBuilder:
        """A page opened for changes."""
        page, facts = self.page(seq)
        return PageBuilder.reopen(page, facts, self.space)

    def new_builder(self, slot: Slot, taken: set[int]) -> PageBuilder:
        """An empty page behind all others."""
        last = self.connection.execute("SELECT max(seq) FROM pages").fetchone()[0] or 0
        if not isinstance(last, int) or not 0 <= last < (1 << 32) - 1:
            raise BankError(
                f"Bank {self.bank.name} is damaged: a page has the number {last!r:.30}."
            )
        width = NUMBER_BYTES if self.bank.settings.ledger == "none" else ID_BYTES
        seq = max(last, *taken, 0) + 1
        return PageBuilder(seq, slot, width, self.space)

    def tail(self, slot: Slot, fill: bool) -> int | None:
        """The page that takes the next entry of a slot, if one is open; `fill`: any that is small,
        where so much is written at once that rewriting it costs little beside.
        """
        small = self._tails.get(slot)
        if small and (fill or small[-1][1] < self.space.tail_bytes):
            return small[-1][0]
        return None

    def write_page(self, builder: PageBuilder) -> None:
        """Store a page, or drop it if nothing is left on it."""
        if len(builder):
            self._store(builder.build(), Facts.of(builder.facts))
        else:
            self.drop_page(builder.seq, builder.slot)

    def cut_page(self, page: Page, gone: frozenset[int]) -> None:
        """Take the entries at positions `gone` off a page, which was checked as it was read."""
        left = page_without(page, gone)
        if left is None:
            self.drop_page(page.seq, page.slot)
        else:
            facts = self.bank._read_facts(self.connection, page.seq, page.count)
            self._store(left, facts.without(gone))

    def _store(self, page: Page, facts: Facts) -> None:
        seq, slot = page.seq, page.slot
        marks = ", ".join("?" * len(COLUMNS.split(", ")))
        self.connection.execute(
            f"INSERT OR REPLACE INTO pages ({COLUMNS}) VALUES ({marks})",
            tuple(getattr(page, name) for name in COLUMNS.split(", ")),
        )
        self.write_facts(page, facts)
        self._written[seq] = page.hash
        self.bank._largest = max(self.bank._largest, page.size_bytes)
        small = self._tails.setdefault(slot, [])
        if not small or seq >= small[0][0]:
            self._note(slot, seq, page.size_bytes, page.count)

    def _note(self, slot: Slot, seq: int, size: int, count: int) -> None:
        small = self._tails[slot]
        place = next((at for at, item in enumerate(small) if item[0] == seq), len(small))
        space = self.bank.settings.space
        if size < space.open_bytes and count < space.page_entries:
            small[place : place + 1] = [(seq, size)]
        else:
            small[: place + 1] = []

    def write_facts(self, page: Page, facts: Facts) -> None:
        """Store the facts of a page and where it stands in the order of fading."""
        values = self.values(page, facts)
        at = (len(values) - 1) // 4
        low = float(sorted(values.tolist())[at])
        last = int(facts.order.max())
        self.connection.execute(
            "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", (page.seq, low, last, facts.pack())
        )

    def values(self, page: Page, facts: Facts) -> Any:
        """What each document is worth [n]; the least valuable fades first."""
        span = self.bank.settings.span or DEFAULT_SPAN
        if page.keys:  # found anew each time: no trace is kept of a document deleted since
            near = key_redundancy(page.keys, page.count)
            redundancy = np.where(facts.redundancy == 0, near, facts.redundancy)
            facts = dataclasses.replace(facts, redundancy=redundancy)
        lossless = page.level in self.bank.settings.lossless
        return self._policy.value(facts, span) + page.depth - lossless * _LOSSLESS

    def drop_page(self, seq: int, slot: Slot) -> None:
        """Remove a page."""
        for table in ("pages", "facts"):
            self.connection.execute(f"DELETE FROM {table} WHERE seq = ?", (seq,))
        self._written[seq] = None
        self._tails[slot] = [item for item in self._tails.get(slot, []) if item[0] != seq]

    def move(self, number: int, seq: int) -> None:
        """Tell the index where an id is from this transaction on; 0: nowhere."""
        self._moved[number] = seq

    def next_order(self) -> int:
        """The number of the next new document."""
        self._orders += 1
        return self._orders - 1

    # ------------------------------------------------------------------------ groups of pages

    def place(
        self, items: list[tuple[Slot, Entry, int, tuple[int, int, int, int]]], fill: bool = True
    ) -> list[PageBuilder]:
        """Put entries with their counts and facts on the last pages of their slots."""
        touched: dict[Slot, PageBuilder] = {}
        taken: set[int] = set()
        done: list[PageBuilder] = []
        for slot, entry, count, fact in items:
            builder = touched.get(slot)
            if builder is None:
                seq = self.tail(slot, fill)
                builder = None if seq is None else self.builder(seq)
            if builder is None or not builder.fits(entry):
                if builder is not None and slot in touched:
                    done.append(builder)
                builder = self.new_builder(slot, taken)
            taken.add(builder.seq)
            touched[slot] = builder
            builder.add(entry, count, fact)
            number = self.bank._number(entry.id)
            if number is not None:
                self.move(number, builder.seq)
        done.extend(touched.values())
        for builder in sorted(done, key=lambda item: item.seq):
            self.write_page(builder)
        return done

    def merge_tails(self) -> None:
        """Make one page of many small ones at the end of a slot, if there are many."""
        for slot, small in list(self._tails.items()):
            if len(small) <= _MERGE_PAGES and sum(s for _, s in small) < self.space.page_bytes:
                continue
            size = sum(size for _, size in small[:_MERGE_PAGES])
            cost = self.cost(2 * size, pages=len(small[:_MERGE_PAGES]))
            if self.bank.settings.space.reserve < cost < _UNKNOWN and self._room < _UNKNOWN:
                self._tails[slot] = small[1:]
                continue
            self.reserve(cost)
            small = self._tails.get(slot, [])[:_MERGE_PAGES]
            if len(small) < 2:
                continue
            first, joined = self.builder(small[0][0]), 1
            for seq, _ in small[1:]:
                page, facts = self.page(seq)
                if not first.join(page, facts):
                    break
                for number in page.id_keys.tolist():
                    self.move(number, first.seq)
                self.drop_page(seq, slot)
                joined += 1
            if joined > 1:
                self.write_page(first)
            else:
                self._tails[slot] = self._tails[slot][1:]


@contextmanager
def writing(bank: BankCore, cost: int = 0) -> Iterator[Write]:
    """A write to `bank`, committed at the end of the block, or rolled back to its last part."""
    with bank._lock, sqlite_errors(bank.name):
        work = Write(bank)
        work.begin(cost)
        try:
            if bank._doomed:
                finish_deletion(work)
            yield work
            work.commit()
        except BaseException:
            bank._version = None  # whatever was rolled back is read anew
            if work.connection.in_transaction:
                work.connection.execute("ROLLBACK")
            raise
