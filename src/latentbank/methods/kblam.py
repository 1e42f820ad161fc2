"""KBLaM: Knowledge Base augmented Language Model.

Wang et al., ICLR 2025, https://arxiv.org/abs/2410.10450. A triple ⟨entity, property, value⟩ is a
key and a value in every third layer. Text attends to triples and to itself in one softmax, by
queries of their own without positions; triples do not attend. Adding, changing or deleting a triple
is a change of one row. With preset `paper` a triple is one key and one value of a sentence encoder.

What differs from the paper:

- The default features need no sentence encoder: a key is the mean of the backbone's own states.
- `value_slots` above 1 gives each token of a value a slot, with a key that tells the tokens before
  it. A value that was one vector loses its numbers.
- `start="aligned"` finds keys, queries and values in closed form before the first step.
- `attention_weight` adds a loss that draws attention to the slots that hold the answer.
- `key_heads=1` lets all heads share keys and queries; a head then differs in how much it reads.
- With `null_slot` there is a triple without key whose value is the refusal. Unanswerable questions
  learn to attend to it.
- With `named` a question that has entity and property of a triple in it is not refused.
- `anchor` keeps an answer at the triples that the end of the question found.
- `top_k` reads the triples with the best keys; the published code takes the first columns.

Unrelated texts are kept, too: a document that is no triple is its own key and value.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from latentbank.backbone.encoder import BackboneEncoder
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning, KnowledgeMemory
from latentbank.bank import Entry, MemoryBank
from latentbank.capabilities import Incremental, Knowledge, Trained, forget
from latentbank.config import require_at_least, require_share, setting
from latentbank.documents.document import Document
from latentbank.documents.facts import key_text
from latentbank.errors import InputError, unknown
from latentbank.method import (
    CALLS_ADD_UP,
    EMPTY_IS_PLAIN,
    EXACT_DELETE,
    NAMES_SOURCES,
    WriteReport,
    register,
)
from latentbank.parts.batch import Batch, Loss
from latentbank.parts.knowledge.adapters import KnowledgeAdapter, Sizes
from latentbank.parts.knowledge.attended import Attention, Recorder
from latentbank.parts.knowledge.features import Fact, Features, TripleEncoder, sentence_encoder
from latentbank.parts.knowledge.named import NamedKeys
from latentbank.parts.knowledge.objective import knowledge_loss
from latentbank.parts.knowledge.start import LEAST_ALIGNED, align
from latentbank.parts.knowledge.store import FactStore, fact_of
from latentbank.parts.knowledge.stored import KEPT, WORDS, KeyBooks
from latentbank.parts.knowledge.supervision import KnowledgeBatch
from latentbank.parts.low_rank import NO_LORA, LoraSettings

USUAL = 100  # triples at which the null score is as trained


@dataclass(frozen=True)
class KblamConfig:
    """Features, layers and keys; the defaults are the paper's but for the sentence encoder."""

    encoder: str = setting(
        "backbone",
        "Encoder of keys and values: `backbone`, `minilm`, or a sentence-transformers model.",
    )
    encoder_layer: int = setting(6, "Layer whose states `backbone` averages.")
    every: int = setting(3, "Triples are read in every so many layers.")
    first_layer: int = setting(0, "First layer that reads triples.")
    key_heads: int = setting(0, "Groups of heads with their own keys; 0: each head.")
    key_width: int = setting(0, "Width of a key; 0: the head's size.")
    unit_queries: bool = setting(False, "Scores are cosines times a trained scale.")
    value_slots: int = setting(1, "Slots of a value; above 1 each token has one.")
    slot_width: int = setting(96, "Width of the keys that tell the slots of a value apart.")
    scale_triples: int = setting(100, "C of the length shift log C − log M; 0: no shift.")
    null_slot: bool = setting(True, "A triple without key, for questions that no other answers.")
    null_growth: float = setting(
        0.0, "How far the null score rises for each e-fold of triples, from 100 triples on."
    )
    null_shift: float = setting(0.0, "Added to the null score; below 0 refuses less.")
    refusal: str = setting("not in the knowledge base", "Value of the triple without key.")
    named: bool = setting(
        False, "A question that names a triple's entity and property is never refused."
    )
    anchor: float = setting(
        0.0, "Share of the triples' scores that an answer's tokens take from the question's end."
    )
    top_k: int = setting(0, "Triples that a query reads; 0: all.")
    start: str = setting("random", "Start of training: `random` or `aligned` (closed form).")
    attention_weight: float = setting(0.0, "Weight of the loss on attention to the answer.")
    keys: str = setting(
        "text", "A key beside its text: `text` (none, encoded on opening), float16, int8, vq, rvq."
    )
    key_books: int = setting(0, "Residual codebooks for `vq` and `rvq`, a byte each.")
    chunk_tokens: int = setting(16_384, "Tokens of the longest text in one entry.")
    lora: LoraSettings = NO_LORA

    def __post_init__(self) -> None:
        require_share(self, "anchor")
        if self.start not in ("random", "aligned"):
            raise unknown("kblam start", self.start, ["random", "aligned"])
        require_at_least(self, 1, "every", "value_slots", "slot_width", "chunk_tokens")
        require_at_least(
            self, 0, "encoder_layer", "first_layer", "key_heads", "key_width", "scale_triples",
            "top_k", "anchor", "attention_weight", "key_books", "null_growth",
        )  # fmt: skip
        if self.keys not in KEPT:
            raise unknown("kblam keys", self.keys, KEPT)
        if self.keys in ("vq", "rvq") and not self.key_books:
            raise InputError(f"keys={self.keys} needs an adapter with key_books, this one has none")
        if self.value_slots == 2:
            raise InputError("value_slots must be 1, or 3 and more: one slot is the end of a value")


