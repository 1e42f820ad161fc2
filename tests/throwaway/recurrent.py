"""A method with a constant-size state: a linear associative memory over states of one layer.

Reading adds what the matrix answers to the residual stream, through a layer hook.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentbank.backbone.encoder import BackboneEncoder
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning, LayerHook
from latentbank.bank import Entry, MemoryBank
from latentbank.capabilities import Encoding, Stateful, forget
from latentbank.config import setting
from latentbank.documents.document import Document
from latentbank.method import (
    CALLS_ADD_UP,
    CONSTANT_SIZE,
    EMPTY_IS_PLAIN,
    WriteReport,
    register,
)


@dataclass(frozen=True)
class RecurrentConfig:
    """Where the memory stands."""

    layer: int = setting(1, "Layer whose states are written and read.")


@register("scratch_recurrent")
class ScratchRecurrent(Encoding, Stateful):
    """M ← M + Σ next state ⊗ state; a reading state h is answered with M h."""

    Config = RecurrentConfig
    claims = frozenset({EMPTY_IS_PLAIN, CALLS_ADD_UP, CONSTANT_SIZE})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tiny": {}}
    remains = "What deleted documents added to the matrix stays in it."

    def __init__(self, config: Any, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.encoder = BackboneEncoder(backbone, config.layer)
        self._matrix = torch.zeros(backbone.geometry.width, backbone.geometry.width)

    def memory_state(self) -> dict[str, Tensor]:
        return {"matrix": self._matrix}

    def load_memory_state(self, state: Mapping[str, Tensor]) -> None:
        self._matrix = state["matrix"].clone() if state else torch.zeros_like(self._matrix)

    def bind(self, bank: MemoryBank) -> None:
        self.bank = bank
        self.restore(bank)

    @torch.no_grad()
    def write(self, documents: Sequence[Document]) -> WriteReport:
        began, bank, before = time.perf_counter(), self.require_bank(), self._matrix
        try:
            for document in {d.id: d for d in documents if d.id not in bank}.values():
                states = torch.nn.functional.normalize(self.features([document.text])[0][0], dim=-1)
                self._matrix = self._matrix + states[1:].T @ states[:-1] / len(states)
            entries = [Entry(d.id, "sum", b"", d.time, d.source, d.metadata) for d in documents]
            report = bank.append(entries, state=self.state_bytes(), fade=forget)
        except BaseException:
            self._matrix = before
            raise
        return WriteReport.of(report, time.perf_counter() - began)

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        if not len(self.require_bank()):
            return self.closed_book()
        matrix = self._matrix
        return Conditioning((LayerHook(lambda h: h @ matrix.T.to(h), self.config.layer),))
