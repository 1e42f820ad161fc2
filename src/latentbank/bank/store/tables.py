"""The tables of pages and of their facts: rows in and out.

Knows pages, facts and SQL; nothing about transactions, budgets or what a level means. Whoever calls
holds a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from latentbank.bank.store.facts import Facts
from latentbank.bank.store.pages import COLUMNS, PAGE_ENTRIES, Page
from latentbank.errors import BankError

__all__ = ["PageSizes", "PageTable"]

_NAMES = COLUMNS.split(", ")
_MARKS = ", ".join("?" * len(_NAMES))
_OVERVIEW = (
    "SELECT seq, level, depth, count, hash, length(ids), length(keys), length(payload), "
    "length(ledger) FROM pages ORDER BY seq"
)


@dataclass(frozen=True)
class PageSizes:
    """Bytes of all pages by component, and their number."""

    payloads: int
    ids: int
    ledgers: int
    keys: int
    facts: int
    pages: int


class PageTable:
    """The tables `pages` and `facts` of one open file."""

    def __init__(self, connection: sqlite3.Connection, bank_name: str) -> None:
        """`bank_name` names the bank in the sentences of errors."""
        self.connection, self.bank_name = connection, bank_name

    def find(self, seq: int) -> Page | None:
        """A page as it is stored, unchecked except for its types; None if there is none."""
        row = self.connection.execute(f"SELECT {COLUMNS} FROM pages WHERE seq = ?", (seq,))
        first = row.fetchone()
        if first is None:
            return None
        page = Page(*first)
        page.check_types()
        return page

    def read(self, seq: int) -> Page:
        """A page, checked. Raises `BankError` if it is missing or damaged."""
        page = self.find(seq)
        if page is None:
            raise BankError(f"Bank {self.bank_name} is damaged: page {seq} is missing.")
        page.check()
        return page

    def facts(self, seq: int, count: int) -> Facts:
        """The facts of a page of `count` entries; raises `BankError` if they are damaged."""
        row = self.connection.execute("SELECT data FROM facts WHERE seq = ?", (seq,)).fetchone()
        return Facts.unpack(row[0] if row else None, count, seq)

    def put(self, page: Page) -> None:
        """Store a page in place of one with its number."""
        self.connection.execute(
            f"INSERT OR REPLACE INTO pages ({COLUMNS}) VALUES ({_MARKS})",
            tuple(getattr(page, name) for name in _NAMES),
        )

    def put_facts(self, seq: int, low: float, facts: Facts) -> None:
        """Store the facts of a page; `low` is its place in the order of fading."""
        self.connection.execute(
            "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)",
            (seq, low, int(facts.order.max()), facts.pack()),
        )

    def drop(self, seq: int) -> None:
        """Remove a page and its facts."""
        for table in ("pages", "facts"):
            self.connection.execute(f"DELETE FROM {table} WHERE seq = ?", (seq,))

    # ------------------------------------------------------------------------- overviews

    def numbers(self, level: str | None = None) -> list[int]:
        """The numbers of all pages (or those of one level), in the order of writing."""
        query = "SELECT seq FROM pages WHERE ? IS NULL OR level = ? ORDER BY seq"
        return [seq for (seq,) in self.connection.execute(query, (level, level))]

    def named(self) -> list[int]:
        """The numbers of the pages with a ledger, in the order of writing; others have no names."""
        query = "SELECT seq FROM pages WHERE ledger IS NOT NULL ORDER BY seq"
        return [seq for (seq,) in self.connection.execute(query)]

    def levels(self) -> list[Any]:
        """The levels that pages have; in a damaged bank, anything."""
        return [level for (level,) in self.connection.execute("SELECT DISTINCT level FROM pages")]

    def last_number(self) -> Any:
        """The largest number of a page, 0 if there is none; in a damaged bank, anything."""
        return self.connection.execute("SELECT max(seq) FROM pages").fetchone()[0] or 0

    def overview(self) -> Iterator[tuple[Any, ...]]:
        """(seq, level, depth, count, hash, bytes of ids, keys, payload, ledger) of every page."""
        yield from self.connection.execute(_OVERVIEW)

    def documents(self) -> int:
        """How many documents the pages say they hold; in a damaged bank, those that are numbers."""
        query = "SELECT count FROM pages WHERE typeof(count) = 'integer' AND count BETWEEN 1 AND ?"
        return sum(count for (count,) in self.connection.execute(query, (PAGE_ENTRIES,)))

    def ids(self, numbers: list[int] | None = None) -> Iterator[tuple[Any, Any, Any]]:
        """(seq, count, ids) of the pages with these numbers, or of all."""
        if numbers is None:
            yield from self.connection.execute("SELECT seq, count, ids FROM pages")
            return
        for seq in numbers:
            yield self.connection.execute(
                "SELECT seq, count, ids FROM pages WHERE seq = ?", (seq,)
            ).fetchone()

    def lowest(self) -> list[tuple[int, Any]]:
        """(number, `low`) of the two pages that fade first."""
        query = "SELECT seq, low FROM facts ORDER BY low LIMIT 2"
        return self.connection.execute(query).fetchall()

    def next_order(self) -> int:
        """The place in the order of writing that the next document gets."""
        last = self.connection.execute("SELECT max(last) FROM facts").fetchone()[0]
        return last + 1 if isinstance(last, int) and 0 <= last < 1 << 31 else 0

    def written_since(self, order: int) -> list[int]:
        """Numbers of the pages that hold a document of this or a later place in the order."""
        query = "SELECT seq FROM facts WHERE last >= ? ORDER BY seq"
        return [seq for (seq,) in self.connection.execute(query, (order,))]

    def sizes(self) -> PageSizes:
        """Bytes by component."""
        sums = self.connection.execute(
            "SELECT total(length(payload)), total(length(ids)), total(length(ledger)), "
            "total(length(keys)) FROM pages"
        ).fetchone()
        facts, pages = self.connection.execute(
            "SELECT total(length(data)), count(*) FROM facts"
        ).fetchone()
        return PageSizes(*map(int, (*sums, facts, pages)))

    def state_hash(self) -> str:
        """BLAKE2b, in hex, over the hashes of all pages and items, in order.

        Marks of a deletion or a write that is under way are left out.
        """
        state = blake2b(digest_size=32)
        for query in (
            "SELECT seq, hash FROM pages ORDER BY seq",
            "SELECT kind || '/' || name, hash FROM items "
            "WHERE name NOT IN ('deleting', 'pending') ORDER BY kind, name",
        ):
            for name, hash in self.connection.execute(query):
                state.update(f"{name}:{hash.hex() if isinstance(hash, bytes) else hash};".encode())
        return state.hexdigest()
