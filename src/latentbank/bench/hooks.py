"""What a protocol calls instead of the method: banks of a budget, writing, asking, deleting.

Keeps partial answers, counts the time spent in the method, and reports progress. Knows methods
through their contract; knows no protocol and no record file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

from latentbank.answering import Answer
from latentbank.backbone.generate import generate
from latentbank.backbone.prompts import prompt_ids
from latentbank.bank import MemoryBank
from latentbank.bench.budget import Written, bounded_bank, write_within
from latentbank.bench.encodings import SharedEncodings
from latentbank.bench.measures import PEAK, peak_memory_bytes
from latentbank.bench.partial import PartialAnswers
from latentbank.bench.record import Metric
from latentbank.bench.task import CannotDo, Settings
from latentbank.capabilities import Telemetry
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.evaluation import Evaluation, score_answers
from latentbank.method import NAMED_ONLY, Method
from latentbank.model import MemoryModel, question_batches

Reader = Literal["memory", "weights", "backbone"]
FOOTPRINT = ("codes", "codebook", "keys", "ledger", "index", "overhead")


class Progress(Protocol):
    """Where a run says how far it is."""

    def start(self, label: str, total: int) -> None:
        """A new phase of `total` steps begins."""

    def advance(self, steps: int) -> None:
        """Steps of the phase were made."""


class Silent:
    """Tells nobody."""

    def start(self, label: str, total: int) -> None:
        """See `Progress`."""

    def advance(self, steps: int) -> None:
        """See `Progress`."""


class Hooks:
    """One run of one method. `budget` is in bytes per document; `folder` takes the bank's file;
    `encodings`, if given, are shared with other runs.

    Whatever calls the method raises CannotDo if it refuses.
    """

    def __init__(
        self,
        method: Method,
        settings: Settings,
        folder: Path,
        budget: int | None = None,
        partial: PartialAnswers | None = None,
        progress: Progress | None = None,
        encodings: SharedEncodings | None = None,
    ) -> None:
        self.encodings = encodings
        self.method, self.settings, self.folder, self.budget = method, settings, folder, budget
        self.partial = partial or PartialAnswers(None, "")
        self.progress: Progress = progress or Silent()
        self.method_seconds = 0.0
        self.written = Written()
        self.budget_bytes: int | None = None
        self.encoding_seconds_shared = 0.0
        self._bank: MemoryBank | None = None
        self._model: MemoryModel | None = None
        self._plain: dict[tuple[Reader, tuple[str, ...], tuple[str, ...]], list[Answer]] = {}
        self._path = folder / "run.bank"

    @property
    def gold(self) -> bool:
        """Whether each question's document is named to the method."""
        return self.settings.gold or NAMED_ONLY in self.method.claims

    @contextmanager
    def in_method(self) -> Iterator[None]:
        """Counts the time of the block as the method's; all other time is the bench's own.

        What the method refuses as an input, such as a prompt too long for its backbone, it cannot
        do: raises CannotDo with its sentence.
        """
        began = time.perf_counter()
        try:
            yield
        except InputError as error:
            raise CannotDo(str(error).rstrip(".")) from error
        finally:
            self.method_seconds += time.perf_counter() - began

    # ---- the bank

    def fresh_bank(self, documents: int | None) -> MemoryBank:
        """An empty bank in place of the last one, for a stream of so many documents.

        None: without limit, whatever the budget.
        """
        self.close()
        unlimited = self.budget is None or documents is None
        self.budget_bytes = None if unlimited else (self.budget or 0) * (documents or 0)
        self.written = Written()
        with self.in_method():
            self._bank = bounded_bank(
                self.method, self._path, self.budget_bytes, self.settings.policy
            )
            self._model = MemoryModel(self.method, self._bank)
        return self._bank

    def close(self) -> None:
        """Closes the bank and removes its file."""
        if self._bank is not None:
            self._bank.close()
            self._bank = self._model = None
        for suffix in ("", "-wal", "-shm", "-journal"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    @property
    def bank(self) -> MemoryBank:
        """The bank of this run. Raises BankError before `fresh_bank`."""
        if self._bank is None:
            raise BankError("The run has no bank yet; call fresh_bank() first.")
        return self._bank

    @property
    def kept(self) -> int:
        """Documents that the bank holds; for one without a ledger, those it took."""
        return len(self.bank) or self.written.stored - self.written.forgotten

    # ---- the method

    def write(self, documents: Sequence[Document], label: str = "writing") -> Written:
        """Writes documents in order into the bank, which makes room where it is full."""
        self.progress.start(label, len(documents))
        shared = self.encodings
        before = shared.saved_seconds if shared else 0.0
        with self.in_method(), shared.lent_to(self.method) if shared else nullcontext():
            done = write_within(
                self.method, documents, self.budget_bytes, advance=self.progress.advance
            )
        if shared:
            saved = shared.saved_seconds - before
            self.encoding_seconds_shared += saved
            done = replace(done, seconds=done.seconds + saved)
        self.written = self.written + done
        return done

    def delete(self, ids: Sequence[str]) -> int:
        """Removes documents; returns how many were there."""
        with self.in_method():
            return len(self.method.delete(ids).deleted)

    def ask(self, phase: str, data: QADataset, reader: Reader = "memory") -> Evaluation:
        """Asks every question of `data`; `phase` names the answers among those of the run.

        `reader`: the method with its memory; `weights`, its low-rank weights alone; `backbone`, the
        model with nothing attached.
        """
        given = self.gold and bool(data.documents)
        wanted = [data.documents[q.document].id for q in data.questions] if given else None
        texts = [q.text for q in data.questions]
        found: list[Answer | None] = [None] * len(texts)
        self.progress.start(f"asking, {phase}", len(texts))
        for number, part in enumerate(question_batches(texts, wanted, self.settings.batch)):
            answers = self.partial.get(phase, number, len(part))
            if answers is None:
                named = None if wanted is None else [wanted[i] for i in part]
                answers = self._asked([texts[i] for i in part], named, reader)
                self.partial.put(phase, number, answers)
            for i, item in zip(part, answers, strict=True):
                found[i] = item
            self.progress.advance(len(part))
        return score_answers([a for a in found if a is not None], data)

    def _asked(
        self, questions: list[str], documents: list[str] | None, reader: Reader
    ) -> list[Answer]:
        """Answers to a batch; asked again with nothing to read, those of the first time."""
        key = (reader, tuple(questions), tuple(documents or ()))
        plain = reader != "memory" or not self.kept
        if plain and key in self._plain:
            return self._plain[key]
        with self.in_method():
            answers = self._answers(questions, documents, reader)
        if plain:
            self._plain[key] = answers
        return answers

    def _answers(
        self, questions: Sequence[str], documents: Sequence[str] | None, reader: Reader
    ) -> list[Answer]:
        """Answers to a batch of questions."""
        decoding = self.settings.decoding
        if reader != "backbone":
            model = self._model or MemoryModel(self.method)
            memory = reader == "memory"
            return model.ask_many(questions, decoding, memory, documents, len(questions))
        began, backbone = time.perf_counter(), self.method.backbone
        found = generate(backbone, prompt_ids(backbone, questions), decoding)
        seconds = (time.perf_counter() - began) / len(questions)
        return [Answer(g.text, (), g.confidence, seconds, g.first_token_seconds) for g in found]

    # ---- what the bank takes

    def bank_metrics(self, documents: int) -> dict[str, Metric]:
        """Bytes by component, what was kept of `documents`, the speed of writing, telemetry."""
        kept, written = self.kept, self.written
        with self.in_method():
            size = self.bank.footprint()
            health = self.method.telemetry() if isinstance(self.method, Telemetry) else {}
        total = size.total if kept else 0
        found = {
            "bank_bytes": Metric(total, "bytes"),
            "bytes_per_document": Metric(total / documents, "bytes"),
            "documents": Metric(documents, "documents"),
            "documents_kept": Metric(kept, "documents"),
            "documents_forgotten": Metric(written.forgotten, "documents"),
            "documents_faded": Metric(written.faded, "documents"),
        }
        if kept:
            found |= {f"footprint_{n}": Metric(getattr(size, n), "bytes") for n in FOOTPRINT}
        if written.stored and written.seconds > 0:
            speed = (written.stored + written.duplicates) / written.seconds
            found["write_documents_per_second"] = Metric(speed, "documents/s")
        found |= {name: Metric(value, "") for name, value in health.items()}
        peak = peak_memory_bytes()
        return found if peak is None else {**found, PEAK: Metric(peak, "bytes")}
