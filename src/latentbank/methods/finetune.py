"""Online finetuning: each document is a few steps on the weights, all of them or of low rank.

The baselines of Hu et al., 2023, "Meta-Learning Online Adaptation of Language Models",
https://arxiv.org/abs/2305.15076: uniform weights and salient spans. Low-rank weights are by Hu et
al., 2021, https://arxiv.org/abs/2106.09685. Elastic weight consolidation is by Kirkpatrick et al.,
2017, https://arxiv.org/abs/1612.00796, in its online form by Schwarz et al., 2018,
https://arxiv.org/abs/1805.06370.

Differs from the papers:

- The backbone's own weights are never written. The bank holds the differences to them, and the
  backbone is the same bit for bit once they are detached.
- Adam's moments start anew with each document, so that the bank does not have to hold them.
- Salient spans are found by rules, or by any spaCy pipeline that is installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning
from latentbank.bank import Receipt
from latentbank.config import require_at_least, setting
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.learning import WeightLearning
from latentbank.method import CALLS_ADD_UP, CONSTANT_SIZE, EMPTY_IS_PLAIN, register
from latentbank.parts.batch import Batch, Loss, mean_answer_loss
from latentbank.parts.low_rank import NO_LORA, LoraSettings
from latentbank.parts.online.descent import Descent, DescentSettings, slopes_of
from latentbank.parts.online.losses import document_ids, next_token_losses
from latentbank.parts.online.replay import Replay
from latentbank.parts.online.salient import RULES, salient_spans, span_weights
from latentbank.parts.online.weights import WeightSettings

WEIGHTS = ("uniform", "salient")
REPLAY, FISHER = "replay", "fisher."


@dataclass(frozen=True)
class FinetuneConfig:
    """What changes, how documents are learned, and the defences against forgetting."""

    weights: str = setting("uniform", "Tokens that count: uniform (all) or salient (spans).")
    spans: str = setting(RULES, "What finds salient spans: rules, or the name of a spaCy pipeline.")
    replay_bytes: int = setting(0, "Bytes of earlier documents that are kept to be learned again.")
    replay: int = setting(2, "Earlier documents that are learned beside each new one.")
    ewc: float = setting(0.0, "Weight of elastic weight consolidation; 0: none.")
    ewc_decay: float = setting(0.9, "What remains of the Fisher information with each document.")
    chunk_tokens: int = setting(512, "Tokens of the longest text that one step learns.")
    seed: int = setting(0, "Seed of the low-rank differences.")
    change: WeightSettings = WeightSettings()
    descent: DescentSettings = DescentSettings()
    lora: LoraSettings = NO_LORA

    ALIASES: ClassVar[Mapping[str, str]] = {
        "mode": "change.mode", "rank": "change.rank", "targets": "change.targets",
        "layer": "change.layer", "codec": "change.codec", "rate": "descent.rate",
        "steps": "descent.steps", "optimiser": "descent.optimiser", "clip": "descent.clip",
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise InputError(f"weights must be uniform or salient, got {self.weights!r}")
        require_at_least(self, 0, "replay_bytes", "replay", "ewc", "ewc_decay")
        require_at_least(self, 1, "chunk_tokens")


@register("finetune")
class Finetune(WeightLearning):
    """Gradient steps on differences to the backbone's weights."""

    Config = FinetuneConfig
    claims = frozenset({EMPTY_IS_PLAIN, CALLS_ADD_UP, CONSTANT_SIZE})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smollm2-135m": {"lora": {"rank": 16, "layer": 12}},
        "tiny": {
            "change": {"rank": 2, "layer": 1}, "descent": {"rate": 0.02, "steps": 2},
            "lora": {"rank": 4, "layer": 1},
        },
    }  # fmt: skip

    def __init__(self, config: FinetuneConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone, config.change, config.seed)
        if config.replay_bytes:
            self.claims = self.claims - {CONSTANT_SIZE}
        self.lora = config.lora.build(backbone)

    # ---- what was learned

    def reset(self) -> None:
        """See `WeightLearning`; nothing is kept to be replayed."""
        super().reset()
        self.replay = Replay(self.config.replay_bytes)
        self.fisher: dict[str, Tensor] = {}

    def learned(self) -> dict[str, Tensor]:
        """The differences; with the defences also texts and the root of the Fisher information."""
        tensors = super().learned()
        if self.config.replay_bytes and self.changed:
            tensors[REPLAY] = self.replay.tensor()
        roots = {FISHER + name: value.sqrt() for name, value in self.fisher.items()}
        return {**tensors, **self.weights.stored(roots)}

    def load_learned(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Learning`."""
        defences = (REPLAY, FISHER)
        own = {k: v for k, v in tensors.items() if not k.startswith(defences)}
        super().load_learned(own)
        if REPLAY in tensors:
            self.replay.load(tensors[REPLAY])
        roots = {k.removeprefix(FISHER): v for k, v in tensors.items() if k.startswith(FISHER)}
        if roots:
            found = self.weights.restored(roots)
            self.fisher = {name: value.square() for name, value in found.items()}

    def delete(self, ids: Sequence[str]) -> Receipt:
        """Removes ledger rows and replayed texts; what was learned of them stays."""
        if self.config.replay_bytes:
            self.replay.remove(ids)
            self.require_bank().put_state(self.state_bytes())
        return super().delete(ids)

    # ---- learning

    def token_weights(self, ids: Sequence[int], text: str) -> Tensor:
        """1 for each token that counts, 0 for the others. A text without salient spans counts."""
        if self.config.weights == "salient":
            found = span_weights(self.backbone, ids, text, salient_spans(text, self.config.spans))
            if bool(found.any()):
                return found
        return torch.ones(len(ids) - 1)

    def learn(self, document: Document) -> None:
        """The steps of one document, with replayed ones beside it."""
        texts = [document.text]
        if self.config.replay_bytes:
            texts += self.replay.draw(self.config.replay, document.id)
            self.replay.add(document.id, document.text)
        rows = document_ids(self.backbone, texts, self.config.chunk_tokens)
        weights = [self.token_weights(row, text) for row, text in zip(rows, texts, strict=True)]
        kept = [at for at, one in enumerate(weights) if len(one)]
        if not kept:
            return
        self._descend([rows[at] for at in kept], [weights[at] for at in kept])
        self.settle()

    def _descend(self, rows: Sequence[Sequence[int]], weights: Sequence[Tensor]) -> None:
        padded = torch.nn.utils.rnn.pad_sequence(list(weights), batch_first=True)
        anchor = self.tensors
        tensors = {name: value.clone() for name, value in anchor.items()}
        descent = Descent(tensors, self.config.descent)

        def loss_of(leaves: Mapping[str, Tensor]) -> Tensor:
            delta = self.weights.delta(leaves)
            own = Conditioning((*self.reading().transports, delta))
            with own.attach(self.backbone):
                losses, _ = next_token_losses(self.backbone, rows)
            shares = padded.to(losses.device)
            return (shares * losses).sum() / shares.sum()

        first: dict[str, Tensor] | None = None
        for _ in range(self.config.descent.steps):
            slopes = slopes_of(loss_of, tensors)
            if slopes is None:
                self.took(False)
                continue
            first = first or {name: slope.clone() for name, slope in slopes.items()}
            for name, fisher in self.fisher.items():
                slopes[name] += self.config.ewc * fisher * (tensors[name] - anchor[name])
            self.took(descent.step(slopes))
        self.tensors = tensors
        if self.config.ewc and first is not None:
            self._note_fisher(first)

    def _note_fisher(self, slopes: Mapping[str, Tensor]) -> None:
        """F ← decay · F + g², with g the gradient of the document before its first step."""
        decay = self.config.ewc_decay
        for name, slope in slopes.items():
            old = self.fisher.get(name, torch.zeros_like(slope))
            root = self.weights.rounded((decay * old + slope.square()).sqrt())
            self.fisher[name] = root.square()

    # ---- light tuning

    @property
    def trained_from(self) -> int | None:
        """The first layer with low-rank weights that training tunes; None without any."""
        return None if self.lora is None else self.lora.layer

    def loss(self, batch: Batch) -> Loss:
        """Mean answer loss per token of the questions without any document: the light tuning."""
        if self.packed is not None:
            states = self.packed.from_states(
                self.lora, batch.questions, batch.answers, [], [-1] * len(batch.questions)
            )
            answer = self.packed.losses(states).mean()
        else:
            with self.closed_book().attach(self.backbone):
                answer = mean_answer_loss(self.backbone, batch)
        return Loss(answer, {"answer": answer.item()})
