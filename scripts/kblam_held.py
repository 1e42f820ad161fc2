"""Held-out questions of KBLaM's training: is an answer's first token right, is it the refusal's?

Nothing is decoded. What the backbone computes below the first layer with triples is kept.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentbank.backbone.prompts import answer_ids, prompt_ids
from latentbank.evaluate.kb.world import REFUSAL, World, wording
from latentbank.parts.knowledge.features import Features
from latentbank.parts.knowledge.states import entering_states

COST = 2.0  # of a refused answerable question, in unanswerable ones that are answered
SIZES = (100, 1_000)
BATCH = 32


@dataclass
class Held:
    """A knowledge base and questions about it, as the states that enter the first layer.

    `wanted` are the first tokens of the answers; the refusal's for an unanswerable question.
    """

    features: Features
    states: list[Tensor]
    wanted: list[int]
    refusal: int

    def scores(self, method: Any) -> dict[str, float]:
        """Share of right first tokens, of refused answerable and of refused unanswerable ones."""
        said = first_tokens(method, self.features, self.states)
        pairs = list(zip(said, self.wanted, strict=True))
        known = [(a, b) for a, b in pairs if b != self.refusal]
        unknown = [a for a, b in pairs if b == self.refusal]
        return {
            "right": round(sum(a == b for a, b in known) / len(known), 3),
            "false_refusals": round(sum(a == self.refusal for a, _ in known) / len(known), 3),
            "refused": round(sum(a == self.refusal for a in unknown) / len(unknown), 3),
        }


def held_out(method: Any, seed: int, count: int = 64) -> dict[str, Held]:
    """Held-out entities in known and in held-out wordings, by name and number of triples.

    One triple of eleven is withheld; questions about those have no answer. There are `count`
    answerable questions at each size and up to half as many others.
    """
    made = {}
    refusal = answer_ids(method.backbone, [REFUSAL])[0][0]
    for size in SIZES:
        every = World(seed, held_entities=True).triples(size + max(size // 10, count // 2))
        draw = random.Random(f"{seed}/{size}")
        gone = sorted(draw.sample(range(len(every)), len(every) - size))
        kept = [triple for i, triple in enumerate(every) if i not in set(gone)]
        features = method.encoder.encode([(t.entity, t.property, t.value) for t in kept])
        for held in (False, True):
            known = draw.sample(kept, count)
            unknown = [every[i] for i in draw.sample(gone, count // 2)]
            asked = [
                wording(draw, "single", t.property, t.entity, held=held) for t in [*known, *unknown]
            ]
            said = answer_ids(method.backbone, [t.value for t in known])
            wanted = [row[0] for row in said] + [refusal] * len(unknown)
            states = entering(method, asked)
            name = f"wordings_{size}" if held else str(size)
            made[name] = Held(features, states, wanted, refusal)
    return made


def entering(method: Any, asked: Sequence[str]) -> list[Tensor]:
    """The states of questions that enter the first layer with triples."""
    prompts = prompt_ids(method.backbone, asked)
    return entering_states(method.backbone, method.layers[0], prompts)


@torch.no_grad()
def first_tokens(method: Any, features: Features, states: Sequence[Tensor]) -> list[int]:
    """The first token of each answer; `states` as of `entering`."""
    backbone = method.backbone
    said: list[int] = []
    for at in range(0, len(states), BATCH):
        part = list(states[at : at + BATCH])
        lengths = torch.tensor([len(one) for one in part])
        padded = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        memory = method.memory_of(features)
        memory.anchors = lengths - 1
        with method.reading().attach(backbone), memory.attach(backbone):
            whole = backbone.finish(padded, mask, method.layers[0])
        last = whole[torch.arange(len(part)), lengths - 1]
        said += backbone.logits(last).argmax(-1).tolist()
    return said
