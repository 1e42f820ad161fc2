"""CMT: A Memory Compression Method for Continual Knowledge Learning of Large Language Models.

Li et al., AAAI 2025, https://arxiv.org/abs/2412.07393. CMT adds three parts to MAC. The value 0
switches a part off.

- `top_k`: only the documents most similar to the question enter the aggregator.
- `memory_aware`: answers are trained and decoded from (1 + α)·ℓ(y | memory, q) − α·ℓ(y | q).
- `self_matching`: a loss that draws a question to its document, and documents apart.

The paper leaves some choices open. Here the similarity is the cosine of mean-pooled memories after
one linear map. The map and a mean for each side come from whitening before training with
`start="copy"`; otherwise the map starts as a random rotation. The pass without memory uses the
method's own low-rank weights where it has some. Of k, top-k, α and λ only top-k comes from a
(short) sweep, see LOG.md.
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
from latentbank.backbone.transports import Conditioning, Sources
from latentbank.bank import MemoryBank
from latentbank.config import require_at_least, setting
from latentbank.documents.document import Document
from latentbank.method import register
from latentbank.methods.mac import Mac, MacConfig
from latentbank.parts.amortised.matcher import Matcher
from latentbank.parts.amortised.networks import paper_presets
from latentbank.parts.amortised.slots import top_sources
from latentbank.parts.batch import Batch, Loss


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
        require_at_least(self, 0, "top_k", "memory_aware", "self_matching", "spread")
        require_at_least(self, 1, "matching_width")


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
        if config.self_matching == 0:  # choosing documents has no gradient
            self.matcher.requires_grad_(False)
        self._stored: Tensor | None = None

    # ---- reading

    def bind(self, bank: MemoryBank) -> None:
        """As in MAC; the documents' vectors are computed at the next question."""
        super().bind(bank)
        self._stored = None

    def _remember(self, ids: Sequence[str], payloads: Sequence[bytes]) -> None:
        super()._remember(ids, payloads)
        self._stored = None

    def _forget(self, ids: Sequence[str]) -> None:
        super()._forget(ids)
        self._stored = None

    def memory_tokens(self, question: Tensor) -> Tensor:
        """ψ(question latents [B, T, D], slots of the `top_k` documents) → [B, T, D]."""
        memories = self._memories(question)
        if not self._selects(len(memories)):
            return super().memory_tokens(question)
        return self._aggregate(question, memories[self._choose(question, memories)])

    def sources(self, question: Tensor) -> Sources:
        """As in MAC, but only the chosen documents are named."""
        memories = self._memories(question)
        if not self._selects(len(memories)):
            return super().sources(question)
        best = self._choose(question, memories)
        finder = self.aggregator.finder
        keys = finder.project(memories[best].flatten(1, 2))[0]
        owner = torch.arange(best.shape[1]).repeat_interleave(self.config.latents)
        shares = finder.owner_shares(question, keys, None, owner, best.shape[1])
        return top_sources(shares, [[self._ids[i] for i in row] for row in best.tolist()])

    def _memories(self, question: Tensor) -> Tensor:
        """The bank's memories [N, T, D], on the device of the question's latents."""
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
        """The numbers [B, top_k] of the unit vectors `stored` [N, K] nearest to each question.

        They are in the bank's order, so that sums over slots always have the same order.
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
        """As in MAC, decoded with the memory-aware objective."""
        conditioning = super().read(questions, documents)
        contrast = self.config.memory_aware if len(self.slots) else 0.0
        return replace(conditioning, contrast=contrast)

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """As in MAC; with `start="copy"` also measures the matcher."""
        super().prepare(documents, questions)
        if self.config.start == "copy" and questions and not self.matcher.measured:
            asked = self.amortise_all(questions, side="questions")
            stored = self.amortise_all([d.text for d in documents])
            self.matcher.measure(asked.to(self.backbone.device), stored.to(self.backbone.device))

    def training_tokens(self, question: Tensor, kept: Tensor) -> Tensor:
        """As in MAC, from the `top_k` documents of the step."""
        memories = kept.view(-1, self.config.latents, kept.shape[-1])
        if not self._selects(len(memories)):
            return super().training_tokens(question, kept)
        best = self._best(question, self.matcher(memories, "documents"))
        return self._aggregate(question, memories[best])

    def answer_terms(self, batch: Batch) -> Tensor:
        """Mean answer loss per token under the memory-aware logits; a scalar."""
        if self.config.memory_aware == 0 or self.backbone.memory is None:
            return super().answer_terms(batch)
        rows = prompt_ids(self.backbone, batch.questions), answer_ids(self.backbone, batch.answers)
        with torch.no_grad(), self.backbone.with_memory(None):
            plain = self.backbone.answer_logits(*rows).logits
        read = self.backbone.answer_logits(*rows)
        aware = read.logits + self.config.memory_aware * (read.logits - plain)
        return nn.functional.cross_entropy(aware, read.tokens)

    def packed_terms(self, packed: PackedAnswers, batch: Batch, states: Tensor) -> Tensor:
        """`answer_terms` by packed layers."""
        if self.config.memory_aware == 0:
            return super().packed_terms(packed, batch, states)
        with torch.no_grad():
            plain = packed.logits(self.packed_read(packed, batch, None))
        read = self.packed_read(packed, batch, states)
        logits = packed.logits(read)
        aware = logits + self.config.memory_aware * (logits - plain)
        return nn.functional.cross_entropy(aware, read.tokens)

    def matching_terms(
        self, batch: Batch, question: Tensor, kept: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """As in MAC, plus the self-matching loss."""
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
        """As in MAC; drops the stored vectors, which a step makes stale."""
        self._stored = None
        return super().loss(batch)


def self_matching(cosines: Tensor, stored: Tensor, owner: Tensor, spread: float) -> Tensor:
    """CMT's self-matching loss: −cos(q_i, M^i) + λ·log Σ_{j≠i} exp(−‖M^i − M^j‖²), its mean.

    `cosines` [Q]: each question with its own document. `stored` [N, K]: unit vectors of the
    documents. `owner` [Q]: the number of each question's document. `spread` is λ. With a single
    document the second term is left out.
    """
    loss = -cosines.mean()
    if spread == 0 or len(stored) < 2:
        return loss
    apart = -torch.cdist(stored[owner], stored).square()
    own = nn.functional.one_hot(owner, len(stored)).bool()
    return loss + spread * apart.masked_fill(own, -torch.inf).logsumexp(1).mean()
