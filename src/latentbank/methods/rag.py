"""Retrieval: documents kept as compressed text, the best of them put into the prompt.

BM25 (Robertson and Zaragoza, 2009) through SQLite's FTS5; the text is compressed with zstd and a
trained dictionary. `full_context` is the same reader with the gold document given: the ceiling.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from latentbank.backbone import Backbone
from latentbank.bank import Entry, MemoryBank
from latentbank.codec.text import ZstdTextCodec
from latentbank.conditioning import Conditioning, passage_ids
from latentbank.document import Document
from latentbank.errors import InputError
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
from latentbank.packaged import packaged_dictionary
from latentbank.selection import LexicalIndex, Selected, supported
from latentbank.versions import REACH, content, newest

LEVEL = "text"


@dataclass(frozen=True)
class RagConfig:
    """`passages`: documents put into the prompt, best first. `lora`: low-rank weights trained with
    the gold passage in the prompt; rank 0 is the bare backbone. `least_match`: share of a
    question's words, by weight, that a passage must hold to be read.
    """

    passages: int = 1
    least_match: float = 0.0
    chunk_tokens: int = 512
    lora: LoraSettings = LoraSettings(rank=0)

    def __post_init__(self) -> None:
        if self.passages < 1:
            raise InputError(f"passages must be at least 1, got {self.passages}")
        if not 0 <= self.least_match <= 1:
            raise InputError(f"least_match must lie between 0 and 1, got {self.least_match}")


@register("rag")
class Retrieval(Method):
    """Text store, BM25 and the prompt."""

    Config = RagConfig
    claims = frozenset({EXACT_DELETE, EMPTY_IS_PLAIN, CALLS_ADD_UP})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smollm2-135m": {"lora": {"rank": 16, "layer": 12}},
        "tiny": {"lora": {"rank": 4, "layer": 1}},
    }

    def __init__(self, config: RagConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.lora = config.lora.build(backbone)
        self.codec = ZstdTextCodec(packaged_dictionary())
        self.words = LexicalIndex()

    def bind(self, bank: MemoryBank) -> None:
        self.bank, self.words = bank, LexicalIndex()
        for entry in bank.entries():
            self.words.add([entry.id], [self.codec.decode(entry.payload)])

    def write(self, documents: Sequence[Document]) -> WriteReport:
        began, bank = time.perf_counter(), self.require_bank()
        entries = [
            Entry(d.id, LEVEL, self.codec.encode(d.text), d.time, d.source, d.metadata)
            for d in documents
        ]
        report = bank.append(entries, fade=self.fade)
        self.words.add([report.name(d.id) for d in documents], [d.text for d in documents])
        self.words.remove(report.forgotten)
        return WriteReport.of(report, time.perf_counter() - began)

    def delete(self, ids: Sequence[str]) -> int:
        removed: int = self.require_bank().delete(ids)
        self.words.remove(ids)
        return removed

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        support: tuple[float, ...] = ()
        if documents is None:
            chosen = [self._select(q) for q in questions]
            matches = [
                self.words.matches(q, [name for name, _ in row])
                for q, row in zip(questions, chosen, strict=True)
            ]
            chosen, support = supported(chosen, matches, self.config.least_match)
        else:
            chosen = [[(name, 1.0)] for name in documents]
        passages = tuple("\n\n".join(self._text(name) for name, _ in row) for row in chosen)
        sources = tuple(_shares(row) for row in chosen)
        lora = () if self.lora is None else (self.lora,)
        return Conditioning(lora, passages, sources, support=support)

    def _select(self, question: str) -> Selected:
        found = self.words.search(question, max(self.config.passages, REACH))
        return newest(
            found,
            self.config.passages,
            lambda name: content(self._text(name)),
            lambda name: self.require_bank().age(name),
        )

    def _text(self, name: str) -> str:
        entry = self.require_bank().get(name)
        return self.codec.decode(entry.payload) if entry is not None else ""

    def loss(self, batch: Batch) -> Loss:
        """Answer loss with the gold passage before the question; a passage runs once for all of its
        questions, as keys and values from layer 0 (equal to the prompt, see tests).
        """
        ids, mask = self.backbone.pad(passage_ids(self.backbone, [d.text for d in batch.documents]))
        owner = torch.tensor(batch.owner, device=ids.device)
        with Conditioning(() if self.lora is None else (self.lora,)).attach(self.backbone):
            memory = self.backbone.fill(self.backbone.states(ids, mask, 0), mask, 0)
            with self.backbone.with_memory(memory.rows(owner)):
                answer = self.answer_terms(batch)
        return Loss(answer, {"answer": answer.item()})


def _shares(row: Sequence[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Scores of one question as shares that sum to 1."""
    total = sum(max(score, 0.0) for _, score in row) or 1.0
    return tuple((name, max(score, 0.0) / total) for name, score in row)


@register("full_context")
class FullContext(Retrieval):
    """The same reader and store, told which document holds the answer."""

    needs_gold = True

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        if documents is None and len(self.words):
            raise InputError(
                "full_context needs the gold document of each question; it is a ceiling for "
                "benchmarks, use rag to answer from a bank"
            )
        return super().read(questions, documents)
