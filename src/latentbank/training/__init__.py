"""Meta-training of a method's parameters: settings, the plan of batches, checkpoints, the loop.

Knows methods through their contract only, data as questions about documents, and files.
"""

from __future__ import annotations

from latentbank.training.config import TrainConfig
from latentbank.training.log import Progress
from latentbank.training.plan import batches, planned_questions
from latentbank.training.trainer import Trainer

__all__ = ["Progress", "TrainConfig", "Trainer", "batches", "planned_questions"]
