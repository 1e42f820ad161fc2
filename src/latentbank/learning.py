"""A capability: documents change weights by gradient steps, and the bank keeps what changed.

Knows documents, banks and tensors by name; knows no method and no way of learning.
"""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentbank.backbone.transports import Conditioning
from latentbank.bank import Entry, MemoryBank
from latentbank.capabilities import Stateful, Telemetry, Trained, forget
from latentbank.documents.document import Document
from latentbank.errors import BankError, StepWarning
from latentbank.method import WriteReport
from latentbank.parts.online.weights import LearnedWeights, WeightSettings

__all__ = ["Learning", "TokenWeighting", "WeightLearning"]

STEPS = "steps"


class Learning(Trained, Stateful, Telemetry):
    """Writes by gradient: each document is one or more steps on weights of constant or sparse size.

    The bank holds a ledger row for each document, and the changed weights as its state. Both are
    stored in one transaction, so a bank reopens at the last document whose write was complete.
    """

    write_batch: ClassVar[int] = 4  # documents that are learned between two writes to the bank
    level: ClassVar[str] = "step"
    remains = "The gradient steps of deleted documents stay in the weights."

    def __init__(self, config: Any, backbone: Any) -> None:
        super().__init__(config, backbone)
        self.skipped = 0  # steps without a finite loss or gradient
        self.steps = 0  # of all documents of the bank
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Sets the learned weights as they are before any document."""

    @abstractmethod
    def learn(self, document: Document) -> None:
        """Takes the steps of one document."""

    @abstractmethod
    def learned(self) -> dict[str, Tensor]:
        """What documents changed, by name, on the CPU; the same tensors after a reopening."""

    @abstractmethod
    def load_learned(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes what `learned` gave. Raises BankError for tensors that do not fit."""

    def mark(self, document: Document) -> bytes:
        """What the ledger keeps of a document beside its id; at most a few bytes."""
        return b""

    def took(self, finite: bool) -> bool:
        """Counts a step; returns `finite`."""
        self.steps += 1
        self.skipped += not finite
        return finite

    # ---- the bank

    def memory_state(self) -> dict[str, Tensor]:
        """What documents changed, and the numbers of steps and of skipped ones."""
        return {STEPS: torch.tensor([self.steps, self.skipped]), **self.learned()}

    def load_memory_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Stateful`. Raises BankError for a state of other weights."""
        self.reset()
        self.steps, self.skipped = 0, 0
        if state:
            try:
                self.steps, self.skipped = (int(number) for number in state[STEPS].tolist())
                self.load_learned({k: v for k, v in state.items() if k != STEPS})
            except (KeyError, ValueError, RuntimeError) as error:
                raise BankError(
                    f"the bank's learned weights do not fit method '{self.name}' with these "
                    f"settings ({error}); open it with those that it was made with"
                ) from error

    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank` with what was learned."""
        self.bank = bank
        self.restore(bank)

    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Learns new documents one after another, and stores what changed with their ledger rows.

        Steps without a finite loss or gradient are skipped, counted and warned of.
        """
        began, bank = time.perf_counter(), self.require_bank()
        before, skipped = self.memory_state(), self.skipped
        new = {d.id: d for d in documents if d.id not in bank}
        try:
            for document in new.values():
                self.learn(document)
            entries = [
                Entry(d.id, self.level, self.mark(d), d.time, d.source, d.metadata)
                for d in documents
            ]
            state = self.state_bytes() if new else {}
            report = bank.append(entries, state=state, fade=forget)
        except BaseException:  # also Ctrl-C: what is not in the bank is not learned
            self.load_memory_state(before)
            raise
        if self.skipped > skipped:
            warnings.warn(
                f"{self.skipped - skipped} of the steps on {len(new)} documents had no finite loss "
                "or gradient and were skipped; take a smaller rate",
                StepWarning,
                stacklevel=2,
            )
        return WriteReport.of(report, time.perf_counter() - began)

    def telemetry(self) -> dict[str, float]:
        """Steps, those of them that were skipped, and the bytes of what was learned."""
        size = sum(v.numel() * v.element_size() for v in self.learned().values())
        counts = {"steps": float(self.steps), "skipped_steps": float(self.skipped)}
        return {**counts, "learned_bytes": float(size)}


class TokenWeighting(Learning):
    """Learns some tokens of a document more than others."""

    @abstractmethod
    def token_weights(self, ids: Sequence[int], text: str) -> Tensor:
        """Weights [T-1] ≥ 0 of the tokens after the first; `ids` [T] are those of `text`."""


class WeightLearning(TokenWeighting):
    """Learns differences to the backbone's own weights: dense ones, or products of low rank."""

    def __init__(self, config: Any, backbone: Any, settings: WeightSettings, seed: int) -> None:
        self.weights = LearnedWeights(backbone, settings, seed)
        super().__init__(config, backbone)

    def reset(self) -> None:
        """No weight is changed."""
        self.tensors = self.weights.start()
        self.changed = False

    def learned(self) -> dict[str, Tensor]:
        """The differences, by the names of the weights; nothing before the first document."""
        return self.weights.stored(self.tensors) if self.changed else {}

    def load_learned(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Learning`."""
        if tensors:
            self.tensors, self.changed = self.weights.restored(tensors), True

    def settle(self) -> None:
        """Rounds what a document changed as the bank stores it."""
        self.tensors = {k: self.weights.rounded(v) for k, v in self.tensors.items()}
        self.changed = True

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """The backbone with the differences; all questions read the same."""
        if not self.changed:
            return self.closed_book()
        delta = self.weights.delta(self.tensors)
        return Conditioning((*self.reading().transports, delta))
