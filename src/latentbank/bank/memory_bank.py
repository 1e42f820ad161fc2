"""`MemoryBank`: entries, blobs and metadata in one SQLite file, bounded, durable and checked.

Knows ids, levels and bytes; nothing about what a payload means, nor about models or methods.
The layout of a page is in `bank.pages`, the file's safety in `bank.file`, writing in `bank.write`,
fading in `bank.fading`; docs/bank.md tells the whole.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from latentbank.bank.append import append_entries, flush_hits, put_blobs, store_blobs
from latentbank.bank.core import BankCore
from latentbank.bank.delete import Selection, erase_ids, select_ids
from latentbank.bank.entry import Entry
from latentbank.bank.fading import Fading
from latentbank.bank.file import connect, create_file, open_bytes, open_memory
from latentbank.bank.items import (
    LEDGERS,
    AppendReport,
    BankFingerprint,
    Footprint,
    Receipt,
    Settings,
    VerifyReport,
    state_hash,
)
from latentbank.bank.ladder import Fade
from latentbank.bank.pages import Page
from latentbank.bank.policy import make_policy
from latentbank.bank.resize import compact_bank, rebudget_bank, snapshot_bank
from latentbank.bank.space import Space
from latentbank.bank.verify import verify_bank
from latentbank.bank.write import writing
from latentbank.errors import BankError, FingerprintError, InputError, unknown
from latentbank.sizes import size_bytes

__all__ = ["MemoryBank"]

_HITS_WAITING = 512  # documents with unwritten hits after which they are written


class MemoryBank(BankCore):
    """A store of entries, in pages of one level, with blobs and metadata beside them.

    Make one with `create` or `open`; use it as a context manager or call `close`. Every write is
    one transaction, durable when the call returns; a process killed at any moment leaves the bank
    as after the last call that returned, or one later. With a budget a write that is large beside
    it is stored in parts, each durable before the next; blobs go with the first. Other processes
    may read, and one at a time write, the same file. Methods may be called from several threads.
    All raise `BankError` with a sentence when the disk is full, the file locked, read-only or
    damaged.

    Memory: 12 bytes per document for the index, built when the bank is opened.
    """

    # ------------------------------------------------------------------ opening and closing

    @classmethod
    def create(
        cls,
        path: str | Path,
        fingerprint: BankFingerprint,
        *,
        budget: int | str | None = None,
        budget_bytes: int | None = None,
        ledger: str = "full",
        policy: str = "blend",
        lossless: Sequence[str] = (),
        meta: Mapping[str, Any] | None = None,
        timeout_seconds: float = 5.0,
    ) -> Self:
        """Make a new bank at `path` (":memory:" for one without a file) and open it.

        Args:
            fingerprint: what wrote the bank; `open` can insist on it.
            budget: the largest sum of the bank's files at any moment, log included, as bytes or
                as a text such as "8MiB"; None: no limit. `budget_bytes` is the same.
            ledger: "full", or "ids" (no times, sources, metadata), or "none" (no ids either: the
                bank numbers its documents and cannot tell that one is written twice).
            policy: which documents fade first; see `bank_policy.make_policy`.
            lossless: levels whose next step loses nothing: a full bank takes those steps first.
            meta: first values for `put_meta`.
            timeout_seconds: how long a write waits for another process's write.
        Raises `BankError` if the path exists or cannot be written, `InputError` if the budget is
        less than an empty bank takes.
        """
        if budget is not None and budget_bytes is not None:
            raise InputError("Give budget or budget_bytes, not both: they mean the same.")
        limit = size_bytes(budget_bytes if budget is None else budget)
        if ledger not in LEDGERS:
            raise unknown("ledger", ledger, LEDGERS)
        make_policy(policy)
        space = Space(limit)
        if str(path) == ":memory:":
            bank = cls(open_memory(space), ":memory:", False)
        else:
            create_file(Path(path), space, timeout_seconds)
            connection = connect(Path(path), read_only=False, timeout_seconds=timeout_seconds)
            bank = cls(connection, str(path), False)
        try:
            settings = Settings(limit, ledger, policy, lossless=tuple(lossless))
            bank._start(settings, fingerprint, meta or {})
        except BaseException:
            bank.close()
            if bank.name != ":memory:":
                Path(path).unlink(missing_ok=True)
            raise
        return bank

    def _start(
        self, settings: Settings, fingerprint: BankFingerprint, meta: Mapping[str, Any]
    ) -> None:
        """Fill a new file's first rows."""
        with self._lock:
            connection = self._begin(write=True)
            for name, value in asdict(settings).items():
                self._put_json(connection, "bank", name, value)
            self._put_json(connection, "bank", "fingerprint", asdict(fingerprint))
            for key, value in meta.items():
                self._put_json(connection, "meta", key, value)
            size = self._size(connection)
            connection.execute("COMMIT")
            self._checkpoint()
        limit = settings.space.file_limit(0)
        if settings.budget_bytes is not None and limit < size:
            least = size + settings.budget_bytes - limit
            raise InputError(
                f"budget_bytes must be at least about {least}, the size of an empty bank and its "
                f"log, got {settings.budget_bytes}."
            )

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "bank in memory") -> Self:
        """A read-only bank from the bytes of a bank's file, as `open` with `read_only`."""
        bank = cls(open_bytes(data, name), name, True)
        try:
            with bank._transaction(write=False):
                pass
        except BaseException:
            bank.close()
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
        self,
        entries: Iterable[Entry],
        blobs: Mapping[str, bytes] | None = None,
        *,
        fade: Fade | None = None,
    ) -> AppendReport:
        """Store entries and blobs.

        An entry whose id is present already (or twice in `entries`) is not stored again, whatever
        its payload; its count goes up by one. Where the budget is reached, the policy chooses the
        least valuable documents and `fade` gives each its next level, or None: forgotten; the
        report names them. Without `fade` a full bank refuses. Raises `InputError` if an entry
        cannot be stored, `BankError` if the budget does not hold it; then nothing of the call (of
        a call in parts: of its present part) is stored.
        """
        return append_entries(self, list(entries), blobs or {}, fade)

    def put_blob(self, name: str, data: bytes) -> None:
        """Store a blob under a name, in place of an earlier one; durable on return."""
        self.put_blobs({name: data})

    def put_blobs(self, blobs: Mapping[str, bytes]) -> None:
        """Store several blobs in one transaction; raises `BankError` if over the budget."""
        store_blobs(self, blobs)

    def delete_blob(self, name: str) -> bool:
        """Remove a blob; returns whether it was there."""
        query = "DELETE FROM items WHERE kind = 'blob' AND name = ?"
        with writing(self) as work:
            work.reserve(work.cost(self.blobs_bytes(work.connection), items=1))
            return work.connection.execute(query, (name,)).rowcount > 0

    def put_meta(self, name: str, value: Any) -> None:
        """Store a JSON value under a name; raises `InputError` if it is not JSON."""
        data = self._json_bytes(name, value)
        with writing(self) as work:
            put_blobs(work, Fading(work, None), {name: data}, kind="meta")

    def delete(self, ids: Iterable[str], blobs: Mapping[str, bytes] | None = None) -> Receipt:
        """Remove documents, whatever their count, and store blobs, as one: all or nothing.

        Their bytes are overwritten in the file (SQLite's `secure_delete`) and the write-ahead log
        is emptied. While another process reads, the log is emptied later, when the bank is closed.
        Returns the receipt; it stays as `receipt` too.
        """
        self.receipt = erase_ids(self, ids, blobs or {})
        return self.receipt

    def select(self, selection: Selection) -> list[str]:
        """The ids of documents by source, time or metadata; `InputError` without a full ledger."""
        return select_ids(self, selection)

    def note_hits(self, ids: Iterable[str]) -> None:
        """Remember that documents helped to answer, for the fading policy.

        Cheap: hits wait in memory and are stored with the next write, when a few hundred documents
        have some, or on closing; a killed process loses those that wait. Does nothing in a bank
        that is open read-only or has no budget.
        """
        if self.read_only or self.settings.budget_bytes is None:
            return
        with self._lock:
            self._hits.update(ids)
            if len(self._hits) >= _HITS_WAITING:
                with suppress(BankError):  # a hint: not worth failing a question
                    self._flush_hits()

    def _flush_hits(self) -> None:
        if self._hits and not self.read_only:
            with writing(self) as work:
                flush_hits(work)

    # ----------------------------------------------------------------- the bank as a whole

    def snapshot(self, path: str | Path, progress: Any = None) -> None:
        """A consistent copy, made while others write; `progress(done, total)` counts pages."""
        snapshot_bank(self, Path(path), progress)

    def rebudget(
        self, budget: int | str | None, *, fade: Fade | None = None, progress: Any = None
    ) -> AppendReport:
        """Change the budget of a bank in use; a smaller one fades documents and shrinks the file.
        `progress(done, total)` counts pages, once those that had to fade have.

        The report names the documents that faded or were forgotten. Raises `BankError` where
        `fade` is None and the documents do not fit; the bank then keeps its old budget.
        """
        return rebudget_bank(self, size_bytes(budget), fade, progress)

    def compact(self, progress: Any = None) -> int:
        """Fill pages up and give free space back; returns the bytes that the file shrank by.
        `progress(done, total)` counts pages.
        """
        return compact_bank(self, progress)

    def root_hash(self) -> str:
        """One hash over all documents, blobs and settings as they are stored (not over hits)."""
        with self._transaction(write=False) as connection:
            return state_hash(connection)

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

    def order(self, id: str) -> int:
        """The how-many-th document of the bank it is, from 0, however it faded; -1 if it is not
        here.
        """
        found = self._find(id)
        if found is None:
            return -1
        with self._transaction(write=False) as connection:
            stored = self._stored_page(connection, found[0].seq)
            if stored is None or id not in stored.document_ids:
                return -1  # another process has deleted or moved it meanwhile
            facts = self._read_facts(connection, stored.seq, stored.count)
        return int(facts.order[stored.document_ids.index(id)])

    def age(self, id: str) -> tuple[str, int]:
        """(time or "", order) of a document: larger for a newer one."""
        entry = self.get(id)
        return ("" if entry is None else entry.time or "", self.order(id))

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
            index, pages = connection.execute(
                "SELECT total(length(data)), count(*) FROM facts"
            ).fetchone()
            codebook = self.blobs_bytes(connection)
            total = self._size(connection)
            unused = connection.execute("PRAGMA freelist_count").fetchone()[0]
            free = unused * connection.execute("PRAGMA page_size").fetchone()[0]
        parts = (int(codes), codebook, int(keys), int(ids + ledger))
        order = int(index) + 16 * pages  # a number and a page in two places each
        overhead = total - sum(parts) - order
        return Footprint(*parts, overhead, total, order, free)

    def verify(self, progress: Any = None) -> VerifyReport:
        """Check every page, blob and SQLite's own structure; never raises for damage it finds.
        `progress(done, total)` counts pages.
        """
        return verify_bank(self, progress)
