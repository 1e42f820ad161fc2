"""The SQLite file under a bank: schema, safe opening, and SQLite's errors as clear sentences.

Knows tables and error codes; nothing about entries, levels or methods. No file is trusted: one
whose schema is not exactly that of a bank is refused before any row is read.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentbank.bank.space import Space
from latentbank.errors import BankError

__all__ = [
    "FORMAT_VERSION",
    "check_schema",
    "connect",
    "create_file",
    "empty_log",
    "new_file",
    "open_bytes",
    "open_memory",
    "prepare_writer",
    "sqlite_errors",
]

FORMAT_VERSION = 2
APPLICATION_ID = 0x4C42414E  # "LBAN"
_MAGIC = b"SQLite format 3\0"

# No types: SQLite would not enforce them, and so the schema fits into the file's first page.
_SCHEMA = {
    "items": "CREATE TABLE items(kind,name,data,hash,PRIMARY KEY(kind,name))WITHOUT ROWID",
    "pages": (
        "CREATE TABLE pages(seq INTEGER PRIMARY KEY,level,depth,count,hash,ids,lengths,payload,"
        "keys,ledger)"
    ),
    "facts": "CREATE TABLE facts(seq INTEGER PRIMARY KEY,low,last,data)",
    "low": "CREATE INDEX low ON facts(low)",
}
_SMALL_SCHEMA = {name: sql for name, sql in _SCHEMA.items() if name != "low"}

_SENTENCES = {
    sqlite3.SQLITE_FULL: "no space left for the bank (disk full); nothing of this write was kept",
    sqlite3.SQLITE_READONLY: "the bank's file or folder is read-only",
    sqlite3.SQLITE_BUSY: "another process is writing to the bank; try again when it is done",
    sqlite3.SQLITE_LOCKED: "another process is writing to the bank; try again when it is done",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened (missing folder or permission?)",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_IOERR: "the disk reported an input/output error",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: SQLite finds its structure broken",
    sqlite3.SQLITE_NOTADB: "the file is not a bank, or its first page is damaged",
}


_UNWRITTEN = {
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
}
_FULL = "the disk cannot be written (is it full?); nothing of this write was kept"


@contextmanager
def sqlite_errors(name: str) -> Iterator[None]:
    """Turn SQLite's exceptions into `BankError` with a sentence that names the bank."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        known = None if code is None else _SENTENCES.get(code & 0xFF)
        if code in _UNWRITTEN:
            known = _FULL
        raise BankError(f"Bank {name}: {known or error}.") from error
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema in its message
        known = _SENTENCES[sqlite3.SQLITE_CORRUPT]
        raise BankError(f"Bank {name}: {known}.") from error


