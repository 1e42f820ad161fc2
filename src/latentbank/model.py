"""`MemoryModel`: backbone + method + bank as one object.

It holds the only loop that writes and the only loop that asks; `adapter` is the only place that
finds an adapter and makes a bank. The command line, the bench, the demo and the validation of a
training all come here. Knows methods through their contract.
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
    new_bank,
    normalised_overrides,
    packaged_adapters,
    place_of,
    save_adapter,
)
from latentbank.answering import (
    ASKED_TOGETHER,
    Answer,
    AnswerStream,
    answer_batch,
    check_questions,
    question_batches,
    stream_answer,
)
from latentbank.arguments import as_count, as_documents, as_ids, as_questions
from latentbank.backbone.generate import DecodingConfig, generate
from latentbank.backbone.hub import PACKAGED
from latentbank.backbone.transports import Sources
from latentbank.bank import Follower, Footprint, MemoryBank, Receipt
from latentbank.capabilities import (
    Incremental,
    Retrieving,
    follow,
    set_training,
)
from latentbank.config import merged
from latentbank.documents.conditions import Conditions
from latentbank.documents.document import Counted, Document, chunk, find_entries, whole
from latentbank.documents.ends import whole_characters
from latentbank.errors import BankError, DamageWarning, InputError
from latentbank.method import METHODS, Method, WriteReport
from latentbank.methods import DEFAULT_METHOD
from latentbank.upsert import Part, Upsert

__all__ = ["MemoryModel", "bank_fingerprint", "check_budget", "new_bank", "question_batches"]

QUALITY = "best"  # of `answering.QUALITIES`
ANSWERS = DecodingConfig(max_new_tokens=48, whole_words=True)  # where nothing else is asked for


class MemoryModel:
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
                    for part in self._upsert.parts(block, self._pieces, size, on_conflict):
                        report = self._write_part(part)
                        total = total + report
                        if on_batch is not None:
                            on_batch(report, read.count)
        return total

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

    def _pieces(self, document: Document) -> list[Document]:
        """The entries of a document: itself, or its chunks."""
        limit = self.method.chunk_tokens
        if len(document.text.encode()) <= limit:  # a token is at least one byte
            return [whole(document)]
        return chunk(document, self.backbone.count_tokens, limit)

    def delete(self, ids: Sequence[str] | str) -> Receipt:
        """Removes documents by id, with all chunks of long ones; the receipt names the entries."""
        with self._writing():
            return self.method.delete(find_entries(list(self.bank.ids()), as_ids(ids))[0])

    # ---- asking

    def ask(
        self,
        question: str,
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        quality: str = QUALITY,
    ) -> Answer:
        """The answer to one question, with the documents that it was read from; see `answers`."""
        return self.ask_many([question], decoding, memory, quality=quality)[0]

    def stream(
        self,
        question: str,
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        quality: str = QUALITY,
    ) -> AnswerStream:
        """The answer to one question as text that comes piece by piece; see `ask`.

        Other threads wait until the stream has come to its end or is closed.
        """
        return AnswerStream(self._growing(question, decoding or ANSWERS, memory, quality))

    def _growing(
        self, question: str, decoding: DecodingConfig, memory: bool, quality: str
    ) -> Iterator[Answer]:
        [text] = as_questions([question])
        with self.backbone.exclusive():
            check_questions(self.backbone, [text], decoding)
            self._follow()
            for answer in stream_answer(self.method, text, decoding, memory, quality):
                yield answer
            self._note_hits([answer.documents])

    def ask_many(
        self,
        questions: Sequence[str],
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        documents: Sequence[str] | None = None,
        batch: int = ASKED_TOGETHER,
        quality: str = QUALITY,
    ) -> list[Answer]:
        """Answers to questions, in their order; see `answers`."""
        questions = as_questions(questions)
        answers: dict[int, Answer] = {}
        for answered in self.answers(questions, decoding, memory, documents, batch, quality):
            answers.update(answered)
        return [answers[i] for i in range(len(questions))]

    def answers(
        self,
        questions: Sequence[str],
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        documents: Sequence[str] | None = None,
        batch: int = ASKED_TOGETHER,
        quality: str = QUALITY,
    ) -> Iterator[dict[int, Answer]]:
        """Answers as they come, batch by batch: position of the question → answer.

        `documents` names the document to read for each question; without it the method retrieves.
        With `memory` False the backbone answers closed book. Without `decoding` an answer has at
        most 48 tokens and ends at a word. Questions that read the same document
        or have a like length are asked together.

        `quality`: what decides between several documents that may hold the answer. "fast": how well
        they fit the question and how sure the first token is. "best": how sure the whole answer is;
        it takes longer.

        Raises:
            UnknownNameError: `quality` is neither of the two.
            InputError: a question that is empty or does not fit into the backbone's context.
        """
        questions, decoding = as_questions(questions), decoding or ANSWERS
        if documents is not None and len(documents) != len(questions):
            raise InputError(
                f"expected one document for each of the {len(questions)} questions, "
                f"got {len(documents)}"
            )
        with self.backbone.exclusive():
            check_questions(self.backbone, questions, decoding)
        for part in question_batches(questions, documents, as_count(batch, "batch")):
            given = None if documents is None else [documents[i] for i in part]
            asked = [questions[i] for i in part]
            with self.backbone.exclusive():
                self._follow()
                answers = answer_batch(self.method, asked, given, decoding, memory, quality)
                self._note_hits([one.documents for one in answers])
            yield dict(zip(part, answers, strict=True))

    @contextmanager
    def within(self, conditions: Conditions) -> Iterator[int]:
        """Answers inside the block come only from documents that meet the conditions.

        Gives the number of entries that are meant. Raises InputError for a method that does not
        retrieve, and for a bank without a full ledger.
        """
        if not isinstance(self.method, Retrieving):
            raise InputError(
                f"method '{self.method.name}' reads all documents together; only methods that "
                "retrieve can be kept to some of them"
            )
        with self.backbone.exclusive():  # other threads ask of all documents
            retriever, chosen = self.method.retriever, self.bank.select(conditions)
            before, retriever.only = retriever.only, frozenset(chosen)
            try:
                yield len(chosen)
            finally:
                retriever.only = before

    def _note_hits(self, sources: Sources | Sequence[Any]) -> None:
        """Tells the bank which documents answered: those with at least half of the best share.

        A bank with a budget keeps them longer.
        """
        if self.method.bank is None or not any(sources):
            return
        best = [max((share for _, share in row), default=0.0) for row in sources]
        self.method.bank.note_hits(
            id
            for row, top in zip(sources, best, strict=True)
            for id, share in row
            if share > 0 and share >= top / 2
        )

    def generate(self, prompt: str, decoding: DecodingConfig | None = None) -> str:
        """Continues a prompt with the memory that `prompt` itself retrieves; no question template.

        Raises:
            InputError: the prompt is empty.
        """
        if not prompt.strip():
            raise InputError("The prompt is empty.")
        with self.backbone.exclusive():
            self._follow()
            conditioning = self.method.read([prompt])
            passage = conditioning.passages[0] if conditioning.passages else ""
            ids = self.backbone.encode([f"{passage}\n\n{prompt}" if passage else prompt])
            with conditioning.attach(self.backbone):
                found = generate(self.backbone, ids, decoding)[0]
            return found.text if found.finished else whole_characters(found.text)

    def text(self, id: str) -> str:
        """The text of an entry that an answer names, as it was read; empty where none is kept."""
        with self.backbone.exclusive():
            return self.method.text(id) if isinstance(self.method, Retrieving) else ""

    def prompt(self, question: str) -> str:
        """The text that the backbone sees for a question, memory aside."""
        with self.backbone.exclusive():
            self._follow()
            ids = self.method.read([question]).prompts(self.backbone, [question])[0]
            text: str = self.backbone.tokenizer.decode(ids)
        return text

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
