"""Titans: Learning to Memorize at Test Time, as a memory of a frozen backbone.

Behrouz, Zhong, Mirrokni, 2025, https://arxiv.org/abs/2501.00663. A small network learns the
backbone's states of the documents while they are written: its weights are the memory. Its size does
not depend on the number of documents.

What differs from the paper:

- The backbone is frozen and pretrained. Only the outer parameters (projections, gates, the first
  weights) are trained, on questions about documents; the paper trains a whole model from scratch.
  The paper's own architectures are small language models in `parts.memory_lm`.
- The memory reads the states that enter one layer, standardised, in place of token embeddings.
- A document ends its chunk, and convolutions do not look into the document before it. So documents
  in one write equal documents in several.
- A read learns nothing. `transport="hook"`: each token of question and answer asks the memory, and
  the answer is added to its state. `transport="states"`: what the question's tokens recall enters
  as states before the prompt.
- Gradients of the inner loss are clipped; those that are not finite are left out and counted.

There is no published code. `keys=words` makes another form: see `titans_words`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentbank.backbone.encoder import BackboneEncoder
from latentbank.backbone.model import Backbone
from latentbank.backbone.processor import flushed_denormals
from latentbank.backbone.prompts import prompt_ids
from latentbank.backbone.transports import Conditioning, LayerHook
from latentbank.bank import Entry, MemoryBank
from latentbank.capabilities import (
    Encoding,
    Stateful,
    Surprised,
    Telemetry,
    Trained,
    forget,
)
from latentbank.config import require_at_least, setting
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError, unknown
from latentbank.method import CALLS_ADD_UP, CONSTANT_SIZE, EMPTY_IS_PLAIN, WriteReport
from latentbank.parts.amortised.alignment import StateAlignment, as_states
from latentbank.parts.batch import Batch, Loss, mean_answer_loss
from latentbank.parts.low_rank import NO_LORA, LoraSettings
from latentbank.parts.neural_memory import MemorySettings, NeuralMemory, State
from latentbank.parts.neural_memory.pointing import pointing_loss
from latentbank.parts.online.losses import document_ids, next_token_losses
from latentbank.parts.online.salient import answer_starts
from latentbank.parts.pooling import Standardiser, segment_means

LEVEL = "learned"
_KEPT = ("weights.", "momentum.", "clipped", "skipped", "seen")


@dataclass(frozen=True)
class TitansConfig:
    """The memory, where it reads the backbone and how it speaks to it."""

    memory: MemorySettings = MemorySettings(heads=8, head_dim=64)
    keys: str = setting("states", "What the memory's keys are: backbone `states`, or `words`.")
    window: int = setting(33, "Tokens whose words make a key of `keys=words`.")
    crowd: int = setting(0, "Training of `words`: documents that a step's memory holds besides.")
    layer: int = setting(0, "Layer whose states the memory learns.")
    speak: int = setting(-1, "Layer that a hook adds to; -1: the one whose states are learned.")
    scale: float = setting(0.0, "Factor of what a hook adds, before training.")
    transport: str = setting("hook", "`hook`: added to every state; `states`: before the prompt.")
    tokens: int = setting(8, "Memory tokens of `transport=states`.")
    chunk_tokens: int = setting(512, "Tokens of the longest text in one entry.")
    answer_weight: float = setting(1.0, "Training: weight of the answers' loss; 0: texts only.")
    recall: float = setting(0.0, "Training: weight of the recall of the state that came next.")
    point: float = setting(0.0, "Training: weight of a question's query finding its answer's key.")
    retell: float = setting(0.0, "Training: weight of the loss of texts that are read again.")
    lora: LoraSettings = NO_LORA

    def __post_init__(self) -> None:
        if self.transport not in ("hook", "states"):
            raise unknown("transport", self.transport, ["hook", "states"])
        if self.keys not in ("states", "words"):
            raise unknown("kind of keys", self.keys, ["states", "words"])
        if self.keys == "words" and (self.layer or self.recall or self.transport != "hook"):
            raise InputError("keys='words' needs layer=0, transport='hook' and recall=0")
        require_at_least(self, 1, "tokens", "chunk_tokens", "window")
        require_at_least(self, 0, "layer", "crowd", "answer_weight", "recall", "point", "retell")
        require_at_least(self, -1, "speak")
        if 0 <= self.speak < self.layer:
            raise InputError(f"speak must not be below layer {self.layer}, got {self.speak}")
        if not self.answer_weight + self.recall + self.point + self.retell:
            raise InputError("one of answer_weight, recall, point and retell must be above 0")


class ChannelScale(nn.Module):
    """A factor for each channel; at a start of zero what is added begins as nothing."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), start))

    def forward(self, states: Tensor) -> Tensor:
        """States [..., D], scaled."""
        return states * self.weight


