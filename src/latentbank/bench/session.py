"""One run of one method, as a protocol sees it: fresh banks, writing, asking, deleting, metrics.

Everything goes through `MemoryModel`. A session adds what a benchmark needs: it times the method
apart from the bench, keeps answers of a run that may be killed, and leaves out documents that the
whole bank is too small for. Knows methods through their contract; knows no protocol.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from latentbank.answering import Answer
from latentbank.backbone.generate import DecodingConfig, generate
from latentbank.backbone.prompts import prompt_ids
from latentbank.bank import MemoryBank
from latentbank.bank.policy import make_policy
from latentbank.bench.budget import bounded_model, write_fitting
from latentbank.bench.encodings import SharedEncodings
from latentbank.bench.machine import PEAK, peak_memory_bytes
from latentbank.bench.partial import PartialAnswers
from latentbank.bench.record import Metric
from latentbank.bench.scoring import rate
from latentbank.capabilities import Retrieving, Telemetry
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError, LatentbankError
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.evaluation import Evaluation, score_answers
from latentbank.method import NAMED_ONLY, Method, WriteReport
from latentbank.model import MemoryModel, question_batches

Reader = Literal["memory", "weights", "backbone"]
FOOTPRINT = ("codes", "codebook", "state", "keys", "ledger", "index", "overhead")


class CannotDo(LatentbankError):
    """A method cannot do what a protocol asks of it; the sentence goes into the record."""


@dataclass(frozen=True)
class Settings:
    """What every protocol takes.

    `questions`: how many are asked, drawn with `seed`; None asks all. `gold` names each question's
    document to the method. `batch`: questions asked together. `policy`: which documents of a full
    bank fade first.
    """

    questions: int | None = None
    seed: int = 0
    gold: bool = False
    batch: int = 16
    decoding: DecodingConfig = DecodingConfig()
    policy: str = "blend"

    def __post_init__(self) -> None:
        make_policy(self.policy)

    def identity(self) -> dict[str, Any]:
        """What a record holds of them. The default policy is left out, as in older records."""
        fields = asdict(self)
        if self.policy == Settings.policy:
            del fields["policy"]
        return fields


class Progress:
    """Told how far a run is. This one tells nobody."""

    def start(self, label: str, total: int) -> None:
        """A new phase of `total` steps begins."""

    def advance(self, steps: int) -> None:
        """Steps of the phase were made."""


class Session:
    """One run of one method.

    `budget` is in bytes per document. `folder` takes the bank's file. `encodings` are shared with
    other runs. Raises CannotDo where the method refuses an input.
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
        self.method, self.settings, self.budget = method, settings, budget
        self.partial = partial or PartialAnswers(None, "")
        self.progress = progress or Progress()
        self.encodings = encodings
        self.method_seconds = 0.0
        self.encoding_seconds_shared = 0.0
        self.budget_bytes: int | None = None
        self.written = WriteReport(0, 0, 0.0)
        self.refused = 0
        self._model: MemoryModel | None = None
        self._plain: dict[tuple[object, ...], list[Answer]] = {}
        self._path = folder / "run.bank"

    @property
    def gold(self) -> bool:
        """Whether each question's document is named to the method."""
        return self.settings.gold or NAMED_ONLY in self.method.claims

    @property
    def model(self) -> MemoryModel:
        """Method and bank of this run. Raises BankError before `fresh_bank`."""
        if self._model is None:
            raise BankError("The run has no bank yet; call fresh_bank() first.")
        return self._model

    @property
    def bank(self) -> MemoryBank:
        """The bank of this run. Raises BankError before `fresh_bank`."""
        return self.model.bank

    @property
    def kept(self) -> int:
        """Documents in the bank; for a bank without a ledger those stored and not forgotten."""
        return len(self.bank) or self.written.stored - self.written.forgotten

    @contextmanager
    def in_method(self) -> Iterator[None]:
        """Counts the time of the block as the method's. All other time is the bench's own.

        Raises CannotDo with the method's sentence where it refuses an input, such as a prompt that
        is too long for its backbone.
        """
        began = time.perf_counter()
        try:
            yield
        except InputError as error:
            raise CannotDo(str(error).rstrip(".")) from error
        finally:
            self.method_seconds += time.perf_counter() - began

    def fresh_bank(self, documents: int | None) -> None:
        """An empty bank in place of the last one, for a stream of so many documents.

        None: without limit, whatever the budget.
        """
        self.close()
        limited = self.budget is not None and documents is not None
        self.budget_bytes = (self.budget or 0) * (documents or 0) if limited else None
        self.written, self.refused = WriteReport(0, 0, 0.0), 0
        with self.in_method():
            self._model = bounded_model(
                self.method, self._path, self.budget_bytes, self.settings.policy
            )

    def close(self) -> None:
        """Closes the bank and removes its files."""
        if self._model is not None:
            self._model.close()
            self._model = None
        for suffix in ("", "-wal", "-shm", "-journal"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def write(self, documents: Sequence[Document], label: str = "writing") -> WriteReport:
        """Writes documents in order; a full bank makes room.

        The report's seconds include what shared encodings saved. Raises BankError if the bank
        cannot be written, or outgrew its budget.
        """
        self.progress.start(label, len(documents))
        shared = self.encodings
        before = shared.saved_seconds if shared else 0.0
        with self.in_method(), shared.lent_to(self.method) if shared else nullcontext():
            done, refused = write_fitting(self.model, documents, self.progress.advance)
        if self.budget_bytes is not None and self.bank.footprint().total > self.budget_bytes:
            raise BankError(
                f"The bank has {self.bank.footprint().total} bytes, more than its budget of "
                f"{self.budget_bytes}."
            )
        if shared:
            saved = shared.saved_seconds - before
            self.encoding_seconds_shared += saved
            done = replace(done, seconds=done.seconds + saved)
        self.written, self.refused = self.written + done, self.refused + refused
        return done

    def delete(self, ids: Sequence[str]) -> int:
        """Removes documents; returns how many were there."""
        with self.in_method():
            return len(self.method.delete(ids).deleted)

    def ask(self, phase: str, data: QADataset, reader: Reader = "memory") -> Evaluation:
        """Asks every question of `data`. `phase` tells its answers from others of the run.

        `reader`: `memory` reads the bank, `weights` only attaches the low-rank weights, `backbone`
        is the model with nothing attached.
        """
        given = self.gold and bool(data.documents)
        wanted = [data.documents[q.document].id for q in data.questions] if given else None
        texts = [q.text for q in data.questions]
        found: dict[int, Answer] = {}
        self.progress.start(f"asking, {phase}", len(texts))
        for number, part in enumerate(question_batches(texts, wanted, self.settings.batch)):
            answers = self.partial.get(phase, number, len(part))
            if answers is None:
                named = None if wanted is None else [wanted[i] for i in part]
                answers = self._asked([texts[i] for i in part], named, reader)
                self.partial.put(phase, number, answers)
            found.update(zip(part, answers, strict=True))
            self.progress.advance(len(part))
        return score_answers([found[i] for i in range(len(texts))], data)

    def _asked(
        self, questions: list[str], documents: list[str] | None, reader: Reader
    ) -> list[Answer]:
        """Answers to a batch. With nothing to read a batch is asked once and remembered."""
        key = (reader, *questions, None, *(documents or ()))
        plain = reader != "memory" or not self.kept
        if plain and key in self._plain:
            return self._plain[key]
        with self.in_method():
            if reader == "backbone":
                answers = self._bare_answers(questions)
            else:
                answers = self.model.ask_many(
                    questions,
                    self.settings.decoding,
                    reader == "memory",
                    documents,
                    len(questions),
                )
        if plain:
            self._plain[key] = answers
        return answers

    def _bare_answers(self, questions: Sequence[str]) -> list[Answer]:
        began, backbone = time.perf_counter(), self.method.backbone
        generated = generate(backbone, prompt_ids(backbone, questions), self.settings.decoding)
        seconds = (time.perf_counter() - began) / len(questions)
        return [Answer(g.text, (), g.confidence, seconds, g.first_token_seconds) for g in generated]

    def answers_kept(self, data: QADataset) -> dict[str, Metric]:
        """For which questions the bank still holds an answer: what is left of their documents.

        Nothing for a method that keeps no texts. Not the method's time.
        """
        if not isinstance(self.method, Retrieving) or not self.kept:
            return {}
        texts = {
            i: self.method.text(data.documents[i].id) for i in {q.document for q in data.questions}
        }
        if not any(texts.values()):
            return {}
        return {
            "answer_kept": rate(
                [any(a in texts[q.document] for a in q.answers) for q in data.questions]
            )
        }

    def bank_metrics(self, documents: int) -> dict[str, Metric]:
        """Bytes by component, what was kept of `documents`, speed of writing, telemetry."""
        kept, written = self.kept, self.written
        with self.in_method():
            size = self.bank.footprint()
            health = self.method.telemetry() if isinstance(self.method, Telemetry) else {}
        total = size.total if kept else 0
        metrics = {
            "bank_bytes": Metric(total, "bytes"),
            "bytes_per_document": Metric(total / documents, "bytes"),
            "documents": Metric(documents, "documents"),
            "documents_kept": Metric(kept, "documents"),
            "documents_forgotten": Metric(written.forgotten, "documents"),
            "documents_faded": Metric(written.faded, "documents"),
        }
        if kept:
            metrics |= {f"footprint_{n}": Metric(getattr(size, n), "bytes") for n in FOOTPRINT}
        if written.stored and written.seconds > 0:
            speed = (written.stored + written.duplicates) / written.seconds
            metrics["write_documents_per_second"] = Metric(speed, "documents/s")
        metrics |= {name: Metric(value, "") for name, value in health.items()}
        peak = peak_memory_bytes()
        return metrics if peak is None else {**metrics, PEAK: Metric(peak, "bytes")}
