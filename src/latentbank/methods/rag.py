"""Retrieval: documents kept as compressed text, the best of them put into the prompt.

BM25 (Robertson and Zaragoza, 2009) through SQLite's FTS5; the text is compressed with zstd and a
trained dictionary, or by one of the other codecs for texts. `full_context` is the same reader with
the gold document given: the ceiling.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import passage_ids
from latentbank.backbone.transports import Conditioning
from latentbank.bank import Entry, MemoryBank
from latentbank.documents.document import Document
from latentbank.errors import InputError, unknown
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
from latentbank.parts.closed_share import shared_answer_loss
from latentbank.parts.retrieval.selection import (
    LexicalIndex,
    QuestionGain,
    Selected,
    shares,
    supported,
    weighed,
)
from latentbank.parts.retrieval.versions import REACH, content, newest
from latentbank.parts.text_levels import WHOLE, TextLevels

SEED = 0x2A6
TEXT = "text"  # the level of texts that zstd compressed


@dataclass(frozen=True)
class RagConfig:
    """`passages`: documents put into the prompt, best first; with 1, `candidates` documents have a
    prompt each, and the surest of their answers counts. `entry`: what texts are coded with:
    `text` (zstd), `packed` (token counts) or `lm` (the backbone's predictions). `lora`: low-rank
    weights trained with the gold passage in the prompt; rank 0 is the bare backbone. `least_match`:
    share of a question's words, by weight, that one of them must hold; else none is read.
    `closed_share`: of questions trained without a passage. `closed_lora`: low-rank weights that
    answer where nothing is read; rank 0: `lora` does. `closed_weight`: of their answer to a
    question that texts were read for, which counts where it is the surest; 0: it is not asked for.
    `gain_scale`, `gain_half`: an answer counts by σ((gain − half) / scale), the gain being how many
    nats likelier its passage makes the question; scale 0: all alike.
    """

    passages: int = 1
    candidates: int = 1
    entry: str = TEXT
    least_match: float = 0.3
    chunk_tokens: int = 512
    lora: LoraSettings = LoraSettings(rank=0)
    closed_share: float = 0.0
    closed_lora: LoraSettings = LoraSettings(rank=0)
    closed_weight: float = 0.0
    gain_half: float = 10.0
    gain_scale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("passages", "candidates"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.entry not in (TEXT, *WHOLE[1:]):
            raise unknown("rag entry", self.entry, [TEXT, *WHOLE[1:]])
        for name in ("least_match", "closed_share", "closed_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.gain_scale < 0:
            raise InputError(f"gain_scale must not be negative, got {self.gain_scale}")


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
        self.closed_lora = config.closed_lora.build(backbone)
        self.question_gain = QuestionGain.of(config.gain_half, config.gain_scale)
        self.texts = TextLevels(backbone)
        self.words = LexicalIndex()

    def bind(self, bank: MemoryBank) -> None:
        self.bank, self.words = bank, LexicalIndex()
        entries = list(bank.entries())
        self.words.add([entry.id for entry in entries], self.texts.decode(entries))

    def write(self, documents: Sequence[Document]) -> WriteReport:
        began, bank = time.perf_counter(), self.require_bank()
        level = self.config.entry
        payloads = self.texts.encode([d.text for d in documents], level)
        entries = [
            Entry(d.id, level, payload, d.time, d.source, d.metadata)
            for d, payload in zip(documents, payloads, strict=True)
        ]
        report = bank.append(entries, fade=self.fade)
        self.words.add([report.stored_id(d.id) for d in documents], [d.text for d in documents])
        self.words.remove(report.forgotten)
        return WriteReport.of(report, time.perf_counter() - began)

    def delete(self, ids: Sequence[str]) -> int:
        removed = len(self.require_bank().delete(ids).deleted)
        self.words.remove(ids)
        return removed

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        support: tuple[float, ...] = ()
        if documents is None:
            chosen, matches = self._select(questions, self.config.passages)
            chosen, support = supported(chosen, matches, self.config.least_match)
            if not any(chosen):
                nothing = ((),) * len(questions)
                return replace(self.read_nothing(), sources=nothing, support=support)
        else:
            chosen = [[(name, 1.0)] for name in documents]
        passages = tuple("\n\n".join(self._text(name) for name, _ in row) for row in chosen)
        sources = tuple(shares(row) for row in chosen)
        lora = () if self.lora is None else (self.lora,)
        return Conditioning(lora, passages, sources, support=support)

    def shortlist(self, questions: Sequence[str]) -> list[Selected] | None:
        top = self.config.candidates
        closed = self.config.closed_weight
        if self.config.passages > 1 or (top == 1 and self.closed_lora is None and not closed):
            return None
        chosen, matches = self._select(questions, top)
        least = self.config.least_match
        return [
            weighed(row, fits, least, closed) for row, fits in zip(chosen, matches, strict=True)
        ]

    def _select(
        self, questions: Sequence[str], top: int
    ) -> tuple[list[Selected], list[list[float]]]:
        """The `top` documents of each question, and how much of it each of them holds."""
        chosen = [
            newest(
                self.words.search(question, max(top, REACH)),
                top,
                lambda name: content(self._text(name)),
                lambda name: self.require_bank().age(name),
            )
            for question in questions
        ]
        matches = [
            self.words.matches(question, [name for name, _ in row])
            for question, row in zip(questions, chosen, strict=True)
        ]
        return chosen, matches

    def _text(self, name: str) -> str:
        entry = self.require_bank().get(name)
        return self.texts.decode([entry])[0] if entry is not None else ""

    def loss(self, batch: Batch) -> Loss:
        """Answer loss with the gold passage before the question; a passage runs once for all of its
        questions, as keys and values from layer 0 (equal to the prompt, see tests).
        """
        ids, mask = self.backbone.pad(passage_ids(self.backbone, [d.text for d in batch.documents]))
        with Conditioning(() if self.lora is None else (self.lora,)).attach(self.backbone):
            memory = self.backbone.fill(self.backbone.states(ids, mask, 0), mask, 0)
        draw = np.random.default_rng([SEED, batch.step])
        hidden = draw.random(len(batch.owner)) < self.config.closed_share
        answer = shared_answer_loss(self, batch, memory, hidden)
        return Loss(answer, {"answer": answer.item()})


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
