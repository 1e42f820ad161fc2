"""Who chooses an action: the model by likelihood, an endpoint by answering, chance.

A model of 135M parameters writes no plans. So it scores the admissible actions: the most likely one
after the prompt is taken. Knows prompts and models; knows no environment and no memory.
"""

from __future__ import annotations

import difflib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from latentbank.backbone.endpoint.client import Client
from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone
from latentbank.errors import EndpointError, InputError

__all__ = ["Actor", "EndpointActor", "LikelihoodActor", "Prompt", "RandomActor"]

_TRIES, _TOKENS = 2, 24  # of an endpoint's answer
_PASSAGES = 256  # whose keys and values are kept, about 1 MB each


@dataclass(frozen=True)
class Prompt:
    """What an actor reads: passages of a memory, the best first, then the situation.

    `situation` ends with "Action:".
    """

    situation: str
    passages: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As one text, the best passage next to the situation."""
        return "\n\n".join([*reversed(self.passages), self.situation])


class Actor(Protocol):
    """Chooses one of several actions."""

    def choose(self, prompt: Prompt, actions: Sequence[str]) -> str:
        """The action after a prompt."""


class LikelihoodActor:
    """The action that the frozen model finds likeliest.

    An action is scored by its first tokens, up to where it differs from all others; the mean of
    their log-likelihoods counts. `calibrated`: the score after "Action:" alone is taken off, so
    that common words win nothing (Zhao et al., 2021).

    Each passage runs through the model once, alone, and its keys and values are kept; the situation
    attends to all passages of its prompt (parallel context windows, Ratner et al., 2023). Passages
    with equal text are one with the mass of their number. Scores of equal prompts are remembered.
    """

    def __init__(self, backbone: Backbone, calibrated: bool = True) -> None:
        self._backbone, self._calibrated = backbone, calibrated
        self._read: OrderedDict[str, KVMemory] = OrderedDict()
        self._scores: dict[tuple[object, ...], list[float]] = {}

    def choose(self, prompt: Prompt, actions: Sequence[str]) -> str:
        """See `Actor`. Raises InputError without actions."""
        if not actions:
            raise InputError("There is no action to choose from.")
        return actions[int(np.argmax(self.scores(prompt, actions)))]

    def scores(self, prompt: Prompt, actions: Sequence[str]) -> list[float]:
        """The score of each action, in nats per token."""
        found = self._likelihoods(prompt, actions)
        if not self._calibrated:
            return found
        plain = self._likelihoods(Prompt("Action:"), actions)
        return [score - before for score, before in zip(found, plain, strict=True)]

    def _likelihoods(self, prompt: Prompt, actions: Sequence[str]) -> list[float]:
        counted = Counter(prompt.passages)
        key = (prompt.situation, frozenset(counted.items()), tuple(actions))
        if key not in self._scores:
            self._scores[key] = self._computed(
                counted, prompt.situation, _distinct(self._tokens(actions))
            )
        return self._scores[key]

    @torch.no_grad()
    def _computed(
        self, passages: Counter[str], situation: str, told: Sequence[Sequence[int]]
    ) -> list[float]:
        backbone = self._backbone
        memory = self._memory(passages) if passages else None
        asked = backbone.encode([situation], start=memory is None)[0]
        longest = max(map(len, told))
        if longest == 1:  # the situation alone tells
            with backbone.with_memory(memory):
                hidden = backbone.session(1).feed(*backbone.pad([asked]))
            first = backbone.logits(hidden[:, -1]).float().log_softmax(-1)[0]
            return [float(first[one[0]]) for one in told]
        rows = torch.zeros(len(told), dtype=torch.long, device=backbone.device)
        with backbone.with_memory(None if memory is None else memory.rows(rows)):
            loss, count = backbone.answer_loss([asked] * len(told), told)
        return (-loss / count).tolist()

    def _memory(self, passages: Counter[str]) -> KVMemory:
        """The passages beside each other, with one start token before them."""
        self._encode([text for text in passages if text not in self._read])
        parts = []
        for number, (text, count) in enumerate(passages.items()):
            self._read.move_to_end(text)
            part, cut = self._read[text], slice(1 if number else 0, None)
            mass = torch.full_like(part.bias, float(np.log(count)))
            mass[:, 0] = 0.0  # the start token
            assert part.positions is not None
            parts.append((part, cut, mass[:, cut], part.positions[:, cut]))
        while len(self._read) > max(_PASSAGES, len(passages)):
            self._read.popitem(last=False)
        layers = range(len(parts[0][0].keys))
        return KVMemory(
            keys=tuple(
                torch.cat([one.keys[i][:, :, c] for one, c, *_ in parts], 2) for i in layers
            ),
            values=tuple(
                torch.cat([one.values[i][:, :, c] for one, c, *_ in parts], 2) for i in layers
            ),
            bias=torch.cat([mass for *_, mass, _ in parts], 1),
            start=torch.stack([one.start for one, *_ in parts]).amax(0),
            positions=torch.cat([places for *_, places in parts], 1),
        )

    def _encode(self, texts: Sequence[str]) -> None:
        """Runs passages through the model together and keeps the keys and values of each."""
        if not texts:
            return
        ids, mask = self._backbone.pad(self._backbone.encode([f"{text}\n\n" for text in texts]))
        made = self._backbone.fill(self._backbone.states(ids, mask, 0), mask, 0)
        for row, text in enumerate(texts):
            size = int(mask[row].sum())
            own = made.rows(torch.tensor([row], device=ids.device))
            assert own.positions is not None
            self._read[text] = replace(
                own,
                keys=tuple(one[:, :, :size].clone() for one in own.keys),
                values=tuple(one[:, :, :size].clone() for one in own.values),
                bias=own.bias[:, :size],
                positions=own.positions[:, :size],
            )

    def _tokens(self, actions: Sequence[str]) -> list[list[int]]:
        return [self._backbone.encode([f" {one}"], start=False)[0] for one in actions]


def _distinct(tokens: Sequence[Sequence[int]]) -> list[list[int]]:
    """The first tokens of each row, up to where it differs from all other rows."""
    found = []
    for row in tokens:
        shared = [_shared(row, other) for other in tokens if other != row]
        found.append(list(row[: max(shared, default=0) + 1]))
    return found


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens are equal."""
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return min(len(one), len(other))


