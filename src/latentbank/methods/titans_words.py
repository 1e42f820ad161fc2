"""Titans with words as keys: an option of `titans`, not in its paper.

A query that is a linear map of one state does not find the key of its answer in texts that were
never seen (docs/methods/titans.md). Words do, as they do in BM25: a key is what stands around its
token, a query what the question says. The memory is still one matrix of constant size that each
text changes, and what it recalls is added to the states before the backbone's final norm, at each
token of the answer. The matrix holds no text; which token comes next is all that it can say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import prompt_ids
from latentbank.backbone.transports import LayerHook
from latentbank.capabilities import Trained
from latentbank.documents.document import Document
from latentbank.methods.titans_states import Titans, TitansConfig
from latentbank.parts.batch import Batch
from latentbank.parts.neural_memory import State
from latentbank.parts.neural_memory.pointing import pointing_loss
from latentbank.parts.neural_memory.words import Voice, WordMemory
from latentbank.parts.online.salient import answer_spans

_READ = 2000  # documents whose tokens are counted
_MEASURED = 16  # documents by which the spread of final states is measured
_POINTED = 4  # tokens of an answer that learn to be found


class TitansWords(Titans):
    """What `titans` is with `keys=words`."""

    remains = "What deleted documents added to the memory's sums stays in them."

    def __init__(self, config: TitansConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        width = backbone.geometry.width
        self.words = WordMemory(width, config.window)
        self.memory = self.words  # type: ignore[assignment]
        self.voice = Voice(width)
        self.network = nn.ModuleDict(
            {"memory": self.words, "standard": self.standard, "voice": self.voice}
        ).to(backbone.device)
        self._crowd: State | None = None  # what earlier steps of the training have left
        self._spans: dict[tuple[str, str], list[tuple[int, int]]] = {}

    # ---- reading

    def _spoken(self, questions: Sequence[str], state: State) -> tuple[LayerHook, ...]:
        """Looks at each token at layer 0, and speaks before the final norm."""
        bags, solved = self.words.bags(*self._states(questions)), self.words.solved(state)[0]
        looked: list[Tensor] = []  # between the two hooks of one forward pass

        def look(hidden: Tensor) -> None:
            looked[:] = [self.standard(hidden.float())]

        def speak(hidden: Tensor) -> Tensor:
            said = self.words.answers(bags[self.backbone.rows], looked.pop(), solved)
            added: Tensor = self.voice(said, hidden)
            return added

        return LayerHook(look, 0), LayerHook(speak, self.backbone.geometry.layers)

    # ---- training

    @torch.no_grad()
    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """Measures embeddings, which tokens there are, and the spread of final states."""
        super().prepare(documents, questions)
        backbone, last = self.backbone, self.backbone.geometry.layers
        ids = backbone.encode([d.text for d in documents[:_READ]], start=False)
        kinds = torch.tensor(sorted({token for row in ids for token in row}))[None]
        table = backbone.states(kinds, torch.ones_like(kinds).bool(), 0).float()
        self.words.measure(self.standard(table)[0])
        found: list[Tensor] = []
        hook = LayerHook(lambda hidden: found.append(hidden[:, 1:].float()), last)
        with hook.attach(backbone):
            for document in documents[:_MEASURED]:
                backbone.states(*backbone.pad(backbone.encode([document.text])), last)
        gain = getattr(backbone.decoder.norm, "weight", torch.ones(1)).float()
        small = gain.abs() < 0.1 * gain.abs().mean()
        map = self.words.even / torch.where(small, gain.abs().mean(), gain)[:, None]
        self.voice.measure(torch.cat([one[0] for one in found]), map / self.standard.std[:, None])

    def trainable(self) -> dict[str, nn.Parameter]:
        """Memory and voice; the memory alone where texts and queries are all that is learned."""
        spoken = bool(self.config.answer_weight or self.config.retell)
        kept = ("network.memory", "network.voice") if spoken else ("network.memory",)
        named = Trained.trainable(self)
        return {name: one for name, one in named.items() if name.startswith(kept)}

    def _after(self, read: Sequence[Tensor], parts: dict[str, float]) -> State:
        """The state after the texts of a step, and after what earlier steps left.

        Of those it holds about `crowd` documents, through which no gradient flows.
        """
        state = self._crowd or self.words.start(1)
        for states in read:
            state = self.words(states, state).state
        self._crowd = self._thinned(state.detached(), len(read))
        return state

    def _thinned(self, state: State, written: int) -> State | None:
        """The state with so much less that the next step holds as many documents; None: nothing."""
        kept = 1 - written / self.config.crowd if self.config.crowd else 0.0
        if kept <= 0:
            return None
        sums = tuple(kept * one for one in state.weights)
        return replace(state, weights=sums, anchor=sums, seen=round(kept * state.seen))

    def _pointing(self, batch: Batch, read: Sequence[Tensor]) -> tuple[Tensor, float]:
        """See `pointing_loss`: what follows question and answer so far, among all texts' tokens."""
        keys = torch.cat([self.words.keys(states)[0] for states in read])
        starts = [0]
        for states in read:
            starts.append(starts[-1] + states.shape[1])
        bags = self.words.bags(*self._states(batch.questions))
        first = self._asking(batch.questions[0])
        rows: list[int] = []
        last: list[Tensor] = []
        spots: list[list[int]] = []
        for row, (answer, owner) in enumerate(zip(batch.answers, batch.owner, strict=True)):
            states = read[owner][0]
            spans = self._spans_of(batch.documents[owner].text, answer, len(states))
            for at in range(min(_POINTED, *(end - start for start, end in spans)) if spans else 0):
                rows.append(row)
                last.append(states[spans[0][0] + at - 1] if at else first)
                spots.append([starts[owner] + start + at for start, _ in spans])
        if not rows:
            return keys.sum() * 0, 0.0
        queries = self.words.queries(bags[rows], torch.stack(last)[:, None])[:, 0]
        return pointing_loss(queries, keys, spots)

    def _asking(self, question: str) -> Tensor:
        """The standardised embedding [D] of the token after which an answer begins."""
        ids, mask = self.backbone.pad([prompt_ids(self.backbone, [question])[0][-1:]])
        found: Tensor = self.standard(self.backbone.states(ids, mask, 0).float())[0, 0]
        return found

    def _spans_of(self, text: str, answer: str, tokens: int) -> list[tuple[int, int]]:
        """`answer_spans` within the first `tokens` of a text; remembered."""
        key = (text, answer)
        if key not in self._spans:
            self._spans[key] = answer_spans(self.backbone, text, answer)
        return [(start, end) for start, end in self._spans[key] if end <= tokens]

    name = "titans"

    def telemetry(self) -> dict[str, float]:
        """Tokens learned, and those that were left out as not finite."""
        told: dict[str, Any] = super().telemetry()
        return {name: value for name, value in told.items() if name != "memory_clipped"}
