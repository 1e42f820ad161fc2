"""`MemoryModel`: backbone + method + bank as one object.

It holds the only loop that writes; `answering.asking` holds the only loop that asks, and `adapter`
is the only place that finds an adapter and makes a bank. The command line, the bench, the demo and
the validation of a training all come here. Knows methods through their contract.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentbank.adapter import (
    DEFAULT_BACKBONE,
    bank_fingerprint,
    check_budget,
    load_method,
    method_for,
    new_bank,
    normalised_overrides,
    packaged_adapters,
    place_of,
    save_adapter,
)
from latentbank.answering import question_batches
from latentbank.answering.asking import Asking
from latentbank.arguments import as_count, as_documents, as_ids
from latentbank.backbone.hub import PACKAGED
from latentbank.bank import Follower, Footprint, MemoryBank, Receipt
from latentbank.capabilities import Incremental, follow, set_training
from latentbank.config import merged
from latentbank.documents.document import Counted, Document, chunk, whole
from latentbank.errors import BankError, DamageWarning
from latentbank.method import METHODS, Method, WriteReport
from latentbank.methods import DEFAULT_METHOD
from latentbank.upsert import Part, Upsert

__all__ = ["MemoryModel", "bank_fingerprint", "check_budget", "new_bank", "question_batches"]


class MemoryModel(Asking):
    """A frozen language model with a memory bank.

    Threads may share one: writes and answers take turns, also with other models on the same
    backbone. Each answer and each write first takes in what others, such as another process, wrote
    to the bank: a deleted document is not answered from again, a new one is found.

    Examples:
        >>> model = MemoryModel.from_pretrained(bank="notes.bank")       # doctest: +SKIP
        >>> model.write([Document("The meeting moved to Thursday.")])    # doctest: +SKIP
        >>> model.ask("When is the meeting?").text                       # doctest: +SKIP
    """

    def __init__(self, method: Method, bank: MemoryBank | None = None) -> None:
        """Binds `bank`, or a fresh one in memory; dropout is switched off.

        Raises:
            FingerprintError: the bank was written by another adapter, backbone or tokenizer.
        """
        self.method = method
        self.backbone = method.backbone
        self.bank = new_bank(":memory:", method) if bank is None else bank
        set_training(method, False)
        self._named: set[str] = set()  # unreadable entries that were warned of
        with self.backbone.exclusive():
            known = isinstance(method, Incremental) and method.keeps_account(self.bank)
            self._follower = None if known else Follower(self.bank)
            method.bind(self.bank)
            self._warn()
        self._upsert = Upsert(self.bank)

    @classmethod
    def from_pretrained(
        cls,
        adapter: str = DEFAULT_METHOD,
        bank: str | Path | None = None,
        backbone: str | None = None,
        *,
        dtype: str = "auto",
        device: str = "cpu",
        overrides: Mapping[str, Any] | None = None,
        budget_bytes: int | None = None,
        ledger: str = "full",
        policy: str = "blend",
        read_only: bool = False,
        progress: Callable[[str], None] | None = None,
        quick: bool = False,
        engine: str = "torch",
    ) -> MemoryModel:
        """Loads an adapter and its backbone, and opens `bank` or creates it.

        `adapter`: a folder, a packaged adapter, or a method's name. A method's name means the
        packaged adapter of that method for the backbone, or the untrained method where it has
        nothing to train. `overrides` change the method's config, e.g. `{"entry": "pooled"}`.

        An existing bank brings its own overrides and budget. `budget_bytes`, `ledger` and `policy`
        are for a new bank, see `MemoryBank.create`. `quick` and `engine` as for `load_backbone`. A
        new bank records folders as absolute paths, so that it opens from other places too.

        Raises:
            UnknownNameError: unknown adapter, method or model; the known ones are listed.
            AdapterError: damaged, or for another backbone.
            BankError: `read_only` and no bank there, or a damaged one.
            FingerprintError: the bank belongs to another adapter, backbone or tokenizer.
            InputError: an existing bank has another budget.
        """
        adapter = method_for(adapter, backbone or DEFAULT_BACKBONE)
        path = Path(bank) if bank is not None and str(bank) != ":memory:" else None
        values = dict(overrides or {})
        stored = None
        exists = path is not None and path.exists()
        if path is not None and (exists or read_only):
            with MemoryBank.open(path, read_only=True) as existing:
                values = merged(normalised_overrides(existing), values)
                check_budget(existing, budget_bytes)
                stored = existing.fingerprint
        method = load_method(adapter, backbone, dtype, device, values, progress, quick, engine)
        with ExitStack() as stack:
            if path is not None and exists:
                opened = MemoryBank.open(path, bank_fingerprint(method, stored), read_only)
            else:
                meta = {
                    "adapter": place_of(adapter, {*packaged_adapters(), *METHODS.names()}),
                    "backbone": place_of(backbone or DEFAULT_BACKBONE, PACKAGED),
                    "overrides": values,
                }
                opened = new_bank(
                    path or ":memory:", method, meta, budget_bytes, ledger=ledger, policy=policy
                )
            stack.callback(opened.close)
            model = cls(method, opened)
            stack.pop_all()
        return model

    @classmethod
    def open(cls, bank: str | Path, **options: Any) -> MemoryModel:
        """Opens an existing bank with the adapter and backbone that it was written with.

        Raises:
            BankError: no bank there, or a damaged one.
        """
        with MemoryBank.open(bank, read_only=True) as existing:
            adapter, backbone = existing.get_meta("adapter"), existing.get_meta("backbone")
        if not isinstance(adapter, str) or not isinstance(backbone, str):
            raise BankError(f"the bank '{bank}' does not name its adapter; pass it yourself")
        options = {"adapter": adapter, "backbone": backbone, **options}
        return cls.from_pretrained(bank=bank, **options)

    # ---- writing

    def write(
        self,
        documents: Iterable[Document | str] | Document | str,
        batch: int | None = None,
        on_batch: Callable[[WriteReport, int], None] | None = None,
        on_conflict: str = "replace",
    ) -> WriteReport:
        """Writes documents, long ones in chunks; each batch is durable before the next starts.

        A text stands for a document without id, time and source. `batch`: entries that are encoded
        and stored together, by default the method's `write_batch`. `on_batch` gets the report of
        each batch and the documents read so far.

        `on_conflict`: what happens to another version of a document that the bank holds, which is
        another text, time or metadata under one id. "replace": the old version goes with all of
        its chunks. "keep": the new one is left out. "error": `InputError`.
        """
        total, read = WriteReport(0, 0, 0.0), Counted(as_documents(documents))
        size = self.method.write_batch if batch is None else as_count(batch, "batch")
        with self.bank.words.deleting_together():
            # documents are taken from their source outside of the lock: it may be slow
            while block := list(itertools.islice(read, size)):
                with self._writing():
                    for part in self._upsert.parts(block, self.pieces, size, on_conflict):
                        report = self._write_part(part)
                        total = total + report
                        if on_batch is not None:
                            on_batch(report, read.count)
        return total

    def write_pieces(self, pieces: Sequence[Document]) -> WriteReport:
        """Writes documents that are entries already, under the ids that they have.

        For a bank made from another one. Each must fit the method's `chunk_tokens`.
        """
        with self._writing():
            return self.method.write(list(pieces))

    def _write_part(self, part: Part) -> WriteReport:
        report = self.method.write(part.entries) if part.entries else WriteReport(0, 0, 0.0)
        if part.old:  # the new version is there: a process that dies here leaves one, or both
            self.method.delete(part.old)
        return replace(report, replaced=part.replaced, kept=part.kept)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One thread at a time changes the bank, and the method knows what others wrote before."""
        with self.backbone.exclusive():
            self._follow()
            try:
                yield
            except BaseException:
                with suppress(BankError):
                    self._follow()  # a part of the write may be stored
                raise
            self._follow(own=True)

    def _follow(self, own: bool = False) -> None:
        """Takes in what others wrote since the last look; `own`: the method wrote meanwhile."""
        if isinstance(self.method, Incremental) and self.method.catch_up():
            self._follower = None
            self._warn()
            return
        if self._follower is None:  # the method has ceased to keep account
            self._follower = Follower(self.bank)
            self.method.bind(self.bank)
        changes = self._follower.changes()
        if changes is not None and (changes.by_others or not own):
            follow(self.method, changes.gone, changes.entries)
            self._warn()

    def _warn(self) -> None:
        """Names each entry that cannot be read, once; the others are not disturbed."""
        if not isinstance(self.method, Incremental):
            return
        for id, sentence in self.method.unreadable.items():
            if id not in self._named:
                self._named.add(id)
                warnings.warn(
                    f"The document {id!r} of {self.bank.name} cannot be read and is left out: "
                    f"{sentence} Delete it, or repair the bank.",
                    DamageWarning,
                    stacklevel=4,
                )

    def pieces(self, document: Document) -> list[Document]:
        """The entries that a document is written as: itself, or its chunks."""
        limit = self.method.chunk_tokens
        if len(document.text.encode()) <= limit:  # a token is at least one byte
            return [whole(document)]
        return chunk(document, self.backbone.count_tokens, limit)

    def delete(self, ids: Sequence[str] | str) -> Receipt:
        """Removes documents by id, with all chunks of long ones; the receipt names the entries."""
        with self._writing():
            receipt = self.method.delete(self.bank.entries_of(as_ids(ids))[0])
            if self._conversation is not None:
                self._conversation.forget()
            return receipt

    # ---- the rest

    def footprint(self) -> Footprint:
        """Bytes of the bank by component."""
        return self.bank.footprint()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the adapter; the bank is a file of its own."""
        save_adapter(Path(folder), self.method)

    def close(self) -> None:
        """Closes the bank's file."""
        self.bank.close()

    def __enter__(self) -> MemoryModel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