class Titans(Trained, Encoding, Stateful, Telemetry, Surprised):
    """A neural memory over the backbone's states."""

    Config: ClassVar[type[Any]] = TitansConfig
    claims = frozenset({EMPTY_IS_PLAIN, CALLS_ADD_UP, CONSTANT_SIZE})
    remains = (
        "What deleted documents changed in the memory's weights stays; it fades as others come."
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smollm2-135m": {
            "layer": 12,
            "lora": {"rank": 16, "layer": 12},
            "memory": {
                "heads": 1,
                "head_dim": 512,
                "depth": 1,
                "convolution": 2,
                "chunk": 32,
                "momentum": False,
                "max_step": 1.0,
            },
        },
        "tiny": {"layer": 1, "memory": {"heads": 2, "head_dim": 8, "chunk": 16}},
    }

    def __init__(self, config: TitansConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        geometry = backbone.geometry
        geometry.require_layer(config.layer)
        geometry.require_layer(max(config.speak, 0))
        self.memory = NeuralMemory(geometry.width, config.memory)
        self.standard = Standardiser(geometry.width)
        self.network["memory"], self.network["standard"] = self.memory, self.standard
        if config.transport == "states":
            self.network["align"] = StateAlignment(geometry.width)
        else:
            self.network["scale"] = ChannelScale(geometry.width, config.scale)
        self.network.to(backbone.device)
        self.encoder = BackboneEncoder(backbone, config.layer)
        self.lora = config.lora.build(backbone)
        self._learned: State | None = None  # None: no document yet

    # ---- the state

    def learned(self) -> State:
        """What the memory has learned; its start where no document was written."""
        return self._learned or self.memory.start(1).detached()

    def memory_state(self) -> dict[str, Tensor]:
        """Weights and momentum, and the counters; see `State`."""
        tensors = self.learned().to("cpu").tensors()
        return {name: v for name, v in tensors.items() if name.startswith(_KEPT)}

    def load_memory_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `memory_state` gave.

        Raises:
            BankError: tensors of other names or shapes; both shapes are told.
        """
        if not state:
            self._learned = None
            return
        start = self.memory.start(1).detached()
        whole = {k: v for k, v in start.to("cpu").tensors().items() if not k.startswith(_KEPT)}
        try:
            found = State.from_tensors({**whole, **state})
            found.require_shapes_of(start)
        except InputError as error:
            raise BankError(
                f"the bank's memory does not fit this method's settings: {error}"
            ) from None
        found = replace(found, anchor=found.weights).to(self.backbone.device)
        self._learned = found if found.seen else None

    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank` with the memory that it holds."""
        self.bank = bank
        self.restore(bank)

    # ---- writing

    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Learns new documents, one after the other, and stores the memory with their rows."""
        began, bank, before = time.perf_counter(), self.require_bank(), self._learned
        new = list({d.id: d for d in documents if d.id not in bank}.values())
        try:
            if new:
                self._learned = self.learn([d.text for d in new], self.learned()).detached()
            entries = [Entry.of(d, LEVEL, b"") for d in documents]
            report = bank.append(entries, state=self.state_bytes(), fade=forget)
        except BaseException:
            self._learned = before
            raise
        return WriteReport.of(report, time.perf_counter() - began)

    @torch.no_grad()
    def learn(self, texts: Sequence[str], state: State) -> State:
        """The state after reading `texts`, each to its end."""
        with flushed_denormals():
            for text in texts:
                state = self.memory(self._states([text])[0], state).state.settled()
        return state

    def _states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(standardised states [B, T, D] without the start token, mask [B, T])."""
        states, mask = self.features(texts)
        return self.standard(states[:, 1:]), mask[:, 1:]

    # ---- reading

    @torch.no_grad()
    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """Attaches the memory; `documents` cannot be chosen, all are in the same weights."""
        if self._learned is None:
            return self.closed_book()
        return Conditioning((*self.reading().transports, *self._spoken(questions, self._learned)))

    def _spoken(self, questions: Sequence[str], state: State) -> tuple[Any, ...]:
        """The transports of what a memory says to questions."""
        if self.config.transport == "hook":
            return self._hooks(state)
        return (self._recalled(questions, state),)

    def _hooks(self, state: State) -> tuple[LayerHook, ...]:
        """Adds what each token's state recalls to it, or to its state at a later layer."""

        def recalled(hidden: Tensor) -> Tensor:
            rows = state.rows(torch.zeros(hidden.shape[0], dtype=torch.long, device=hidden.device))
            found = self.memory.recall(self.standard(hidden.float()), rows, apart=True)
            added: Tensor = self.network["scale"](found) * self.standard.std
            return added

        own = self.config
        if own.speak in (-1, own.layer):
            return (LayerHook(recalled, own.layer),)
        waiting: list[Tensor] = []  # between the two layers of one forward pass

        def wait(hidden: Tensor) -> None:
            waiting[:] = [recalled(hidden)]

        return LayerHook(wait, own.layer), LayerHook(lambda hidden: waiting.pop(), own.speak)

    def _recalled(self, questions: Sequence[str], state: State) -> Any:
        """States before the prompt: what the question's tokens recall, pooled."""
        states, mask = self._states(questions)
        rows = state.rows(torch.zeros(len(questions), dtype=torch.long, device=states.device))
        found = self.memory.recall(states, rows, apart=True)
        tokens = segment_means(found, mask, self.config.tokens)
        aligned = self.network["align"](tokens)
        return as_states(aligned, self.config.layer, self.backbone, self.standard)

    @torch.no_grad()
    def surprise(self, text: str) -> list[tuple[str, float]]:
        """(token, norm of its gradient) by the memory as it is; the chunks of `text` itself count.

        Raises:
            InputError: a text without tokens.
        """
        ids = self.backbone.encode([text], start=False)[0]
        if not ids:
            raise InputError("the text has no tokens; give a text with words")
        limit = self.config.chunk_tokens
        found: list[float] = []
        state = self.learned()
        for at in range(0, len(ids), limit):
            part = [[self.backbone.start_id, *ids[at : at + limit]]]
            states = self.backbone.states(*self.backbone.pad(part), self.config.layer).float()
            read = self.memory(self.standard(states[:, 1:]), state)
            state, found = read.state, [*found, *read.surprise[0].tolist()]
        words = [str(self.backbone.tokenizer.decode([i])) for i in ids]
        return list(zip(words, found, strict=True))

    def telemetry(self) -> dict[str, float]:
        """Tokens learned; inner steps that were clipped, and that were left out as not finite."""
        state = self.learned()
        return {
            "memory_tokens": float(state.seen),
            "memory_clipped": float(state.clipped.sum()),
            "memory_skipped": float(state.skipped.sum()),
        }

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """Measures the standardiser."""
        states, mask = self.features([d.text for d in documents[:64]])
        self.standard.measure(states[:, 1:], mask[:, 1:])

    def trainable(self) -> dict[str, nn.Parameter]:
        """The memory; with answers or texts that are read again the low-rank weights, too."""
        through = bool(self.config.answer_weight or self.config.retell)
        return {
            name: parameter
            for name, parameter in super().trainable().items()
            if through or name.startswith("network.memory")
        }

    def loss(self, batch: Batch) -> Loss:
        """What one memory knows of the documents of the batch after reading all of them.

        `answer`: the loss of the answers. `recall`: 1 - the cosine of what each token's state
        recalls and the state that came next. `point`: which token of the texts a question's query
        finds; the first of its answer is right. No upper layer is needed for these two. `retold`:
        the loss of the first and the last text, read again. Recall and retelling are asked at every
        token, so projections and gates learn from more than answers.
        """
        own, parts = self.config, {}
        read = [self._states([document.text])[0] for document in batch.documents]
        total = read[0].new_zeros(())
        if own.point:
            pointed, parts["found"] = self._pointing(batch, read)
            parts["point"] = pointed.item()
            total = total + own.point * pointed
        if not own.recall + own.answer_weight + own.retell:
            return Loss(total, parts)
        state = self._after(read, parts)
        if own.recall:
            ends = [self._recall_loss(states, state) for states in (read[0], read[-1])]
            recalled = torch.stack(ends).mean()
            parts["recall"] = recalled.item()
            total = total + own.recall * recalled
        if own.answer_weight or own.retell:
            total = total + self._through_the_backbone(batch, state, parts)
        return Loss(total, parts)

    def _after(self, read: Sequence[Tensor], parts: dict[str, float]) -> State:
        """The state after the texts of a step; notes their mean surprise."""
        state, surprises = self.memory.start(1), []
        for states in read:
            found = self.memory(states, state)
            state = found.state.settled()
            surprises.append(float(found.surprise.detach().mean()))
        parts["surprise"] = sum(surprises) / len(surprises)
        return state

    def _pointing(self, batch: Batch, read: Sequence[Tensor]) -> tuple[Tensor, float]:
        """See `pointing_loss`: the questions' queries among the keys of all texts `read`."""
        ends = list(itertools.accumulate((states.shape[1] for states in read), initial=0))
        spots = []
        for answer, owner in zip(batch.answers, batch.owner, strict=True):
            starts = answer_starts(self.backbone, batch.documents[owner].text, answer)
            spots.append([ends[owner] + at for at in starts if at < read[owner].shape[1]])
        keys = torch.cat([self.memory.keys(states)[0] for states in read])
        return pointing_loss(self.asked(batch.questions), keys, spots)

    def asked(self, questions: Sequence[str]) -> Tensor:
        """The queries [Q, d] at the ends of the questions' prompts."""
        return self.memory.queries(self.ends(questions)[None])[0]

    def ends(self, questions: Sequence[str]) -> Tensor:
        """The standardised states [Q, D] at the ends of the questions' prompts."""
        ids, mask = self.backbone.pad(prompt_ids(self.backbone, questions))
        with self.reading().attach(self.backbone):
            states = self.backbone.states(ids, mask, self.config.layer).float()
        last = states[torch.arange(len(ids)), mask.sum(1) - 1]
        found: Tensor = self.standard(last)
        return found

    def _recall_loss(self, states: Tensor, state: State) -> Tensor:
        """1 - cosine of recalled and next state, the mean over the tokens of one text."""
        found = self.memory.recall(states, state, apart=True)
        alike = nn.functional.cosine_similarity(found[:, :-1], states[:, 1:], dim=-1)
        return (1 - alike).mean() if alike.numel() else alike.sum()

    def _through_the_backbone(self, batch: Batch, state: State, parts: dict[str, float]) -> Tensor:
        """The weighted losses of answers and of texts read again; notes both in `parts`."""
        own = self.config
        spoken = self._spoken(batch.questions, state)
        total = torch.zeros((), device=self.backbone.device)
        with Conditioning((*self.reading().transports, *spoken)).attach(self.backbone):
            if own.answer_weight:
                answer = mean_answer_loss(self.backbone, batch)
                parts["answer"] = answer.item()
                total = total + own.answer_weight * answer
            if own.retell:
                ends = {batch.documents[0].text: None, batch.documents[-1].text: None}
                ids = document_ids(self.backbone, list(ends), own.chunk_tokens)
                losses, mask = next_token_losses(self.backbone, ids)
                retold = losses.sum() / mask.sum().clamp_min(1)
                parts["retold"] = retold.item()
                total = total + own.retell * retold
        return total
