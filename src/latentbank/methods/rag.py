"""Retrieval: documents are kept as compressed text, and the best ones go into the prompt.

BM25 (Robertson and Zaragoza, 2009) through SQLite's FTS5. Texts are compressed with zstd and a
trained dictionary, or by another text codec. `full_context` is the same reader that is told the
gold document; it is the ceiling of retrieval.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from latentbank.backbone.model import Backbone
from latentbank.backbone.packed import PackedAnswers
from latentbank.backbone.prompts import passage_ids
from latentbank.backbone.transports import Conditioning
from latentbank.bank import Entry, MemoryBank
from latentbank.capabilities import Candidates, Trained, WordIndexed, forget
from latentbank.config import require_share, setting
from latentbank.documents.document import Document
from latentbank.errors import InputError, unknown
from latentbank.method import (
    CALLS_ADD_UP,
    EMPTY_IS_PLAIN,
    EXACT_DELETE,
    NAMED_ONLY,
    NAMES_SOURCES,
    WriteReport,
    register,
)
from latentbank.parts.answer_loss import packed_split_loss, split_answer_loss
from latentbank.parts.batch import Batch, Loss
from latentbank.parts.low_rank import NO_LORA, LoraSettings
from latentbank.parts.retrieval.candidates import Candidate, shares
from latentbank.parts.retrieval.retriever import FLAT_NAMES, RetrievalConfig, Retriever
from latentbank.parts.retrieval.versions import content
from latentbank.parts.text_levels import SLOW, TEXTS, WHOLE, TextLevels

_SEED = 0x2A6
TEXT = "text"  # the level of texts that zstd compressed


@dataclass(frozen=True)
class RagConfig:
    """What is stored of a text, and how passages are chosen and put into the prompt."""

    entry: str = setting(
        TEXT, "Codec of the texts: `text` (zstd), `packed` (token counts) or `lm` (predictions)."
    )
    retrieval: RetrievalConfig = RetrievalConfig(candidates=1)
    chunk_tokens: int = setting(512, "Tokens of the longest text in one entry.")
    closed_share: float = setting(0.0, "Share of training questions asked without a passage.")
    lora: LoraSettings = NO_LORA
    closed_lora: LoraSettings = NO_LORA

    ALIASES: ClassVar[Mapping[str, str]] = {**FLAT_NAMES, "passages": "retrieval.together"}

    def __post_init__(self) -> None:
        if self.entry not in (TEXT, *WHOLE[1:]):
            raise unknown("rag entry", self.entry, [TEXT, *WHOLE[1:]])
        require_share(self, "closed_share")


@register("rag")
class Rag(Trained, Candidates, WordIndexed):
    """Text store, retrieval and the prompt."""

    Config = RagConfig
    text_levels, slow_levels = (TEXT, *TEXTS), SLOW
    write_batch = 128  # texts are coded side by side
    reads_texts = True
    claims = frozenset({EXACT_DELETE, EMPTY_IS_PLAIN, CALLS_ADD_UP, NAMES_SOURCES})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smollm2-135m": {"lora": {"rank": 16, "layer": 12}},
        "tiny": {"lora": {"rank": 4, "layer": 1}},
    }

    def __init__(self, config: RagConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.lora = config.lora.build(backbone)
        self.closed_lora = config.closed_lora.build(backbone)
        self.question_gain = config.retrieval.question_gain
        self.texts = TextLevels(backbone)
        self.retriever = Retriever(
            config.retrieval,
            words_of=lambda id: content(self.text(id)),
            age_of=lambda id: self.require_bank().age(id),
            texts_of=lambda ids: self.texts.stored(self.require_bank().get_all(ids)),
        )

    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank` and indexes its texts."""
        self.bank = bank
        self.retriever.clear()
        self.unreadable = {}
        if not self.open_words(bank):
            self._index(list(bank.entries()))

    def take(self, gone: Sequence[str], entries: Sequence[Entry]) -> None:
        """Takes in what others deleted and wrote."""
        self._unindex([*gone, *(entry.id for entry in entries)])
        if gone:
            self.texts.forget_texts()
        self._index(entries)

    def _index(self, entries: Sequence[Entry]) -> None:
        readable, damaged = self.texts.decode_readable(entries)
        self.unreadable |= damaged
        self.retriever.add_texts([entry.id for entry, _ in readable], [t for _, t in readable])

    def _unindex(self, ids: Sequence[str]) -> None:
        self.retriever.remove(ids)
        for id in ids:
            self.unreadable.pop(id, None)

    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Stores and indexes texts; a full bank forgets the least valuable ones."""
        began, bank = time.perf_counter(), self.require_bank()
        level = self.config.entry
        payloads = self.texts.encode([d.text for d in documents], level)
        entries = [
            Entry.of(d, level, payload) for d, payload in zip(documents, payloads, strict=True)
        ]
        report = bank.append(entries, fade=forget)
        stored = [report.stored_id(d.id) for d in documents]
        if not self.retriever.stored:
            self.retriever.add_texts(stored, [d.text for d in documents])
        self.retriever.remove(report.forgotten)
        if not self.catch_up() and self.keeps_account(bank):
            self.bind(bank)  # it has become large
        return WriteReport.of(report, time.perf_counter() - began)

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """Puts the texts of the chosen documents before each question."""
        chosen, support = self.retriever.choose(questions, documents)
        if not any(chosen):
            return self.nothing_read(support)
        passages = tuple("\n\n".join(self.text(id) for id, _ in row) for row in chosen)
        sources = tuple(shares(row) for row in chosen)
        return replace(self.reading(), passages=passages, sources=sources, support=support)

    def candidates(self, questions: Sequence[str]) -> list[list[Candidate]] | None:
        """The documents that compete for each question; see `Retriever.candidates`."""
        gone = self.require_bank().gone_share
        return self.retriever.candidates(questions, self.closed_lora is not None, gone)

    def text(self, id: str) -> str:
        """The text of an entry as the model reads it; empty for one that is gone."""
        return self.texts.as_read(self.require_bank().get(id))

    @property
    def trained_from(self) -> int | None:
        """The first layer with low-rank weights; None without any."""
        weights = [one for one in (self.lora, self.closed_lora) if one is not None]
        return min((one.layer for one in weights), default=None)

    def _packed_loss(
        self,
        packed: PackedAnswers,
        batch: Batch,
        texts: Sequence[str],
        without: npt.NDArray[np.bool_],
    ) -> Tensor:
        return packed_split_loss(
            packed,
            batch,
            without,
            self.lora,
            self.closed_lora,
            lambda lora, asked, said, owner: packed.from_passages(lora, asked, said, texts, owner),
        )

    def loss(self, batch: Batch) -> Loss:
        """Answer loss with the gold passage before the question.

        A passage runs once for all of its questions, as keys and values from layer 0. The result is
        that of the passage in the prompt.
        """
        texts = [d.text for d in batch.documents]
        draw = np.random.default_rng([_SEED, batch.step])
        without = draw.random(len(batch.owner)) < self.config.closed_share
        if self.packed is not None:
            answer = self._packed_loss(self.packed, batch, texts, without)
            return Loss(answer, {"answer": answer.item()})
        ids, mask = self.backbone.pad(passage_ids(self.backbone, texts))
        with self.reading().attach(self.backbone):
            memory = self.backbone.fill(self.backbone.states(ids, mask, 0), mask, 0)
        answer = split_answer_loss(
            self.backbone, batch, memory, without, self.reading(), self.closed_book(), started=True
        )
        return Loss(answer, {"answer": answer.item()})


@register("full_context")
class FullContext(Rag):
    """`Rag` that is told which document holds the answer."""

    claims = Rag.claims | {NAMED_ONLY}

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """Reads the named documents. Raises InputError where none are named."""
        if documents is None and len(self.require_bank()):
            raise InputError(
                "full_context needs the gold document of each question. It is a ceiling for "
                "benchmarks; use rag to answer from a bank"
            )
        return super().read(questions, documents)
