"""Looks for damage in an open bank and names it.

Knows the bank's pages, items and SQLite's own check; repairs nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from latentbank.bank.entry import ID_BYTES
from latentbank.bank.items import VerifyReport
from latentbank.bank.pages import NUMBER_BYTES, Page
from latentbank.errors import BankError

if TYPE_CHECKING:
    from latentbank.bank.core import BankCore

__all__ = ["verify_bank"]


def verify_bank(
    bank: "BankCore", progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Check every page's and item's checksum, that no id is stored twice, and SQLite's structure.

    Never raises for damage; reads every byte of the bank. `progress(done, total)` counts pages.
    """
    damage: list[str] = []
    damaged_ids: list[str] = []
    seen: set[bytes] = set()
    documents = 0
    pages = _sequence(bank, damage)
    for done, seq in enumerate(pages):
        if progress is not None:
            progress(done + 1, len(pages))
        page: Page | None = None
        try:
            page = bank._load_page(seq)
            if page is None:
                continue
            page.check()
            again = seen.intersection(_id_keys(page))
            seen.update(_id_keys(page))
            if again or len(set(page.document_ids)) < page.count:
                raise BankError(f"Page {seq} of the bank is damaged: it repeats documents.")
            with bank._transaction(write=False) as connection:
                bank._read_facts(connection, seq, _stored_count(bank, seq, page))
            documents += page.count
        except BankError as error:
            ids = _readable_ids(page)
            damaged_ids.extend(ids)
            damage.append(f"{error} Its documents: {', '.join(ids) or 'unreadable'}.")
    damage.extend(_item_damage(bank))
    damage.extend(_structure_damage(bank))
    return VerifyReport(not damage, documents, tuple(damage), tuple(damaged_ids))


def _stored_count(bank: "BankCore", seq: int, page: Page) -> int:
    """Entries of the page as stored: some may be on their way out."""
    if seq not in bank._doomed:
        return page.count
    with bank._lock:
        connection = bank._open_connection
        stored = None if connection is None else bank._stored_page(connection, seq)
    return page.count if stored is None else stored.count


def _sequence(bank: "BankCore", damage: list[str]) -> list[int]:
    try:
        return bank._sequence(None)
    except BankError as error:
        damage.append(str(error))
        return []


def _id_keys(page: Page) -> list[bytes]:
    width = page.id_bytes
    return [page.ids[at : at + width] for at in range(0, len(page.ids), width)]


def _readable_ids(page: Page | None) -> list[str]:
    """The ids of a damaged page: in full where its ledger can be read, else their 8 bytes."""
    if page is None or page.id_bytes not in (ID_BYTES, NUMBER_BYTES):
        return []
    try:
        return page.document_ids
    except BankError:
        return [key.hex() for key in _id_keys(page)]


def _item_damage(bank: "BankCore") -> list[str]:
    damage = []
    try:
        with bank._transaction(write=False) as connection:
            names = connection.execute("SELECT kind, name FROM items").fetchall()
        for kind, name in names:
            try:
                with bank._transaction(write=False) as connection:
                    bank._get(connection, kind, name)
            except BankError as error:
                damage.append(str(error))
        _ = bank.fingerprint, bank.budget_bytes
    except BankError as error:
        damage.append(str(error))
    return list(dict.fromkeys(damage))


def _structure_damage(bank: "BankCore") -> list[str]:
    try:
        with bank._transaction(write=False) as connection:
            rows = connection.execute("PRAGMA integrity_check(20)").fetchall()
    except BankError as error:
        return [str(error)]
    return [f"SQLite reports: {text}." for (text,) in rows if text != "ok"]
