"""MAC: Online Adaptation of Language Models with a Memory of Amortized Contexts.

Tack, Kim, Mitchell, Shin, Teh, Schwarz, 2024, https://arxiv.org/abs/2403.04317. Documents become T
latents each; all latents are kept as float32; a question aggregates them into a few memory tokens.

Differs from the paper: padding is masked; the default amortiser is a Perceiver resampler over the
backbone's own states (`amortiser="t5"` is the paper's); `transport="states"` gives the tokens to
the layers from `inject_from` as residual-stream states instead of a key/value prefix from layer
0; `matching_weight` adds a term that draws the aggregator's attention to the question's own
document; `start="copy"` starts training where attention is already a similarity; `lora` adds
low-rank weights. The paper's own settings are the presets named after its backbones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentbank.backbone.denormals import flushed_denormals
from latentbank.backbone.encoder import BackboneEncoder, T5Texts
from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning, KVPrefix, MidStates
from latentbank.bank import Entry, MemoryBank
from latentbank.codec import array_codec
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError
from latentbank.method import (
    CALLS_ADD_UP,
    EXACT_DELETE,
    Batch,
    Loss,
    Method,
    WriteReport,
    register,
)
from latentbank.parts.aggregator import (
    MEAN_GAIN,
    Aggregator,
    PerceiverAmortiser,
    PrefixAlignment,
    StateAlignment,
)
from latentbank.parts.amortised_settings import MacConfig, paper_presets
from latentbank.parts.amortised_training import learned_share, own_slots
from latentbank.parts.pooling import SegmentPooler, Standardiser
from latentbank.parts.slots import Slots

LEVEL = "float32"
NAMED = 4  # documents that an answer names, of all that it was read from
Sources = tuple[tuple[tuple[str, float], ...], ...]


@register("mac")
class Mac(Method):
    """Memory of amortised contexts."""

    Config: ClassVar[type[Any]] = MacConfig
    claims = frozenset({EXACT_DELETE, CALLS_ADD_UP})
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
        g, width = backbone.geometry, backbone.geometry.width
        for field in ("encoder_layer", "inject_from"):
            if not 0 <= getattr(config, field) < g.layers:
                raise InputError(f"{field} must be below the backbone's {g.layers} layers")
        sizes = (width, width, config.latents, config.inner, config.heads)
        copying = config.start == "copy"
        self.standard = Standardiser(width)
        modules: dict[str, nn.Module] = {"standard": self.standard}
        if config.amortiser == "t5":
            self.t5_texts = T5Texts(config.t5, width, config.latents)
            modules |= {"documents": self.t5_texts.build(), "questions": self.t5_texts.build()}
        else:
            for side in ("documents", "questions"):
                modules[side] = PerceiverAmortiser(
                    *sizes,
                    head_hidden=config.head_hidden,
                    start="mean" if copying else "random",
                )
        self.aggregator = Aggregator(width, config.inner, config.heads, config.blocks, copying)
        modules["aggregator"] = self.aggregator
        if copying:
            modules["pooler"] = SegmentPooler(width)
            codes = modules["documents"].get_parameter("queries")
            modules["questions"].load_state_dict({"queries": codes.data}, strict=False)
            self.aggregator.leave_out(codes.data)
        if config.transport == "states":
            modules["align"] = StateAlignment(width)
        else:
            modules["align"] = PrefixAlignment(
                config.latents,
                width,
                g.layers - config.inject_from,
                g.kv_heads,
                g.head_dim,
                config.virtual,
            )
        self.network = nn.ModuleDict(modules).to(backbone.device)
        self.lora = config.lora.build(backbone)
        self.encoder = BackboneEncoder(backbone, config.encoder_layer)
        self.slots = Slots.empty(width)
        self._projected: list[tuple[Tensor, Tensor]] | None = None

    # ---- writing

    @property
    def level(self) -> str:
        return LEVEL

    def bind(self, bank: MemoryBank) -> None:
        self.bank = bank
        entries = list(bank.entries())
        self._names = [entry.id for entry in entries]
        width = self.backbone.geometry.width
        parts = [self._decode_payload(entry.payload) for entry in entries]
        latents = torch.cat(parts) if parts else torch.zeros(0, width)
        owner = torch.arange(len(parts)).repeat_interleave(self.config.latents)
        self.slots = Slots.of(latents, owner)
        self._projected = None

    def _decode_payload(self, payload: bytes) -> Tensor:
        """Latents [T, D] of one entry. Raises BankError if the bytes are not such latents."""
        found = array_codec(LEVEL).decode(payload, self.backbone.geometry.width)
        if len(found) != self.config.latents:
            raise BankError(
                f"an entry of the bank has {len(found)} latents, expected {self.config.latents}"
            )
        return torch.from_numpy(found)

    def _encode_payloads(self, latents: Tensor) -> list[bytes]:
        """Bytes of latents [B, T, D]."""
        return [row.tobytes() for row in latents.float().cpu().numpy()]

    def write(self, documents: Sequence[Document]) -> WriteReport:
        began, bank = time.perf_counter(), self.require_bank()
        new = list({d.id: d for d in documents if d.id not in bank}.values())
        latents = self.amortise_all([d.text for d in new])
        payloads = dict(zip((d.id for d in new), self._encode_payloads(latents), strict=True))
        entries = [
            Entry(d.id, self.level, payloads.get(d.id, b""), d.time, d.source, d.metadata)
            for d in documents
        ]
        report = bank.append(entries, blobs=self._blobs(), fade=self.fade)
        self._remember([report.stored_id(d.id) for d in new], [payloads[d.id] for d in new])
        self._forget(report.forgotten)
        return WriteReport.of(report, time.perf_counter() - began)

    def _blobs(self) -> dict[str, bytes]:
        """What must be stored together with new entries; nothing for MAC."""
        return {}

    def _remember(self, names: Sequence[str], payloads: Sequence[bytes]) -> None:
        if not names:
            return
        at = len(self._names)
        self._names.extend(names)
        latents = torch.cat([self._decode_payload(p) for p in payloads])
        owner = torch.arange(at, at + len(names)).repeat_interleave(self.config.latents)
        self.slots = Slots.append([self.slots, Slots.of(latents, owner)])
        self._projected = None

    def _forget(self, names: Sequence[str]) -> None:
        """Takes documents that left the bank out of the working state."""
        if names:
            kept = self._keep(names)
            owner = torch.arange(len(self._names)).repeat_interleave(self.config.latents)
            self.slots = Slots.of(self.slots.values[kept], owner)
            self._projected = None

    def _keep(self, gone: Sequence[str]) -> Tensor:
        """Drops `gone` from the names; the slots [N·T] that stay, bool."""
        lost = set(gone)
        kept = torch.tensor([name not in lost for name in self._names], dtype=torch.bool)
        self._names = [name for name in self._names if name not in lost]
        return kept.repeat_interleave(self.config.latents)

    # ---- networks

    def amortise(self, texts: Sequence[str], side: str = "documents") -> Tensor:
        """Latents [B, T, D] of texts, by the `documents` or the `questions` network."""
        network = self.network[side]
        if self.config.amortiser == "t5":
            latents: Tensor = network(*self.t5_texts.encode(texts, self.backbone.device))
            return latents
        states, mask = self.features(texts)
        states, mask = self.standard(states[:, 1:]), mask[:, 1:]
        base = None
        if self.config.start == "copy" and side == "documents":
            base, _ = self.network["pooler"](states, mask, self.config.latents)
        found: Tensor = network(states, mask, base)
        return found

    @torch.no_grad()
    def amortise_all(
        self, texts: Sequence[str], batch: int = 16, side: str = "documents"
    ) -> Tensor:
        """Latents [B, T, D] on the CPU without gradients, in batches of like length."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = torch.zeros(len(texts), self.config.latents, self.backbone.geometry.width)
        for at in range(0, len(order), batch):
            part = order[at : at + batch]
            found[part] = self.amortise([texts[i] for i in part], side).float().cpu()
        return found

    def memory_tokens(self, question: Tensor) -> Tensor:
        """ψ(question latents [B, T, D], the bank's slots) → [B, T, D]."""
        aggregator, slots = self.aggregator, self.slots
        if 0 < self.config.window < len(slots):
            device = question.device
            tokens: Tensor = aggregator(
                question, slots.values.to(device), slots.log_mass.to(device), self.config.window
            )
            return self._read_out(tokens, question)
        if self._projected is None:
            self._projected = aggregator.project(slots.values[None].to(question.device))
        tokens = aggregator.attend(question, self._projected, self._bias(question))
        return self._read_out(tokens, question)

    def _read_out(self, tokens: Tensor, question: Tensor) -> Tensor:
        """Memory tokens: all of the aggregator's result, or what it added to the question, without
        the means that latents carry to be found.
        """
        if self.config.start != "copy":
            return tokens
        added = tokens - question
        return added - MEAN_GAIN / (1 + MEAN_GAIN) * added.mean(1, keepdim=True)

    def _bias(self, question: Tensor) -> Tensor | None:
        """Log masses [1, S], or None where all are zero."""
        mass = self.slots.log_mass
        return mass[None].to(question.device) if bool((mass != 0).any()) else None

    def condition(self, tokens: Tensor) -> KVPrefix | MidStates:
        """The transport of memory tokens [B, T, D]."""
        aligned = self.network["align"](tokens)
        batch, layer = tokens.shape[0], self.config.inject_from
        device = tokens.device
        if self.config.transport == "states":
            states = self.standard.restore(aligned)
            start = self._start_state().to(states).expand(batch, -1, -1)
            states = torch.cat([start, states], 1)
            mask = torch.ones(states.shape[:2], dtype=torch.bool, device=device)
            return MidStates(states, mask, layer)
        count = aligned.shape[0] // 2
        aligned = aligned.to(self.backbone.dtype)
        virtual = aligned.shape[3]
        return KVPrefix(
            KVMemory(
                keys=tuple(aligned[:count]),
                values=tuple(aligned[count:]),
                bias=torch.zeros(batch, virtual, device=device),
                start=torch.full((batch,), virtual, dtype=torch.long, device=device),
                layer=layer,
            )
        )

    def _start_state(self) -> Tensor:
        """The start token's state [1, D] at `inject_from`; the same for every text."""
        if not hasattr(self, "_start"):
            ids, mask = self.backbone.pad([[self.backbone.start_id]])
            self._start = self.backbone.states(ids, mask, self.config.inject_from)[0].float()
        return self._start

    # ---- reading

    @torch.no_grad()
    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        lora = () if self.lora is None else (self.lora,)
        if not len(self.slots):
            return Conditioning(lora)
        with flushed_denormals():
            asked = self.amortise(questions, "questions")
            tokens, sources = self.memory_tokens(asked), self.sources(asked)
        return Conditioning((*lora, self.condition(tokens)), None, sources)

    def sources(self, question: Tensor) -> Sources:
        """For each question [B, T, D] the `NAMED` documents on which most of the aggregator's first
        attention falls, with their shares of it.
        """
        if not self._names:
            return ()
        finder = self.aggregator.finder
        if self._projected is not None:
            keys = self._projected[0][0]
        else:
            keys = finder.project(self.slots.values[None].to(question.device))[0]
        shares = finder.owner_shares(
            question, keys, self._bias(question), self.slots.owner, len(self._names)
        )
        return most(shares, [self._names] * len(shares))

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        if self.config.amortiser != "perceiver":
            return
        states, mask = self.features([d.text for d in documents[:64]])
        self.standard.measure(states[:, 1:], mask[:, 1:])
        if self.config.start == "copy" and questions and not self.aggregator.compares:
            stored = self.amortise_all([d.text for d in documents])
            asked = self.amortise_all(questions, side="questions")
            codes = self.network["documents"].get_parameter("queries")
            self.aggregator.compare(asked.to(codes), stored.to(codes), codes)

    def _document_latents(self, batch: Batch) -> Tensor:
        """[D, T, D'] with back-propagation dropout: only a random share gets gradients."""
        texts = [d.text for d in batch.documents]
        learned, rest = learned_share(len(texts), self.config.gradient_share, batch.step)
        parts = self.amortise([texts[i] for i in learned])
        if not rest:
            return parts
        with torch.no_grad():
            frozen = self.amortise([texts[i] for i in rest])
        order = torch.tensor(learned + rest).argsort()
        return torch.cat([parts, frozen])[order.to(parts.device)]

    def compress(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
        """(latents as the bank will hold them [N, D], method loss, log parts); MAC keeps them."""
        return latents, latents.new_zeros(()), {}

    def _answer_loss(self, batch: Batch, tokens: Tensor) -> Tensor:
        """Loss of the answers, read from memory tokens [Q, T, D]."""
        lora = () if self.lora is None else (self.lora,)
        with Conditioning((*lora, self.condition(tokens))).attach(self.backbone):
            return self.answer_terms(batch)

    def loss(self, batch: Batch) -> Loss:
        latents = self._document_latents(batch)
        question = self.amortise(batch.questions, "questions")
        kept, extra, parts = self.compress(latents.flatten(0, 1))
        answer = self._answer_loss(batch, self.training_tokens(question, kept))
        matching, more = self.matching_terms(batch, question, kept)
        return Loss(answer + extra + matching, {"answer": answer.item(), **parts, **more})

    def training_tokens(self, question: Tensor, kept: Tensor) -> Tensor:
        """Memory tokens [Q, T, D] of a step's questions from its slots [D·T, D']."""
        return self._read_out(self.aggregator(question, kept, None, self.config.window), question)

    def matching_terms(
        self, batch: Batch, question: Tensor, kept: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """(what draws questions to their own documents' slots, log parts), 0 where it has no
        weight.
        """
        if self.config.matching_weight == 0:
            return question.new_zeros(()), {}
        own = own_slots(batch, self.config.latents, self.config.start == "copy")
        shares = self.aggregator.shares(question, kept, None, own.to(question.device))
        matching = -shares.clamp_min(1e-6).log().mean()
        parts = {"matching": matching.item(), "share": float(shares.detach().mean())}
        return self.config.matching_weight * matching, parts


def most(shares: Tensor, names: Sequence[Sequence[str]]) -> Sources:
    """The `NAMED` largest of the shares [B, N] of each question's documents, with their names."""
    best = shares.topk(min(NAMED, shares.shape[1]), dim=1)
    return tuple(
        tuple((row[i], share) for i, share in zip(places, values, strict=True))
        for row, places, values in zip(
            names, best.indices.tolist(), best.values.tolist(), strict=True
        )
    )
