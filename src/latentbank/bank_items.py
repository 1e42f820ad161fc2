"""What a bank holds beside its entries: named blobs, metadata, fingerprint; and its reports.

Knows names, bytes and JSON; nothing about pages. `MemoryBank` provides the transactions.
"""

import json
import sqlite3
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from typing import Any

from latentbank.errors import BankError, InputError

__all__ = ["AppendReport", "BankFingerprint", "Footprint", "Items", "VerifyReport"]


@dataclass(frozen=True)
class BankFingerprint:
    """What wrote a bank, such as method "mbc" and backbone "smollm2-135m:ab12"."""

    method: str
    adapter: str
    backbone: str
    tokenizer: str

    def __str__(self) -> str:
        return ", ".join(f"{name} {value!r}" for name, value in asdict(self).items())

    def mismatch(self, name: str, expect: "BankFingerprint") -> str:
        """The sentence for a bank called `name` that has this fingerprint instead of `expect`."""
        wrong = [
            f"{item.name} {getattr(self, item.name)!r} (this model has "
            f"{getattr(expect, item.name)!r})"
            for item in fields(self)
            if getattr(self, item.name) != getattr(expect, item.name)
        ]
        return (
            f"Bank {name} was written with another {' and '.join(wrong)}. "
            f"Open it with {self}, or write a new bank with {expect}."
        )


@dataclass(frozen=True)
class AppendReport:
    """What one append did.

    Attributes:
        stored: entries stored.
        duplicates: entries whose id was present already, or earlier in the same call; counted.
        bytes: bytes of payload and key of the stored entries.
    """

    stored: int
    duplicates: int
    bytes: int


