"""The engine under `MemoryBank`: transactions, the index in memory, and pages in and out.

Knows SQLite rows and pages; offers nothing to users. What they call is in `bank`.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np

from latentbank.bank_entry import ID_BYTES, Entry, id_key
from latentbank.bank_file import sqlite_errors
from latentbank.bank_index import PageIndex
from latentbank.bank_items import Items
from latentbank.bank_pages import Page, PageBuilder
from latentbank.errors import BankError

__all__ = ["BankCore", "key_number"]

_PAGE = "seq, level, count, crc, ids, lengths, payload, keys, ledger"


def key_number(id: str) -> int:
    """The 8 bytes that stand for an id, as a number."""
    return int.from_bytes(id_key(id), "big")


class BankCore(Items):
    """One open SQLite file, its lock and its index."""

    def __init__(self, connection: sqlite3.Connection, name: str, read_only: bool) -> None:
        """Internal; use `create` or `open`."""
        self.name = name
        self.read_only = read_only
        self._open_connection: sqlite3.Connection | None = connection
        self._lock = threading.RLock()
        self._index = PageIndex(np.empty(0, np.uint64), np.empty(0, np.uint32))
        self._filling: dict[tuple[str, int], int] = {}  # (level, key bytes) -> page being filled
        self._version: int | None = None  # of the file, as the index knows it; None: out of date

    def close(self) -> None:
        """Write everything into the one file and close it; closing twice is harmless."""
        with self._lock, sqlite_errors(self.name):
            connection, self._open_connection = self._open_connection, None
            if connection is not None:
                try:
                    if not self.read_only:
                        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                finally:
                    connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[sqlite3.Connection]:
        with self._lock, sqlite_errors(self.name):
            connection = self._open_connection
            if connection is None:
                raise BankError(f"Bank {self.name} is closed; open it again.")
            if write and self.read_only:
                raise BankError(f"Bank {self.name} was opened read-only; open it for writing.")
            if connection.in_transaction:
                raise BankError(f"Bank {self.name} is in the middle of a transaction.")
            try:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                self._sync(connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _sync(self, connection: sqlite3.Connection) -> None:
        """Build the index anew if another process, or an interrupted call, changed the file."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        found, filling = [], {}
        rows = connection.execute("SELECT seq, level, length(keys), ids FROM pages ORDER BY seq")
        for seq, level, key_bytes, ids in rows:
            if isinstance(ids, bytes) and len(ids) % ID_BYTES == 0 and 0 < seq < 2**32 and ids:
                found.append((seq, ids))
                filling[level, (key_bytes or 0) * ID_BYTES // len(ids)] = seq
        keys = np.frombuffer(b"".join(ids for _, ids in found), ">u8").astype(np.uint64)
        sizes = [len(ids) // ID_BYTES for _, ids in found]
        pages = np.repeat(np.array([seq for seq, _ in found], np.uint32), sizes)
        self._index, self._filling = PageIndex(keys, pages), filling
        self._version = version

    def _sequence(self, level: str | None) -> list[int]:
        query = "SELECT seq FROM pages WHERE ? IS NULL OR level = ? ORDER BY seq"
        with self._transaction(write=False) as connection:
            return [seq for (seq,) in connection.execute(query, (level, level))]

    def _find(self, id: str) -> tuple[Page, int] | None:
        """The page that holds an id and the position there."""
        with self._transaction(write=False) as connection:
            seq = self._index.find(key_number(id))
            if seq is None:
                return None
            page = self._read_page(connection, seq)
        at = np.flatnonzero(page.id_keys == np.uint64(key_number(id)))
        same = [int(index) for index in at if page.document_ids[index] == id]
        return (page, same[0]) if same else None

    def _fetch(self, connection: sqlite3.Connection, seq: int) -> tuple[Any, ...] | None:
        query = f"SELECT {_PAGE} FROM pages WHERE seq = ?"
        row: tuple[Any, ...] | None = connection.execute(query, (seq,)).fetchone()
        return row

    def _load_page(self, seq: int) -> Page | None:
        """A page as it is stored, unchecked; None if it is gone."""
        with self._transaction(write=False) as connection:
            row = self._fetch(connection, seq)
        return None if row is None else Page(*row)

    def _read_page(self, connection: sqlite3.Connection, seq: int) -> Page:
        row = self._fetch(connection, seq)
        if row is None:
            raise BankError(f"Bank {self.name} is damaged: page {seq} is missing.")
        page = Page(*row)
        page.check()
        return page

    def _builder(
        self, connection: sqlite3.Connection, seq: int, pages: dict[int, PageBuilder]
    ) -> PageBuilder:
        if seq not in pages:
            pages[seq] = PageBuilder.reopen(self._read_page(connection, seq))
        return pages[seq]

    def _page_for(
        self,
        connection: sqlite3.Connection,
        entry: Entry,
        filling: dict[tuple[str, int], int],
        pages: dict[int, PageBuilder],
    ) -> PageBuilder:
        """The page that a new entry joins: the one being filled, or a new one."""
        slot = (entry.level, len(entry.key))
        if slot in filling:
            page = self._builder(connection, filling[slot], pages)
            if page.fits(entry):
                return page
        last = connection.execute("SELECT max(seq) FROM pages").fetchone()[0] or 0
        filling[slot] = max(last, *pages, 0) + 1
        page = pages[filling[slot]] = PageBuilder(filling[slot], *slot)
        return page

    def _write_page(self, connection: sqlite3.Connection, page: PageBuilder) -> None:
        stored = vars(page.build())
        values = tuple(stored[name] for name in _PAGE.split(", "))
        connection.execute(
            f"INSERT OR REPLACE INTO pages ({_PAGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values
        )

    def _checkpoint(self) -> None:
        """Move the log into the file; another process that reads may hold this up."""
        with self._lock, sqlite_errors(self.name):
            if self._open_connection is not None and not self.read_only:
                self._open_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
