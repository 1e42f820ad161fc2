"""CMT: A Memory Compression Method for Continual Knowledge Learning of Large Language Models.

Li et al., AAAI 2025, https://arxiv.org/abs/2412.07393. MAC's networks with three additions: only
the documents most similar to the question enter the aggregator (top-k aggregation); answers are
trained and decoded from (1 + α)·ℓ(y | memory, q) − α·ℓ(y | q) (memory-aware objective); and a
self-matching loss draws a question to its document and documents apart. Each switches off alone:
`top_k` 0, `memory_aware` 0, `self_matching` 0.

Where the paper is silent: the similarity is the cosine of mean-pooled memories behind one linear
map and a mean for each side, both measured by whitening before training (`start="copy"`) or the
identity; `memory_aware` and the closed-book pass use the method's own low-rank weights where it has
some; of k, top-k, α and λ only top-k is from a (short) sweep, see LOG.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentbank.backbone.model import Backbone
from latentbank.backbone.packed import PackedAnswers
from latentbank.backbone.prompts import answer_ids, prompt_ids
from latentbank.backbone.transports import Conditioning
from latentbank.bank import MemoryBank
from latentbank.config import setting
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.method import register
from latentbank.methods.mac import Mac, MacConfig, Sources, most, paper_presets
from latentbank.parts.batch import Batch, Loss
from latentbank.parts.pooling import whitening

SHRINKAGE = 0.3  # as in `Aggregator.compare`


@dataclass(frozen=True)
class CmtConfig(MacConfig):
    """MAC's fields, where `latents` is the paper's k, and CMT's three additions."""

    top_k: int = setting(8, "Documents that enter the aggregator; 0 takes all.")
    memory_aware: float = setting(0.5, "α of the memory-aware objective; 0: plain logits.")
    self_matching: float = setting(0.1, "Weight of the self-matching loss; 0 leaves it out.")
    spread: float = setting(0.5, "λ of the self-matching loss, which draws documents apart.")
    matching_width: int = setting(256, "Width of the similarity of questions and documents.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k < 0:
            raise InputError(f"top_k must be 0 (all documents) or more, got {self.top_k}")
        for name in ("memory_aware", "self_matching", "spread"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.matching_width < 1:
            raise InputError(f"matching_width must be at least 1, got {self.matching_width}")


class Matcher(nn.Module):
    """Memories [B, T, D] of questions or documents → unit vectors [B, K] whose product is their
    similarity.
    """

    def __init__(self, width: int, kept: int) -> None:
        super().__init__()
        self.means = nn.ParameterDict(
            {side: nn.Parameter(torch.zeros(width)) for side in ("questions", "documents")}
        )
        self.project = nn.Linear(width, min(width, kept), bias=False)
        nn.init.orthogonal_(self.project.weight)

    def forward(self, memories: Tensor, side: str) -> Tensor:
        centred = self._pooled(memories) - self.means[side]
        return nn.functional.normalize(self.project(centred), dim=-1)

    @property
    def measured(self) -> bool:
        """Whether `measure` or training has set the means."""
        return any(bool(mean.any()) for mean in self.means.values())

    @staticmethod
    def _pooled(memories: Tensor) -> Tensor:
        return nn.functional.layer_norm(memories.mean(1), memories.shape[-1:])

    @torch.no_grad()
    def measure(self, questions: Tensor, documents: Tensor) -> None:
        """Takes both sides' means off and whitens what is left of them."""
        asked, stored = self._pooled(questions), self._pooled(documents)
        centred = []
        for side, rows in (("questions", asked), ("documents", stored)):
            self.means[side].copy_(rows.mean(0))
            centred.append(rows - rows.mean(0))
        rows = torch.cat(centred)
        white = whitening(rows.T @ rows / len(rows), self.project.out_features, SHRINKAGE)
        self.project.weight.copy_(white.T)


@register("cmt")
class Cmt(Mac):
    """Compressed memory training: top-k documents, memory-aware objective, self-matching."""

    Config: ClassVar[type[Any]] = CmtConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **paper_presets(),
        "smollm2-135m": dict(Mac.presets["smollm2-135m"]),
        "tiny": {**Mac.presets["tiny"], "top_k": 2, "matching_width": 8},
    }

    def __init__(self, config: Any, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.matcher = Matcher(backbone.geometry.width, config.matching_width)
        self.network["matcher"] = self.matcher.to(backbone.device)
        if config.self_matching == 0:  # nothing else trains it: a choice has no slope
            self.matcher.requires_grad_(False)
        self._stored: Tensor | None = None

    # ---- reading

    def bind(self, bank: MemoryBank) -> None:
        super().bind(bank)
        self._stored = None

    def _remember(self, ids: Sequence[str], payloads: Sequence[bytes]) -> None:
        super()._remember(ids, payloads)
        self._stored = None

    def memory_tokens(self, question: Tensor) -> Tensor:
        """ψ(question latents [B, T, D], slots of the `top_k` documents) → [B, T, D]."""
        memories = self._memories(question)
        if not self._selects(len(memories)):
            return super().memory_tokens(question)
        return self._aggregate(question, memories[self._choose(question, memories)])

    def sources(self, question: Tensor) -> Sources:
        """As in MAC, among the chosen documents."""
        memories = self._memories(question)
        if not self._selects(len(memories)):
            return super().sources(question)
        best = self._choose(question, memories)
        finder = self.aggregator.finder
        keys = finder.project(memories[best].flatten(1, 2))[0]
        owner = torch.arange(best.shape[1]).repeat_interleave(self.config.latents)
        shares = finder.owner_shares(question, keys, None, owner, best.shape[1])
        return most(shares, [[self._ids[i] for i in row] for row in best.tolist()])

    def _memories(self, question: Tensor) -> Tensor:
        """The bank's memories [N, T, D], where the question's latents are."""
        shape = -1, self.config.latents, question.shape[-1]
        return self.slots.values.view(shape).to(question.device)

    def _selects(self, documents: int) -> bool:
        return bool(0 < self.config.top_k < documents)

    def _choose(self, question: Tensor, memories: Tensor) -> Tensor:
        """The numbers [B, top_k] of the bank's documents most like each question."""
        if self._stored is None:
            self._stored = self.matcher(memories, "documents")
        return self._best(question, self._stored)

    def _best(self, question: Tensor, stored: Tensor) -> Tensor:
        """The `top_k` of the unit vectors `stored` [N, K], in the bank's order, so that the sum
        over slots has one order.
        """
        scores = self.matcher(question, "questions") @ stored.T
        best: Tensor = scores.topk(self.config.top_k, dim=1).indices
        return best.sort(1).values

    def _aggregate(self, question: Tensor, chosen: Tensor) -> Tensor:
        """Memory tokens from the memories [B, top_k, T, D] of the chosen documents."""
        return self._read_out(self.aggregator(question, chosen.flatten(1, 2)), question)

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        found = super().read(questions, documents)
        contrast = self.config.memory_aware if len(self.slots) else 0.0
        return replace(found, contrast=contrast)

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        super().prepare(documents, questions)
        if self.config.start == "copy" and questions and not self.matcher.measured:
            asked = self.amortise_all(questions, side="questions")
            stored = self.amortise_all([d.text for d in documents])
            self.matcher.measure(asked.to(self.backbone.device), stored.to(self.backbone.device))

    def training_tokens(self, question: Tensor, kept: Tensor) -> Tensor:
        memories = kept.view(-1, self.config.latents, kept.shape[-1])
        if not self._selects(len(memories)):
            return super().training_tokens(question, kept)
        best = self._best(question, self.matcher(memories, "documents"))
        return self._aggregate(question, memories[best])

    def answer_terms(self, batch: Batch) -> Tensor:
        if self.config.memory_aware == 0 or self.backbone.memory is None:
            return super().answer_terms(batch)
        rows = prompt_ids(self.backbone, batch.questions), answer_ids(self.backbone, batch.answers)
        with torch.no_grad(), self.backbone.with_memory(None):
            plain = self.backbone.answer_logits(*rows).logits
        found = self.backbone.answer_logits(*rows)
        aware = found.logits + self.config.memory_aware * (found.logits - plain)
        return nn.functional.cross_entropy(aware, found.tokens)

    def packed_terms(self, packed: PackedAnswers, batch: Batch, states: Tensor) -> Tensor:
        if self.config.memory_aware == 0:
            return super().packed_terms(packed, batch, states)
        with torch.no_grad():
            plain = packed.logits(self.packed_read(packed, batch, None))
        found = self.packed_read(packed, batch, states)
        logits = packed.logits(found)
        aware = logits + self.config.memory_aware * (logits - plain)
        return nn.functional.cross_entropy(aware, found.tokens)

    def matching_terms(
        self, batch: Batch, question: Tensor, kept: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        extra, parts = super().matching_terms(batch, question, kept)
        if self.config.self_matching == 0:
            return extra, parts
        memories = kept.view(-1, self.config.latents, kept.shape[-1])
        stored = self.matcher(memories, "documents")
        owner = torch.tensor(batch.owner, device=stored.device)
        matched = self.matcher(question, "questions") * stored[owner]
        loss = self_matching(matched.sum(-1), stored, owner, self.config.spread)
        return extra + self.config.self_matching * loss, {**parts, "self_matching": loss.item()}

    def loss(self, batch: Batch) -> Loss:
        self._stored = None
        return super().loss(batch)


def self_matching(cosines: Tensor, stored: Tensor, owner: Tensor, spread: float) -> Tensor:
    """CMT's self-matching loss: −cos(q_i, M^i) + λ·log Σ_{j≠i} exp(−‖M^i − M^j‖²), its mean.

    `cosines` [Q] of questions with their own document; `stored` [N, K] the unit vectors of the
    documents; `owner` [Q] each question's; `spread` is λ. One document alone is only drawn.
    """
    loss = -cosines.mean()
    if spread == 0 or len(stored) < 2:
        return loss
    apart = -torch.cdist(stored[owner], stored).square()
    own = nn.functional.one_hot(owner, len(stored)).bool()
    return loss + spread * apart.masked_fill(own, -torch.inf).logsumexp(1).mean()
