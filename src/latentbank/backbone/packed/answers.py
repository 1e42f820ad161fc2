"""The answer loss of many questions in one packed run, for training.

A question reads the memory of its document, or none. The states after the frozen lower layers can
come from a cache. Knows token ids, states and low-rank weights; knows no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.packed.layers import PackedLayers
from latentbank.backbone.packed.layout import Group, Layout
from latentbank.backbone.prompts import answer_ids, passage_ids, prompt_ids

if TYPE_CHECKING:
    from latentbank.backbone.encoder import StateCache
    from latentbank.backbone.model import Backbone

_TOGETHER = 4  # questions without memory that share their first tokens
_AT_ONCE = 64  # texts that run through the lower layers together


@dataclass(frozen=True)
class AnswerStates:
    """Final states at the answers' tokens.

    `states` [A, D] predict `tokens` [A], the answers' tokens question by question. `question` [A]
    is the number of the question of each.
    """

    states: Tensor
    tokens: Tensor
    question: Tensor


@dataclass(frozen=True)
class _Row:
    """A question with its answer; `ids` leave out the last token, which predicts nothing."""

    ids: tuple[int, ...]
    prompt: int  # tokens of the prompt
    answer: tuple[int, ...]


class PackedAnswers:
    """Computes answers with packed layers; only the layers from `split` upward are trained.

    `cache` keeps the states of prompts and passages that enter `split`.
    """

    def __init__(self, backbone: Backbone, split: int, cache: StateCache | None = None) -> None:
        self.backbone, self.split, self.cache = backbone, split, cache
        self.layers = PackedLayers(backbone)
        self._prefix = f"{backbone.fingerprint}/{split}/ids "

    # ---- what methods call

    def from_states(
        self,
        lora: LoraWeights | None,
        questions: Sequence[str],
        answers: Sequence[str],
        memories: Sequence[Tensor],
        owner: Sequence[int],
    ) -> AnswerStates:
        """Reads questions whose memories enter layer `split`.

        `memories`: states [M, D] that take the positions before the question; they may carry
        gradients. `owner` [Q] is the number of each question's memory, -1 for none.
        """
        rows = self._rows(questions, answers)
        below = self._lower([row.ids for row in rows])
        return self._read(lora, rows, below, memories, _grouped(owner, rows))

    def from_passages(
        self,
        lora: LoraWeights | None,
        questions: Sequence[str],
        answers: Sequence[str],
        passages: Sequence[str],
        owner: Sequence[int],
    ) -> AnswerStates:
        """Reads questions after a passage in their context, from layer 0; `owner` as above."""
        rows = [
            row if own < 0 else _Row(row.ids[1:], row.prompt - 1, row.answer)  # one start token
            for row, own in zip(self._rows(questions, answers), owner, strict=True)
        ]
        contexts = [tuple(ids) for ids in passage_ids(self.backbone, passages)]
        memories = self._lower(contexts)
        before = [contexts[i] if i >= 0 else () for i in owner]
        below = self._lower([row.ids for row in rows], before)
        return self._read(lora, rows, below, memories, _grouped(owner, rows))

    def logits(self, answer: AnswerStates) -> Tensor:
        """Vocabulary logits [A, V], float32."""
        return self.backbone.logits(answer.states).float()

    def losses(self, answer: AnswerStates) -> Tensor:
        """Negative log-likelihood [A] of every answer token."""
        return nn.functional.cross_entropy(self.logits(answer), answer.tokens, reduction="none")

    # ---- rows

    def _rows(self, questions: Sequence[str], answers: Sequence[str]) -> list[_Row]:
        prompts = prompt_ids(self.backbone, questions)
        said = answer_ids(self.backbone, answers)
        return [
            _Row((*prompt, *answer[:-1]), len(prompt), tuple(answer))
            for prompt, answer in zip(prompts, said, strict=True)
        ]

    # ---- frozen layers

    @torch.no_grad()
    def _lower(
        self,
        texts: Sequence[tuple[int, ...]],
        contexts: Sequence[tuple[int, ...]] | None = None,
    ) -> list[Tensor]:
        """States [tokens, D] of each text that enter `split`, after its context (default: none)."""
        before = contexts if contexts is not None else [()] * len(texts)
        keys = [self._key(context, text) for context, text in zip(before, texts, strict=True)]
        states: list[Tensor | None] = [None] * len(texts)
        if self.cache is not None:
            states = [self.cache.get(key) for key in keys]
        missing = [i for i, row in enumerate(states) if row is None]
        missing.sort(key=lambda i: (before[i], len(texts[i])))
        for at in range(0, len(missing), _AT_ONCE):
            part = missing[at : at + _AT_ONCE]
            made = self._computed([texts[i] for i in part], [before[i] for i in part])
            for i, row in zip(part, made, strict=True):
                states[i] = row
                if self.cache is not None:
                    states[i] = self.cache.keep(keys[i], row)
        device, dtype = self.backbone.device, self.backbone.dtype
        return [row.to(device, dtype) for row in states if row is not None]

    def _key(self, context: tuple[int, ...], text: tuple[int, ...]) -> str:
        ids = " ".join(map(str, text))
        if context:
            ids = f"{' '.join(map(str, context))}|{ids}"
        return self._prefix + ids

    def _computed(
        self, texts: Sequence[tuple[int, ...]], contexts: Sequence[tuple[int, ...]]
    ) -> list[Tensor]:
        """Runs texts through the layers below `split`; a context runs once for all of its texts."""
        groups: list[Group] = []
        line: list[int] = []
        spans: list[slice] = []
        at = 0
        while at < len(texts):
            context, stop = contexts[at], at + 1
            while context and stop < len(texts) and contexts[stop] == context:
                stop += 1
            line += context
            for text in texts[at:stop]:
                spans.append(slice(len(line), len(line) + len(text)))
                line += text
            groups.append(Group(len(context), 0, tuple(len(text) for text in texts[at:stop])))
            at = stop
        layout = Layout.of(groups, self.backbone.dtype, self.backbone.device)
        ids = torch.tensor(line, device=self.backbone.device)
        states: Tensor = self.backbone.model.get_input_embeddings()(ids)
        states = self.layers.run(states, layout, 0, self.split)
        return [states[span].clone() for span in spans]

    # ---- trained layers

    def _read(
        self,
        lora: LoraWeights | None,
        rows: Sequence[_Row],
        below: Sequence[Tensor],
        memories: Sequence[Tensor],
        members: Sequence[tuple[int, tuple[int, ...]]],
    ) -> AnswerStates:
        """Runs the groups `members` (memory or -1, questions) through the layers from `split`."""
        dtype, device = self.backbone.dtype, self.backbone.device
        groups: list[Group] = []
        line: list[Tensor] = []
        at = 0
        wanted: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * len(rows)
        for memory, asked in members:
            own = memories[memory] if memory >= 0 else None
            size = 0 if own is None else len(own)
            shared = _common_prefix([rows[i] for i in asked])
            group = Group(size, shared, tuple(len(rows[i].ids) - shared for i in asked))
            groups.append(group)
            if own is not None:
                line.append(own.to(dtype))
            line.append(below[asked[0]][:shared])
            place = at + size + shared
            for i in asked:
                line.append(below[i][shared:])
                stop = place + len(rows[i].ids) - shared
                wanted[i] = np.arange(stop - len(rows[i].answer), stop)
                place = stop
            at += group.tokens
        layout = Layout.of(groups, dtype, device)
        chosen = torch.from_numpy(np.concatenate(wanted)).to(device)
        last = self.backbone.geometry.layers
        states = self.layers.run(torch.cat(line), layout, self.split, last, lora, chosen)
        tokens = torch.tensor([token for row in rows for token in row.answer], device=device)
        lengths = torch.tensor([len(row.answer) for row in rows])
        question = torch.arange(len(rows)).repeat_interleave(lengths).to(device)
        return AnswerStates(states, tokens, question)


def _common_prefix(rows: Sequence[_Row]) -> int:
    """The number of equal tokens at the beginning of the prompts; 0 for a single row.

    The last token of a prompt is never shared: it predicts the first token of the answer.
    """
    if len(rows) < 2:
        return 0
    limit = min(row.prompt for row in rows) - 1
    first = rows[0].ids
    for at in range(limit):
        if any(row.ids[at] != first[at] for row in rows[1:]):
            return at
    return limit


def _grouped(owner: Sequence[int], rows: Sequence[_Row]) -> list[tuple[int, tuple[int, ...]]]:
    """(memory or -1, its questions); questions without memory form small groups of like length."""
    own: dict[int, list[int]] = {}
    for question, memory in enumerate(owner):
        own.setdefault(int(memory), []).append(question)
    closed = sorted(own.pop(-1, []), key=lambda i: len(rows[i].ids))
    groups = [(memory, tuple(questions)) for memory, questions in own.items()]
    groups += [(-1, tuple(closed[at : at + _TOGETHER])) for at in range(0, len(closed), _TOGETHER)]
    return groups
