"""The engine under `MemoryBank`: transactions, the index in memory, and pages in.

Knows SQLite rows and pages; offers nothing to users. What they call is in `bank`, how pages are
written in `bank.write`.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from latentbank.bank.doomed import Doomed, read_doomed, visible
from latentbank.bank.entry import id_key
from latentbank.bank.facts import Facts
from latentbank.bank.file import sqlite_errors
from latentbank.bank.index import PageIndex
from latentbank.bank.items import Items, Receipt, Settings
from latentbank.bank.pages import COLUMNS, NUMBER_BYTES, Page, Slot, id_numbers
from latentbank.errors import BankError

__all__ = ["BankCore"]

_OVERVIEW = (
    "SELECT seq, level, depth, count, hash, length(ids), length(keys), length(payload), "
    "length(ledger) FROM pages ORDER BY seq"
)
_CHECKPOINT_PAGES = 4000  # of the log of a bank without a budget


class BankCore(Items):
    """One open SQLite file, its lock and its index."""

    def __init__(self, connection: sqlite3.Connection, name: str, read_only: bool) -> None:
        """Internal; use `create` or `open`."""
        self.name = name
        self.read_only = read_only
        self.settings = Settings()
        self._open_connection: sqlite3.Connection | None = connection
        self._lock = threading.RLock()
        self._index = PageIndex(np.empty(0, np.uint64), np.empty(0, np.uint32))
        self._known: dict[int, bytes] = {}  # page -> hash, as the index knows it
        self._tails: dict[Slot, list[tuple[int, int]]] = {}  # small last pages: number, bytes
        self._doomed: Doomed = {}
        self._largest = 0  # bytes of the largest page
        self._orders = 0  # documents numbered so far
        self._hits: Counter[str] = Counter()  # not yet written
        self.receipt: Receipt | None = None  # of the last deletion
        self._logged = 1 << 62  # bytes that the log may hold; at first not known
        self._version: int | None = None  # of the file, as the index knows it; None: out of date

    def close(self) -> None:
        """Write everything into the one file and close it; closing twice is harmless."""
        with self._lock, sqlite_errors(self.name):
            if self._open_connection is None:
                return
            with suppress(BankError):  # hits are a hint; a locked bank may do without them
                self._flush_hits()
            connection, self._open_connection = self._open_connection, None
            try:
                if not self.read_only:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()

    def _flush_hits(self) -> None:
        """Write the hits that wait."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------- transactions

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[sqlite3.Connection]:
        with self._lock, sqlite_errors(self.name):
            connection = self._begin(write)
            try:
                self._sync(connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _begin(self, write: bool) -> sqlite3.Connection:
        connection = self._open_connection
        if connection is None:
            raise BankError(f"Bank {self.name} is closed; open it again.")
        if write and self.read_only:
            raise BankError(f"Bank {self.name} was opened read-only; open it for writing.")
        if connection.in_transaction:
            raise BankError(f"Bank {self.name} is in the middle of a transaction.")
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        return connection

    def _checkpoint(self) -> None:
        """Move the log into the file; another process that reads may hold this up."""
        with self._lock, sqlite_errors(self.name):
            if self._open_connection is not None and not self.read_only:
                rows = self._open_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self._logged = 0 if rows and rows[0][0] == 0 else self._logged

    def file_bytes(self) -> int:
        """Bytes of all files of the bank as they are now, log and its helper file included."""
        if self.name == ":memory:":
            with self._transaction(write=False) as connection:
                return self._size(connection)
        return sum(
            file.stat().st_size
            for tail in ("", "-wal", "-shm", "-journal")
            if (file := Path(self.name + tail)).exists()
        )

    # ---------------------------------------------------------------------------- the index

    def _sync(self, connection: sqlite3.Connection) -> None:
        """Bring the index up to date if another process, or an interrupted call, changed the file;
        only pages that changed are read.
        """
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        self.settings = self._load_settings(connection)
        budget = self.settings.budget_bytes
        pages = 0 if budget is not None else _CHECKPOINT_PAGES
        connection.execute(f"PRAGMA wal_autocheckpoint={pages}")
        self._logged = 1 << 62
        known: dict[int, bytes] = {}
        self._tails = {}
        for seq, level, depth, count, hash, ids, keys, payload, ledger in connection.execute(
            _OVERVIEW
        ):
            sizes = [size or 0 for size in (ids, keys, payload, ledger)]
            typed = isinstance(level, str) and isinstance(depth, int) and isinstance(hash, bytes)
            if typed and isinstance(count, int) and count > 0 and 0 < seq < 1 << 32:
                known[seq] = hash
                self._largest = max(self._largest, sum(sizes))
                self._note_tail(Slot(level, sizes[1] // count, depth), seq, sum(sizes), count)
        self._reload(
            [seq for seq in known if known[seq] != self._known.get(seq)], known, connection
        )
        self._known = known
        last = connection.execute("SELECT max(last) FROM facts").fetchone()[0]
        self._orders = last + 1 if isinstance(last, int) and 0 <= last < 1 << 31 else 0
        self._doomed = read_doomed(self._get(connection, "bank", "deleting"))
        for seq in self._doomed:
            page = self._stored_page(connection, seq)
            if page is not None:
                left = visible(page, self._doomed)
                stay = set() if left is None else set(left.id_keys.tolist())
                self._index.remove(key for key in page.id_keys.tolist() if key not in stay)
        self._version = version

    def _reload(
        self, changed: list[int], known: dict[int, bytes], connection: sqlite3.Connection
    ) -> None:
        """Put the ids of changed pages into the index, take those of pages gone out of it."""
        found = []
        rows: Any
        if self._known:
            one = "SELECT seq, count, ids FROM pages WHERE seq = ?"
            rows = (connection.execute(one, (seq,)).fetchone() for seq in changed)
        else:
            rows = connection.execute("SELECT seq, count, ids FROM pages")
        width = NUMBER_BYTES if self.settings.ledger == "none" else 2 * NUMBER_BYTES
        for seq, count, ids in rows:
            if seq in known and isinstance(ids, bytes) and len(ids) == count * width:
                found.append((seq, ids))
        keys = id_numbers(b"".join(ids for _, ids in found), width)
        sizes = [len(ids) // width for _, ids in found]
        pages = np.repeat(np.array([seq for seq, _ in found], np.uint32), sizes)
        if self._known:
            self._index.drop_pages([*changed, *(self._known.keys() - known.keys())])
            self._index.put(zip(keys.tolist(), pages.tolist(), strict=True))
        else:
            self._index = PageIndex(keys, pages)

    def _note_tail(self, slot: Slot, seq: int, size: int, count: int) -> None:
        """Remember the small pages at the end of a slot: what is written next joins them."""
        small = self._tails.setdefault(slot, [])
        small[:] = [item for item in small if item[0] != seq]
        if size < self.settings.space.open_bytes and count < self.settings.space.page_entries:
            small.append((seq, size))
        else:
            small.clear()

    def _number(self, id: str) -> int | None:
        """The number that stands for an id in the index."""
        if self.settings.ledger != "none":
            return int.from_bytes(id_key(id), "big")
        named = len(id) == 2 * NUMBER_BYTES and not id.strip("0123456789abcdef")
        return int(id, 16) if named else None

    # --------------------------------------------------------------------------- pages, read

    def _sequence(self, level: str | None) -> list[int]:
        query = "SELECT seq FROM pages WHERE ? IS NULL OR level = ? ORDER BY seq"
        with self._transaction(write=False) as connection:
            return [seq for (seq,) in connection.execute(query, (level, level))]

    def _find(self, id: str) -> tuple[Page, int] | None:
        """The page that holds an id and the position there."""
        with self._transaction(write=False) as connection:
            number = self._number(id)
            seq = None if number is None else self._index.find(number)
            if number is None or seq is None:
                return None
            page = self._read_page(connection, seq)
        at = np.flatnonzero(page.id_keys == np.uint64(number))
        same = [int(index) for index in at if page.document_ids[index] == id]
        return (page, same[0]) if same else None

    def _stored_page(self, connection: sqlite3.Connection, seq: int) -> Page | None:
        """A page as it is stored, unchecked but for its types; None if it is gone."""
        query = f"SELECT {COLUMNS} FROM pages WHERE seq = ?"
        row = connection.execute(query, (seq,)).fetchone()
        if row is None:
            return None
        page = Page(*row)
        page.check_types()
        return page

    def _load_page(self, seq: int) -> Page | None:
        """A page without what is being deleted, otherwise unchecked; None if it is gone."""
        with self._transaction(write=False) as connection:
            page = self._stored_page(connection, seq)
            return None if page is None else visible(page, self._doomed)

    def _read_page(self, connection: sqlite3.Connection, seq: int) -> Page:
        page = self._stored_page(connection, seq)
        if page is None:
            raise BankError(f"Bank {self.name} is damaged: page {seq} is missing.")
        page.check()
        left = visible(page, self._doomed)
        if left is None:
            raise BankError(f"Page {seq} of the bank is being deleted.")
        return left

    def _read_facts(self, connection: sqlite3.Connection, seq: int, count: int) -> Facts:
        """The facts of a page; raises `BankError` if they are damaged."""
        row = connection.execute("SELECT data FROM facts WHERE seq = ?", (seq,)).fetchone()
        return Facts.unpack(row[0] if row else None, count, seq)
