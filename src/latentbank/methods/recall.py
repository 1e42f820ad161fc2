"""Recall: coarse writing, refined when a question comes near.

Cai et al., 2024, "Ubiquitous memory augmentation via mobile multimodal embedding system". Before a
text is encoded, the layer at which its encoding may stop is predicted, so that texts with one exit
are encoded together. The bank keeps a coarse key of that layer. A question re-encodes the coarse
texts near it to full depth, ranks them again, and their better keys stay in the bank.

What differs from the paper: texts only; early vectors are healed by one linear map for each exit
(ridge regression in closed form) where the paper trains low-rank weights progressively; the exit is
predicted from a text's mean embedding and length, where the paper has superficial layers; refined
keys have the size of coarse ones, so they always fit. Texts are read in the prompt, as by `rag`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from latentbank.backbone.model import Backbone
from latentbank.bank import Entry, MemoryBank
from latentbank.capabilities import Telemetry, forget
from latentbank.config import require_at_least, require_share, setting
from latentbank.documents.document import Document
from latentbank.errors import BankError, unknown
from latentbank.method import WriteReport, register
from latentbank.methods.rag import Rag, RagConfig
from latentbank.parts.early_exit.encoders import exit_encoder
from latentbank.parts.early_exit.exits import Exits
from latentbank.parts.early_exit.retriever import CoarseRetriever
from latentbank.parts.retrieval.candidates import Candidate
from latentbank.parts.retrieval.dense import DenseKeys
from latentbank.parts.retrieval.retriever import RetrievalConfig
from latentbank.parts.retrieval.versions import content

_BACKGROUND = 4096  # documents that the exits are fitted on


@dataclass(frozen=True)
class RecallConfig(RagConfig):
    """`rag`'s fields, and how texts are encoded."""

    encoder: str = setting("minilm", "`minilm`, `backbone`, or the folder of a BERT-like encoder.")
    exits: tuple[int, ...] = setting((1, 2, 3, 6), "Layers that may be stopped after, rising.")
    depth: str = setting(
        "predicted", "Layers when writing: `predicted` for each text, `full`, or one of the exits."
    )
    similarity: float = setting(
        0.5, "Expected cosine with the full vector at which encoding may stop."
    )
    refine: int = setting(32, "Nearest coarse texts that a question re-encodes; 0: none.")
    tokens: int = setting(256, "Tokens of a text that are encoded.")
    retrieval: RetrievalConfig = RetrievalConfig(candidates=1, rerank=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 0, "refine")
        require_at_least(self, 8, "tokens")
        require_share(self, "similarity")
        known = ["predicted", "full", *map(str, self.exits)]
        if self.depth not in known:
            raise unknown("recall depth", self.depth, known)


