"""Making a bank's file and opening one: sessions whose directory is loaded.

Knows settings, fingerprints and the first rows of a file; nothing about entries.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latentbank.bank.policy import make_policy
from latentbank.bank.reports import LEDGERS, BankFingerprint, Settings
from latentbank.bank.space import least_budget
from latentbank.bank.store.file import connect, create_file, open_memory
from latentbank.bank.store.items import BANK, META
from latentbank.bank.store.session import MEMORY, Session
from latentbank.bank.words.folder import index_folder, remove_index
from latentbank.errors import BankError, FingerprintError, InputError, unknown

__all__ = ["create_session", "open_session"]


def create_session(
    path: str | Path,
    settings: Settings,
    fingerprint: BankFingerprint,
    meta: Mapping[str, Any],
    timeout_seconds: float,
) -> Session:
    """Make a new bank's file, whole or not at all; see `MemoryBank.create`."""
    if settings.ledger not in LEDGERS:
        raise unknown("ledger", settings.ledger, LEDGERS)
    make_policy(settings.policy)
    if str(path) == MEMORY:
        session = Session(open_memory(settings.space), MEMORY, False)
        try:
            _write_first_rows(session, settings, fingerprint, meta)
        except BaseException:
            session.close()
            raise
        return session

    def fill(connection: sqlite3.Connection) -> None:
        draft = Session(connection, str(path), False)
        _write_first_rows(draft, settings, fingerprint, meta)

    create_file(Path(path), settings.space, timeout_seconds, fill)
    _drop_old_index(path)
    connection = connect(Path(path), read_only=False, timeout_seconds=timeout_seconds)
    return open_session(Session(connection, str(path), False))


def _drop_old_index(path: str | Path) -> None:
    """Removes the word index that an earlier bank of this name has left."""
    try:
        remove_index(path)
    except OSError as error:
        Path(path).unlink(missing_ok=True)
        raise BankError(
            f"{index_folder(path)} belongs to an earlier bank of this name and cannot be removed: "
            f"{error.strerror or error}."
        ) from error


def open_session(session: Session, expect: BankFingerprint | None = None) -> Session:
    """Load a session's directory; closes the session if that fails.

    Raises `FingerprintError` if `expect` is given and something else wrote the bank.
    """
    try:
        with session.reading():
            stored = None if expect is None else session.items.fingerprint()
        if expect is not None and stored is not None and stored != expect:
            raise FingerprintError(stored.mismatch(session.name, expect))
    except BaseException:
        session.close()
        raise
    return session


def _write_first_rows(
    session: Session, settings: Settings, fingerprint: BankFingerprint, meta: Mapping[str, Any]
) -> None:
    """Fill a new file; raises `InputError` if its budget is too small even for that."""
    with session.guard():
        session.begin(write=True)
        for name, value in asdict(settings).items():
            session.items.put_json(BANK, name, value)
        session.items.put_json(BANK, "fingerprint", asdict(fingerprint))
        for name, value in meta.items():
            session.items.put_json(META, name, value)
        size = session.size_bytes()
        with session.committing():
            pass
        session.checkpoint()
    limit = settings.space.file_limit(0)
    if settings.budget_bytes is not None and limit < size:
        least = least_budget(size, settings.budget_bytes)
        raise InputError(
            f"budget_bytes must be at least about {least}, so that the bank holds a short document "
            f"beside its log, got {settings.budget_bytes}."
        )
