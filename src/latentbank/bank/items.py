"""What a bank holds beside its entries: named blobs, metadata, fingerprint; and its reports.

Knows names, bytes and JSON; nothing about pages. `MemoryBank` provides the transactions.
"""

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from hashlib import blake2b
from typing import Any

from latentbank.bank.pages import blob_hash
from latentbank.bank.space import Space
from latentbank.errors import BankError, InputError

__all__ = [
    "LEDGERS",
    "AppendReport",
    "BankFingerprint",
    "Footprint",
    "Items",
    "Receipt",
    "Settings",
    "VerifyReport",
    "state_hash",
]

LEDGERS = ("full", "ids", "none")


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
        faded: ids of documents (of this call too) that went down a level to make room.
        forgotten: ids of documents (of this call too) that left the bank to make room.
        names: in a bank without ids, the name that each stored entry got instead of its id.
    """

    stored: int
    duplicates: int
    bytes: int
    faded: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def name(self, id: str) -> str:
        """The name under which the bank holds the entry that was given as `id`."""
        return self.names.get(id, id)


@dataclass(frozen=True)
class Receipt:
    """What one deletion did: the proof to keep.

    Attributes:
        deleted: ids of the documents that the bank held and holds no longer.
        missing: ids that were asked for and that the bank did not hold.
        exact: whether the bank is now as if it had never held the deleted documents.
        remains: a sentence that says what the deletion cannot take back; "" if nothing remains.
        before, after: the bank's `root_hash` before and after the deletion, in hex.
        time: when the deletion was done, UTC, ISO 8601.
    """

    deleted: tuple[str, ...]
    missing: tuple[str, ...] = ()
    exact: bool = True
    remains: str = ""
    before: str = ""
    after: str = ""
    time: str = ""


@dataclass(frozen=True)
class Settings:
    """What a bank was made with, as far as its own work depends on it.

    Attributes:
        budget_bytes: the largest sum of its files, or None.
        ledger: "full", "ids" or "none".
        policy: which documents fade first; see `bank_policy.make_policy`.
        span: documents that age one by 1 in the policy's measure; 0: not chosen yet.
        lossless: levels whose next step loses nothing; every document takes those steps before the
            first one takes another.
    """

    budget_bytes: int | None = None
    ledger: str = "full"
    policy: str = "blend"
    span: float = 0.0
    lossless: tuple[str, ...] = ()

    @property
    def space(self) -> Space:
        """The limits that follow from the budget."""
        return Space(self.budget_bytes)


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
        index: what orders documents for fading: age, hits, surprise, redundancy.
        free: the part of `overhead` that is free space within the file.
    """

    codes: int
    codebook: int
    keys: int
    ledger: int
    overhead: int
    total: int
    index: int = 0
    free: int = 0

    def __post_init__(self) -> None:
        parts = self.codes + self.codebook + self.keys + self.ledger + self.index + self.overhead
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
    settings: Settings

    @abstractmethod
    def _transaction(self, write: bool) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction, committed at its end or rolled back."""

    def get_blob(self, name: str) -> bytes | None:
        """The blob of that name, or None; raises `BankError` if its checksum does not match."""
        with self._transaction(write=False) as connection:
            return self._get(connection, "blob", name)

    def blobs(self) -> dict[str, int]:
        """Names of all blobs, in alphabetical order, with their bytes."""
        query = "SELECT name, length(data) FROM items WHERE kind = 'blob' ORDER BY name"
        with self._transaction(write=False) as connection:
            return dict(connection.execute(query))

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
    def budget_bytes(self) -> int | None:
        """The largest size that the bank's files may have together, or None."""
        with self._transaction(write=False):
            return self.settings.budget_bytes

    @property
    def fingerprint(self) -> BankFingerprint:
        """What wrote the bank; raises `BankError` if it cannot be read."""
        found = self._get_json("bank", "fingerprint", None)
        names = {item.name for item in fields(BankFingerprint)}
        if not isinstance(found, dict) or set(found) != names:
            raise BankError(f"Bank {self.name} is damaged: its fingerprint cannot be read.")
        return BankFingerprint(**{name: str(value) for name, value in found.items()})

    def _load_settings(self, connection: sqlite3.Connection) -> Settings:
        """The settings; raises `BankError` where one is missing or of a wrong type."""
        found: dict[str, Any] = {"lossless": []}  # banks of older versions do not have it
        for item in fields(Settings):
            data = self._get(connection, "bank", item.name)
            if data is not None or item.name not in found:
                found[item.name] = self._parse("bank", item.name, data)
        budget, span = found["budget_bytes"], found["span"]
        whole = budget is None or (isinstance(budget, int) and not isinstance(budget, bool))
        whole = whole and (budget is None or budget > 0) and isinstance(span, int | float)
        whole = whole and found["ledger"] in LEDGERS and isinstance(found["policy"], str)
        levels = found["lossless"]
        whole = whole and isinstance(levels, list) and all(isinstance(x, str) for x in levels)
        if not whole or not 0 <= span < 1e12:
            raise BankError(f"Bank {self.name} is damaged: its settings cannot be read.")
        return Settings(**{**found, "lossless": tuple(levels)})

    # ---------------------------------------------------------- inside the bank's transactions

    @staticmethod
    def _json_bytes(name: str, value: Any) -> bytes:
        try:
            return json.dumps(value, allow_nan=False, sort_keys=True).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"The metadata {name!r} must be JSON values: {error}.") from error

    def _put_json(self, connection: sqlite3.Connection, kind: str, name: str, value: Any) -> None:
        self._put(connection, kind, name, self._json_bytes(name, value))

    @staticmethod
    def blobs_bytes(connection: sqlite3.Connection) -> int:
        """Bytes of all blobs."""
        query = "SELECT total(length(data)) FROM items WHERE kind = 'blob'"
        return int(connection.execute(query).fetchone()[0])

    def _get_json(self, kind: str, name: str, default: Any) -> Any:
        with self._transaction(write=False) as connection:
            data = self._get(connection, kind, name)
        return default if data is None else self._parse(kind, name, data)

    def _parse(self, kind: str, name: str, data: bytes | None) -> Any:
        try:
            return None if data is None else json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BankError(f"Bank {self.name} is damaged: {kind} {name!r} is no JSON.") from error

    def _put(self, connection: sqlite3.Connection, kind: str, name: str, data: bytes) -> None:
        """Store an item; one that is there with the same bytes is left alone."""
        hash = _item_hash(kind, name, data)
        query = "SELECT hash FROM items WHERE kind = ? AND name = ?"
        if connection.execute(query, (kind, name)).fetchone() != (hash,):
            connection.execute(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", (kind, name, data, hash)
            )

    def _get(self, connection: sqlite3.Connection, kind: str, name: str) -> bytes | None:
        row = connection.execute(
            "SELECT data, hash FROM items WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes) or row[1] != _item_hash(kind, name, row[0]):
            raise BankError(
                f"Bank {self.name} is damaged: the checksum of {kind} {name!r} does not match."
            )
        return row[0]

    def _size(self, connection: sqlite3.Connection) -> int:
        """Bytes that the file takes after a checkpoint, with this transaction's changes."""
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        return int(pages * connection.execute("PRAGMA page_size").fetchone()[0])


def state_hash(connection: sqlite3.Connection) -> str:
    """BLAKE2b, in hex, over the hashes of all pages and items, in order."""
    state = blake2b(digest_size=32)
    for query in (
        "SELECT seq, hash FROM pages ORDER BY seq",
        "SELECT kind || '/' || name, hash FROM items WHERE name != 'deleting' ORDER BY kind, name",
    ):
        for name, hash in connection.execute(query):
            state.update(f"{name}:{hash.hex() if isinstance(hash, bytes) else hash};".encode())
    return state.hexdigest()


def _item_hash(kind: str, name: str, data: bytes) -> bytes:
    return blob_hash(f"{kind}/{name}".encode(errors="replace"), data)
