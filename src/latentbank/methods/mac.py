"""MAC: Online Adaptation of Language Models with a Memory of Amortized Contexts.

Tack, Kim, Mitchell, Shin, Teh, Schwarz, 2024, https://arxiv.org/abs/2403.04317. A document becomes
T latents. The bank keeps all latents as float32. A question aggregates them into a few memory
tokens, which the backbone reads.

Two things differ from the paper. Padding is masked. The default amortiser is a Perceiver resampler
over the backbone's own states; `amortiser="t5"` is the paper's. Four settings are improvements:
`start="copy"` and `transport="states"` (see `copy_start` and `alignment` in parts/amortised),
`matching_weight` and `lora`. The presets with the names of the paper's backbones switch all off.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentbank.backbone.encoder import BackboneEncoder
from latentbank.backbone.model import Backbone
from latentbank.backbone.packed import AnswerStates, PackedAnswers
from latentbank.backbone.processor import flushed_denormals
from latentbank.backbone.transports import Conditioning, KVPrefix, MidStates, Sources
from latentbank.bank import Entry, MemoryBank
from latentbank.capabilities import Encoding, Incremental, Trained, forget
from latentbank.codec import array_codec
from latentbank.config import require_at_least, setting
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError, unknown
from latentbank.method import CALLS_ADD_UP, EXACT_DELETE, NAMES_SOURCES, WriteReport, register
from latentbank.parts.amortised.alignment import as_prefix, as_states
from latentbank.parts.amortised.networks import build_networks, paper_presets
from latentbank.parts.amortised.slots import Slots, top_sources
from latentbank.parts.amortised.training import own_slots, partly_learned
from latentbank.parts.batch import Batch, Loss, mean_answer_loss
from latentbank.parts.low_rank import NO_LORA, LoraSettings

LEVEL = "float32"


@dataclass(frozen=True)
class MacConfig:
    """How documents are amortised, aggregated and read."""

    latents: int = setting(12, "T, latents of one document.")
    amortiser: str = setting("perceiver", "`perceiver` over the backbone's states, or `t5`.")
    t5: str = setting("t5-small", "T5 of `amortiser=t5` for documents: a folder or a hub id.")
    question_t5: str = setting("", "T5 for questions; empty: the documents' kind, a second one.")
    encoder_layer: int = setting(0, "Layer whose states the perceiver reads.")
    inner: int = setting(288, "Width of the cross-attention.")
    heads: int = setting(6, "Heads of the cross-attention.")
    blocks: int = setting(4, "Cross-attention blocks of the aggregator.")
    start: str = setting("random", "`random`, or `copy`: attention starts as a similarity.")
    head_hidden: int = setting(64, "Width of the latents' own MLPs.")
    transport: str = setting("prefix", "`prefix` (keys and values) or `states` of a middle layer.")
    virtual: int = setting(2, "Prefix tokens for each layer.")
    inject_from: int = setting(0, "First layer that sees the memory.")
    gradient_share: float = setting(1.0, "Share of a step's documents that get gradients.")
    window: int = setting(0, "Slots that are aggregated at a time; 0 takes all.")
    matching_weight: float = setting(
        0.0, "Weight of the term that draws attention to a question's own document."
    )
    chunk_tokens: int = setting(512, "Tokens of the longest text in one entry.")
    lora: LoraSettings = NO_LORA

    def __post_init__(self) -> None:
        if self.amortiser not in ("perceiver", "t5"):
            raise unknown("amortiser", self.amortiser, ["perceiver", "t5"])
        if self.transport not in ("prefix", "states"):
            raise unknown("transport", self.transport, ["prefix", "states"])
        if self.start not in ("random", "copy"):
            raise unknown("start", self.start, ["random", "copy"])
        if self.start == "copy" and self.amortiser != "perceiver":
            raise InputError("start='copy' needs amortiser='perceiver'")
        if self.start == "copy" and (self.heads != 1 or self.inner <= self.latents):
            raise InputError("start='copy' needs one head and an inner width above the latents")
        if not 0 < self.gradient_share <= 1:
            raise InputError(f"gradient_share must lie in (0, 1], got {self.gradient_share}")
        require_at_least(self, 1, "latents")
        if self.window and self.window < 2 * self.latents:
            raise InputError(
                f"window must be 0 or at least {2 * self.latents} slots (two times the "
                f"latents), got {self.window}"
            )


@register("mac")
class Mac(Trained, Encoding, Incremental):
    """Memory of amortised contexts."""

    Config: ClassVar[type[Any]] = MacConfig
    claims = frozenset({EXACT_DELETE, CALLS_ADD_UP, NAMES_SOURCES})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **paper_presets(),
        "smollm2-135m": {
            "encoder_layer": 12,
            "inject_from": 12,
            "transport": "states",
            "latents": 16,
            "heads": 1,
            "head_hidden": 48,
            "start": "copy",
            "matching_weight": 0.3,
            "lora": {"rank": 16, "layer": 12},
        },
        "tiny": {"latents": 3, "encoder_layer": 1, "inner": 16, "heads": 2, "blocks": 2},
    }

    def __init__(self, config: Any, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        geometry = backbone.geometry
        for field in ("encoder_layer", "inject_from"):
            geometry.require_layer(getattr(config, field), field)
        networks = build_networks(config, geometry)
        self.copy, self.standard = networks.copy, networks.standard
        self.aggregator, self.t5_texts = networks.aggregator, networks.t5_texts
        self.network = networks.modules.to(backbone.device)
        self.lora = config.lora.build(backbone)
        self.encoder = BackboneEncoder(backbone, config.encoder_layer)
        self.slots = Slots.empty(geometry.width)
        self._ids: list[str] = []
        self._projected: list[tuple[Tensor, Tensor]] | None = None

    # ---- writing

    @property
    def level(self) -> str:
        """The level of this method's entries."""
        return LEVEL

    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank` and decodes its entries into slots."""
        self.bank = bank
        self.unreadable = {}
        entries = self._readable(bank.entries())
        self._ids = [entry.id for entry in entries]
        parts = [self._decode_payload(entry.payload) for entry in entries]
        latents = torch.cat(parts) if parts else torch.zeros(0, self.backbone.geometry.width)
        self.slots = Slots.of(latents, self._owner(len(parts)))
        self._projected = None

    def _owner(self, documents: int, first: int = 0) -> Tensor:
        """The owner [N·T] of each slot of N documents, numbered from `first`."""
        return torch.arange(first, first + documents).repeat_interleave(self.config.latents)

    def _decode_payload(self, payload: bytes) -> Tensor:
        """Latents [T, D] of one entry. Raises BankError if the bytes are not such latents."""
        latents = array_codec(LEVEL).decode(payload, self.backbone.geometry.width)
        if len(latents) != self.config.latents:
            raise BankError(
                f"an entry of the bank has {len(latents)} latents, expected {self.config.latents}"
            )
        return torch.from_numpy(latents)

    def _encode_payloads(self, latents: Tensor) -> list[bytes]:
        """Bytes of latents [B, T, D]."""
        return [row.tobytes() for row in latents.float().cpu().numpy()]

    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Amortises new documents and stores them; a full bank forgets the least valuable."""
        began, bank = time.perf_counter(), self.require_bank()
        new = list({d.id: d for d in documents if d.id not in bank}.values())
        latents = self.amortise_all([d.text for d in new])
        payloads = dict(zip((d.id for d in new), self._encode_payloads(latents), strict=True))
        entries = [Entry.of(d, self.level, payloads[d.id]) for d in documents if d.id in payloads]
        again = [d.id for d in documents if d.id not in payloads]
        report = bank.append(entries, blobs=self._blobs(), fade=forget, again=again)
        self._remember([report.stored_id(d.id) for d in new], [payloads[d.id] for d in new])
        self._forget(report.forgotten)
        return self.finished(report, documents, began)

    def take(self, gone: Sequence[str], entries: Sequence[Entry]) -> None:
        """Takes in what others deleted and wrote."""
        for id in gone:
            self.unreadable.pop(id, None)
        self._forget([*gone, *(entry.id for entry in entries)])
        readable = self._readable(entries)
        self._remember([entry.id for entry in readable], [entry.payload for entry in readable])

    def _readable(self, entries: Iterable[Entry]) -> list[Entry]:
        """The entries that can be decoded; the others are named in `unreadable`."""
        kept = []
        for entry in entries:
            try:
                self._decode_payload(entry.payload)
                self.unreadable.pop(entry.id, None)
                kept.append(entry)
            except BankError as error:
                self.unreadable[entry.id] = str(error)
        return kept

    def _blobs(self) -> dict[str, bytes]:
        """Blobs to store in the transaction of new entries; MAC has none."""
        return {}

    def _remember(self, ids: Sequence[str], payloads: Sequence[bytes]) -> None:
        """Adds new documents to the working state."""
        if not ids:
            return
        owner = self._owner(len(ids), len(self._ids))
        self._ids.extend(ids)
        latents = torch.cat([self._decode_payload(p) for p in payloads])
        self.slots = Slots.append([self.slots, Slots.of(latents, owner)])
        self._projected = None

    def _forget(self, ids: Sequence[str]) -> None:
        """Drops documents that left the bank from the working state."""
        if ids:
            kept = self._keep(ids)
            self.slots = Slots.of(self.slots.values[kept], self._owner(len(self._ids)))
            self._projected = None

    def _keep(self, gone: Sequence[str]) -> Tensor:
        """Drops the ids `gone`. Returns a mask [N·T] bool of the slots that stay."""
        lost = set(gone)
        kept = torch.tensor([id not in lost for id in self._ids], dtype=torch.bool)
        self._ids = [id for id in self._ids if id not in lost]
        return kept.repeat_interleave(self.config.latents)

    # ---- networks

    def amortise(self, texts: Sequence[str], side: str = "documents") -> Tensor:
        """Latents [B, T, D] of texts, by the `documents` or the `questions` network."""
        network = self.network[side]
        latents: Tensor
        if self.t5_texts:
            latents = network(*self.t5_texts[side].encode(texts, self.backbone.device))
            return latents
        states, mask = self.features(texts)
        states, mask = self.standard(states[:, 1:]), mask[:, 1:]
        base = None
        if self.copy is not None and side == "documents":
            base = self.copy.base(states, mask)
        latents = network(states, mask, base)
        return latents

    @torch.no_grad()
    def amortise_all(
        self, texts: Sequence[str], batch: int = 16, side: str = "documents"
    ) -> Tensor:
        """Latents [B, T, D] on the CPU without gradients; runs texts of like length together."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        latents = torch.zeros(len(texts), self.config.latents, self.backbone.geometry.width)
        for at in range(0, len(order), batch):
            part = order[at : at + batch]
            latents[part] = self.amortise([texts[i] for i in part], side).float().cpu()
        return latents

    def memory_tokens(self, question: Tensor) -> Tensor:
        """ψ(question latents [B, T, D], the bank's slots) → [B, T, D]."""
        aggregator, slots = self.aggregator, self.slots
        if 0 < self.config.window < len(slots):
            values, mass = slots.values.to(question.device), slots.log_mass.to(question.device)
            tokens: Tensor = aggregator(question, values, mass, self.config.window)
            return self._read_out(tokens, question)
        if self._projected is None:
            self._projected = aggregator.project(slots.values[None].to(question.device))
        tokens = aggregator.attend(question, self._projected, slots.bias(question.device))
        return self._read_out(tokens, question)

    def _read_out(self, tokens: Tensor, question: Tensor) -> Tensor:
        return tokens if self.copy is None else self.copy.read_out(tokens, question)

    def condition(self, tokens: Tensor) -> KVPrefix | MidStates:
        """The transport that brings memory tokens [B, T, D] into the backbone."""
        aligned, layer = self.network["align"](tokens), self.config.inject_from
        if self.config.transport == "states":
            return as_states(aligned, layer, self.backbone, self.standard)
        return as_prefix(aligned, layer, self.backbone)

    # ---- reading

    @property
    def holds_documents(self) -> bool:
        """Whether there is something to read."""
        return len(self.slots) > 0

    @torch.no_grad()
    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """Aggregates the bank for each question; the tokens enter at `inject_from`."""
        if not self.holds_documents:
            return self.reading()
        with flushed_denormals():
            asked = self.amortise(questions, "questions")
            tokens, sources = self.memory_tokens(asked), self.sources(asked)
        return Conditioning((*self.reading().transports, self.condition(tokens)), None, sources)

    def sources(self, question: Tensor) -> Sources:
        """The documents that each question [B, T, D] attends to, as (id, share of attention).

        The attention is that of the aggregator's first block. See `top_sources`.
        """
        if not self._ids:
            return ()
        finder, device = self.aggregator.finder, question.device
        if self._projected is not None:
            keys = self._projected[0][0]
        else:
            keys = finder.project(self.slots.values[None].to(device))[0]
        shares = finder.owner_shares(
            question, keys, self.slots.bias(device), self.slots.owner, len(self._ids)
        )
        return top_sources(shares, [self._ids] * len(shares))

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """Measures the standardiser and, with `start="copy"`, sets the aggregator's start."""
        if self.config.amortiser != "perceiver":
            return
        states, mask = self.features([d.text for d in documents[:64]])
        self.standard.measure(states[:, 1:], mask[:, 1:])
        if self.copy is not None and questions:
            stored = self.amortise_all([d.text for d in documents])
            asked = self.amortise_all(questions, side="questions")
            codes = self.network["documents"].get_parameter("queries")
            self.copy.compare(self.aggregator, asked, stored, codes)

    def _document_latents(self, batch: Batch) -> Tensor:
        """Latents [documents, T, D] with back-propagation dropout.

        Only a random share of the documents gets gradients (MAC, section 3.3).
        """
        texts = [d.text for d in batch.documents]
        return partly_learned(self.amortise, texts, self.config.gradient_share, batch.step)

    def compress(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
        """(latents [N, D] as the bank will hold them, extra loss, log parts); MAC changes none."""
        return latents, latents.new_zeros(()), {}

    def _answer_loss(self, batch: Batch, tokens: Tensor) -> Tensor:
        """Loss of the answers, read from memory tokens [Q, T, D]."""
        transport = self.condition(tokens)
        if self.packed is not None and isinstance(transport, MidStates):
            return self.packed_terms(self.packed, batch, transport.states)
        with Conditioning((*self.reading().transports, transport)).attach(self.backbone):
            return self.answer_terms(batch)

    @property
    def trained_from(self) -> int | None:
        """`inject_from` where the memory enters as states; None where packing is not possible."""
        first = int(self.config.inject_from)
        early = self.lora is not None and self.lora.layer < first
        return None if early or self.config.transport != "states" else first

    def packed_terms(self, packed: PackedAnswers, batch: Batch, states: Tensor) -> Tensor:
        """`answer_terms` by packed layers, from each question's memory states [Q, M, D]."""
        return packed.losses(self.packed_read(packed, batch, states)).mean()

    def packed_read(
        self, packed: PackedAnswers, batch: Batch, states: Tensor | None
    ) -> AnswerStates:
        """Final states of the questions, read with memory states [Q, M, D] or with none."""
        memories = [] if states is None else list(states)
        owner = range(len(memories)) if memories else [-1] * len(batch.questions)
        return packed.from_states(self.lora, batch.questions, batch.answers, memories, owner)

    def answer_terms(self, batch: Batch) -> Tensor:
        """Mean answer loss per token under what is attached to the backbone; a scalar."""
        return mean_answer_loss(self.backbone, batch)

    def loss(self, batch: Batch) -> Loss:
        """Answer loss, plus the terms of `compress` and of `matching_terms`."""
        latents = self._document_latents(batch)
        question = self.amortise(batch.questions, "questions")
        kept, extra, parts = self.compress(latents.flatten(0, 1))
        answer = self._answer_loss(batch, self.training_tokens(question, kept))
        matching, more = self.matching_terms(batch, question, kept)
        return Loss(answer + extra + matching, {"answer": answer.item(), **parts, **more})

    def training_tokens(self, question: Tensor, kept: Tensor) -> Tensor:
        """Memory tokens [Q, T, D] of a step's questions from its slots [documents · T, D]."""
        return self._read_out(self.aggregator(question, kept, None, self.config.window), question)

    def matching_terms(
        self, batch: Batch, question: Tensor, kept: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """(loss that draws attention to a question's own document, log parts).

        The loss is 0 without `matching_weight`.
        """
        if self.config.matching_weight == 0:
            return question.new_zeros(()), {}
        own = own_slots(batch, self.config.latents, self.copy is not None)
        shares = self.aggregator.shares(question, kept, None, own.to(question.device))
        matching = -shares.clamp_min(1e-6).log().mean()
        parts = {"matching": matching.item(), "share": float(shares.detach().mean())}
        return self.config.matching_weight * matching, parts