class EndpointActor:
    """A chat model behind an OpenAI-compatible server. What it names nearly is taken.

    An endpoint that is down or names no action is asked again, and then `fallback` chooses.
    `counts` tells how often.
    """

    def __init__(self, client: Client, fallback: Actor) -> None:
        self._client, self._fallback = client, fallback
        self.counts: Counter[str] = Counter()

    def choose(self, prompt: Prompt, actions: Sequence[str]) -> str:
        """See `Actor`."""
        asked = f"{prompt}\nAnswer with one of: {', '.join(actions)}."
        for _ in range(_TRIES):
            try:
                said = self._client.chat([{"role": "user", "content": asked}], _TOKENS)
            except EndpointError:
                self.counts["no answer"] += 1
                continue
            answer = said.text.strip().lower()
            named = [one for one in actions if one in answer]
            near = named or difflib.get_close_matches(answer, actions, 1)
            if near:
                self.counts["taken"] += 1
                return near[0]
            self.counts["no action"] += 1
        self.counts["fallback"] += 1
        return self._fallback.choose(prompt, actions)


class RandomActor:
    """Any action, drawn by `seed`."""

    def __init__(self, seed: int = 0) -> None:
        self._draw = np.random.default_rng(seed)

    def choose(self, prompt: Prompt, actions: Sequence[str]) -> str:
        """See `Actor`."""
        return actions[int(self._draw.integers(len(actions)))]
