"""One bank that the server has open: a model that reads it, one that writes it, and its contents.

Writes run one after another in a thread of the bank and count when the bank has made them durable.
Only the process that holds the bank's lock writes. Knows models and banks; knows no tenants.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from latentbank.answering import Answer
from latentbank.answering.chat import ChatAnswer
from latentbank.bank import MemoryBank, Receipt, VerifyReport
from latentbank.bank.admin.verify import text_check
from latentbank.documents.conditions import Conditions
from latentbank.documents.document import Document
from latentbank.documents.identity import document_id, entry_id
from latentbank.errors import BankError
from latentbank.method import WriteReport
from latentbank.server.failures import CodedError, Refusal
from latentbank.server.hosting.contents import Contents, Events
from latentbank.server.hosting.engine import Engine, ServedModel, WatchedBank

__all__ = ["Added", "HostedBank"]

T = TypeVar("T")


@dataclass(frozen=True)
class Added:
    """What a write did: whether each document was there before, and what made room for it."""

    known: tuple[bool, ...]
    report: WriteReport
    faded: tuple[str, ...]
    forgotten: tuple[str, ...]


class HostedBank:
    """A bank in the server. `lease` it while it is used; it is closed when nobody does."""

    def __init__(self, name: str, path: Path, engine: Engine, waiting_writes: int) -> None:
        self.name, self.path = name, path
        self.events = Events()
        self.leases = 0
        self.used = time.monotonic()
        self._engine, self._waiting_writes = engine, waiting_writes
        self._reader: ServedModel | None = None
        self._writer: ServedModel | None = None
        self._contents: Contents | None = None
        self._opening = threading.Lock()
        self._lock = WriterLock(path)
        self._queue = ThreadPoolExecutor(1, thread_name_prefix=f"latentbank-writer-{name}")
        self._queued = 0
        self._counting = threading.Lock()

    # ---- reading

    def reader(self) -> ServedModel:
        """The model that answers, opened read-only on first use."""
        if self._reader is None:
            self._reader = self._engine.open(self.path, writing=False)
        return self._reader

    @property
    def backbone(self) -> str:
        """The backbone that the bank names."""
        with MemoryBank.open(self.path, read_only=True) as bank:
            return str(bank.get_meta("backbone"))

    def contents(self) -> Contents:
        """What the bank holds, opened on first use."""
        with self._opening:
            if self._contents is None:
                spec = self._spec()
                self._contents = Contents(self.path, self._engine.views(spec)[1])
            return self._contents

    def _spec(self) -> str | None:
        with MemoryBank.open(self.path, read_only=True) as bank:
            spec = bank.get_meta("backbone")
        return spec if isinstance(spec, str) else None

    def note_answer(self, answer: Answer | ChatAnswer) -> None:
        """Tells a bank that is open for writing which documents answered: it keeps them longer."""
        writer = self._writer
        if isinstance(answer, ChatAnswer):
            ids = [one.entry for one in answer.citations]
        else:
            best = max((share for _, share in answer.documents), default=0.0)
            ids = [id for id, share in answer.documents if share > 0 and share >= best / 2]
        if writer is None or not ids:
            return
        with suppress(RuntimeError):  # the bank is being closed
            self._queue.submit(writer.bank.note_hits, ids)

    # ---- writing, one after another

    def add(self, documents: Sequence[Document]) -> Future[Added]:
        """Writes documents; done when they are durable."""
        return self._enqueue(lambda: self._add(documents))

    def delete(self, ids: Sequence[str] | None, conditions: Conditions | None) -> Future[Receipt]:
        """Deletes documents by id, or those that meet conditions."""
        return self._enqueue(lambda: self._delete(ids, conditions))

    def claim(self) -> Future[None]:
        """Done when this process alone may write to the bank; the file need not be whole."""
        return self._enqueue(self._lock.take)

    def _enqueue(self, work: Callable[[], T]) -> Future[T]:
        with self._counting:
            if self._queued >= self._waiting_writes:
                raise Refusal(
                    429,
                    "overloaded",
                    "Too many writes wait; try again in 1 s.",
                    headers={"Retry-After": "1"},
                )
            self._queued += 1
        try:
            future = self._queue.submit(work)
        except RuntimeError:
            self._finished()
            raise Refusal(503, "stopping", "The bank is being closed.") from None
        future.add_done_callback(lambda _: self._finished())
        return future

    def _finished(self) -> None:
        with self._counting:
            self._queued -= 1

    def writer(self) -> ServedModel:
        """The model that writes; called in the bank's thread only.

        Raises:
            CodedError: another server writes to the bank.
        """
        self._lock.take()
        if self._writer is None:
            self._writer = self._engine.open(self.path, writing=True)
        return self._writer

    def _add(self, documents: Sequence[Document]) -> Added:
        model = self.writer()
        bank = model.bank
        assert isinstance(bank, WatchedBank)
        known = tuple(_holds(bank, document.id) for document in documents)
        bank.taken.clear()
        try:
            report = model.write(documents)
        finally:
            parts, bank.taken = bank.taken, []
            faded = [id for part in parts for id in part.faded]
            forgotten = [id for part in parts for id in part.forgotten]
            self.events.add("faded", faded)
            self.events.add("forgotten", forgotten)
        new = [document.id for document, was in zip(documents, known, strict=True) if not was]
        self.events.add("added", new)
        return Added(known, report, _documents(faded), _documents(forgotten))

    def _delete(self, ids: Sequence[str] | None, conditions: Conditions | None) -> Receipt:
        model = self.writer()
        chosen = list(ids or ())
        if conditions:
            chosen += _documents(model.bank.select(conditions))
        receipt = model.delete(chosen)
        named = {document_id(id) for id in receipt.deleted}
        self.events.forget(named)
        self.events.add("deleted", (), len(named))
        return receipt

    # ---- the whole bank

    def verify(self) -> VerifyReport:
        """Looks for damage, in a session of its own."""
        try:
            with MemoryBank.open(self.path, read_only=True) as bank:
                return bank.verify(None, text_check())
        except BankError as error:
            return VerifyReport(False, 0, (str(error),), ())

    def snapshot(self, path: Path) -> None:
        """A consistent copy at `path`."""
        with MemoryBank.open(self.path, read_only=True) as bank:
            bank.snapshot(path)

    def close(self) -> None:
        """Ends the writes that wait, then closes the bank."""
        self._queue.shutdown(wait=True)
        for model in (self._writer, self._reader):
            if model is not None:
                model.close()
                model.forget_adapter()
        if self._contents is not None:
            self._contents.close()
        self._writer = self._reader = self._contents = None
        self._lock.give_back()


class WriterLock:
    """The right to write to a bank, held by one process; it ends with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f".{path.name}.writer")
        self._name = path.name
        self._file: Any = None

    def take(self) -> None:
        """Takes the lock, if it is not held. Raises CodedError if another process has it."""
        if self._file is not None:
            return
        try:
            import fcntl
        except ImportError:  # Windows: SQLite's own locks have to do
            return
        file = self._path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise CodedError(
                "second_writer",
                f"Another server writes to the bank {self._name}; this one only reads it.",
            ) from None
        self._file = file

    def give_back(self) -> None:
        """Lets another process write."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _holds(bank: MemoryBank, id: str) -> bool:
    return entry_id(id) in bank or entry_id(id, 0) in bank


def _documents(entries: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(document_id(id) for id in entries))
