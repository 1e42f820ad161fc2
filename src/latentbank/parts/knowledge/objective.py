"""What training minimises: the answer's loss, and that of the attention to the slots it is in.

Knows the backbone, an attached memory of triples and batches; knows no bank and no method.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentbank.backbone.model import AnswerLogits, Backbone
from latentbank.backbone.prompts import answer_ids, prompt_ids
from latentbank.backbone.transports import Conditioning, KnowledgeMemory
from latentbank.parts.batch import Batch, Loss
from latentbank.parts.knowledge.features import Features
from latentbank.parts.knowledge.supervision import (
    KnowledgeBatch,
    answer_places,
    attention_loss,
    facts_of,
    targets,
)

__all__ = ["knowledge_loss"]


def knowledge_loss(
    backbone: Backbone,
    reading: Conditioning,
    memory: KnowledgeMemory,
    features: Features,
    batch: Batch,
    attention_weight: float,
) -> Loss:
    """Mean answer loss per token, plus `attention_weight` times the loss on attention.

    `memory` holds the triples of `features`; where its `always` is 1 the last of them answers what
    no other does. `reading` holds the low-rank weights.
    """
    scores: dict[int, Tensor] = {}
    prompts = prompt_ids(backbone, batch.questions)
    memory.anchors = torch.tensor([len(row) - 1 for row in prompts], device=memory.owner.device)
    memory.watch = lambda layer, found, real, start, rows: scores.update({layer: found})
    said = answer_ids(backbone, batch.answers)
    with reading.attach(backbone), memory.attach(backbone):
        read = _answers(backbone, memory.layer, batch, prompts, said)
    answer = nn.functional.cross_entropy(read.logits, read.tokens)
    if not attention_weight:
        return Loss(answer, {"answer": answer.item()})
    none = (len(features) - 1,) if memory.always else ()
    wanted = targets(features, [own or none for own in facts_of(batch)], said)
    lost = [attention_loss(found[read.places], wanted) for found in scores.values()]
    drawn = torch.stack(lost).mean()
    parts = {"answer": answer.item(), "attention": drawn.item()}
    return Loss(answer + attention_weight * drawn, parts)


def _answers(
    backbone: Backbone,
    first: int,
    batch: Batch,
    prompts: Sequence[Sequence[int]],
    said: Sequence[Sequence[int]],
) -> AnswerLogits:
    """Logits at the answers' tokens `said`, with what is attached now.

    Where the batch has the states that enter layer `first`, the layers below are not run.
    """
    if not isinstance(batch, KnowledgeBatch) or not batch.states:
        return backbone.answer_logits(prompts, said)
    states = nn.utils.rnn.pad_sequence(list(batch.states), batch_first=True)
    lengths = torch.tensor([len(one) for one in batch.states])
    mask = (torch.arange(states.shape[1]) < lengths[:, None]).to(backbone.device)
    hidden = backbone.finish(states.to(backbone.device), mask, first)
    places, tokens = answer_places(prompts, said, states.shape[1])
    logits = backbone.logits(hidden[places.to(backbone.device)]).float()
    return AnswerLogits(logits, tokens.to(backbone.device), places.to(backbone.device))
