"""The table of named items: a bank's own values, metadata, blobs and state, each with a checksum.

Knows names, bytes and JSON; nothing about pages or transactions. Whoever calls holds a transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from latentbank.bank.reports import LEDGERS, BankFingerprint, Settings
from latentbank.bank.store.pages import blob_hash
from latentbank.errors import BankError, InputError

__all__ = ["BANK", "BLOB", "META", "STATE", "ItemTable", "item_hash", "json_bytes"]

BANK, META, BLOB, STATE = "bank", "meta", "blob", "state"  # kinds of items


def json_bytes(name: str, value: Any) -> bytes:
    """The stored form of a JSON value. Raises `InputError` if the value is not JSON."""
    try:
        return json.dumps(value, allow_nan=False, sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The metadata {name!r} must be JSON values: {error}.") from error


def item_hash(kind: str, name: str, data: bytes) -> bytes:
    """The checksum of an item, 16 bytes."""
    return blob_hash(f"{kind}/{name}".encode(errors="replace"), data)


class ItemTable:
    """The table `items` of one open file."""

    def __init__(self, connection: sqlite3.Connection, bank_name: str) -> None:
        """`bank_name` names the bank in the sentences of errors."""
        self.connection, self.bank_name = connection, bank_name

    def get(self, kind: str, name: str) -> bytes | None:
        """An item's bytes, or None. Raises `BankError` if the checksum does not match."""
        row = self.connection.execute(
            "SELECT data, hash FROM items WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes) or row[1] != item_hash(kind, name, row[0]):
            raise BankError(
                f"Bank {self.bank_name} is damaged: the checksum of {kind} {name!r} does not match."
            )
        return row[0]

    def put(self, kind: str, name: str, data: bytes) -> None:
        """Store an item. One that is there with the same bytes is left alone."""
        hash = item_hash(kind, name, data)
        query = "SELECT hash FROM items WHERE kind = ? AND name = ?"
        if self.connection.execute(query, (kind, name)).fetchone() != (hash,):
            self.connection.execute(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", (kind, name, data, hash)
            )

    def drop(self, kind: str, name: str) -> bool:
        """Remove an item; returns whether it was there."""
        query = "DELETE FROM items WHERE kind = ? AND name = ?"
        return self.connection.execute(query, (kind, name)).rowcount > 0

    def get_json(self, kind: str, name: str, default: Any = None) -> Any:
        """The JSON value of an item, or `default`. Raises `BankError` if it is no JSON."""
        data = self.get(kind, name)
        return default if data is None else self.parse(kind, name, data)

    def put_json(self, kind: str, name: str, value: Any) -> None:
        """Store a JSON value. Raises `InputError` if it is not JSON."""
        self.put(kind, name, json_bytes(name, value))

    def parse(self, kind: str, name: str, data: bytes | None) -> Any:
        """The JSON value of an item's bytes. Raises `BankError` if they are no JSON."""
        try:
            return None if data is None else json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BankError(
                f"Bank {self.bank_name} is damaged: {kind} {name!r} is no JSON."
            ) from error

    def sizes(self, kind: str) -> dict[str, int]:
        """Names of all items of a kind, in alphabetical order, with their bytes."""
        query = "SELECT name, length(data) FROM items WHERE kind = ? ORDER BY name"
        return dict(self.connection.execute(query, (kind,)))

    def kinds_and_names(self) -> list[tuple[str, str]]:
        """Kind and name of every item."""
        return self.connection.execute("SELECT kind, name FROM items").fetchall()

    def stored_bytes(self, kind: str, names: Iterable[str]) -> int:
        """Bytes that the named items have now; a missing one has none."""
        query = "SELECT length(data) FROM items WHERE kind = ? AND name = ?"
        rows = [self.connection.execute(query, (kind, name)).fetchone() for name in names]
        return sum((row[0] or 0) if row else 0 for row in rows)

    def total_bytes(self, kind: str) -> int:
        """Bytes of all items of a kind."""
        query = "SELECT total(length(data)) FROM items WHERE kind = ?"
        return int(self.connection.execute(query, (kind,)).fetchone()[0])

    def file_bytes(self, page_bytes: int) -> int:
        """Bytes of the file that items of users and methods take; an upper bound."""
        query = "SELECT length(data) FROM items WHERE kind <> ? AND length(data) > ?"
        sizes = self.connection.execute(query, (BANK, page_bytes // 8))
        return sum(size + page_bytes + 8 * (size // page_bytes) for (size,) in sizes)

    def fill(self, count: int) -> None:
        """Make the file grow by about `count` bytes, which are free afterwards."""
        query = "INSERT INTO items VALUES ('bank', 'fill', zeroblob(?), x'')"
        self.connection.execute(query, (count,))
        self.drop(BANK, "fill")

    # ---------------------------------------------------------------- what the bank is

    def fingerprint(self) -> BankFingerprint:
        """What wrote the bank; raises `BankError` if it cannot be read."""
        stored = self.get_json(BANK, "fingerprint")
        names = {item.name for item in fields(BankFingerprint)}
        if not isinstance(stored, dict) or set(stored) != names:
            raise BankError(f"Bank {self.bank_name} is damaged: its fingerprint cannot be read.")
        return BankFingerprint(**{name: str(value) for name, value in stored.items()})

    def settings(self) -> Settings:
        """The settings; raises `BankError` if one is missing or has a wrong type."""
        settings: dict[str, Any] = {"lossless": []}  # banks of older versions do not have it
        for item in fields(Settings):
            data = self.get(BANK, item.name)
            if data is not None or item.name not in settings:
                settings[item.name] = self.parse(BANK, item.name, data)
        budget, span = settings["budget_bytes"], settings["span"]
        whole = budget is None or (isinstance(budget, int) and not isinstance(budget, bool))
        whole = whole and (budget is None or budget > 0) and isinstance(span, int | float)
        whole = whole and settings["ledger"] in LEDGERS and isinstance(settings["policy"], str)
        levels = settings["lossless"]
        whole = whole and isinstance(levels, list) and all(isinstance(x, str) for x in levels)
        if not whole or not 0 <= span < 1e12:
            raise BankError(f"Bank {self.bank_name} is damaged: its settings cannot be read.")
        return Settings(**{**settings, "lossless": tuple(levels)})