def connect(path: Path, *, read_only: bool, timeout_seconds: float) -> sqlite3.Connection:
    """Open a bank's file; raises `BankError` if it is not a bank of a version that we read."""
    _check_header(path)
    with sqlite_errors(str(path)):
        try:
            connection = _open(path, _mode(path, read_only), timeout_seconds)
            if read_only:
                connection.execute("PRAGMA query_only=ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            # Read-only media cannot hold WAL's helper files; without a log none are needed.
            code = error.sqlite_errorcode & 0xFF
            log = path.with_name(path.name + "-wal")
            unwritable = code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
            if not (read_only and unwritable) or (log.exists() and log.stat().st_size):
                raise
            connection = _open(path, "mode=ro&immutable=1", timeout_seconds)
        try:
            check_schema(connection, str(path))
            if not read_only:
                prepare_writer(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _mode(path: Path, read_only: bool) -> str:
    """How SQLite opens the file.

    A reader that may write removes the log's files when it closes as the last one. One that may not
    write leaves them behind.
    """
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return "mode=rw" if writable or not read_only else "mode=ro"


def create_file(
    path: Path,
    space: Space,
    timeout_seconds: float,
    fill: Callable[[sqlite3.Connection], None],
) -> None:
    """Make a bank at `path`, whole or not at all; an existing file is refused.

    `fill` writes its first rows. Nobody sees the file before that is done.
    """
    with new_file(path) as draft, sqlite_errors(str(path)):
        connection = _open(draft, "mode=rwc", timeout_seconds)
        try:
            initialise(connection, space)
            connection.execute(f"PRAGMA journal_mode={'WAL' if space.has_log else 'TRUNCATE'}")
            fill(connection)
        finally:
            connection.close()


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A draft beside `path`: it gets that name at the end of the block, or is removed.

    Raises `BankError` if `path` exists, its folder does not, or the disk refuses.
    """
    if path.exists():
        raise BankError(f"{path} exists already; open it, or choose another name for a new bank.")
    if not path.parent.is_dir():
        raise BankError(f"The folder {path.parent} does not exist; create it first.")
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.unlink(missing_ok=True)
        yield draft
        _publish(draft, path)
    except OSError as error:
        raise BankError(f"Bank {path} cannot be created: {error.strerror or error}.") from error
    finally:
        for tail in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                draft.with_name(draft.name + tail).unlink(missing_ok=True)


def prepare_writer(connection: sqlite3.Connection) -> None:
    """Set up a connection that writes. The file itself says whether there is a log."""
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode=TRUNCATE")
    connection.execute("PRAGMA cache_spill=OFF")  # a page is logged once in a transaction


def initialise(connection: sqlite3.Connection, space: Space) -> None:
    """Write the schema into an empty database, in one transaction.

    A small bank has no index of what fades first: its few rows are looked through.
    """
    connection.execute(f"PRAGMA page_size={space.sqlite_page}")
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in (_SCHEMA if space.has_log else _SMALL_SCHEMA).values():
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
    connection.execute("COMMIT")


def open_memory(space: Space) -> sqlite3.Connection:
    """A bank that lives in memory and dies with its connection."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _configure(connection)
    initialise(connection, space)
    return connection


def open_bytes(data: bytes, name: str) -> sqlite3.Connection:
    """A bank's file held in memory; raises `BankError` if it is not a bank that we read."""
    if data[: len(_MAGIC)] != _MAGIC:
        raise BankError(f"{name} is not a latentbank bank: it is no SQLite file.")
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        with sqlite_errors(name):
            # a file with a write-ahead log says so in these two bytes; memory has none
            connection.deserialize(data[:18] + b"\1\1" + data[20:])
            _configure(connection)
            check_schema(connection, name)
    except BaseException:
        connection.close()
        raise
    return connection


def _publish(draft: Path, path: Path) -> None:
    """Give the draft its name, atomically, and never in place of another file."""
    try:
        os.link(draft, path)
    except FileExistsError as error:
        raise BankError(f"{path} exists already; open it, or choose another name.") from error
    except OSError:  # a file system without hard links
        os.rename(draft, path)
    with suppress(OSError):  # not every system can flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def empty_log(connection: sqlite3.Connection, kind: str) -> bool:
    """Move the log into the file; `kind` is RESTART or TRUNCATE.

    Returns False if other processes held it up for the connection's timeout. SQLite itself waits
    for readers and writers, but not for the checkpoint of another process.
    """
    end = time.monotonic() + connection.execute("PRAGMA busy_timeout").fetchone()[0] / 1000
    while connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()[0]:
        if time.monotonic() >= end:
            return False
        time.sleep(0.002)
    return True


def _open(path: Path, options: str, timeout_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=timeout_seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    _configure(connection)
    return connection


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute("PRAGMA synchronous=FULL")


def _check_header(path: Path) -> None:
    if not path.exists():
        raise BankError(f"There is no bank at {path}; create one first.")
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise BankError(f"Bank {path} cannot be opened: {error.strerror or error}.") from error
    if start != _MAGIC:
        raise BankError(f"{path} is not a latentbank bank: it is no SQLite file.")


def check_schema(connection: sqlite3.Connection, path: str) -> None:
    """Raise `BankError` unless the schema is exactly that of a bank of this format."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise BankError(f"{path} is not a latentbank bank: it is another program's SQLite file.")
    if version > FORMAT_VERSION:
        raise BankError(
            f"Bank {path} has format {version}; this latentbank reads format {FORMAT_VERSION}. "
            "Upgrade latentbank to open it."
        )
    if 0 < version < FORMAT_VERSION:
        raise BankError(
            f"Bank {path} has the older format {version}; this latentbank reads format "
            f"{FORMAT_VERSION}. Write its documents into a new bank."
        )
    schema = dict(
        connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL LIMIT 16")
    )
    if version < 1 or schema not in (_SCHEMA, _SMALL_SCHEMA):
        raise BankError(f"Bank {path} is damaged: its tables are not those of a bank.")
