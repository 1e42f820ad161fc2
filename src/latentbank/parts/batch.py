"""What a training step consists of, and what it returns. Knows documents; knows no method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import answer_ids, prompt_ids
from latentbank.documents.document import Document

__all__ = ["Batch", "Loss", "mean_answer_loss"]


@dataclass(frozen=True)
class Batch:
    """One training step: D documents and Q questions; `owner` [Q] indexes the documents."""

    documents: tuple[Document, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    owner: tuple[int, ...]
    step: int = 0

    def with_questions(self, kept: Sequence[int]) -> Batch:
        """The same documents with only the questions at the positions `kept`."""
        return replace(
            self,
            questions=tuple(self.questions[i] for i in kept),
            answers=tuple(self.answers[i] for i in kept),
            owner=tuple(self.owner[i] for i in kept),
        )


@dataclass(frozen=True)
class Loss:
    """`total` is a scalar that carries gradients; `parts` are plain numbers for the log."""

    total: Tensor
    parts: Mapping[str, float] = field(default_factory=dict)


def mean_answer_loss(backbone: Backbone, batch: Batch, started: bool = False) -> Tensor:
    """Cross-entropy per answer token with what is attached to the backbone now; a scalar.

    `started`: the memory is the beginning of the prompt and contains its start token.
    """
    prompts = [row[int(started) :] for row in prompt_ids(backbone, batch.questions)]
    nll, tokens = backbone.answer_loss(prompts, answer_ids(backbone, batch.answers))
    return nll.sum() / tokens.sum()
