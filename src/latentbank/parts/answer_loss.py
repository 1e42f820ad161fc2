"""Answer loss of a step in which some questions are asked without memory.

Knows batches, keys and values, conditionings and packed layers. Draws no random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.model import Backbone
from latentbank.backbone.packed import AnswerStates, PackedAnswers
from latentbank.backbone.transports import Conditioning
from latentbank.parts.batch import Batch, mean_answer_loss

__all__ = ["packed_split_loss", "packed_states_loss", "split_answer_loss"]

PackedRead = Callable[
    [LoraWeights | None, Sequence[str], Sequence[str], Sequence[int]], AnswerStates
]
"""Low-rank weights, questions, answers, the document of each question (-1: none) → states."""


def split_answer_loss(
    backbone: Backbone,
    batch: Batch,
    memory: KVMemory,
    without: npt.NDArray[np.bool_],
    reading: Conditioning,
    closed_book: Conditioning,
    started: bool = False,
) -> Tensor:
    """The mean answer loss per question; a scalar.

    `memory` has one row for each document of the batch. The questions where `without` [Q] holds are
    asked under `closed_book` and see no memory. The others are asked under `reading` and see the
    row of their own document. `started`: the memory is the beginning of the prompt and contains its
    start token.
    """
    owner = np.array(batch.owner)
    total = torch.zeros((), device=backbone.device)
    for closed in (False, True):
        rows = np.flatnonzero(without == closed)
        if len(rows) == 0:
            continue
        seen = None if closed else memory.rows(torch.from_numpy(owner[rows]).to(total.device))
        attached = closed_book if closed else reading
        with attached.attach(backbone), backbone.with_memory(seen):
            loss = mean_answer_loss(
                backbone, batch.with_questions(rows.tolist()), started and not closed
            )
        total = total + loss * len(rows) / len(without)
    return total


def packed_split_loss(
    packed: PackedAnswers,
    batch: Batch,
    without: npt.NDArray[np.bool_],
    lora: LoraWeights | None,
    closed_lora: LoraWeights | None,
    read: PackedRead,
) -> Tensor:
    """`split_answer_loss` by packed layers.

    Questions `without` [Q] memory are asked with `closed_lora`, or with `lora` where it is None.
    """
    owner = np.where(without, -1, np.array(batch.owner))
    total = torch.zeros((), device=packed.backbone.device)
    for rows in _runs(without, closed_lora is not None):
        part = batch.with_questions(rows.tolist())
        closed = without[rows]
        weights = closed_lora if closed_lora is not None and closed[0] else lora
        states = read(weights, part.questions, part.answers, owner[rows].tolist())
        losses = packed.losses(states)
        apart = torch.from_numpy(closed).to(losses.device)[states.question]
        for chosen, count in ((apart, closed.sum()), (~apart, (~closed).sum())):
            if count:
                total = total + losses[chosen].mean() * int(count) / len(without)
    return total


def packed_states_loss(
    packed: PackedAnswers,
    batch: Batch,
    without: npt.NDArray[np.bool_],
    lora: LoraWeights | None,
    closed_lora: LoraWeights | None,
    states: Tensor,
    mask: Tensor,
) -> Tensor:
    """`packed_split_loss`, read from middle-layer states [documents, M, D] with mask [., M]."""
    memories = [row[own] for row, own in zip(states, mask, strict=True)]
    return packed_split_loss(
        packed,
        batch,
        without,
        lora,
        closed_lora,
        lambda lora, asked, said, owner: packed.from_states(lora, asked, said, memories, owner),
    )


def _runs(without: npt.NDArray[np.bool_], apart: bool) -> list[npt.NDArray[np.int64]]:
    """The questions of each packed run: all at once, or with and without memory `apart`."""
    if not apart:
        return [np.arange(len(without))]
    parts = [np.flatnonzero(without == closed) for closed in (False, True)]
    return [rows for rows in parts if len(rows)]
