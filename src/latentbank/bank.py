"""`MemoryBank`: entries, blobs and metadata in one SQLite file, durable and checked.

Knows ids, levels and bytes; nothing about what a payload means, nor about models or methods.
The layout of a page is in `bank_pages`, the file's safety in `bank_file`.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from latentbank.bank_file import connect, create_file, open_memory, sqlite_errors
from latentbank.bank_index import PageIndex
from latentbank.bank_items import AppendReport, BankFingerprint, Footprint, Items, VerifyReport
from latentbank.bank_pages import ID_BYTES, Entry, Page, PageBuilder, check_entry, id_key
from latentbank.errors import BankError, FingerprintError, InputError

__all__ = [
    "AppendReport",
    "BankFingerprint",
    "Entry",
    "Footprint",
    "MemoryBank",
    "Page",
    "VerifyReport",
]

_PAGE = "seq, level, count, crc, ids, lengths, payload, keys, ledger"


def _number(key: bytes) -> int:
    return int.from_bytes(key, "big")


class MemoryBank(Items):
    """A store of entries, in pages of one level, with blobs and metadata beside them.

    Make one with `create` or `open`; use it as a context manager or call `close`. Every write is
    one transaction, durable when the call returns; a process killed at any moment leaves the bank
    as after the last call that returned, or one later. Other processes may read, and one at a
    time write, the same file. Methods may be called from several threads. All raise `BankError`
    with a sentence when the disk is full, the file locked, read-only or damaged.

    Memory: 12 bytes per document for the index, built when the bank is opened.
    """

    def __init__(self, connection: sqlite3.Connection, name: str, read_only: bool) -> None:
        """Internal; use `create` or `open`."""
        self.name = name
        self.read_only = read_only
        self._open_connection: sqlite3.Connection | None = connection
        self._lock = threading.RLock()
        self._index = PageIndex(np.empty(0, np.uint64), np.empty(0, np.uint32))
        self._filling: dict[tuple[str, int], int] = {}  # (level, key bytes) -> page being filled
        self._next_seq = 1
        self._version: int | None = None  # of the file, as the index knows it; None: out of date

    # ------------------------------------------------------------------ opening and closing

    @classmethod
    def create(
        cls,
        path: str | Path,
        fingerprint: BankFingerprint,
        *,
        budget_bytes: int | None = None,
        meta: Mapping[str, Any] | None = None,
        timeout_seconds: float = 5.0,
    ) -> Self:
        """Make a new bank at `path` (":memory:" for one without a file) and open it.

        Args:
            fingerprint: what wrote the bank; `open` can insist on it.
            budget_bytes: an append that would make the file larger is refused; None: no limit.
            meta: first values for `put_meta`.
            timeout_seconds: how long a write waits for another process's write.
        Raises `BankError` if the path exists or cannot be written, `InputError` if the budget is
        less than an empty bank takes.
        """
        if str(path) == ":memory:":
            bank = cls(open_memory(), ":memory:", False)
        else:
            create_file(Path(path), timeout_seconds)
            connection = connect(Path(path), read_only=False, timeout_seconds=timeout_seconds)
            bank = cls(connection, str(path), False)
        try:
            with bank._transaction(write=True) as connection:
                bank._put_json(connection, "bank", "fingerprint", asdict(fingerprint))
                bank._put_json(connection, "bank", "budget_bytes", budget_bytes)
                for key, value in (meta or {}).items():
                    bank._put_json(connection, "meta", key, value)
                size = bank._size(connection)
                if budget_bytes is not None and budget_bytes < size:
                    raise InputError(
                        f"budget_bytes must be at least {size}, the size of an empty bank, "
                        f"got {budget_bytes}."
                    )
        except BaseException:
            bank.close()
            if bank.name != ":memory:":
                Path(path).unlink(missing_ok=True)
            raise
        return bank

    @classmethod
    def open(
        cls,
        path: str | Path,
        expect: BankFingerprint | None = None,
        read_only: bool = False,
        *,
        timeout_seconds: float = 5.0,
    ) -> Self:
        """Open the bank at `path`.

        Raises `FingerprintError`, naming both, if `expect` is given and the bank was written with
        something else; `BankError` if there is no bank, or it is damaged or of a newer format.
        """
        connection = connect(Path(path), read_only=read_only, timeout_seconds=timeout_seconds)
        bank = cls(connection, str(path), read_only)
        try:
            found = bank.fingerprint
            with bank._transaction(write=False):
                pass  # loads the index
            if expect is not None and found != expect:
                raise FingerprintError(_mismatch(bank.name, found, expect))
        except BaseException:
            bank.close()
            raise
        return bank

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

    # ----------------------------------------------------------------------------- writing

    def append(
        self, entries: Iterable[Entry], blobs: Mapping[str, bytes] | None = None
    ) -> AppendReport:
        """Store entries and blobs in one transaction.

        An entry whose id is present already (or twice in `entries`) is not stored again, whatever
        its payload; its count goes up by one. Raises `InputError` if an entry cannot be stored,
        `BankError` if the budget does not hold it; then nothing of the call is stored.
        """
        batch = list(entries)
        for entry in batch:
            check_entry(entry)
        times = Counter(id_key(entry.id) for entry in batch)
        unique = {id_key(entry.id): entry for entry in reversed(batch)}  # the first one stays
        for entry in batch:
            if unique[id_key(entry.id)].id != entry.id:
                raise _collision(entry.id)
        with self._transaction(write=True) as connection:
            pages: dict[int, PageBuilder] = {}
            filling, next_seq, fresh = dict(self._filling), self._next_seq, []
            for key in times:
                entry = unique[key]
                seq = self._index.find(_number(key))
                if seq is not None:
                    page = self._builder(connection, seq, pages)
                    if not page.holds(entry.id):
                        raise _collision(entry.id)
                    page.bump(key, times[key])
                    continue
                slot = (entry.level, len(entry.key))
                if slot in filling:
                    page = self._builder(connection, filling[slot], pages)
                if slot not in filling or not page.fits(entry):
                    page = pages[next_seq] = PageBuilder(next_seq, *slot)
                    filling[slot] = next_seq
                    next_seq += 1
                page.add(entry, times[key])
                fresh.append((_number(key), page.seq))
            for page in pages.values():
                self._write_page(connection, page)
            self._put_blobs(connection, blobs or {})
            self._check_budget(connection)
            self._version = None
        self._index.add(fresh)
        self._filling, self._next_seq = filling, next_seq
        return fresh
