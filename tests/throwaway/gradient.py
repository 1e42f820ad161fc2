"""A method that writes by gradient: each document is one step on a low-rank difference of a weight.

The bank holds a ledger row for each document and one state of constant size.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentbank.backbone.layers import plain_weights
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning, LowRankDelta, WeightDelta
from latentbank.bank import Entry, MemoryBank
from latentbank.capabilities import Stateful, forget
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
class GradientConfig:
    """How documents are learned."""

    rate: float = setting(2.0, "Step size of each document.")
    rank: int = setting(2, "Rank of the difference.")


@register("scratch_gradient")
class ScratchGradient(Stateful):
    """Online gradient steps on the last square weight of the backbone."""

    Config = GradientConfig
    claims = frozenset({EMPTY_IS_PLAIN, CALLS_ADD_UP, CONSTANT_SIZE})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tiny": {}}
    remains = "The gradient steps of deleted documents stay in the weights."

    def __init__(self, config: Any, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        matrices = [(n, p) for n, p in plain_weights(backbone.model) if p.dim() == 2]
        self._name, weight = [pair for pair in matrices if "layers." in pair[0] or "h." in pair[0]][
            -1
        ]
        draw = torch.Generator().manual_seed(0)
        self._start = {
            "left": torch.zeros(weight.shape[0], config.rank),
            "right": torch.randn(config.rank, weight.shape[1], generator=draw) / 4,
        }
        self._state = dict(self._start)

    def memory_state(self) -> dict[str, Tensor]:
        return dict(self._state)

    def load_memory_state(self, state: Mapping[str, Tensor]) -> None:
        self._state = dict(state) if state else dict(self._start)

    def bind(self, bank: MemoryBank) -> None:
        self.bank = bank
        self.restore(bank)

    def write(self, documents: Sequence[Document]) -> WriteReport:
        began, bank = time.perf_counter(), self.require_bank()
        before = dict(self._state)
        new = {d.id: d for d in documents if d.id not in bank}
        try:
            for document in new.values():
                self._learn(document.text)
            entries = [Entry(d.id, "step", b"", d.time, d.source, d.metadata) for d in documents]
            report = bank.append(entries, state=self.state_bytes(), fade=forget)
        except BaseException:
            self._state = before
            raise
        return WriteReport.of(report, time.perf_counter() - began)

    def _learn(self, text: str) -> None:
        ids, mask = self.backbone.pad(self.backbone.encode([text[:200]]))
        left = self._state["left"].clone().requires_grad_(True)
        delta = LowRankDelta(left, self._state["right"])
        with torch.enable_grad(), WeightDelta({self._name: delta}).attach(self.backbone):
            loss = self.backbone.model(ids, attention_mask=mask.long(), labels=ids).loss
            (slope,) = torch.autograd.grad(loss, left)
        self._state["left"] = left.detach() - self.config.rate * slope

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        if not len(self.require_bank()):
            return self.closed_book()
        delta = LowRankDelta(self._state["left"], self._state["right"])
        return Conditioning((WeightDelta({self._name: delta}),))
