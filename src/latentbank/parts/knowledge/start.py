"""The aligned start of a whole network: states of the frozen backbone, then each layer's maps.

Knows the backbone, adapters by layer and features; knows no bank and no method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from latentbank.backbone.layers import attention_modules
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import answer_ids, prompt_ids
from latentbank.parts.knowledge.adapters import KnowledgeAdapter
from latentbank.parts.knowledge.alignment import align_keys, align_queries, align_values
from latentbank.parts.knowledge.features import Features
from latentbank.parts.knowledge.states import entering_states, output_projection, watched_states
from latentbank.parts.knowledge.supervision import targets

__all__ = ["LEAST_ALIGNED", "align", "align_to"]

EARLY, LATE = 0.03, 1.5  # of the residual stream's strength: what a slot's embedding adds at first
LATE_BIAS = 4.0  # of a late layer's scores, so that triples weigh against the text
LEAST_ALIGNED = 64
"""Questions below which there is no aligned start."""

Adapters = Mapping[int, KnowledgeAdapter]


@torch.no_grad()
def align(
    backbone: Backbone,
    adapters: Adapters,
    features: Features,
    questions: Sequence[str],
    answers: Sequence[str],
    owner: Sequence[int],
) -> None:
    """The aligned start from questions [Q], answered by the values of triples `owner` [Q]."""
    said, prompts = answer_ids(backbone, answers), prompt_ids(backbone, questions)
    rows = [[*p, *a] for p, a in zip(prompts, said, strict=True)]
    entering = entering_states(backbone, min(adapters), rows)
    states, strengths = watched_states(backbone, adapters, entering, prompts, said)
    align_to(backbone, adapters, features, states, strengths, owner, said)


@torch.no_grad()
def align_to(
    backbone: Backbone,
    adapters: Adapters,
    features: Features,
    states: Mapping[int, Tensor],
    strengths: Mapping[int, float],
    owner: Sequence[int],
    said: Sequence[Sequence[int]],
) -> None:
    """`align` from the states [N, D] of each layer at the N answer tokens `said`."""
    wanted = targets(features, [(one,) for one in owner], said)
    slots = torch.tensor([row[0] if row else -1 for row in wanted])
    lengths = torch.tensor([len(row) for row in said])
    rows = torch.tensor(list(owner)).repeat_interleave(lengths)
    first = torch.zeros(len(rows), dtype=torch.bool)
    first[lengths.cumsum(0) - lengths] = True
    modules = attention_modules(backbone.decoder)
    draw = torch.Generator().manual_seed(0)
    for layer, adapter in adapters.items():
        align_keys(adapter, features, draw)
        align_queries(adapter, features, states[layer], rows, first, slots)
        # what an early layer writes would upset the queries of the later ones
        late = layer > sum(adapters) / len(adapters)
        out = output_projection(modules[layer])
        if out is not None:
            align_values(adapter, out, (LATE if late else EARLY) * strengths[layer])
        adapter.head_bias.fill_(LATE_BIAS if late else 0.0)
