"""Settings of a training run, and its learning-rate schedule.

Knows numbers only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from latentbank.config import require_at_least, setting
from latentbank.errors import InputError

SCHEDULES = ("cosine", "constant", "decay")
_LEAST_RATE = 0.1  # share of the learning rate at the end of a cosine or decay schedule


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run.

    Raises:
        InputError: a count below its least value, or an unknown schedule.
    """

    steps: int = setting(1000, "optimiser steps of the whole run")
    documents_per_step: int = setting(8, "documents with questions in a step, on all devices")
    questions_per_document: int = setting(5, "at most so many questions of a document; 0: all")
    neighbours: int = setting(
        1, "length of the runs of consecutive documents; those of one article are alike"
    )
    distractors: int = setting(0, "further documents of a step that no question is asked about")
    learning_rate: float = setting(1e-3, "peak learning rate of AdamW")
    warmup: int = setting(20, "steps of linear warm-up")
    schedule: str = setting(
        "cosine", "after the warm-up: cosine, constant, or decay (constant, then linear)"
    )
    decay_share: float = setting(0.2, "share of the steps, at the end, in which decay falls")
    weight_decay: float = setting(0.0, "weight decay of AdamW")
    clip: float = setting(1.0, "largest norm of the gradient")
    seed: int = setting(0, "seed of the plan, of the start and of dropout")
    validate_every: int = setting(250, "steps between validations; 0: none")
    validation_documents: int = setting(150, "documents of the validation bank, the first ones")
    validation_questions: int = setting(200, "validation questions, drawn by the seed")
    checkpoint_seconds: float = setting(180.0, "seconds between checkpoints")

    def __post_init__(self) -> None:
        require_at_least(self, 1, "steps", "documents_per_step", "neighbours")
        require_at_least(self, 0, "questions_per_document", "distractors", "validate_every")
        require_at_least(self, 1, "validation_documents", "validation_questions")
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule must be cosine, constant or decay, got {self.schedule!r}")
        if not 0 < self.decay_share <= 1:
            raise InputError(f"decay_share must lie in (0, 1], got {self.decay_share}")

    @property
    def decay_start(self) -> int:
        """The first step at which the rate of schedule `decay` falls."""
        return round((1 - self.decay_share) * self.steps)

    def rate(self, step: int) -> float:
        """The factor on the learning rate at `step`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "decay":
            share = (step - self.decay_start) / max(1, self.steps - self.decay_start)
            return 1 - (1 - _LEAST_RATE) * min(1.0, max(0.0, share))
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        return _LEAST_RATE + (1 - _LEAST_RATE) * fall