@register("recall")
class Recall(Rag, Telemetry):
    """Texts with coarse keys; those that a question comes near get better ones."""

    Config: ClassVar[type[Any]] = RecallConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smollm2-135m": {"lora": {"rank": 16, "layer": 12}},
        "tiny": {
            "encoder": "backbone",
            "exits": (1, 2),
            "retrieval": {"least_match": 0.0},
            "lora": {"rank": 4, "layer": 1},
        },
    }

    def __init__(self, config: RecallConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.exit_encoder = exit_encoder(config.encoder, backbone, config.tokens)
        for layer in config.exits:
            if layer > self.exit_encoder.layers:
                raise unknown("exit", str(layer), map(str, range(1, self.exit_encoder.layers + 1)))
        self.exits = Exits(config.exits, self.exit_encoder.width)
        self.network["exits"] = self.exits
        self.retriever: CoarseRetriever = CoarseRetriever(
            config.retrieval,
            words_of=lambda id: content(self.text(id)),
            age_of=lambda id: self.require_bank().age(id),
            width=self.exit_encoder.width,
            vectors=self._full,
            refined=self._refined,
            reach=config.refine,
        )
        self.spent = {"layers": 0, "texts": 0, "refined": 0}

    # ---- keys

    @property
    def full_depth(self) -> int:
        """The last of the exits."""
        return int(self.exits.layers[-1])

    @torch.no_grad()
    def _full(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, W] of full depth."""
        return self.exits.heal(self.exit_encoder.vectors(texts, self.full_depth), self.full_depth)

    def layers_for(self, texts: Sequence[str]) -> list[int]:
        """After which layer each text's encoding stops."""
        depth = self.config.depth
        if depth == "predicted":
            start = self.exit_encoder.vectors(texts, 0)
            lengths = self.exit_encoder.lengths(texts)
            return self.exits.choose(start, lengths, self.config.similarity)
        return [self.full_depth if depth == "full" else int(depth)] * len(texts)

    @torch.no_grad()
    def coarse_keys(self, texts: Sequence[str]) -> list[bytes]:
        """A byte that names the layer, then W bytes int8, for each text."""
        layers = np.array(self.layers_for(texts), np.int64)
        keys = [b""] * len(texts)
        for layer in sorted(set(layers.tolist())):
            chosen = np.flatnonzero(layers == layer).tolist()
            made = self.exit_encoder.vectors([texts[i] for i in chosen], layer)
            for i, key in zip(chosen, DenseKeys.encode(self.exits.heal(made, layer)), strict=True):
                keys[i] = bytes([layer]) + key
        self.spent["layers"] += int(layers.sum())
        self.spent["texts"] += len(texts)
        return keys

    def _refined(self, ids: Sequence[str]) -> dict[str, bytes]:
        """int8 keys of full depth; they also replace the coarse ones in the bank."""
        texts = {id: text for id in ids if (text := self.text(id))}
        keys = dict(zip(texts, DenseKeys.encode(self._full(list(texts.values()))), strict=True))
        bank, head = self.require_bank(), bytes([self.full_depth])
        if not bank.read_only:
            with suppress(BankError):  # a better key is not worth failing a question
                bank.rekey({id: head + key for id, key in keys.items()})
        self.spent["refined"] += len(keys)
        return keys

    # ---- the bank

    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank` and indexes its keys."""
        self.bank = bank
        self.retriever.clear()
        self.unreadable = {}
        self._index(list(bank.entries()))

    def _index(self, entries: Sequence[Entry]) -> None:
        size = 1 + self.exit_encoder.width
        whole = [entry for entry in entries if len(entry.key) == size]
        self.unreadable |= {
            entry.id: f"A key of {len(entry.key)} bytes is none of this encoder's, it makes {size}."
            for entry in entries
            if len(entry.key) != size
        }
        self.retriever.add_known(
            [entry.id for entry in whole],
            [entry.key[1:] for entry in whole],
            [entry.key[0] != self.full_depth for entry in whole],
        )

    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Encodes new texts as deep as predicted, and stores them with their keys."""
        began, bank = time.perf_counter(), self.require_bank()
        new = list({d.id: d for d in documents if d.id not in bank}.values())
        texts = [d.text for d in new]
        payloads = self.texts.encode(texts, self.config.entry)
        entries = [
            Entry.of(d, self.config.entry, payload, key)
            for d, payload, key in zip(new, payloads, self.coarse_keys(texts), strict=True)
        ]
        known = {entry.id for entry in entries}
        again = [d.id for d in documents if d.id not in known]
        report = bank.append(entries, fade=forget, again=again)
        stored = [bank.get(report.stored_id(entry.id)) for entry in entries]
        self._index([entry for entry in stored if entry is not None])
        self._unindex(report.forgotten)
        return self.finished(report, documents, began)

    def candidates(self, questions: Sequence[str]) -> list[list[Candidate]] | None:
        """See `Retriever.candidates`."""
        gone = self.require_bank().gone_share
        return self.retriever.candidates(questions, self.closed_lora is not None, gone)

    def telemetry(self) -> dict[str, float]:
        """Mean layers when writing, texts refined since the method was made, coarse ones left."""
        texts = max(1, self.spent["texts"])
        return {
            "layers_mean": self.spent["layers"] / texts,
            "keys_refined": float(self.spent["refined"]),
            "keys_coarse": float(len(self.retriever.coarse)),
        }

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """Fits the exits on background documents."""
        self.fit_exits([d.text for d in documents[:_BACKGROUND]])

    def fit_exits(self, texts: Sequence[str]) -> None:
        """Fits the maps and the prediction of exits on texts; does nothing for fewer than 4."""
        if len(texts) < 4:
            return
        start, lengths = self.exit_encoder.vectors(texts, 0), self.exit_encoder.lengths(texts)
        made = {layer: self.exit_encoder.vectors(texts, layer) for layer in self.exits.layers}
        self.exits.fit(start, lengths, made)
