"""What is whole of a damaged bank, as a new one.

Knows pages, items and SQLite's tables; trusts nothing that does not match its checksum. Rows are
looked up one by one, so that a broken corner of a table hides only its own rows.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from latentbank.bank.facts import Facts
from latentbank.bank.file import connect
from latentbank.bank.insert import Row, insert_rows
from latentbank.bank.items import BankFingerprint, Settings
from latentbank.bank.memory_bank import MemoryBank
from latentbank.bank.pages import COLUMNS, Page
from latentbank.errors import BankError

__all__ = ["RepairReport", "repair_bank"]

_MAX_PAGES = 1 << 22
_PROBED_BEYOND = 64  # numbers without a page behind which none is looked for


@dataclass(frozen=True)
class RepairReport:
    """What repairing kept.

    Attributes:
        documents: documents in the new bank.
        damage: one sentence for each page or item that was lost.
        damaged: where the damaged file is now, if the new one took its place, else None.
    """

    documents: int
    damage: tuple[str, ...]
    damaged: str | None = None


def repair_bank(
    path: str | Path,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RepairReport:
    """Write everything whole into a new bank at `out`, or in the bank's place.

    Without `out` the damaged file is kept beside it as NAME.damaged. Raises `BankError` if the
    file is no bank, or if its fingerprint or settings are lost: then nothing tells what the codes
    mean.
    """
    path = Path(path)
    target = path.with_name(f"{path.name}.repaired") if out is None else Path(out)
    aside = path.with_name(f"{path.name}.damaged")
    if out is None and aside.exists():
        raise BankError(f"{aside} exists already; move it away, or name a file for the repaired.")
    damage: list[str] = []
    source = MemoryBank(connect(path, read_only=True, timeout_seconds=5.0), str(path), True)
    try:
        documents = _rescue(source, target, damage, progress)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        source.close()
    if out is not None:
        return RepairReport(documents, tuple(damage))
    os.replace(path, aside)
    for tail in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    os.replace(target, path)
    return RepairReport(documents, tuple(damage), str(aside))


def _rescue(
    source: MemoryBank,
    target: Path,
    damage: list[str],
    progress: Callable[[int, int], None] | None,
) -> int:
    connection = source._open_connection
    assert connection is not None
    settings, fingerprint = _identity(source, connection)
    items = dict(_items(source, connection, damage))
    pages = list(_pages(connection, damage, progress))
    # the old order of pages is the order of writing
    rows: dict[str, Row] = {}
    for page, facts in pages:
        counts = page.counts()
        for at, fact in enumerate(facts.rows()):
            rows.setdefault(
                page.document_ids[at], Row(page.entry(at), page.depth, counts[at], fact)
            )
    meta = {
        name: source._parse("meta", name, data)
        for (kind, name), data in items.items()
        if kind == "meta"
    }
    blobs = {name: data for (kind, name), data in items.items() if kind == "blob"}
    made = MemoryBank.create(
        target,
        fingerprint,
        budget=settings.budget_bytes,
        ledger=settings.ledger,
        policy=settings.policy,
        lossless=settings.lossless,
        meta=meta,
    )
    with made:
        made.put_blobs(blobs)
        insert_rows(made, list(rows.values()), settings.span)
    return len(rows)


def _identity(
    source: MemoryBank, connection: sqlite3.Connection
) -> tuple[Settings, BankFingerprint]:
    try:
        settings = source._load_settings(connection)
        data = source._get(connection, "bank", "fingerprint")
        found = source._parse("bank", "fingerprint", data)
        return settings, BankFingerprint(**{name: str(value) for name, value in found.items()})
    except (BankError, sqlite3.DatabaseError, TypeError, AttributeError) as error:
        raise BankError(
            f"Bank {source.name} cannot be repaired: what wrote it cannot be read any more "
            f"({error})."
        ) from error


def _items(
    source: MemoryBank, connection: sqlite3.Connection, damage: list[str]
) -> Iterator[tuple[tuple[str, str], bytes]]:
    names: dict[tuple[str, str], None] = {}
    for order in ("ASC", "DESC"):  # from both ends, around a broken spot
        try:
            for kind, name in connection.execute(
                f"SELECT kind, name FROM items ORDER BY kind {order}, name {order}"
            ):
                names[str(kind), str(name)] = None
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            damage.append("The table of blobs and metadata is broken; some may be lost.")
    for kind, name in sorted(names):
        try:
            data = source._get(connection, kind, name)
            if data is not None:
                yield (kind, name), data
        except (BankError, sqlite3.DatabaseError) as error:
            damage.append(f"Lost {kind} {name!r}: {error}")


def _pages(
    connection: sqlite3.Connection,
    damage: list[str],
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[Page, Facts]]:
    last = _last_page(connection)
    for seq in range(1, last + 1):
        try:
            row = connection.execute(
                f"SELECT {COLUMNS} FROM pages WHERE seq = ?", (seq,)
            ).fetchone()
            if row is None:
                continue
            page = Page(*row)
            page.check()
            _ = page.document_ids
            yield page, _facts(connection, page)
        except (BankError, sqlite3.DatabaseError, UnicodeDecodeError) as error:
            damage.append(f"Lost page {seq}: {error}")
        if progress is not None:
            progress(seq, last)


def _facts(connection: sqlite3.Connection, page: Page) -> Facts:
    """A page's facts, or plain ones where they are lost: they are hints."""
    try:
        row = connection.execute("SELECT data FROM facts WHERE seq = ?", (page.seq,)).fetchone()
        return Facts.unpack(row[0] if row else None, page.count, page.seq)
    except (BankError, sqlite3.DatabaseError):
        return Facts.of([(0, 0, 0, 0)] * page.count)


def _last_page(connection: sqlite3.Connection) -> int:
    """The highest page number that any table still names."""
    found = 0
    for query in (
        "SELECT max(seq) FROM pages",
        "SELECT max(seq) FROM facts",
        "SELECT max(seq) FROM (SELECT seq FROM facts INDEXED BY low)",
    ):
        try:
            last = connection.execute(query).fetchone()[0]
            found = max(found, last if isinstance(last, int) else 0)
        except sqlite3.DatabaseError:
            continue
    return min(found + _PROBED_BEYOND, _MAX_PAGES)
