"""Which triple a question asks for, trained on the frozen backbone's states alone.

The aligned start is a regression; it does not know which triples are alike. Here each question's
state chooses among the triples of a knowledge base and the null triple, by cross-entropy. Nothing
runs through the backbone, so a step takes milliseconds. Knows adapters, features and states.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentbank.parts.knowledge.adapters import KnowledgeAdapter
from latentbank.parts.knowledge.features import Features

__all__ = ["ContrastSettings", "contrast", "row_scores"]


@dataclass(frozen=True)
class ContrastSettings:
    """How long and how fast; `least` and `most` triples of a step, `missing`: share without one."""

    steps: int = 600
    questions: int = 128
    rate: float = 3e-4
    scalar_rate: float = 0.03
    least: int = 10
    most: int = 2_000
    missing: float = 0.3
    scale_triples: int = 100
    seed: int = 0


def contrast(
    adapters: Mapping[int, KnowledgeAdapter],
    features: Features,
    states: Mapping[int, Tensor],
    owner: Sequence[int],
    family: Sequence[Sequence[int]],
    settings: ContrastSettings,
) -> list[float]:
    """Trains keys, queries and the null score; returns the mean loss of each step.

    `states` [Q, D] of each layer are those at the end of a question about the triple `owner` [Q].
    `family` [M] are the triples of the same entity: half of the questions stand beside them.
    """
    matrices, scalars = [], []
    for adapter in adapters.values():
        matrices += [*adapter.keys.parameters(), *adapter.queries.parameters()]
        scalars += [adapter.offset, *([adapter.null_score] if adapter.null else [])]
        scalars += [adapter.scale] if adapter.unit_queries else []
    groups = [
        {"params": matrices, "lr": settings.rate, "first": settings.rate},
        {"params": scalars, "lr": settings.scalar_rate, "first": settings.scalar_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    lost = []
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["first"] * (1 - step / settings.steps)
        rows, asked, labels = _drawn(len(features), owner, family, settings, step)
        keys = features.keys[rows].float()
        total = torch.zeros(())
        for layer, adapter in adapters.items():
            scores = row_scores(adapter, keys, states[layer][asked].float(), settings.scale_triples)
            scores = scores if adapter.null else scores[..., :-1]
            goal = labels[:, None].expand(-1, scores.shape[1])
            total = total + nn.functional.cross_entropy(
                scores.flatten(0, 1),
                goal.flatten(),
                ignore_index=-100 if adapter.null else len(rows),
            )
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        lost.append(total.item() / len(adapters))
    return lost


def row_scores(
    adapter: KnowledgeAdapter, keys: Tensor, states: Tensor, scale_triples: int
) -> Tensor:
    """Scores [Q, G, M + 1] of triples with features `keys` [M, P], and of the null triple."""
    sizes = adapter.sizes
    made = adapter.keys(keys).reshape(len(keys), sizes.groups, sizes.key)
    made = nn.functional.layer_norm(made, (sizes.key,))
    found = torch.einsum("bge,mge->bgm", adapter.ask(states[None])[0][0], made)
    shift = math.log(scale_triples / len(keys)) if scale_triples else 0.0
    found = found + (adapter.offset + shift)[None, :, None]
    null = adapter.null_score if adapter.null else torch.full_like(adapter.offset, -torch.inf)
    return torch.cat([found, null[None, :, None].expand(len(states), -1, 1)], -1)


def _drawn(
    count: int,
    owner: Sequence[int],
    family: Sequence[Sequence[int]],
    settings: ContrastSettings,
    step: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(triples [M] of a step, questions [B], which of the M each asks for; M: none)."""
    draw = random.Random(f"{settings.seed}/{step}")
    most = min(settings.most, count // 2)
    size = round(math.exp(draw.uniform(math.log(settings.least), math.log(most))))
    asked = draw.sample(range(len(owner)), min(settings.questions, len(owner), max(4, size // 2)))
    absent = {owner[i] for i in asked if draw.random() < settings.missing}
    chosen = dict.fromkeys(owner[i] for i in asked if owner[i] not in absent)
    for i in asked:
        if draw.random() < 0.5:
            chosen |= dict.fromkeys(j for j in family[owner[i]][:8] if j not in absent)
    while len(chosen) < size:
        at = draw.randrange(count)
        if at not in absent:
            chosen[at] = None
    number = {at: i for i, at in enumerate(chosen)}
    labels = [number.get(owner[i], len(chosen)) for i in asked]
    return torch.tensor(list(chosen)), torch.tensor(asked), torch.tensor(labels)