@dataclass(frozen=True)
class Footprint:
    """Bytes of a bank's file by component; they sum to `total`.

    Attributes:
        codes: payloads.
        codebook: blobs (codebooks, counters, dictionaries, a method's state).
        keys: retrieval keys of the entries.
        ledger: ids, times, sources, metadata and counts.
        overhead: everything else: lengths, checksums, SQLite's structure, free space.
        total: the file's size after a checkpoint.
    """

    codes: int
    codebook: int
    keys: int
    ledger: int
    overhead: int
    total: int

    def __post_init__(self) -> None:
        parts = self.codes + self.codebook + self.keys + self.ledger + self.overhead
        if parts != self.total:
            raise InputError(f"A footprint's components sum to {parts}, not to total={self.total}.")


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        ok: whether there is no damage.
        documents: number of documents in whole pages.
        damage: one sentence for each damage, naming the page and its documents.
        damaged_ids: ids of the documents on damaged pages, as far as they can be read.
    """

    ok: bool
    documents: int
    damage: tuple[str, ...]
    damaged_ids: tuple[str, ...]


class Items(ABC):
    """Named blobs and JSON values with checksums, in the table `items`; a base of the bank."""

    name: str

    @abstractmethod
    def _transaction(self, write: bool) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction, committed at its end or rolled back."""

    def put_blob(self, name: str, data: bytes) -> None:
        """Store a blob under a name, in place of an earlier one; durable on return."""
        self.put_blobs({name: data})

    def put_blobs(self, blobs: Mapping[str, bytes]) -> None:
        """Store several blobs in one transaction; raises `BankError` if over the budget."""
        with self._transaction(write=True) as connection:
            self._put_blobs(connection, blobs)
            self._check_budget(connection)

    def get_blob(self, name: str) -> bytes | None:
        """The blob of that name, or None; raises `BankError` if its checksum does not match."""
        with self._transaction(write=False) as connection:
            return self._get(connection, "blob", name)

    def delete_blob(self, name: str) -> bool:
        """Remove a blob; returns whether it was there."""
        with self._transaction(write=True) as connection:
            query = "DELETE FROM items WHERE kind = 'blob' AND name = ?"
            return connection.execute(query, (name,)).rowcount > 0

    def blobs(self) -> dict[str, int]:
        """Names of all blobs, in alphabetical order, with their bytes."""
        query = "SELECT name, length(data) FROM items WHERE kind = 'blob' ORDER BY name"
        with self._transaction(write=False) as connection:
            return dict(connection.execute(query))

    def put_meta(self, name: str, value: Any) -> None:
        """Store a JSON value under a name; raises `InputError` if it is not JSON."""
        with self._transaction(write=True) as connection:
            self._put_json(connection, "meta", name, value)
            self._check_budget(connection)

    def get_meta(self, name: str, default: Any = None) -> Any:
        """The JSON value of that name, or `default`."""
        return self._get_json("meta", name, default)

    def meta(self) -> dict[str, Any]:
        """All metadata values by name."""
        query = "SELECT name FROM items WHERE kind = 'meta' ORDER BY name"
        with self._transaction(write=False) as connection:
            names = [row[0] for row in connection.execute(query)]
        return {name: self.get_meta(name) for name in names}

    @property
    def fingerprint(self) -> BankFingerprint:
        """What wrote the bank; raises `BankError` if it cannot be read."""
        found = self._get_json("bank", "fingerprint", None)
        names = {item.name for item in fields(BankFingerprint)}
        if not isinstance(found, dict) or set(found) != names:
            raise BankError(f"Bank {self.name} is damaged: its fingerprint cannot be read.")
        return BankFingerprint(**{name: str(value) for name, value in found.items()})

    @property
    def budget_bytes(self) -> int | None:
        """The largest size that the file may have, or None."""
        budget = self._get_json("bank", "budget_bytes", None)
        if budget is not None and not isinstance(budget, int):
            raise BankError(f"Bank {self.name} is damaged: its budget is not a number.")
        return budget

    # ---------------------------------------------------------- inside the bank's transactions

    def _put_blobs(self, connection: sqlite3.Connection, blobs: Mapping[str, bytes]) -> None:
        for name, data in blobs.items():
            if not name or not isinstance(data, bytes):
                raise InputError(f"Blob {name!r} must have a name and be bytes.")
            self._put(connection, "blob", name, data)

    def _put_json(self, connection: sqlite3.Connection, kind: str, name: str, value: Any) -> None:
        try:
            text = json.dumps(value, allow_nan=False, sort_keys=True)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"The metadata {name!r} must be JSON values: {error}.") from error
        self._put(connection, kind, name, text.encode())

    def _get_json(self, kind: str, name: str, default: Any) -> Any:
        with self._transaction(write=False) as connection:
            data = self._get(connection, kind, name)
        try:
            return default if data is None else json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BankError(f"Bank {self.name} is damaged: {kind} {name!r} is no JSON.") from error

    def _put(self, connection: sqlite3.Connection, kind: str, name: str, data: bytes) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)",
            (kind, name, data, _checksum(kind, name, data)),
        )

    def _get(self, connection: sqlite3.Connection, kind: str, name: str) -> bytes | None:
        row = connection.execute(
            "SELECT data, crc FROM items WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes) or row[1] != _checksum(kind, name, row[0]):
            raise BankError(
                f"Bank {self.name} is damaged: the checksum of {kind} {name!r} does not match."
            )
        return row[0]

    def _size(self, connection: sqlite3.Connection) -> int:
        """Bytes that the file takes after a checkpoint, with this transaction's changes."""
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        return int(pages * connection.execute("PRAGMA page_size").fetchone()[0])

    def _check_budget(self, connection: sqlite3.Connection) -> None:
        data = self._get(connection, "bank", "budget_bytes")
        budget = None if data is None else json.loads(data)
        if budget is not None and (size := self._size(connection)) > budget:
            raise BankError(
                f"Bank {self.name} would take {size} bytes, more than its budget of {budget}; "
                "nothing of this write was kept. Delete documents or make a larger bank."
            )


def _checksum(kind: str, name: str, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(f"{kind}/{name}".encode(errors="replace")))
