"""Closed book: the backbone without memory, optionally with trained low-rank weights.

This is the control: it separates what memory adds from what learning the answer format adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning
from latentbank.bank import MemoryBank
from latentbank.capabilities import Trained
from latentbank.documents.document import Document
from latentbank.method import (
    CALLS_ADD_UP,
    CONSTANT_SIZE,
    EMPTY_IS_PLAIN,
    EXACT_DELETE,
    WriteReport,
    register,
)
from latentbank.parts.batch import Batch, Loss, mean_answer_loss
from latentbank.parts.low_rank import NO_LORA, LoraSettings


@dataclass(frozen=True)
class NoneConfig:
    """The low-rank weights that learn the answer format; rank 0 is the bare backbone."""

    lora: LoraSettings = NO_LORA


@register("none")
class NoMemory(Trained):
    """Reads nothing; writing stores nothing."""

    Config = NoneConfig
    reads_texts = True
    claims = frozenset({EXACT_DELETE, EMPTY_IS_PLAIN, CALLS_ADD_UP, CONSTANT_SIZE})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smollm2-135m": {"lora": {"rank": 16, "layer": 12}},
        "tiny": {"lora": {"rank": 4, "layer": 1}},
    }

    def __init__(self, config: NoneConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.lora = config.lora.build(backbone)

    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank`; nothing is read from it."""
        self.bank = bank

    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Stores nothing."""
        return WriteReport(0, 0, 0.0)

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """The low-rank weights alone."""
        return self.reading()

    @property
    def trained_from(self) -> int | None:
        """The first layer with low-rank weights; None without any."""
        return None if self.lora is None else self.lora.layer

    def loss(self, batch: Batch) -> Loss:
        """Mean answer loss per token of the questions without any document."""
        if self.packed is not None:
            no_memory = [-1] * len(batch.questions)
            states = self.packed.from_states(
                self.lora, batch.questions, batch.answers, [], no_memory
            )
            answer = self.packed.losses(states).mean()
            return Loss(answer, {"answer": answer.item()})
        with self.reading().attach(self.backbone):
            answer = mean_answer_loss(self.backbone, batch)
        return Loss(answer, {"answer": answer.item()})
