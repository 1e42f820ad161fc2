"""`MemoryBank`: entries, blobs and metadata in one SQLite file, durable and checked.

Knows ids, levels and bytes; nothing about what a payload means, nor about models or methods.
The layout of a page is in `bank_pages`, the file's safety in `bank_file`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from latentbank.bank_core import BankCore, key_number
from latentbank.bank_entry import Entry, check_entry
from latentbank.bank_file import connect, create_file, open_memory
from latentbank.bank_items import AppendReport, BankFingerprint, Footprint, VerifyReport
from latentbank.bank_pages import Page, PageBuilder
from latentbank.bank_verify import verify_bank
from latentbank.errors import BankError, FingerprintError, InputError

__all__ = [
    "AppendReport",
    "BankFingerprint",
    "Entry",
    "Footprint",
    "MemoryBank",
    "Page",
    "VerifyReport",
]


class MemoryBank(BankCore):
    """A store of entries, in pages of one level, with blobs and metadata beside them.

    Make one with `create` or `open`; use it as a context manager or call `close`. Every write is
    one transaction, durable when the call returns; a process killed at any moment leaves the bank
    as after the last call that returned, or one later. Other processes may read, and one at a
    time write, the same file. Methods may be called from several threads. All raise `BankError`
    with a sentence when the disk is full, the file locked, read-only or damaged.

    Memory: 12 bytes per document for the index, built when the bank is opened.
    """

    # ------------------------------------------------------------------ opening and closing

    @classmethod
    def create(
        cls,
        path: str | Path,
        fingerprint: BankFingerprint,
        *,
        budget_bytes: int | None = None,
        meta: Mapping[str, Any] | None = None,
        timeout_seconds: float = 5.0,
    ) -> Self:
        """Make a new bank at `path` (":memory:" for one without a file) and open it.

        Args:
            fingerprint: what wrote the bank; `open` can insist on it.
            budget_bytes: an append that would make the file larger is refused; None: no limit.
            meta: first values for `put_meta`.
            timeout_seconds: how long a write waits for another process's write.
        Raises `BankError` if the path exists or cannot be written, `InputError` if the budget is
        less than an empty bank takes.
        """
        if str(path) == ":memory:":
            bank = cls(open_memory(), ":memory:", False)
        else:
            create_file(Path(path), timeout_seconds)
            connection = connect(Path(path), read_only=False, timeout_seconds=timeout_seconds)
            bank = cls(connection, str(path), False)
        try:
            with bank._transaction(write=True) as connection:
                bank._put_json(connection, "bank", "fingerprint", asdict(fingerprint))
                bank._put_json(connection, "bank", "budget_bytes", budget_bytes)
                for key, value in (meta or {}).items():
                    bank._put_json(connection, "meta", key, value)
                size = bank._size(connection)
                if budget_bytes is not None and budget_bytes < size:
                    raise InputError(
                        f"budget_bytes must be at least {size}, the size of an empty bank, "
                        f"got {budget_bytes}."
                    )
        except BaseException:
            bank.close()
            if bank.name != ":memory:":
                Path(path).unlink(missing_ok=True)
            raise
        return bank

    @classmethod
    def open(
        cls,
        path: str | Path,
        expect: BankFingerprint | None = None,
        read_only: bool = False,
        *,
        timeout_seconds: float = 5.0,
    ) -> Self:
        """Open the bank at `path`.

        Raises `FingerprintError`, naming both, if `expect` is given and the bank was written with
        something else; `BankError` if there is no bank, or it is damaged or of a newer format.
        """
        connection = connect(Path(path), read_only=read_only, timeout_seconds=timeout_seconds)
        bank = cls(connection, str(path), read_only)
        try:
            with bank._transaction(write=False):
                pass  # loads the index
            if expect is not None and (found := bank.fingerprint) != expect:
                raise FingerprintError(found.mismatch(bank.name, expect))
        except BaseException:
            bank.close()
            raise
        return bank

    # ----------------------------------------------------------------------------- writing

    def append(
        self, entries: Iterable[Entry], blobs: Mapping[str, bytes] | None = None
    ) -> AppendReport:
        """Store entries and blobs in one transaction.

        An entry whose id is present already (or twice in `entries`) is not stored again, whatever
        its payload; its count goes up by one. Raises `InputError` if an entry cannot be stored,
        `BankError` if the budget does not hold it; then nothing of the call is stored.
        """
        batch = list(entries)
        for entry in batch:
            check_entry(entry)
        times = Counter(entry.id for entry in batch)
        unique: dict[str, Entry] = {}
        for entry in batch:
            unique.setdefault(entry.id, entry)
        with self._lock:
            with self._transaction(write=True) as connection:
                version = self._version
                pages: dict[int, PageBuilder] = {}
                filling, fresh = dict(self._filling), dict[int, int]()
                for id, entry in unique.items():
                    number = key_number(id)
                    seq = self._index.find(number)
                    if number in fresh:  # two ids of this call with one hash
                        raise _collision(id)
                    if seq is None:
                        page = self._page_for(connection, entry, filling, pages)
                        page.add(entry, times[id])
                        fresh[number] = page.seq
                    else:
                        page = self._builder(connection, seq, pages)
                        if not page.holds(id):
                            raise _collision(id)
                        page.bump(id, times[id])
                for page in pages.values():
                    self._write_page(connection, page)
                self._put_blobs(connection, blobs or {})
                self._check_budget(connection)
                self._version = None  # should the commit be interrupted, the index is reloaded
            self._index.add(fresh.items())
            self._filling, self._version = filling, version
        stored = [entry for entry in unique.values() if key_number(entry.id) in fresh]
        size = sum(len(entry.payload) + len(entry.key) for entry in stored)
        return AppendReport(len(stored), len(batch) - len(stored), size)

    def delete(self, ids: Iterable[str], blobs: Mapping[str, bytes] | None = None) -> int:
        """Remove documents, whatever their count, and store blobs, in one transaction.

        Returns how many were there. Their bytes are overwritten in the file (SQLite's
        `secure_delete`) and the write-ahead log is emptied, unless another process is reading at
        that moment; then the log is emptied when the bank is closed.
        """
        with self._lock:
            with self._transaction(write=True) as connection:
                version = self._version
                doomed: dict[int, set[str]] = {}
                for id in ids:
                    seq = self._index.find(key_number(id))
                    if seq is not None:
                        doomed.setdefault(seq, set()).add(id)
                gone: list[int] = []
                filling = dict(self._filling)
                for seq, names in doomed.items():
                    page = self._read_page(connection, seq)
                    at = frozenset(i for i, id in enumerate(page.document_ids) if id in names)
                    gone.extend(key_number(page.document_ids[index]) for index in at)
                    rest = PageBuilder.reopen(page, without=at)
                    if len(rest):
                        self._write_page(connection, rest)
                    else:
                        connection.execute("DELETE FROM pages WHERE seq = ?", (seq,))
                        filling = {slot: last for slot, last in filling.items() if last != seq}
                self._put_blobs(connection, blobs or {})
                self._version = None
            self._index.remove(gone)
            self._filling, self._version = filling, version
            self._checkpoint()
        return len(gone)

    # ----------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        """Number of documents."""
        with self._transaction(write=False):
            return len(self._index)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._find(id) is not None

    def get(self, id: str) -> Entry | None:
        """The entry of that id, or None."""
        found = self._find(id)
        return None if found is None else found[0].entry(found[1])

    def count(self, id: str) -> int:
        """How often the document was written; 0 if it is not here."""
        found = self._find(id)
        return 0 if found is None else found[0].counts()[found[1]]

    def entries(self) -> Iterator[Entry]:
        """All entries, page by page: those of one level come in the order of writing.

        A page is read when it is reached; an entry written or deleted meanwhile may or may not be
        seen. Raises `BankError` at a damaged page.
        """
        for page in self.payloads():
            for index in range(page.count):
                yield page.entry(index)

    def payloads(self, level: str | None = None) -> Iterator[Page]:
        """Pages of one level (or all) in the order of writing, for reading in bulk.

        Of each `Page`, `payloads` and `document_ids` are lists in the same order, `payload` and
        `keys` the joined bytes, `id_keys` the ids as numbers [n]; the ledger is decoded only if
        asked for.
        """
        for seq in self._sequence(level):
            page = self._load_page(seq)
            if page is not None:
                page.check()
                yield page

    def ids(self) -> Iterator[str]:
        """All ids, in the order of `entries`."""
        for page in self.payloads():
            yield from page.document_ids

    # --------------------------------------------------------------------------- reporting

    def footprint(self) -> Footprint:
        """Bytes by component, after a checkpoint; in a bank that others read, as if after one."""
        self._checkpoint()
        with self._transaction(write=False) as connection:
            codes, ids, ledger, keys = connection.execute(
                "SELECT total(length(payload)), total(length(ids)), total(length(ledger)), "
                "total(length(keys)) FROM pages"
            ).fetchone()
            codebook = connection.execute(
                "SELECT total(length(data)) FROM items WHERE kind = 'blob'"
            ).fetchone()[0]
            total = self._size(connection)
        parts = (int(codes), int(codebook), int(keys), int(ids + ledger))
        return Footprint(*parts, overhead=total - sum(parts), total=total)

    def verify(self) -> VerifyReport:
        """Check every page, blob and SQLite's own structure; never raises for damage it finds."""
        return verify_bank(self)


def _collision(id: str) -> BankError:
    return BankError(
        f"The id {id!r} has the same 8-byte hash as another id of the bank; give it another id."
    )
