"""Strata, first form: documents kept as text in few bytes or as pooled mid-layer states, read by
the backbone's own upper layers.

This package's own method; see docs/strata.md. What it builds on: the observation that layers above
`inject_from` read states of that layer natively, BM25 selection, and a byte-limited hot cache.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from latentbank.backbone import Backbone
from latentbank.bank import Entry, MemoryBank
from latentbank.bank.ladder import VERBATIM
from latentbank.codec import array_codec
from latentbank.conditioning import Conditioning, KVPrefix, passage_ids
from latentbank.document import Document
from latentbank.encoder import BackboneEncoder
from latentbank.errors import InputError, unknown
from latentbank.hotcache import HotCache
from latentbank.kv_memory import KVMemory, join_rows
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
from latentbank.pooling import SegmentPooler, Standardiser
from latentbank.selection import DenseKeys, DenseSelector, LexicalIndex, Selected, supported
from latentbank.sketch import FusedIndex, join_sketch, sketches, split_sketch
from latentbank.text_levels import LM, TEXTS, WHOLE, TextLevels
from latentbank.versions import REACH, content, newest

SEED = 0x5712A7A


@dataclass(frozen=True)
class StrataConfig:
    """`inject_from`: layer whose states are kept and read. `entry`: `verbatim` (zstd), `packed` (by
    token counts: fewer bytes, slower to open), `lm` (by the backbone's predictions: the fewest,
    about a second each) or `pooled`. `lm`: whether fading texts are coded by predictions too.
    `segments`: vectors of a pooled entry. `read`: `states`, or `text` for texts in the prompt.
    `read_documents`: documents read per question. `least_match`: share of a question's words, by
    weight, that a document must hold to be read; below it the model answers without memory.
    `hot_bytes`: limit of the cache of keys and values of documents that were read. `all_share`:
    share of training steps on all states; `closed_share`: of questions trained without memory.
    """

    inject_from: int = 12
    entry: str = VERBATIM
    lm: bool = False
    segments: int = 48
    read: str = "states"
    read_documents: int = 1
    least_match: float = 0.0
    key_width: int = 128
    hot_bytes: int = 256 << 20
    train_segments: tuple[int, ...] = (48, 16)
    all_share: float = 0.4
    closed_share: float = 0.0
    selector_weight: float = 0.2
    chunk_tokens: int = 512
    lora: LoraSettings = LoraSettings(rank=16, alpha=32, layer=12)

    def __post_init__(self) -> None:
        if self.entry not in (*WHOLE, "pooled"):
            raise unknown("strata entry", self.entry, [*WHOLE, "pooled"])
        if self.read not in ("states", "text"):
            raise unknown("strata read", self.read, ["states", "text"])
        if self.read == "text" and self.entry not in WHOLE:
            raise InputError("read='text' needs entry='verbatim': pooled entries hold no text")
        if self.read_documents < 1 or self.segments < 1:
            raise InputError("read_documents and segments must be at least 1")
        for name in ("least_match", "all_share", "closed_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")


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
        self.encoder = BackboneEncoder(backbone, config.inject_from)
        self.texts = TextLevels(backbone, config.lm or config.entry == LM)
        self.hot = HotCache(config.hot_bytes)
        self.words = LexicalIndex()
        self.keys = FusedIndex(config.key_width)

    # ---- writing

    @property
    def level(self) -> str:
        texts = self.config.entry in WHOLE
        return self.config.entry if texts else f"pooled{self.config.segments}"

    def fade(self, entry: Entry) -> Entry | None:
        return self.texts.fade(entry)

    def bind(self, bank: MemoryBank) -> None:
        self.bank = bank
        self.hot.clear()
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
        self._index([replace(entry, id=report.name(entry.id)) for entry in stored])
        self._unindex([*report.forgotten, *report.faded])
        self._index([entry for name in report.faded if (entry := bank.get(name)) is not None])
        return WriteReport.of(report, time.perf_counter() - began)

    def _unindex(self, names: Sequence[str]) -> None:
        """Takes documents that faded or were forgotten out of what selects and remembers."""
        self.words.remove(names)
        self.keys.remove(names)
        self.hot.drop(names)

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
            chosen = self._select(questions)
            matches = self._matches(questions, [[name for name, _ in row] for row in chosen])
            chosen, support = supported(chosen, matches, self.config.least_match)
        else:
            chosen = [[(d, 1.0)] for d in documents]
        transports: tuple[Any, ...] = (self.lora,) if self.lora is not None else ()
        sources = tuple(_weights(row) for row in chosen)
        if self.config.read == "text":
            passages = tuple("\n\n".join(self._text(d) for d, _ in row) for row in chosen)
            return Conditioning(transports, passages, sources, support=support)
        memory = self._memory([[d for d, _ in row] for row in chosen])
        if memory is not None:
            transports = (*transports, KVPrefix(memory))
        return Conditioning(transports, None, sources, support=support)

    def _select(self, questions: Sequence[str]) -> list[list[tuple[str, float]]]:
        top = self.config.read_documents
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

    @torch.no_grad()
    def _memory(self, rows: Sequence[Sequence[str]]) -> KVMemory | None:
        """The keys and values of the documents of each row, from the hot cache where it can."""
        needed = list(dict.fromkeys(name for row in rows for name in row))
        held = {name: self.hot.get(name) for name in needed}
        cold = [name for name in needed if held[name] is None]
        for at in range(0, len(cold), 16):
            held |= self._fill(cold[at : at + 16])
        if not needed:
            return None
        layers = self.backbone.geometry.layers - self.config.inject_from
        return join_rows(
            [[item for name in row if (item := held[name]) is not None] for row in rows],
            self.config.inject_from,
            layers,
            self.backbone,
        )

    def _fill(self, names: Sequence[str]) -> dict[str, KVMemory | None]:
        """Runs documents through the upper layers and puts the result into the hot cache."""
        entries = [self.require_bank().get(name) for name in names]
        states = [self._entry_states(e) for e in entries if e is not None]
        found = [e.id for e in entries if e is not None]
        if not states:
            return {}
        mask = torch.zeros(len(states), max(s.shape[0] for s in states), dtype=torch.bool)
        padded = torch.zeros(*mask.shape, states[0].shape[1])
        for i, row in enumerate(states):
            padded[i, : len(row)], mask[i, : len(row)] = row, True
        filled = self._fill_states(padded.to(self.backbone.device), mask.to(self.backbone.device))
        result: dict[str, KVMemory | None] = {}
        for i, name in enumerate(found):
            length = int(mask[i].sum())
            result[name] = one = KVMemory(
                tuple(k[i : i + 1, :, :length].clone() for k in filled.keys),
                tuple(v[i : i + 1, :, :length].clone() for v in filled.values),
                filled.bias[i : i + 1, :length].clone(),
                filled.start[i : i + 1].clone(),
                filled.layer,
                None if filled.positions is None else filled.positions[i : i + 1, :length].clone(),
            )
            self.hot.put(name, one)
        return result

    def _fill_states(self, states: Tensor, mask: Tensor) -> KVMemory:
        layer = self.config.inject_from
        if self.lora is None:
            return self.backbone.fill(states, mask, layer)
        with self.lora.attach(self.backbone):
            return self.backbone.fill(states, mask, layer)

    def _entry_states(self, entry: Entry) -> Tensor:
        """States [M, D] of one entry in the backbone's units, the start token's first."""
        if entry.level in TEXTS:
            ids, mask = self.backbone.pad(passage_ids(self.backbone, self.texts.decode([entry])))
            return self.backbone.states(ids, mask, self.config.inject_from)[0].float().cpu()
        width = self.backbone.geometry.width
        body = array_codec("float16").decode(split_sketch(entry.payload)[1], width)
        pooled = self.standard.restore(torch.from_numpy(body))
        return torch.cat([self._start_state(), pooled])

    def _start_state(self) -> Tensor:
        """The start token's state [1, D]: the same for every text, so no entry stores it."""
        if not hasattr(self, "_start"):
            ids, mask = self.backbone.pad([[self.backbone.start_id]])
            self._start = self.backbone.states(ids, mask, self.config.inject_from)[0].float().cpu()
        return self._start

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
        self.hot.clear()
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
            hidden = torch.from_numpy(draw.random(len(owner)) < self.config.closed_share)
            asked_of = memory.rows(owner).hide(hidden.to(owner.device))
            with self.backbone.with_memory(asked_of):
                answer = self.answer_terms(batch)
        parts = {f"answer_{label}": answer.item(), "selector": matching.item()}
        return Loss(answer + self.config.selector_weight * matching, parts)


def _weights(row: Sequence[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Selection scores of one question as shares that sum to 1."""
    total = sum(max(score, 0.0) for _, score in row) or 1.0
    return tuple((name, max(score, 0.0) / total) for name, score in row)