@register("kblam")
class Kblam(Trained, Incremental, Knowledge):
    """Triples as keys and values in the attention of chosen layers."""

    Config = KblamConfig
    claims = frozenset({EXACT_DELETE, EMPTY_IS_PLAIN, CALLS_ADD_UP, NAMES_SOURCES})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"encoder": "minilm"},
        "smollm2-135m": {
            "encoder_layer": 6,
            "every": 2,
            "first_layer": 23,
            "key_heads": 1,
            "key_width": 192,
            "unit_queries": True,
            "value_slots": 16,
            "scale_triples": 0,
            "null_growth": 0.3,
            "named": True,
            "anchor": 1.0,
            "start": "aligned",
            "attention_weight": 0.5,
            "key_books": 8,
        },
        "tiny": {
            "encoder_layer": 1,
            "every": 1,
            "first_layer": 1,
            "value_slots": 4,
            "slot_width": 8,
            "attention_weight": 0.5,
            "key_books": 2,
            "lora": {"rank": 4, "layer": 1},
        },
    }

    def __init__(self, config: KblamConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        geometry = backbone.geometry
        if config.first_layer >= geometry.layers or config.encoder_layer > geometry.layers:
            raise InputError(
                f"first_layer and encoder_layer must be below the {geometry.layers} layers of "
                f"{backbone.name}, got {config.first_layer} and {config.encoder_layer}"
            )
        groups = config.key_heads or geometry.heads
        if geometry.heads % groups:
            raise InputError(f"key_heads must divide the {geometry.heads} heads, got {groups}")
        states = BackboneEncoder(backbone, config.encoder_layer)
        sentences = sentence_encoder(config.encoder, states)
        self.encoder = TripleEncoder(backbone, sentences, config.value_slots)
        sizes = Sizes(
            sentences.width, self.encoder.width, geometry.width, geometry.heads, geometry.head_dim,
            groups, config.key_width or geometry.head_dim,
            config.slot_width if config.value_slots > 1 else 0, config.value_slots,
        )  # fmt: skip
        self.layers = range(config.first_layer, geometry.layers, config.every)
        for layer in self.layers:
            adapter = KnowledgeAdapter(sizes, config.unit_queries, config.null_slot)
            self.network[f"layer{layer}"] = adapter.to(backbone.device)
        self.books = KeyBooks(config.key_books, sentences.width) if config.key_books else None
        if self.books is not None:
            self.network["books"] = self.books
        self.lora = config.lora.build(backbone)
        self.store = FactStore(self.encoder, config.keys, self.books)
        self._null = self.encoder.encode([("", "", config.refusal)]) if config.null_slot else None
        self._clear()

    def _clear(self) -> None:
        self.store.clear()
        self._memory: KnowledgeMemory | None = None
        self._recorder: Recorder | None = None
        self._keys: NamedKeys | None = None

    @property
    def adapters(self) -> dict[int, KnowledgeAdapter]:
        """Layer that reads triples → its trained maps."""
        return {i: cast("KnowledgeAdapter", self.network[f"layer{i}"]) for i in self.layers}

    # ---- the bank

    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank`; the triples are encoded at the next question."""
        self.bank = bank
        self._clear()
        self.unreadable = {}
        self._remember(bank.entries())

    def take(self, gone: Sequence[str], entries: Sequence[Entry]) -> None:
        """Takes in what others deleted and wrote."""
        self._forget([*gone, *(entry.id for entry in entries)])
        self._remember(entries)

    def _remember(self, entries: Iterator[Entry] | Sequence[Entry]) -> None:
        self.unreadable |= self.store.remember(entries)
        self._memory = None

    def _forget(self, ids: Sequence[str]) -> None:
        self.store.forget(ids)
        for id in ids:
            self.unreadable.pop(id, None)
        self._memory = None

    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Stores triples as text; a full bank forgets the least valuable ones."""
        began, bank = time.perf_counter(), self.require_bank()
        entries = self.store.entries(documents)
        report = bank.append(entries, fade=forget)
        for document, entry in zip(documents, entries, strict=True):
            stored = report.stored_id(document.id)
            if stored in bank:
                self.store.put(stored, fact_of(document), entry.key)
        self._forget(report.forgotten)
        return self.finished(report, documents, began)

    # ---- reading

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """Attaches all triples; with `documents` each question sees the one that it names."""
        memory = self._ready()
        if memory is None:
            return self.closed_book()
        only = None if documents is None else self._only(documents)
        only = self._unrefused(questions, only)
        recorder = Recorder(memory.owner, len(questions), self.store.encoded)
        self._recorder = recorder
        attached = KnowledgeMemory(
            memory.layers, memory.owner, self.config.top_k, memory.always, only,
            self.config.anchor, watch=recorder,
        )  # fmt: skip
        own = self.reading().transports
        return Conditioning((*own, attached), sources=lambda: recorder.attention().sources())

    def _only(self, documents: Sequence[str]) -> Tensor | None:
        """Which rows [B, M] each question may read: its document's; all where that is not held."""
        number = {id: i for i, id in enumerate(self.store.encoded)}
        rows = len(number) + int(self.config.null_slot)
        only = torch.zeros(len(documents), rows, dtype=torch.bool)
        for i, id in enumerate(documents):
            only[i, number.get(id, slice(None))] = True
        if self.config.null_slot:
            only[:, -1] = True
        return only.to(self.backbone.device)

    def _unrefused(self, questions: Sequence[str], only: Tensor | None) -> Tensor | None:
        """`only` [B, M], without the null row for questions that name a triple's key."""
        if self._null is None or self._keys is None:
            return only
        known = [i for i, text in enumerate(questions) if self._keys.named(text)]
        if not known:
            return only
        if only is None:
            rows = len(self.store.encoded) + 1
            only = torch.ones(len(questions), rows, dtype=torch.bool, device=self.backbone.device)
        only[known, -1] = False
        return only

    @torch.no_grad()
    def _ready(self) -> KnowledgeMemory | None:
        """Keys and values of all triples, encoded where they are new; None for an empty bank."""
        if self._memory is None:
            features = self.store.features()
            self._memory = None if features is None else self.memory_of(features)
            facts = self.store.facts.values()
            self._keys = NamedKeys(fact[:2] for fact in facts) if self.config.named else None
        return self._memory

    def memory_of(self, features: Features) -> KnowledgeMemory:
        """The memory of some triples, the null one behind them; gradients flow to the adapters."""
        device, count, null = self.backbone.device, len(features), self._null is not None
        shift = math.log(self.config.scale_triples / count) if self.config.scale_triples else 0.0
        whole = self.with_null(features)
        rise = self.config.null_growth * math.log(count / USUAL) + self.config.null_shift
        layers = {
            i: own.layer(whole, shift, device, null, rise) for i, own in self.adapters.items()
        }
        return KnowledgeMemory(
            layers, whole.owner.to(device), self.config.top_k, int(null), anchor=self.config.anchor
        )

    def with_null(self, features: Features) -> Features:
        """The triples and, where there is one, the triple without key."""
        return features if self._null is None else Features.joined([features, self._null])

    # ---- what is known of triples and answers

    def fact(self, id: str) -> Fact | None:
        """See `Knowledge`."""
        return self.store.facts.get(id)

    def attention(self) -> Attention | None:
        """See `Knowledge`."""
        return None if self._recorder is None else self._recorder.attention()

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """With `start="aligned"` sets the adapters in closed form, from questions about triples."""
        if self.config.start != "aligned" or len(documents) < LEAST_ALIGNED:
            return
        facts = [fact_of(document) for document in documents]
        asked = [
            f"What is {key_text(entity, property)}?" if entity else value
            for entity, property, value in facts
        ]
        answers = [value for _, _, value in facts]
        features = self.encoder.encode(facts)
        if self.books is not None and len(facts) >= WORDS:
            self.books.fit(features.keys)
        align(self.backbone, self.adapters, features, asked, answers, range(len(facts)))

    def loss(self, batch: Batch) -> Loss:
        """Mean answer loss per token, and with `attention_weight` the loss on attention."""
        features = batch.features if isinstance(batch, KnowledgeBatch) else None
        if features is None:
            features = self.encoder.encode([fact_of(document) for document in batch.documents])
        memory, weight = self.memory_of(features), self.config.attention_weight
        whole = self.with_null(features)
        return knowledge_loss(self.backbone, self.reading(), memory, whole, batch, weight)
