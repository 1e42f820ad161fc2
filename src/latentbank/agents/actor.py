"""Who chooses an action: the model by likelihood, an endpoint by answering, chance.

A model of 135M parameters writes no plans. So it scores the admissible actions: the most likely one
after the prompt is taken. Knows prompts and models; knows no environment and no memory.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from latentbank.backbone.endpoint.client import Client
from latentbank.backbone.model import Backbone
from latentbank.errors import EndpointError, InputError

__all__ = ["Actor", "EndpointActor", "LikelihoodActor", "RandomActor"]

_TRIES, _TOKENS = 2, 24  # of an endpoint's answer


class Actor(Protocol):
    """Chooses one of several actions."""

    def choose(self, prompt: str, actions: Sequence[str]) -> str:
        """The action after a prompt that ends with "Action:"."""


class LikelihoodActor:
    """The action that the frozen model finds likeliest, per token.

    `calibrated`: the likelihood after "Action:" alone is taken off, so that common words win
    nothing (Zhao et al., 2021). The prompt is cut at its start where it is longer than `tokens`.
    """

    def __init__(self, backbone: Backbone, tokens: int = 512, calibrated: bool = True) -> None:
        self._backbone, self._tokens, self._calibrated = backbone, tokens, calibrated
        self._plain: dict[str, float] = {}

    def choose(self, prompt: str, actions: Sequence[str]) -> str:
        """See `Actor`. Raises InputError without actions."""
        if not actions:
            raise InputError("There is no action to choose from.")
        scores = self.scores(prompt, actions)
        return actions[int(np.argmax(scores))]

    def scores(self, prompt: str, actions: Sequence[str]) -> list[float]:
        """Mean log-likelihood per token, in nats, of each action."""
        found = self._likelihoods(prompt, actions)
        if not self._calibrated:
            return found
        new = [one for one in actions if one not in self._plain]
        if new:
            self._plain.update(zip(new, self._likelihoods("Action:", new), strict=True))
        return [score - self._plain[one] for score, one in zip(found, actions, strict=True)]

    @torch.no_grad()
    def _likelihoods(self, prompt: str, actions: Sequence[str]) -> list[float]:
        backbone = self._backbone
        asked = backbone.encode([prompt])[0]
        if len(asked) > self._tokens:  # the first token starts a text
            asked = [asked[0], *asked[1 - self._tokens :]]
        told = [backbone.encode([f" {one}"])[0][1:] for one in actions]
        ids, mask = backbone.pad([asked[:-1]])
        if not asked[:-1]:
            loss, count = backbone.answer_loss([asked] * len(told), told)
            return (-loss / count).tolist()
        memory = backbone.fill(backbone.states(ids, mask, 0), mask, 0)
        rows = torch.zeros(len(told), dtype=torch.long, device=ids.device)
        with backbone.with_memory(memory.rows(rows)):
            loss, count = backbone.answer_loss([asked[-1:]] * len(told), told)
        return (-loss / count).tolist()


class EndpointActor:
    """A chat model behind an OpenAI-compatible server. What it names nearly is taken.

    An endpoint that is down or names no action is asked again, and then `fallback` chooses.
    `counts` tells how often.
    """

    def __init__(self, client: Client, fallback: Actor) -> None:
        self._client, self._fallback = client, fallback
        self.counts: Counter[str] = Counter()

    def choose(self, prompt: str, actions: Sequence[str]) -> str:
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

    def choose(self, prompt: str, actions: Sequence[str]) -> str:
        """See `Actor`."""
        return actions[int(self._draw.integers(len(actions)))]
