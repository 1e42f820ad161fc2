"""What training knows about a step of questions about triples: which slot each answer token is in.

Knows batches, features and token ids; knows no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentbank.parts.batch import Batch
from latentbank.parts.knowledge.features import Features

__all__ = ["KnowledgeBatch", "answer_places", "attention_loss", "facts_of", "targets"]


@dataclass(frozen=True)
class KnowledgeBatch(Batch):
    """A step whose documents are triples.

    `facts` [Q] are the numbers of the triples that answer a question; none for an unanswerable one.
    `features` are those of the documents, where they are known. `states` [Q] are those of each
    question and its answer [T, D] that enter the first layer with triples, where they are known.
    """

    facts: tuple[tuple[int, ...], ...] = ()
    features: Features | None = None
    states: tuple[Tensor, ...] = ()


def facts_of(batch: Batch) -> Sequence[tuple[int, ...]]:
    """The triples that answer each question; of a plain batch its owner."""
    if isinstance(batch, KnowledgeBatch):
        return batch.facts
    return [(one,) for one in batch.owner]


def targets(
    features: Features, facts: Sequence[tuple[int, ...]], answers: Sequence[Sequence[int]]
) -> list[list[int]]:
    """For each answer token, row by row, the slots that hold it, in one of the question's triples.

    Empty where no slot holds the token: words around a value. `answers` [Q] are token ids with the
    end token.
    """
    slots: dict[int, list[int]] = {}
    for slot, owner in enumerate(features.owner.tolist()):
        slots.setdefault(owner, []).append(slot)
    held = features.tokens.tolist()
    made: list[list[int]] = []
    for own, answer in zip(facts, answers, strict=True):
        places: list[list[int]] = [[] for _ in answer]
        for fact in own:
            _mark(places, list(answer), slots[fact], held)
        made += places
    return made


def _mark(places: list[list[int]], answer: list[int], slots: list[int], held: list[int]) -> None:
    """Enters the slots of one triple where its value stands in the answer."""
    if len(slots) == 1:  # the whole value in one slot
        for place in places:
            place.append(slots[0])
        return
    whole = held[slots[-1]] != -1
    value = [held[slot] for slot in slots[:-1]]  # without the end token, or what is pooled
    at = next((i for i in range(len(answer)) if answer[i : i + len(value)] == value), None)
    if at is None:
        return
    for number, slot in enumerate(slots[:-1]):
        places[at + number].append(slot)
    after = range(at + len(value), len(answer))
    if whole and after and answer[after[0]] == held[slots[-1]]:
        places[after[0]].append(slots[-1])
    elif not whole:
        for later in after:
            places[later].append(slots[-1])


def attention_loss(scores: Tensor, wanted: Sequence[Sequence[int]]) -> Tensor:
    """Mean of −log of the attention that the wanted slots get; a scalar.

    `scores` [N, G, S] of N answer tokens; those without a wanted slot are left out.
    """
    kept = [i for i, slots in enumerate(wanted) if slots]
    if not kept:
        return scores.new_zeros(())
    mask = torch.zeros(len(kept), scores.shape[-1], dtype=torch.bool, device=scores.device)
    for row, i in enumerate(kept):
        mask[row, list(wanted[i])] = True
    chosen = scores[kept].log_softmax(-1)
    return -chosen.masked_fill(~mask[:, None], -torch.inf).logsumexp(-1).mean()


def answer_places(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], length: int
) -> tuple[Tensor, Tensor]:
    """(places [Q, length] bool where an answer's tokens are predicted, these tokens [N])."""
    places = torch.zeros(len(prompts), length, dtype=torch.bool)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        places[i, len(prompt) - 1 : len(prompt) - 1 + len(answer)] = True
    return places, torch.tensor([token for answer in answers for token in answer])
