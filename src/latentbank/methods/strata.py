"""Strata: documents kept as text in few bytes or as pooled mid-layer states, read by
the backbone's own upper layers.

This package's own method; see docs/methods/strata.md. It builds on the observation that layers
above `inject_from` read states of that layer natively, on BM25 and on a byte-limited hot cache.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from latentbank.backbone.encoder import BackboneEncoder
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import passage_ids
from latentbank.backbone.transports import Conditioning, KVPrefix
from latentbank.bank import Entry, MemoryBank
from latentbank.codec import array_codec
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.method import (
    CALLS_ADD_UP,
    EMPTY_IS_PLAIN,
    EXACT_DELETE,
    Batch,
    Loss,
    Method,
    WriteReport,
    register,
)
from latentbank.parts.closed_share import shared_answer_loss
from latentbank.parts.pooling import SegmentPooler, Standardiser
from latentbank.parts.retrieval.selection import (
    DenseKeys,
    DenseSelector,
    LexicalIndex,
    QuestionGain,
    Selected,
    shares,
    supported,
    weighed,
)
from latentbank.parts.retrieval.sketch import FusedIndex, join_sketch, sketches, split_sketch
from latentbank.parts.retrieval.versions import REACH, content, newest
from latentbank.parts.state_reader import StateReader
from latentbank.parts.strata_settings import StrataConfig
from latentbank.parts.text_levels import LM, TEXTS, WHOLE, TextLevels

SEED = 0x5712A7A


@register("strata")
class Strata(Method):
    """Bounded memory with two kinds of entry, one adapter for both."""

    Config = StrataConfig
    claims = frozenset({EXACT_DELETE, EMPTY_IS_PLAIN, CALLS_ADD_UP})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smollm2-135m": {"inject_from": 12, "lora": {"layer": 12}},  # of 30 layers
        "smollm2-1.7b": {"inject_from": 10, "lora": {"layer": 10}},  # of 24
        "qwen3-0.6b": {"inject_from": 11, "lora": {"layer": 11}},  # of 28
        "llama-2-7b": {"inject_from": 13, "lora": {"layer": 13}},  # of 32
        "gpt2-xl": {"inject_from": 19, "lora": {"layer": 19}},  # of 48
        "tiny": {
            "inject_from": 1,
            "segments": 4,
            "train_segments": (4, 2),
            "key_width": 16,
            "lora": {"rank": 4, "layer": 1},
        },
    }

    def __init__(self, config: StrataConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        if not 0 <= config.inject_from < backbone.geometry.layers:
            raise InputError(
                f"inject_from must be below the backbone's {backbone.geometry.layers} layers, "
                f"got {config.inject_from}"
            )
        width = backbone.geometry.width
        self.standard = Standardiser(width)
        self.pooler = SegmentPooler(width)
        self.selector = DenseSelector(width, config.key_width)
        self.network = nn.ModuleDict(
            {"standard": self.standard, "pooler": self.pooler, "selector": self.selector}
        )
        self.network.to(backbone.device)
        self.lora = config.lora.build(backbone)
        self.closed_lora = config.closed_lora.build(backbone)
        self.question_gain = QuestionGain.of(config.gain_half, config.gain_scale)
        self.encoder = BackboneEncoder(backbone, config.inject_from)
        self.texts = TextLevels(backbone, config.lm or config.entry == LM)
        self.reader = StateReader(backbone, config.inject_from, self.lora, config.hot_bytes)
        self.words = LexicalIndex()
        self.keys = FusedIndex(config.key_width)

    # ---- writing

    @property
    def level(self) -> str:
        texts = self.config.entry in WHOLE
        return self.config.entry if texts else f"pooled{self.config.segments}"

    @property
    def lossless(self) -> tuple[str, ...]:
        return self.texts.lossless if self.config.entry in WHOLE else ()

    def fade(self, entry: Entry) -> Entry | None:
        return self.texts.fade(entry)

    def bind(self, bank: MemoryBank) -> None:
        self.bank = bank
        self.reader.hot.clear()
        self.words, self.keys = LexicalIndex(), FusedIndex(self.config.key_width)
        self._index(list(bank.entries()))

    def _index(self, entries: Sequence[Entry]) -> None:
        """Makes entries selectable: texts by their words, states by their keys."""
        texts = [entry for entry in entries if entry.level in TEXTS]
        self.words.add([entry.id for entry in texts], self.texts.decode(texts))
        states = [entry for entry in entries if entry.level not in TEXTS]
        found = [split_sketch(entry.payload)[0] for entry in states]
        self.keys.add([e.id for e in states], found, [e.key for e in states])

    def write(self, documents: Sequence[Document]) -> WriteReport:
        began, bank = time.perf_counter(), self.require_bank()
        new = list({d.id: d for d in documents if d.id not in bank}.values())
        stored = self._entries(new)
        known = {entry.id: entry for entry in stored}
        again = [Entry(d.id, self.level, b"") for d in documents if d.id not in known]
        repeated = [known[d.id] for d in documents if d.id in known]
        report = bank.append([*repeated, *again], fade=self.fade)
        self._index([replace(entry, id=report.stored_id(entry.id)) for entry in stored])
        self._unindex([*report.forgotten, *report.faded])
        self._index([entry for name in report.faded if (entry := bank.get(name)) is not None])
        return WriteReport.of(report, time.perf_counter() - began)

    def _unindex(self, names: Sequence[str]) -> None:
        """Takes documents that faded or were forgotten out of what selects and remembers."""
        self.words.remove(names)
        self.keys.remove(names)
        self.reader.hot.drop(names)

    def _entries(self, documents: Sequence[Document]) -> list[Entry]:
        if self.config.entry in WHOLE:
            payloads = self.texts.encode([d.text for d in documents], self.level)
            return [
                Entry(d.id, self.level, payload, d.time, d.source, d.metadata)
                for d, payload in zip(documents, payloads, strict=True)
            ]
        return self._pooled_entries(documents)

    @torch.no_grad()
    def _pooled_entries(self, documents: Sequence[Document]) -> list[Entry]:
        """Entries whose payload is a sketch and float16 states [k, D] in standardised units."""
        words = dict(
            zip((d.id for d in documents), sketches([d.text for d in documents]), strict=True)
        )
        found: dict[str, Entry] = {}
        order = sorted(documents, key=lambda d: len(d.text))
        for at in range(0, len(order), 16):
            part = order[at : at + 16]
            states, mask = self.standard_states([d.text for d in part])
            keys = DenseKeys.encode(self.selector.documents(states, mask))
            pooled, kept = self.pooler(states, mask, self.config.segments)
            for i, d in enumerate(part):
                body = pooled[i, kept[i]].half().cpu().numpy().tobytes()
                body = join_sketch(words[d.id], body)
                found[d.id] = Entry(d.id, self.level, body, d.time, d.source, d.metadata, keys[i])
        return [found[d.id] for d in documents]

    def standard_states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(standardised states [B, T, D], mask [B, T]) without the start token."""
        states, mask = self.features(texts)
        return self.standard(states[:, 1:]), mask[:, 1:]

    # ---- reading

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        support: tuple[float, ...] = ()
        if documents is None:
            chosen = self._select(questions, self.config.read_documents)
            matches = self._matches(questions, [[name for name, _ in row] for row in chosen])
            chosen, support = supported(chosen, matches, self.config.least_match)
            if not any(chosen):
                nothing = ((),) * len(questions)
                return replace(self.read_nothing(), sources=nothing, support=support)
        else:
            chosen = [[(d, 1.0)] for d in documents]
        transports: tuple[Any, ...] = () if self.lora is None else (self.lora,)
        sources = tuple(shares(row) for row in chosen)
        if self.config.read == "text":
            passages = tuple("\n\n".join(self._text(d) for d, _ in row) for row in chosen)
            return Conditioning(transports, passages, sources, support=support)
        memory = self.reader.memory([[d for d, _ in row] for row in chosen], self._states)
        if memory is not None:
            transports = (*transports, KVPrefix(memory))
        quotable = tuple(" ".join(self._known_text(d) for d, _ in row) for row in chosen)
        contrast = self.config.memory_aware
        return Conditioning(transports, None, sources, contrast, support, quotable)

    def shortlist(self, questions: Sequence[str]) -> list[Selected] | None:
        top = 1 if len(self.keys) else self.config.candidates
        closed = 0.0 if len(self.keys) else self.config.closed_weight
        alone = top == 1 and self.closed_lora is None and not closed
        if self.config.read_documents > 1 or alone:
            return None
        chosen = self._select(questions, top)
        matches = self._matches(questions, [[name for name, _ in row] for row in chosen])
        least = self.config.least_match
        return [
            weighed(row, fits, least, closed) for row, fits in zip(chosen, matches, strict=True)
        ]

    def _select(self, questions: Sequence[str], top: int) -> list[Selected]:
        reach = max(top, REACH)
        lexical = [self._newest(self.words.search(q, reach), top) for q in questions]
        if not len(self.keys):
            return lexical
        states, mask = self.standard_states(questions)
        with torch.no_grad():
            found = self.keys.search(questions, self.selector.questions(states, mask), reach)
        fused = [self._newest(row, top) for row in found]
        if not len(self.words):
            return fused
        both = [a + b for a, b in zip(lexical, fused, strict=True)]  # scores of two kinds
        matches = self._matches(questions, [[name for name, _ in row] for row in both])
        ranked = [
            sorted(zip(row, fits, strict=True), key=lambda p: -p[1])
            for row, fits in zip(both, matches, strict=True)
        ]
        return [[pair for pair, _ in row[:top]] for row in ranked]

    def _newest(self, found: Selected, top: int) -> Selected:
        return newest(found, top, self._content, lambda name: self.require_bank().age(name))

    def _content(self, name: str) -> frozenset[Hashable]:
        """The words of a text, or the hashes in the sketch of a pooled entry."""
        entry = self.require_bank().get(name)
        if entry is None:
            return frozenset()
        if entry.level in TEXTS:
            return content(self.texts.decode([entry])[0])
        return frozenset(np.frombuffer(split_sketch(entry.payload)[0], "<u2").tolist())

    def _matches(
        self, questions: Sequence[str], rows: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """How much of each question the documents of its row hold; see `LexicalIndex.matches`."""
        lexical = [self.words.matches(q, row) for q, row in zip(questions, rows, strict=True)]
        if not len(self.keys):
            return lexical
        fused = self.keys.matches(questions, rows)
        return [
            [max(p) for p in zip(a, b, strict=True)] for a, b in zip(lexical, fused, strict=True)
        ]

    def _text(self, name: str) -> str:
        entry = self.require_bank().get(name)
        return self.texts.decode([entry])[0] if entry is not None else ""

    def _known_text(self, name: str) -> str:
        """The text of a document where it is at hand, else none."""
        entry = self.require_bank().get(name)
        return self.texts.known(entry) if entry is not None else ""

    def _states(self, name: str) -> Tensor | None:
        """States [M, D] of a document in the backbone's units, the start token's first."""
        entry = self.require_bank().get(name)
        if entry is None:
            return None
        if entry.level in TEXTS:
            ids, mask = self.backbone.pad(passage_ids(self.backbone, self.texts.decode([entry])))
            return self.backbone.states(ids, mask, self.config.inject_from)[0].float().cpu()
        width = self.backbone.geometry.width
        body = array_codec("float16").decode(split_sketch(entry.payload)[1], width)
        pooled = self.standard.restore(torch.from_numpy(body))
        return torch.cat([self.reader.start_state, pooled])

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        states, mask = self.features([d.text for d in documents[:64]])
        self.standard.measure(states[:, 1:], mask[:, 1:])

    def training_state(self) -> dict[str, Tensor]:
        return {} if self.selector.queue is None else {"queue": self.selector.queue}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        if "queue" in state:
            self.selector.queue = state["queue"]

    def loss(self, batch: Batch) -> Loss:
        self.reader.hot.clear()
        texts = [d.text for d in batch.documents]
        states, mask = self.features(texts)
        standard = self.standard(states[:, 1:])
        owner = torch.tensor(batch.owner, device=states.device)
        with torch.no_grad():
            asked, asked_mask = self.standard_states(batch.questions)
        matching = self.selector.loss(
            self.selector.questions(asked, asked_mask),
            self.selector.documents(standard, mask[:, 1:]),
            owner,
        )
        draw = np.random.default_rng([SEED, batch.step])
        if draw.random() >= self.config.all_share:
            count = int(draw.choice(self.config.train_segments))
            pooled, kept = self.pooler(standard, mask[:, 1:], count)
            states = torch.cat([states[:, :1], self.standard.restore(pooled)], 1)
            mask = torch.cat([mask[:, :1], kept], 1)
            label = f"pooled{count}"
        else:
            label = "all"
        with Conditioning(() if self.lora is None else (self.lora,)).attach(self.backbone):
            memory = self.backbone.fill(states, mask, self.config.inject_from)
        hidden = draw.random(len(owner)) < self.config.closed_share
        answer = shared_answer_loss(self, batch, memory, hidden)
        parts = {f"answer_{label}": answer.item(), "selector": matching.item()}
        return Loss(answer + self.config.selector_weight * matching, parts)
