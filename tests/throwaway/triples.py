"""A method that stores triples: keys without position inside the attention, with own queries.

The adapter is fixed random projections; what matters here is the way of the data.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning, SideMemory, Sources
from latentbank.bank import Entry, MemoryBank
from latentbank.capabilities import forget
from latentbank.config import setting
from latentbank.documents.document import Document
from latentbank.method import (
    CALLS_ADD_UP,
    EMPTY_IS_PLAIN,
    EXACT_DELETE,
    NAMES_SOURCES,
    Method,
    WriteReport,
    register,
)


@dataclass(frozen=True)
class TriplesConfig:
    """Where the triples enter."""

    layer: int = setting(1, "Layer whose attention reads them.")


@register("scratch_triples")
class ScratchTriples(Method):
    """(entity, property, value): the first word, the second, and the rest of a document."""

    Config = TriplesConfig
    claims = frozenset({EXACT_DELETE, EMPTY_IS_PLAIN, CALLS_ADD_UP, NAMES_SOURCES})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tiny": {}}

    def __init__(self, config: Any, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        g, draw = backbone.geometry, torch.Generator().manual_seed(0)

        def projection(heads: int) -> Tensor:
            return torch.randn(g.width, heads, g.head_dim, generator=draw) / g.width**0.5

        self._keys, self._values = projection(g.kv_heads), projection(g.kv_heads)
        self._queries = projection(g.heads)
        self._triples: dict[str, tuple[str, str, str]] = {}
        self._attended = torch.zeros(0)

    def bind(self, bank: MemoryBank) -> None:
        self.bank = bank
        self._triples = {entry.id: tuple(json.loads(entry.payload)) for entry in bank.entries()}  # type: ignore[misc]

    def write(self, documents: Sequence[Document]) -> WriteReport:
        began, bank = time.perf_counter(), self.require_bank()
        entries = []
        for d in documents:
            payload = json.dumps([*d.text.split(" ", 2), "", ""][:3]).encode()
            entries.append(Entry(d.id, "triple", payload, d.time, d.source, d.metadata))
        report = bank.append(entries, fade=forget)
        self.bind(bank)
        return WriteReport.of(report, time.perf_counter() - began)

    def _embedded(self, texts: Sequence[str]) -> Tensor:
        """Mean token embeddings [B, D]."""
        ids, mask = self.backbone.pad(self.backbone.encode(texts))
        states = self.backbone.states(ids, mask, 0).float()
        return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    @torch.no_grad()
    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        if not self._triples:
            return self.closed_book()
        layer, batch = self.config.layer, len(questions)
        rows = list(self._triples.values())
        keys = self._embedded([f"the {property} of {entity}" for entity, property, _ in rows])
        values = self._embedded([value for _, _, value in rows])

        def slots(x: Tensor, projection: Tensor) -> Tensor:
            heads = torch.einsum("md,dhe->hme", x, projection)
            return heads[None].expand(batch, -1, -1, -1).to(self.backbone.dtype)

        key = slots(keys, self._keys)

        def own(hidden: Tensor) -> Tensor:
            asked = torch.einsum("btd,dhe->bhte", hidden, self._queries.to(hidden))
            groups, beams = asked.shape[1] // key.shape[1], len(asked) // batch
            first = asked[::beams]  # the first beam of each question
            scores = first @ key.repeat_interleave(groups, 1).transpose(2, 3).to(asked)
            self._attended = scores[:, :, -1].float().mean(1).softmax(-1)
            return asked

        memory = SideMemory(
            {layer: key},
            {layer: slots(values, self._values)},
            torch.zeros(batch, len(rows)),
            {layer: own},
        )
        return Conditioning((memory,), sources=self._sources)

    def _sources(self) -> Sources:
        """The triples that the last token attended to, known only after decoding."""
        ids = list(self._triples)
        best = self._attended.topk(min(2, len(ids)), dim=-1)
        return tuple(
            tuple((ids[i], share) for i, share in zip(places, values, strict=True))
            for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
