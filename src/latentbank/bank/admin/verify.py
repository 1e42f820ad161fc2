"""Looks for damage in an open bank and names it.

Knows the bank's pages, items and SQLite's own check; repairs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from latentbank.bank.entry import ID_BYTES, Entry
from latentbank.bank.ladder import VERBATIM
from latentbank.bank.reports import VerifyReport
from latentbank.bank.store.pages import NUMBER_BYTES, Page
from latentbank.bank.store.session import Session
from latentbank.codec.packaged import packaged_dictionary
from latentbank.codec.text import ZstdTextCodec
from latentbank.errors import BankError

__all__ = ["EntryCheck", "text_check", "verify_session"]

EntryCheck = Callable[[Entry], str | None]
"""Why an entry cannot be read, as a sentence; None if it can, or if the check does not know it."""

_ZSTD_LEVELS = (VERBATIM, "text")  # whose payloads are texts by zstd and the packaged dictionary


def text_check() -> EntryCheck:
    """The check that needs no model: it decodes the texts that are stored by zstd.

    The levels "verbatim" and "text" are kept for them.
    """
    codec = ZstdTextCodec(packaged_dictionary())

    def check(entry: Entry) -> str | None:
        if entry.level not in _ZSTD_LEVELS:
            return None
        try:
            codec.decode(entry.payload)
        except BankError as error:
            return str(error)
        return None

    return check


def verify_session(
    session: Session,
    progress: Callable[[int, int], None] | None = None,
    check: EntryCheck | None = None,
) -> VerifyReport:
    """Check every page's and item's checksum, that no id is stored twice, and SQLite's structure.

    `check` decodes each entry. Never raises for damage. Reads every byte of the bank.
    `progress(done, total)` counts pages.
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
            bad = {} if check is None else _unreadable(page, check)
            damaged_ids.extend(bad)
            damage.extend(f"The document {id!r} cannot be read: {why}" for id, why in bad.items())
            documents += page.count - len(bad)
        except BankError as error:
            ids = _readable_ids(page)
            damaged_ids.extend(ids)
            damage.append(f"{error} Its documents: {', '.join(ids) or 'unreadable'}.")
    damage.extend(_item_damage(session))
    damage.extend(_structure_damage(session))
    return VerifyReport(not damage, documents, tuple(damage), tuple(damaged_ids))


def _unreadable(page: Page, check: EntryCheck) -> dict[str, str]:
    """Id → sentence of each entry of a whole page that cannot be decoded."""
    entries = [page.entry(at) for at in range(page.count)]
    return {entry.id: why for entry in entries if (why := check(entry)) is not None}


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
