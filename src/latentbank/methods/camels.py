"""CaMeLS: a small model says how much each token of a document is worth learning.

Hu et al., 2023, "Meta-Learning Online Adaptation of Language Models",
https://arxiv.org/abs/2305.15076.

Differs from the paper:

- The weights of tokens come from the frozen backbone's own states, by a small transformer. The
  paper finetunes a DistilGPT2 for it.
- Documents change the feed-forward weights of the last layers by default, the paper's all weights.
- The backbone is never written: the bank holds the difference.
- The meta-gradient needs no second derivatives: one weighted SGD step is linear in the weights of
  the tokens, so a forward-mode derivative of the token losses gives it exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning
from latentbank.config import require_at_least, setting
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.learning import WeightLearning
from latentbank.method import CALLS_ADD_UP, CONSTANT_SIZE, EMPTY_IS_PLAIN, register
from latentbank.parts.batch import Batch, Loss, mean_answer_loss
from latentbank.parts.low_rank import NO_LORA, LoraSettings
from latentbank.parts.online.descent import Descent, DescentSettings, slopes_of
from latentbank.parts.online.losses import document_ids, next_token_losses
from latentbank.parts.online.meta import stepped_loss
from latentbank.parts.online.weights import WeightSettings

EVEN = 0.5413  # softplus of it is 1: every token weighs the same before training


@dataclass(frozen=True)
class LastLayers(WeightSettings):
    """Dense differences to the last layers of SmolLM2-135M, unless set otherwise."""

    mode: str = setting("full", "full: a difference to every number; lora: low-rank differences.")
    layer: int = setting(24, "First layer whose weights change.")


@dataclass(frozen=True)
class OneStep(DescentSettings):
    """The paper's step, unless set otherwise."""

    rate: float = setting(5e-3, "Step size.")
    steps: int = setting(1, "Steps on each document.")
    optimiser: str = setting("sgd", "sgd or adam; Adam starts anew with each document.")
    clip: float = setting(0.0, "Largest norm of the gradient; 0: no limit.")


@dataclass(frozen=True)
class CamelsConfig:
    """The model of the weights, and how documents are learned with them."""

    weigher_layer: int = setting(12, "Layer of the backbone whose states the weights come from.")
    width: int = setting(128, "Width of the small transformer over them.")
    heads: int = setting(4, "Its attention heads.")
    locality: float = setting(0.1, "Training: weight of the divergence on an unrelated document.")
    norm: float = setting(0.1, "Training: weight of the mean square of the weights.")
    chunk_tokens: int = setting(512, "Tokens of the longest text that one step learns.")
    change: LastLayers = LastLayers()
    descent: OneStep = OneStep()
    lora: LoraSettings = NO_LORA

    ALIASES: ClassVar[Mapping[str, str]] = {
        "mode": "change.mode", "rank": "change.rank", "targets": "change.targets",
        "layer": "change.layer", "codec": "change.codec", "rate": "descent.rate",
        "steps": "descent.steps", "optimiser": "descent.optimiser", "clip": "descent.clip",
    }  # fmt: skip

    def __post_init__(self) -> None:
        require_at_least(self, 1, "width", "heads", "chunk_tokens")
        require_at_least(self, 0, "weigher_layer", "locality", "norm")
        if self.width % self.heads:
            raise InputError(f"width must be a multiple of heads, got {self.width}, {self.heads}")


class Weigher(nn.Module):
    """States [B, T, D] of the backbone → weights [B, T] > 0, seen from left to right."""

    def __init__(self, inner: int, width: int, heads: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, width))
        self.block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, EVEN)

    def forward(self, states: Tensor) -> Tensor:
        """See the class."""
        length = states.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=states.device).triu(1)
        hidden = self.block(self.enter(states.float()), src_mask=mask)
        weights: Tensor = nn.functional.softplus(self.head(hidden)[..., 0])
        return weights


