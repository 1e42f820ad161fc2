"""Closed book: the backbone alone, optionally with low-rank weights trained on the same questions.

The control that separates what memory adds from what learning the answer format adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning
from latentbank.bank import MemoryBank
from latentbank.documents.document import Document
from latentbank.method import (
    CALLS_ADD_UP,
    EMPTY_IS_PLAIN,
    EXACT_DELETE,
    Batch,
    LoraSettings,
    Loss,
    Method,
    WriteReport,
    register,
)


@dataclass(frozen=True)
class NoneConfig:
    """`lora`: low-rank weights for the answer format; rank 0 is the bare backbone."""

    lora: LoraSettings = LoraSettings(rank=0)


@register("none")
class NoMemory(Method):
    """Reads nothing; writing only counts documents and stores nothing."""

    Config = NoneConfig
    claims = frozenset({EXACT_DELETE, EMPTY_IS_PLAIN, CALLS_ADD_UP})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smollm2-135m": {"lora": {"rank": 16, "layer": 12}},
        "tiny": {"lora": {"rank": 4, "layer": 1}},
    }

    def __init__(self, config: NoneConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.lora = config.lora.build(backbone)

    def bind(self, bank: MemoryBank) -> None:
        self.bank = bank

    def write(self, documents: Sequence[Document]) -> WriteReport:
        return WriteReport(0, 0, 0.0)

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        return Conditioning(() if self.lora is None else (self.lora,))

    def loss(self, batch: Batch) -> Loss:
        with self.read(batch.questions).attach(self.backbone):
            answer = self.answer_terms(batch)
        return Loss(answer, {"answer": answer.item()})
