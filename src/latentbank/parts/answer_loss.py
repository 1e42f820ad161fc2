"""Answer loss of a step in which some questions are asked without memory.

Knows batches, keys and values, and conditionings; draws nothing itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning
from latentbank.parts.batch import Batch, mean_answer_loss

__all__ = ["split_answer_loss"]


def split_answer_loss(
    backbone: Backbone,
    batch: Batch,
    memory: KVMemory,
    without: npt.NDArray[np.bool_],
    reading: Conditioning,
    closed_book: Conditioning,
) -> Tensor:
    """The mean answer loss per question; a scalar.

    `memory` has one row for each document of the batch. The questions where `without` [Q] holds are
    asked under `closed_book` and see no memory. The others are asked under `reading` and see the
    row of their own document.
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
            loss = mean_answer_loss(backbone, batch.with_questions(rows.tolist()))
        total = total + loss * len(rows) / len(without)
    return total
