"""Looks for damage in an open bank and names it.

Knows the bank's pages, items and SQLite's own check; repairs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from latentbank.bank.entry import ID_BYTES
from latentbank.bank.reports import VerifyReport
from latentbank.bank.store.pages import NUMBER_BYTES, Page
from latentbank.bank.store.session import Session
from latentbank.errors import BankError

__all__ = ["verify_session"]


def verify_session(
    session: Session, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Check every page's and item's checksum, that no id is stored twice, and SQLite's structure.

    Never raises for damage. Reads every byte of the bank. `progress(done, total)` counts pages.
    """
    damage: list[str] = []
    damaged_ids: list[str] = []
    seen: set[bytes] = set()
    documents = 0
    numbers = _numbers(session, damage)
    for done, seq in enumerate(numbers):
        if progress is not None:
            progress(done + 1, len(numbers))
        page: Page | None = None
        try:
            with session.reading():
                page = session.find_page(seq)
            if page is None:
                continue
            page.check()
            again = seen.intersection(_id_keys(page))
            seen.update(_id_keys(page))
            if again or len(set(page.document_ids)) < page.count:
                raise BankError(f"Page {seq} of the bank is damaged: it repeats documents.")
            with session.reading():
                session.page_and_facts(seq)
            documents += page.count
        except BankError as error:
            ids = _readable_ids(page)
            damaged_ids.extend(ids)
            damage.append(f"{error} Its documents: {', '.join(ids) or 'unreadable'}.")
    damage.extend(_item_damage(session))
    damage.extend(_structure_damage(session))
    return VerifyReport(not damage, documents, tuple(damage), tuple(damaged_ids))


def _numbers(session: Session, damage: list[str]) -> list[int]:
    """The numbers of all pages."""
    try:
        with session.reading():
            return session.pages.numbers()
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


def _item_damage(session: Session) -> list[str]:
    """A sentence for each item whose checksum does not match, and for what the bank is."""
    damage = []
    try:
        with session.reading():
            names = session.items.kinds_and_names()
        for kind, name in names:
            try:
                with session.reading():
                    session.items.get(kind, name)
            except BankError as error:
                damage.append(str(error))
        with session.reading():
            session.items.fingerprint()
    except BankError as error:
        damage.append(str(error))
    return list(dict.fromkeys(damage))


def _structure_damage(session: Session) -> list[str]:
    """What SQLite finds wrong with the file's structure."""
    try:
        with session.reading():
            rows = session.connection.execute("PRAGMA integrity_check(20)").fetchall()
    except BankError as error:
        return [str(error)]
    return [f"SQLite reports: {text}." for (text,) in rows if text != "ok"]