@register("camels")
class Camels(WeightLearning):
    """One gradient step on each document, its tokens weighted by a meta-learned model."""

    Config = CamelsConfig
    claims = frozenset({EMPTY_IS_PLAIN, CALLS_ADD_UP, CONSTANT_SIZE})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smollm2-135m": {
            "norm": 0.002, "lora": {"rank": 16, "layer": 12}, "descent": {"rate": 0.03},
        },
        "tiny": {
            "weigher_layer": 1, "width": 16, "heads": 2, "change": {"layer": 2},
            "descent": {"rate": 1.0},
        },
    }  # fmt: skip

    def __init__(self, config: CamelsConfig, backbone: Backbone) -> None:
        count = backbone.geometry.layers
        if config.weigher_layer > count:
            raise InputError(f"weigher_layer must be at most {count}, got {config.weigher_layer}")
        super().__init__(config, backbone, config.change, 0)
        weigher = Weigher(backbone.geometry.width, config.width, config.heads)
        self.network["weigher"] = weigher.to(backbone.device)
        self.lora = config.lora.build(backbone)

    # ---- learning

    def weigh(self, ids: Sequence[int]) -> Tensor:
        """Weights [T-1] of the tokens after the first of `ids` [T]; gradients reach the weigher."""
        padded, mask = self.backbone.pad([ids])
        states = self.backbone.states(padded, mask, self.config.weigher_layer)
        found: Tensor = self.network["weigher"](states)[0, 1:]
        return found

    @torch.no_grad()
    def token_weights(self, ids: Sequence[int], text: str) -> Tensor:
        """See `TokenWeighting`."""
        return self.weigh(ids).cpu()

    def learn(self, document: Document) -> None:
        """One step, or several, on the weighted loss of a document."""
        ids = document_ids(self.backbone, [document.text], self.config.chunk_tokens)[0]
        if len(ids) < 2:
            return
        weights = self.token_weights(ids, document.text).to(self.backbone.device)
        tensors = {name: value.clone() for name, value in self.tensors.items()}
        descent = Descent(tensors, self.config.descent)
        for _ in range(self.config.descent.steps):
            slopes = slopes_of(lambda leaves: (weights * self._losses(ids, leaves)).mean(), tensors)
            self.took(slopes is not None and descent.step(slopes))
        self.tensors = tensors
        self.settle()

    def _with(self, tensors: Mapping[str, Tensor]) -> Conditioning:
        return Conditioning((*self.reading().transports, self.weights.delta(tensors)))

    def _losses(self, ids: Sequence[int], tensors: Mapping[str, Tensor]) -> Tensor:
        """Next-token losses [T-1] under some differences."""
        with self._with(tensors).attach(self.backbone):
            return next_token_losses(self.backbone, [ids])[0][0]

    # ---- meta-training

    def loss(self, batch: Batch) -> Loss:
        """Answer loss after one step on the documents, plus locality and norm of the weights.

        The last of several documents is not learned: it is the unrelated one.
        """
        texts = [document.text for document in batch.documents]
        rows = document_ids(self.backbone, texts, self.config.chunk_tokens)
        apart = len(rows) - 1 if len(rows) > 1 else None
        kept = [i for i, row in enumerate(rows) if i != apart and len(row) > 1]
        asked = [i for i, owner in enumerate(batch.owner) if owner != apart]
        questions = batch.with_questions(asked or range(len(batch.questions)))
        weights = torch.cat([self.weigh(rows[i]) for i in kept])
        start = self.weights.start()
        before = self._distribution(rows[apart], start).detach() if apart is not None else None
        found: dict[str, float] = {}

        def outer(tensors: Mapping[str, Tensor]) -> Tensor:
            with self._with(tensors).attach(self.backbone):
                answer = mean_answer_loss(self.backbone, questions)
            found["answer"] = answer.item()
            if before is None or apart is None or not self.config.locality:
                return answer
            after = self._distribution(rows[apart], tensors)
            local = (before.exp() * (before - after)).sum(-1).mean()
            found["locality"] = local.item()
            both: Tensor = answer + self.config.locality * local
            return both

        def token_losses(tensors: Mapping[str, Tensor]) -> Tensor:
            return torch.cat([self._losses(rows[i], tensors) for i in kept]) / len(weights)

        total = stepped_loss(token_losses, outer, weights, start, self.config.descent.rate)
        norm = weights.square().mean()
        found |= {"norm": norm.item(), "weight": weights.mean().item()}
        return Loss(total + self.config.norm * norm, found)

    def _distribution(self, ids: Sequence[int], tensors: Mapping[str, Tensor]) -> Tensor:
        """Log-probabilities [T, V] of the next tokens under some differences."""
        padded, mask = self.backbone.pad([ids])
        with self._with(tensors).attach(self.backbone):
            hidden = self.backbone.session(1).feed(padded, mask)
            logits: Tensor = self.backbone.logits(hidden[0]).float()
        return logits.log_softmax(-1)
