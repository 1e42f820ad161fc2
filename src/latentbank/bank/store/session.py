"""`Session`: one open bank file with its lock, its transactions, its tables and its directory.

Knows SQLite's transactions, log and checkpoints; nothing about entries' meaning, budgets of a write
or fading. `MemoryBank` offers it to users; `write.Write` changes pages through it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentbank.bank.reports import Settings
from latentbank.bank.store.directory import Directory, id_number
from latentbank.bank.store.facts import Facts
from latentbank.bank.store.file import connect, empty_log, sqlite_errors
from latentbank.bank.store.items import BANK, ItemTable
from latentbank.bank.store.pages import Page
from latentbank.bank.store.tables import PageTable
from latentbank.bank.store.tombstones import Tombstones, buried, unpack_tombstones
from latentbank.errors import BankError

__all__ = ["DELETING", "MEMORY", "PENDING", "Session"]

MEMORY = ":memory:"  # the name of a bank without a file
DELETING = "deleting"  # the item of the tombstones of a deletion that is not finished
PENDING = "pending"  # the item that says from which order on documents do not count yet
UNKNOWN_LOG = 1 << 62  # bytes of a log that was not looked at
_LEFT_TO_PARENTS: list[sqlite3.Connection] = []  # connections of the process that forked
_KEPT_PAGES = 64  # that were read last; some 10 kB each
_CHECKPOINT_PAGES = 4000  # of the log of a bank without a budget


class Session:
    """One connection to a bank's file, shared by the threads of this process.

    Attributes:
        name: the file's path, or ":memory:".
        read_only: whether writing is refused.
        settings: the bank's settings as of the last transaction.
        items, pages: the tables. Use them inside a transaction only.
        directory: where ids and pages are, as of the last transaction.
        tombstones: entries that are gone although their pages still hold them.
        log_bytes: bytes that the write-ahead log may hold now; an upper bound.
        commits: transactions that this session has committed.
    """

    def __init__(self, connection: sqlite3.Connection, name: str, read_only: bool) -> None:
        self.name, self.read_only = name, read_only
        self.connection = connection
        self.settings = Settings()
        self.items = ItemTable(connection, name)
        self.pages = PageTable(connection, name)
        self.directory = Directory()
        self.tombstones: Tombstones = {}
        self.log_bytes = UNKNOWN_LOG
        self.commits = 0
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._open = True
        self._version: int | None = None  # of the file, as the directory knows it
        self._kept: dict[int, Page] = {}  # the page read last is last
        self._kept_of: tuple[int | None, int] = None, 0

    # ------------------------------------------------------------------------ transactions

    @contextmanager
    def guard(self) -> Iterator[None]:
        """One thread at a time; SQLite's errors become `BankError`."""
        if self._process != os.getpid():
            self._enter_fork()
        with self._lock, sqlite_errors(self.name):
            yield

    def _enter_fork(self) -> None:
        """Opens the file anew in a forked process: SQLite's connections must not cross a fork.

        The parent's connection is kept and never closed: closing it here would take its locks.
        """
        self._lock, self._process = threading.RLock(), os.getpid()
        if self.name == MEMORY or not self._open:
            return
        _LEFT_TO_PARENTS.append(self.connection)
        path = Path(self.name)
        self.connection = connect(path, read_only=self.read_only, timeout_seconds=5.0)
        self.items = ItemTable(self.connection, self.name)
        self.pages = PageTable(self.connection, self.name)
        self._version = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A transaction that reads: one state of the bank until its end."""
        with self.guard():
            self.begin(write=False)
            try:
                self.sync()
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                self.rollback()
                raise

    def begin(self, write: bool) -> None:
        """Begin a transaction. Raises `BankError` if the bank is closed, busy or read-only."""
        if not self._open:
            raise BankError(f"Bank {self.name} is closed; open it again.")
        if write and self.read_only:
            raise BankError(f"Bank {self.name} was opened read-only; open it for writing.")
        if self.connection.in_transaction:
            raise BankError(f"Bank {self.name} is in the middle of a transaction.")
        self.connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    def rollback(self) -> None:
        """End a transaction, if there is one, without its changes."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Commit, then run the block, which tells the directory what the transaction changed.

        If either is interrupted, the next transaction reads everything anew.
        """
        version, self._version = self._version, None
        self._kept.clear()
        self.connection.execute("COMMIT")
        self.commits += 1
        yield
        self._version = version

    def invalidate(self) -> None:
        """Have the next transaction read everything anew."""
        self._version = None

    @property
    def version(self) -> int | None:
        """A number that changes when another process writes; None: everything is out of date."""
        return self._version

    def stamp(self) -> tuple[int, int]:
        """(a number that changes when others write, own commits so far); costs microseconds."""
        with self.guard():
            if not self._open:
                raise BankError(f"Bank {self.name} is closed; open it again.")
            others = self.connection.execute("PRAGMA data_version").fetchone()[0]
            return int(others), self.commits

    def marks(self) -> dict[int, tuple[bytes, object]]:
        """Number of each page → what differs when its visible entries do, as of the last sync."""
        return {
            seq: (hash, self.tombstones.get(seq)) for seq, hash in self.directory.hashes.items()
        }

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._open

    def close(self) -> None:
        """Write everything into the one file and close it. Closing twice is harmless."""
        with self.guard():
            if not self._open:
                return
            self._open = False
            try:
                if not self.read_only:
                    self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self.connection.close()

    # ------------------------------------------------------------------------------ the file

    def checkpoint(self) -> None:
        """Move the log into the file. Does nothing while another process reads."""
        with self.guard():
            if self._open and not self.read_only:
                rows = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self.log_bytes = 0 if rows and rows[0][0] == 0 else self.log_bytes

    def empty_log(self, truncate: bool) -> None:
        """Move the log into the file, so that the next transaction begins it anew.

        Raises `BankError` if another process reads for longer than the timeout.
        """
        if not empty_log(self.connection, "TRUNCATE" if truncate else "RESTART"):
            raise BankError(
                f"Bank {self.name}: another process has been reading for so long that the log "
                "cannot be emptied within the budget; try again when it is done."
            )
        self.log_bytes = 0

    def size_bytes(self) -> int:
        """Bytes that the file takes after a checkpoint, with this transaction's changes."""
        pages = self.connection.execute("PRAGMA page_count").fetchone()[0]
        return int(pages * self.connection.execute("PRAGMA page_size").fetchone()[0])

    def unused_pages(self) -> int:
        """Number of SQLite's pages in the file that hold nothing."""
        return int(self.connection.execute("PRAGMA freelist_count").fetchone()[0])

    def unused_bytes(self) -> int:
        """Bytes of the file that hold nothing."""
        size = self.connection.execute("PRAGMA page_size").fetchone()[0]
        return self.unused_pages() * int(size)

    def give_back(self, pages: int) -> None:
        """Cut up to so many unused pages off the file's end.

        One by one: Python's sqlite3 takes a single step of this statement, whatever its argument.
        """
        size = self.size_bytes()
        for _ in range(min(pages, self.unused_pages())):
            self.connection.execute("PRAGMA incremental_vacuum(1)")
            before, size = size, self.size_bytes()
            if size == before:  # a damaged file may claim free pages that it does not have
                break

    def file_bytes(self) -> int:
        """Bytes of all files of the bank now: the file, its log and the log's helper file."""
        if self.name == MEMORY:
            with self.reading():
                return self.size_bytes()
        return sum(
            file.stat().st_size
            for tail in ("", "-wal", "-shm", "-journal")
            if (file := Path(self.name + tail)).exists()
        )

    # -------------------------------------------------------------------------- the directory

    def sync(self) -> None:
        """Bring settings, directory and tombstones up to date with what other processes wrote."""
        version = self.connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        self.settings = self.items.settings()
        pages = _CHECKPOINT_PAGES if self.settings.budget_bytes is None else 0
        self.connection.execute(f"PRAGMA wal_autocheckpoint={pages}")
        self.log_bytes = UNKNOWN_LOG
        self.directory.refresh(self.pages, self.settings)
        self.tombstones = self._find_tombstones()
        for seq in self.tombstones:
            page = self.pages.find(seq)
            if page is not None and (gone := buried(page, self.tombstones)):
                page.check()
                numbers = page.id_keys.tolist()
                self.directory.hide(seq, [numbers[at] for at in sorted(gone) if at < page.count])
        self._version = version

    def _find_tombstones(self) -> Tombstones:
        """Tombstones of an unfinished deletion, and of documents of an unfinished write."""
        tombstones = unpack_tombstones(self.items.get(BANK, DELETING))
        first = self.items.get_json(BANK, PENDING)
        if first is None:
            return tombstones
        if not isinstance(first, int) or isinstance(first, bool) or not 0 <= first < 1 << 32:
            raise BankError(f"Bank {self.name} is damaged: its mark of a write is no number.")
        for seq in self.pages.written_since(first):
            page = self.pages.find(seq)
            if page is not None:
                order = self.pages.facts(seq, page.count).order
                new = frozenset(at for at, place in enumerate(order.tolist()) if place >= first)
                tombstones[seq] = page.hash, new | buried(page, tombstones)
        return tombstones

    def number(self, id: str) -> int | None:
        """The number that stands for an id in the directory; see `directory.id_number`."""
        return id_number(id, self.settings.ledger)

    def locate(self, id: str) -> int | None:
        """The page that holds an id, or None."""
        number = self.number(id)
        return None if number is None else self.directory.find(number)

    # -------------------------------------------------------------- pages as a reader sees them

    def visible(self, page: Page) -> Page | None:
        """The page without the entries that have a tombstone; None if none is left."""
        gone = buried(page, self.tombstones)
        if not gone:
            return page
        page.check()
        return page.without(gone)

    def find_page(self, seq: int) -> Page | None:
        """A page as a reader sees it, otherwise unchecked; None if it is gone."""
        page = self.pages.find(seq)
        return None if page is None else self.visible(page)

    def read_page(self, seq: int) -> Page:
        """A page as a reader sees it, checked. Raises `BankError` if it is damaged or gone."""
        left = self.visible(self.pages.read(seq))
        if left is None:
            raise BankError(f"Page {seq} of the bank is being deleted.")
        return left

    def kept_page(self, seq: int) -> Page:
        """As `read_page`, for a transaction that only reads: remembers the last pages.

        They are forgotten when anything in the bank changes.
        """
        state = self._version, self.commits
        if state != self._kept_of:
            self._kept_of = state
            self._kept.clear()
        page = self._kept.pop(seq, None) or self.read_page(seq)
        self._kept[seq] = page
        if len(self._kept) > _KEPT_PAGES:
            del self._kept[next(iter(self._kept))]
        return page

    def page_and_facts(self, seq: int) -> tuple[Page, Facts] | None:
        """A page and its facts as a reader sees them; None if the page is gone."""
        page = self.pages.find(seq)
        if page is None or (left := self.visible(page)) is None:
            return None
        page.check()
        facts = self.pages.facts(seq, page.count)
        gone = buried(page, self.tombstones)
        return left, facts.without(gone) if gone else facts
