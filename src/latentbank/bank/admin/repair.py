"""A new bank of everything that is whole in a damaged one.

Knows pages, items and SQLite's tables; trusts nothing that does not match its checksum. Rows are
looked up one by one, so that a broken corner of a table hides its own rows only.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentbank.bank.admin.rows import Progress, Row, insert_rows
from latentbank.bank.admin.verify import EntryCheck
from latentbank.bank.bank import MemoryBank
from latentbank.bank.reports import BankFingerprint, Settings
from latentbank.bank.store.facts import Facts
from latentbank.bank.store.file import connect
from latentbank.bank.store.items import BANK, BLOB, META, STATE, ItemTable
from latentbank.bank.store.pages import Page
from latentbank.bank.store.session import DELETING, PENDING
from latentbank.bank.store.tables import PageTable
from latentbank.bank.store.tombstones import Tombstones, buried, unpack_tombstones
from latentbank.errors import BankError

__all__ = ["RepairReport", "repair_bank"]

_MAX_PAGES = 1 << 22
_NO_ORDER = 1 << 32  # larger than any document's place in the order of writing
_PROBED_BEYOND = 64  # page numbers that are looked up behind the last one that a table names


@dataclass(frozen=True)
class RepairReport:
    """What repairing kept.

    Attributes:
        documents: documents in the new bank.
        damage: one sentence for each page, item or entry that was lost.
        damaged: where the damaged file is now, if the new one took its place, else None.
    """

    documents: int
    damage: tuple[str, ...]
    damaged: str | None = None


def repair_bank(
    path: str | Path,
    out: str | Path | None = None,
    progress: Progress | None = None,
    check: EntryCheck | None = None,
) -> RepairReport:
    """Write everything whole into a new bank at `out`, or in the bank's place.

    Without `out` the damaged file is kept beside it as NAME.damaged. `progress(done, total)` counts
    pages. An entry that `check` cannot read is taken out. Raises `BankError` if the file is no
    bank, or if its fingerprint or settings are lost: then nothing says what the codes mean.
    """
    path = Path(path)
    target = path.with_name(f"{path.name}.repaired") if out is None else Path(out)
    aside = path.with_name(f"{path.name}.damaged")
    if out is None and aside.exists():
        raise BankError(f"{aside} exists already; move it away, or name a file for the repaired.")
    damage: list[str] = []
    connection = connect(path, read_only=True, timeout_seconds=5.0)
    try:
        source = _Source(connection, str(path), damage)
        documents = _rescue(source, target, progress, check)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        connection.close()
    if out is not None:
        return RepairReport(documents, tuple(damage))
    os.replace(path, aside)
    for tail in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    os.replace(target, path)
    return RepairReport(documents, tuple(damage), str(aside))


def _rescue(
    source: _Source, target: Path, progress: Progress | None, check: EntryCheck | None
) -> int:
    """Make the new bank; returns its number of documents."""
    settings, fingerprint = source.identity()
    items = source.read_items()
    rows: dict[str, Row] = {}
    for page, facts in source.read_pages(progress):  # in the order of writing
        counts = page.counts()
        for at, fact in enumerate(facts.rows()):
            row = Row(page.entry(at), page.depth, counts[at], fact)
            why = None if check is None else check(row.entry)
            if why is not None:
                source.damage.append(f"Took out the document {row.entry.id!r}: {why}")
                continue
            rows.setdefault(row.entry.id, row)
    by_kind = {
        kind: {name: data for (of, name), data in items.items() if of == kind}
        for kind in (BLOB, META, STATE)
    }
    made = MemoryBank.create(
        target,
        fingerprint,
        budget=settings.budget_bytes,
        ledger=settings.ledger,
        policy=settings.policy,
        lossless=settings.lossless,
        meta={name: source.items.parse(META, name, d) for name, d in by_kind[META].items()},
    )
    with made:
        made.put_blobs(by_kind[BLOB])
        made.put_state(by_kind[STATE])
        insert_rows(made, list(rows.values()), settings.span)
    if by_kind[STATE] and source.damage:
        source.damage.append("The state may describe documents that were lost.")
    return len(rows)


class _Source:
    """A damaged file, read row by row; `damage` gets a sentence for everything lost."""

    def __init__(self, connection: sqlite3.Connection, name: str, damage: list[str]) -> None:
        self.connection, self.name, self.damage = connection, name, damage
        self.items, self.pages = ItemTable(connection, name), PageTable(connection, name)

    def identity(self) -> tuple[Settings, BankFingerprint]:
        """What the bank is; raises `BankError` if that is lost."""
        try:
            return self.items.settings(), self.items.fingerprint()
        except (BankError, sqlite3.DatabaseError) as error:
            raise BankError(
                f"Bank {self.name} cannot be repaired: what wrote it cannot be read any more "
                f"({error})."
            ) from error

    def read_items(self) -> dict[tuple[str, str], bytes]:
        """Every item whose checksum matches, by kind and name."""
        names: dict[tuple[str, str], None] = {}
        for order in ("ASC", "DESC"):  # from both ends, around a broken spot
            try:
                for kind, name in self.connection.execute(
                    f"SELECT kind, name FROM items ORDER BY kind {order}, name {order}"
                ):
                    names[str(kind), str(name)] = None
            except (sqlite3.DatabaseError, UnicodeDecodeError):
                self.damage.append("The table of blobs and metadata is broken; some may be lost.")
        items: dict[tuple[str, str], bytes] = {}
        for kind, name in sorted(names):
            try:
                data = self.items.get(kind, name)
                if data is not None:
                    items[kind, name] = data
            except (BankError, sqlite3.DatabaseError) as error:
                self.damage.append(f"Lost {kind} {name!r}: {error}")
        return items

    def read_pages(self, progress: Progress | None) -> Iterator[tuple[Page, Facts]]:
        """Every whole page, without what was deleted or not yet written to its end."""
        tombstones, pending = self._marks()
        last = self._last_page()
        for seq in range(1, last + 1):
            try:
                page = self.pages.find(seq)
                if page is None:
                    continue
                page.check()
                _ = page.document_ids
                facts = self._facts(page)
                new = frozenset(np.flatnonzero(facts.order >= pending).tolist())
                gone = buried(page, tombstones) | new
                left = page.without(gone) if gone else page
                if left is not None:
                    yield left, facts.without(gone) if gone else facts
            except (BankError, sqlite3.DatabaseError, UnicodeDecodeError) as error:
                self.damage.append(f"Lost page {seq}: {error}")
            if progress is not None:
                progress(seq, last)

    def _marks(self) -> tuple[Tombstones, int]:
        """Tombstones, and the order from which on documents do not count, as far as readable."""
        try:
            tombstones = unpack_tombstones(self.items.get(BANK, DELETING))
            pending = self.items.get_json(BANK, PENDING)
            return tombstones, pending if isinstance(pending, int) else _NO_ORDER
        except (BankError, sqlite3.DatabaseError):
            return {}, _NO_ORDER

    def _facts(self, page: Page) -> Facts:
        """A page's facts, or plain ones where they are lost: they are hints."""
        try:
            return self.pages.facts(page.seq, page.count)
        except (BankError, sqlite3.DatabaseError):
            return Facts.of([(0, 0)] * page.count)

    def _last_page(self) -> int:
        """The highest page number that any table still names."""
        found = 0
        for query in (
            "SELECT max(seq) FROM pages",
            "SELECT max(seq) FROM facts",
            "SELECT max(seq) FROM (SELECT seq FROM facts INDEXED BY low)",
        ):
            try:
                last = self.connection.execute(query).fetchone()[0]
                found = max(found, last if isinstance(last, int) else 0)
            except sqlite3.DatabaseError:
                continue
        return min(found + _PROBED_BEYOND, _MAX_PAGES)
