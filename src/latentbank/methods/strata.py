"""Strata: documents kept as text or as pooled mid-layer states, read by the upper layers.

This package's own method; docs/methods/strata.md explains it. BM25 retrieves the document. Its
states at layer `inject_from` enter the backbone there, and the layers above read them natively. A
cache with a byte limit keeps the keys and values of documents that were read lately.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latentbank.backbone.encoder import BackboneEncoder
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import COMPLETION, PLAIN, chat_template, passage_ids
from latentbank.backbone.transports import Conditioning, KVPrefix
from latentbank.bank import Entry, MemoryBank
from latentbank.bank.ladder import VERBATIM
from latentbank.capabilities import (
    Candidates,
    Encoding,
    Fading,
    Trained,
    WordIndexed,
    fade_of,
)
from latentbank.config import require_at_least, require_share, setting
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError, unknown
from latentbank.method import (
    CALLS_ADD_UP,
    EMPTY_IS_PLAIN,
    EXACT_DELETE,
    NAMES_SOURCES,
    WriteReport,
    register,
)
from latentbank.parts.answer_loss import packed_states_loss, split_answer_loss
from latentbank.parts.batch import Batch, Loss
from latentbank.parts.low_rank import NO_LORA, LoraSettings
from latentbank.parts.pooled_entries import PooledEntries
from latentbank.parts.pooling import SegmentPooler, Standardiser
from latentbank.parts.retrieval.candidates import Candidate, shares
from latentbank.parts.retrieval.dense import DenseSelector
from latentbank.parts.retrieval.retriever import FLAT_NAMES, RetrievalConfig, Retriever
from latentbank.parts.retrieval.versions import content
from latentbank.parts.state_reader import StateReader
from latentbank.parts.text_levels import LM, SLOW, TEXTS, WHOLE, TextLevels

_SEED = 0x5712A7A


@dataclass(frozen=True)
class StrataConfig:
    """What Strata stores, how it reads and how it is trained."""

    inject_from: int = setting(12, "Layer whose states are kept and read; the layers above read.")
    entry: str = setting(
        VERBATIM,
        "What an entry holds: `verbatim` (zstd), `packed` (by token counts: fewer bytes), `lm` (by "
        "the backbone's predictions: the fewest, seconds to decode) or `pooled` (states).",
    )
    lm: bool = setting(False, "Whether fading texts are coded by predictions too.")
    shorten: bool = setting(True, "Whether a full bank shortens texts before it forgets them.")
    segments: int = setting(48, "Vectors of a pooled entry.")
    read: str = setting("states", "Read texts as `states` or as `text` in the prompt.")
    prompt: str = setting(
        "plain", "`plain` as adapters are trained, or `chat`: the model's own format, untrained."
    )
    retrieval: RetrievalConfig = RetrievalConfig()
    memory_aware: float = setting(0.0, "α of CMT's decoding: (1 + α)·memory − α·no memory.")
    key_width: int = setting(128, "Bytes of the dense key of a pooled entry.")
    hot_bytes: int = setting(256 << 20, "Limit of the cache of keys and values of documents read.")
    train_segments: tuple[int, ...] = setting((48, 16), "Pooled sizes that training draws from.")
    all_share: float = setting(0.4, "Share of training steps on all states of a document.")
    closed_share: float = setting(0.0, "Share of training questions asked without memory.")
    selector_weight: float = setting(0.2, "Weight of the dense keys' contrastive loss.")
    chunk_tokens: int = setting(512, "Tokens of the longest text in one entry.")
    lora: LoraSettings = LoraSettings(rank=16, alpha=32, layer=12)
    closed_lora: LoraSettings = NO_LORA

    ALIASES: ClassVar[Mapping[str, str]] = {**FLAT_NAMES, "read_documents": "retrieval.together"}

    def __post_init__(self) -> None:
        if self.entry not in (*WHOLE, "pooled"):
            raise unknown("strata entry", self.entry, [*WHOLE, "pooled"])
        if self.read not in ("states", "text"):
            raise unknown("strata read", self.read, ["states", "text"])
        if self.read == "text" and self.entry not in WHOLE:
            raise InputError("read='text' needs entry='verbatim': pooled entries hold no text")
        if self.prompt not in ("plain", "chat"):
            raise unknown("strata prompt", self.prompt, ["plain", "chat"])
        if self.prompt == "chat" and (self.inject_from or self.entry not in WHOLE):
            raise InputError(
                "prompt='chat' reads whole texts from layer 0 (inject_from=0, entry='verbatim'); "
                f"got inject_from={self.inject_from}, entry='{self.entry}'. Pooled entries and "
                "upper layers need a trained adapter."
            )
        require_at_least(self, 1, "segments")
        require_share(self, "all_share", "closed_share")
        require_at_least(self, 0, "memory_aware")


@register("strata")
class Strata(Trained, Encoding, Fading, Candidates, WordIndexed):
    """A bounded memory whose entries are texts or pooled states; one adapter reads both."""

    Config = StrataConfig
    text_levels, slow_levels = TEXTS, SLOW
    write_batch = 128  # texts are coded side by side
    without_training: ClassVar[Mapping[str, Any]] = {
        "inject_from": 0,
        "prompt": "chat",
        "lora": {"rank": 0, "layer": 0},
        "retrieval": {"candidates": 1},
    }
    claims = frozenset({EXACT_DELETE, EMPTY_IS_PLAIN, CALLS_ADD_UP, NAMES_SOURCES})
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
        backbone.geometry.require_layer(config.inject_from, "inject_from")
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
        self.question_gain = config.retrieval.question_gain
        self.template = PLAIN
        if config.prompt == "chat":
            self.template = chat_template(backbone) or COMPLETION
        self.encoder = BackboneEncoder(backbone, config.inject_from)
        self.texts = TextLevels(backbone, config.lm or config.entry == LM, config.shorten)
        self.pooled = PooledEntries(self.standard_states, self.pooler, self.selector, width)
        self.reader = StateReader(backbone, config.inject_from, self.lora, config.hot_bytes)
        self.retriever = Retriever(
            config.retrieval,
            self._content,
            self._age,
            lambda ids: self.texts.stored(self.require_bank().get_all(ids)),
            config.key_width,
            self._question_keys,
        )

    # ---- writing

    @property
    def level(self) -> str:
        """The level of new entries."""
        texts = self.config.entry in WHOLE
        return self.config.entry if texts else f"pooled{self.config.segments}"

    @property
    def lossless(self) -> tuple[str, ...]:
        """The text levels whose next step loses nothing; none for pooled entries."""
        return self.texts.lossless if self.config.entry in WHOLE else ()

    def fade(self, entry: Entry) -> Entry | None:
        """The text one level down; None for a pooled entry and below the last level."""
        return self.fade_all([entry])[0]

    def fade_all(self, entries: Sequence[Entry]) -> list[Entry | None]:
        """As `fade`, for many entries at once."""
        try:
            return self.texts.fade_all(entries)
        except BankError:  # what cannot be read makes room first
            return [self.fade(one) for one in entries] if len(entries) > 1 else [None]

    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank` and indexes its entries."""
        self.bank = bank
        self.reader.hot.clear()
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
        """Adds entries to retrieval: texts by their words, states by sketches and keys."""
        texts = [entry for entry in entries if entry.level in TEXTS]
        readable, damaged = self.texts.decode_readable(texts)
        self.retriever.add_texts([entry.id for entry, _ in readable], [t for _, t in readable])
        for entry in entries:
            if entry.level not in TEXTS:
                try:
                    sketch, _ = self.pooled.decode(entry, self.config.key_width)
                    self.retriever.add_keys([entry.id], [sketch], [entry.key])
                except BankError as error:
                    damaged[entry.id] = str(error)
        self.unreadable |= damaged

    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Stores and indexes new documents; a full bank fades the least valuable ones."""
        began, bank = time.perf_counter(), self.require_bank()
        new = list({d.id: d for d in documents if d.id not in bank}.values())
        stored = self._entries(new)
        known = {entry.id: entry for entry in stored}
        again = [d.id for d in documents if d.id not in known]
        repeated = [known[d.id] for d in documents if d.id in known]
        report = bank.append(repeated, fade=fade_of(self), again=again)
        if not self.retriever.stored:
            self._index([replace(entry, id=report.stored_id(entry.id)) for entry in stored])
        self._unindex([*report.forgotten, *report.faded])
        if not self.catch_up():
            self._index([entry for id in report.faded if (entry := bank.get(id)) is not None])
            if self.keeps_account(bank):
                self.bind(bank)  # it has become large
        return self.finished(report, documents, began)

    def _unindex(self, ids: Sequence[str]) -> None:
        """Takes documents out of everything that is remembered of them."""
        self.retriever.remove(ids)
        self.reader.hot.drop(ids)
        for id in ids:
            self.unreadable.pop(id, None)

    def _entries(self, documents: Sequence[Document]) -> list[Entry]:
        if self.config.entry in WHOLE:
            payloads = self.texts.encode([d.text for d in documents], self.level)
            return [
                Entry.of(d, self.level, payload)
                for d, payload in zip(documents, payloads, strict=True)
            ]
        return self.pooled.encode(documents, self.level, self.config.segments)

    def standard_states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(standardised states [B, T, D], mask [B, T]) without the start token."""
        states, mask = self.features(texts)
        return self.standard(states[:, 1:]), mask[:, 1:]

    # ---- reading

    def reading(self) -> Conditioning:
        """Low-rank weights, and what stands around a passage."""
        return replace(super().reading(), template=self.template)

    def closed_book(self) -> Conditioning:
        """The same for an answer without memory."""
        return replace(super().closed_book(), template=self.template)

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """Brings the chosen documents in, as states of a middle layer or as text."""
        chosen, support = self.retriever.choose(questions, documents)
        if not any(chosen):
            return self.nothing_read(support)
        reading = self.reading()
        sources = tuple(shares(row) for row in chosen)
        chat = self.config.prompt == "chat"
        if self.config.read == "text" or (chat and max(map(len, chosen)) > 1):
            passages = tuple("\n\n".join(self.text(d) for d, _ in row) for row in chosen)
            return replace(reading, passages=passages, sources=sources, support=support)
        memory = self.reader.memory([[d for d, _ in row] for row in chosen], self._states)
        if memory is not None:
            reading = replace(reading, transports=(*reading.transports, KVPrefix(memory)))
        known, get = self.texts.known_as_read, self.require_bank().get
        quotable = tuple(" ".join(known(get(d)) for d, _ in row) for row in chosen)
        return replace(
            reading,
            sources=sources,
            contrast=self.config.memory_aware,
            support=support,
            quotable=quotable,
            begun=chat and memory is not None,
        )

    def candidates(self, questions: Sequence[str]) -> list[list[Candidate]] | None:
        """The documents that compete for each question; see `Retriever.candidates`."""
        gone = self.require_bank().gone_share
        return self.retriever.candidates(questions, self.closed_lora is not None, gone)

    @torch.no_grad()
    def _question_keys(self, questions: Sequence[str]) -> Tensor:
        """Unit keys [B, key_width] of questions."""
        return self.selector.questions(*self.standard_states(questions))

    def _age(self, id: str) -> tuple[str, int]:
        return self.require_bank().age(id)

    def _content(self, id: str) -> frozenset[Hashable]:
        """The words of a text, or the hashes in the sketch of a pooled entry."""
        entry = self.require_bank().get(id)
        if entry is None:
            return frozenset()
        if entry.level in TEXTS:
            return content(self.texts.decode([entry])[0])
        return self.pooled.content(entry)

    def text(self, id: str) -> str:
        """The text of an entry as the model reads it; empty for states and for one that is gone."""
        entry = self.require_bank().get(id)
        return self.texts.as_read(entry if entry and entry.level in TEXTS else None)

    def _states(self, id: str) -> Tensor | None:
        """States [M, D] of a document, in the backbone's units; the start token's comes first."""
        entry = self.require_bank().get(id)
        if entry is None:
            return None
        if entry.level in TEXTS:
            text = self.texts.as_read(entry)
            ids, mask = self.backbone.pad(passage_ids(self.backbone, [text], self.template))
            return self.backbone.states(ids, mask, self.config.inject_from)[0].float().cpu()
        pooled = self.standard.restore(self.pooled.decode(entry, self.config.key_width)[1])
        return torch.cat([self.backbone.start_state(self.config.inject_from), pooled])

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """Measures the standardiser."""
        states, mask = self.features([d.text for d in documents[:64]])
        self.standard.measure(states[:, 1:], mask[:, 1:])

    def training_state(self) -> dict[str, Tensor]:
        """The queue of negatives of the dense keys' loss."""
        return {} if self.selector.queue is None else {"queue": self.selector.queue}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `training_state` gave."""
        if "queue" in state:
            self.selector.queue = state["queue"]

    @property
    def trained_from(self) -> int | None:
        """`inject_from`; None where low-rank weights begin below it."""
        weights = [one for one in (self.lora, self.closed_lora) if one is not None]
        first = self.config.inject_from
        return first if all(one.layer >= first for one in weights) else None

    def _answer_loss(
        self, batch: Batch, states: Tensor, mask: Tensor, without: npt.NDArray[np.bool_]
    ) -> Tensor:
        """Answer loss, read from states [documents, M, D] with mask [documents, M].

        The questions where `without` [Q] holds are asked closed book.
        """
        if self.packed is not None:
            weights = self.lora, self.closed_lora
            return packed_states_loss(self.packed, batch, without, *weights, states, mask)
        with self.reading().attach(self.backbone):
            memory = self.backbone.fill(states, mask, self.config.inject_from)
        return split_answer_loss(
            self.backbone, batch, memory, without, self.reading(), self.closed_book()
        )

    def loss(self, batch: Batch) -> Loss:
        """Answer loss plus the contrastive loss of the dense keys.

        A step reads all states of its documents, or pooled ones of a random size.
        """
        self.reader.hot.clear()
        states, mask = self.features([d.text for d in batch.documents])
        standard = self.standard(states[:, 1:])
        matching = self.pooled.matching(batch, standard, mask[:, 1:])
        draw = np.random.default_rng([_SEED, batch.step])
        if draw.random() >= self.config.all_share:
            count = int(draw.choice(self.config.train_segments))
            pooled, kept = self.pooler(standard, mask[:, 1:], count)
            states = torch.cat([states[:, :1], self.standard.restore(pooled)], 1)
            mask = torch.cat([mask[:, :1], kept], 1)
            label = f"pooled{count}"
        else:
            label = "all"
        without = draw.random(len(batch.owner)) < self.config.closed_share
        answer = self._answer_loss(batch, states, mask, without)
        parts = {f"answer_{label}": answer.item(), "selector": matching.item()}
        return Loss(answer + self.config.selector_weight * matching, parts)
