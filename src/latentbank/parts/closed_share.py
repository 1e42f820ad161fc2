"""Answer loss where a share of the questions is asked without memory.

Knows the contract of a method; draws nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.transports import Conditioning
from latentbank.method import Batch, Method

__all__ = ["shared_answer_loss"]


def shared_answer_loss(
    method: Method, batch: Batch, memory: KVMemory, hidden: npt.NDArray[np.bool_]
) -> Tensor:
    """The mean answer loss per question; a scalar.

    `memory` has a row for each document of the batch. The questions `hidden` [Q] are asked without
    it and with what `read_nothing` attaches, the others with their document's row and the method's
    low-rank weights.
    """
    lora = () if method.lora is None else (method.lora,)
    owner = np.array(batch.owner)
    total = torch.zeros((), device=method.backbone.device)
    for closed in (False, True):
        rows = np.flatnonzero(hidden == closed)
        if len(rows) == 0:
            continue
        seen = None if closed else memory.rows(torch.from_numpy(owner[rows]).to(total.device))
        reading = method.read_nothing() if closed else Conditioning(lora)
        with reading.attach(method.backbone), method.backbone.with_memory(seen):
            loss = method.answer_terms(_part(batch, rows.tolist()))
        total = total + loss * len(rows) / len(hidden)
    return total


def _part(batch: Batch, kept: Sequence[int]) -> Batch:
    """The same documents with the questions `kept` alone."""
    return replace(
        batch,
        questions=tuple(batch.questions[i] for i in kept),
        answers=tuple(batch.answers[i] for i in kept),
        owner=tuple(batch.owner[i] for i in kept),
    )
