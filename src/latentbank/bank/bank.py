"""`MemoryBank`: entries, blobs, state and metadata in one SQLite file, bounded and checked.

Knows ids, levels and bytes; nothing about what a payload means, nor about models or methods. The
work is done by the modules beside it: `append`, `delete`, `fading` and `write` change a bank,
`store` holds its file, `admin` handles whole banks. docs/bank.md describes all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from latentbank.bank.admin.resize import compact_session, rebudget_session, snapshot_session
from latentbank.bank.admin.verify import EntryCheck, verify_session
from latentbank.bank.append import Carried, Hits, append_entries, rekey_entries, store_items
from latentbank.bank.delete import delete_ids
from latentbank.bank.entry import Entry
from latentbank.bank.ladder import Fade
from latentbank.bank.reader import BankReader
from latentbank.bank.reports import (
    AppendReport,
    BankFingerprint,
    Receipt,
    Settings,
    VerifyReport,
)
from latentbank.bank.store.file import connect, open_bytes
from latentbank.bank.store.items import BLOB, META, STATE, json_bytes
from latentbank.bank.store.opening import create_session, open_session
from latentbank.bank.store.session import Session
from latentbank.bank.words.upkeep import Upkeep
from latentbank.bank.write import writing
from latentbank.errors import BankError, InputError
from latentbank.sizes import size_bytes

__all__ = ["MemoryBank"]

Progress = Callable[[int, int], None]
Bytes = Mapping[str, bytes]


class MemoryBank(BankReader):
    """A store of entries, in pages of one level, with blobs, state and metadata beside them.

    Make one with `create` or `open`; use it as a context manager or call `close`. Every write is
    durable when the call returns. A process killed at any moment leaves the bank as it was after
    the last call that returned, or after a later one. With a budget, a write that is large beside
    it is stored in parts, each durable before the next; see `append`. Other processes may read the
    same file, and one at a time may write to it. Methods may be called from several threads. All
    raise `BankError` with one sentence when the disk is full or the file locked, read-only or
    damaged.

    Memory: 12 bytes per document for the index, built when the bank is opened.

    Attributes:
        session: the open file, for `admin` and tests.
        words: the word index beside a large bank.
    """

    def __init__(self, session: Session) -> None:
        """Wraps an open session; use `create` or `open`."""
        super().__init__(session)
        self._hits = Hits()
        self.words = Upkeep(session)

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
            policy: which documents fade first; see `policy.make_policy`.
            lossless: levels whose next step loses nothing: a full bank takes those steps first.
            meta: first values for `put_meta`.
            timeout_seconds: how long a write waits for another process's write.

        Raises `BankError` if the path exists or cannot be written, `InputError` if the budget is
        less than an empty bank takes.
        """
        if budget is not None and budget_bytes is not None:
            raise InputError("Give budget or budget_bytes, not both: they mean the same.")
        limit = size_bytes(budget_bytes if budget is None else budget)
        settings = Settings(limit, ledger, policy, lossless=tuple(lossless))
        return cls(create_session(path, settings, fingerprint, meta or {}, timeout_seconds))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "bank in memory") -> Self:
        """A read-only bank from the bytes of a bank's file. Raises `BankError` as `open` does."""
        return cls(open_session(Session(open_bytes(data, name), name, True)))

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
        something else. Raises `BankError` if there is no bank, or it is damaged or of a newer
        format.
        """
        connection = connect(Path(path), read_only=read_only, timeout_seconds=timeout_seconds)
        return cls(open_session(Session(connection, str(path), read_only), expect))

    def close(self) -> None:
        """Write everything into the one file and close it. Closing twice is harmless."""
        with suppress(BankError):  # hits are hints; a locked bank may do without them
            self._write_hits()
        self.words.close()
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ----------------------------------------------------------------------------- writing

    def append(
        self,
        entries: Iterable[Entry],
        blobs: Bytes | None = None,
        state: Bytes | None = None,
        *,
        fade: Fade | None = None,
        again: Sequence[str] = (),
    ) -> AppendReport:
        """Store entries, and beside them blobs and a method's state.

        An entry whose id is present already (or twice in `entries`) is not stored again, whatever
        its payload; its count goes up by one. Where the budget is reached, the policy chooses the
        least valuable documents, and `fade` gives each its next level, or None: forgotten. The
        report names them. Without `fade` a full bank refuses.

        **In parts.** With a budget, a write that is large beside it is stored in several
        transactions. A write without blobs and state may be interrupted between them: the parts
        that are done stay. A write *with* blobs or state counts as a whole or not at all: they are
        stored in the last transaction, and only then do the new documents of all its parts count.
        Until then readers do not see them. If the process dies or the call raises, the next write
        removes what it had stored. So the state describes exactly the documents whose writes are
        complete. Two things are durable earlier: documents that were faded or forgotten to make
        room, and the counts of documents written again. If another process writes in between, the
        call raises `BankError` and keeps nothing: its state would not know that process's
        documents.

        Args:
            entries: at most one per document; see `Entry`.
            blobs: name → bytes of codebooks, counters, dictionaries; each replaces an earlier one.
            state: name → bytes of what a method carries beside the entries, such as
                `safetensors.torch.save` of its tensors; each replaces an earlier one. `get_state`
                gives them back. They count in the budget and have their own line in `footprint`.
            fade: one entry at its next level, or None.
            again: ids of documents that were in the bank a moment ago, so that nobody encoded them
                once more: each is counted. One that has left since is named in `absent`.

        Raises `InputError` if an entry cannot be stored, `BudgetError` if the budget does not hold
        it. Then nothing of the call is stored (of a call in parts without blobs and state: nothing
        of its present part).
        """
        carried = Carried(blobs or {}, state or {})
        return append_entries(self.session, list(entries), carried, fade, self._hits, again)

    def delete(
        self, ids: Iterable[str], blobs: Bytes | None = None, state: Bytes | None = None
    ) -> Receipt:
        """Remove documents, whatever their count, and store blobs and state: all or nothing.

        The documents' bytes are overwritten in the file (SQLite's `secure_delete`) and the
        write-ahead log is emptied. While another process reads, the log is emptied later, when the
        bank is closed. A word index beside the bank is rewritten without them first.
        """
        carried, ids = Carried(blobs or {}, state or {}), list(ids)
        with self.words.deleting(ids):
            return delete_ids(self.session, ids, carried)

    def rekey(self, keys: Mapping[str, bytes]) -> int:
        """Replace retrieval keys by others of the same length; returns how many were replaced.

        Ids that are not in the bank and keys of another length are passed over. Takes no bytes.
        """
        with writing(self.session) as work:
            return rekey_entries(work, keys)

    def note_hits(self, ids: Iterable[str]) -> None:
        """Remember that documents helped to answer, for the fading policy.

        Cheap: hits wait in memory. They are stored with the next write, when a few hundred
        documents have some, or on closing; a killed process loses those that wait. Does nothing in
        a bank that is open read-only or has no budget.
        """
        if self.read_only or self.settings.budget_bytes is None:
            return
        with self.session.guard():
            if self._hits.add(ids):
                with suppress(BankError):  # a hint: not worth failing a question
                    self._write_hits()

    def _write_hits(self) -> None:
        if self._hits and not self.read_only and self.session.is_open:
            with writing(self.session) as work:
                self._hits.write(work)

    # ------------------------------------------------------------ blobs, state and metadata

    def put_blob(self, name: str, data: bytes) -> None:
        """Store a blob under a name, in place of an earlier one; durable on return."""
        self.put_blobs({name: data})

    def put_blobs(self, blobs: Bytes) -> None:
        """Store several blobs in one transaction; raises `BudgetError` if over the budget."""
        if Carried(blobs):
            store_items(self.session, BLOB, blobs)

    def put_state(self, state: Bytes) -> None:
        """Store state without entries, in one transaction; see `append`."""
        if Carried(state=state):
            store_items(self.session, STATE, state)

    def delete_blob(self, name: str) -> bool:
        """Remove a blob; returns whether it was there."""
        with writing(self.session) as work:
            work.reserve(work.cost(self.session.items.total_bytes(BLOB), items=1))
            return self.session.items.drop(BLOB, name)

    def put_meta(self, name: str, value: Any) -> None:
        """Store a JSON value under a name; raises `InputError` if it is not JSON."""
        store_items(self.session, META, {name: json_bytes(name, value)})

    # ----------------------------------------------------------------- the bank as a whole

    def snapshot(self, path: str | Path, progress: Progress | None = None) -> None:
        """A consistent copy, made while others write; `progress(done, total)` counts pages."""
        snapshot_session(self.session, Path(path), progress)

    def rebudget(
        self,
        budget: int | str | None,
        *,
        fade: Fade | None = None,
        progress: Progress | None = None,
    ) -> AppendReport:
        """Change the budget of a bank in use. A smaller one fades documents and cuts the file.

        One transaction: if it fails or is killed, no document has changed. Its log or journal may
        take as much as the file has until it ends. `progress(done, total)` counts pages, once those
        that had to fade have. The report names the documents that faded or were forgotten. Raises
        `BudgetError` if they cannot fit, or do not and `fade` is None.
        """
        return rebudget_session(self.session, size_bytes(budget), fade, progress)

    def compact(self, progress: Progress | None = None) -> int:
        """Fill pages up and give free space back; returns the bytes that the file lost.

        `progress(done, total)` counts pages.
        """
        return compact_session(self.session, progress)

    def verify(
        self, progress: Progress | None = None, check: EntryCheck | None = None
    ) -> VerifyReport:
        """Check every page, entry and item, and SQLite's own structure; damage is never raised.

        `progress(done, total)` counts pages. `check` says why an entry cannot be read, such as
        `bank.admin.verify.text_check()`; without it payloads are not decoded.
        """
        return verify_session(self.session, progress, check)
