"""Token ids of what the backbone reads and writes: questions, passages before them, answers.

Knows the question template; knows no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentbank.backbone.model import Backbone


def prompt_ids(
    backbone: Backbone, questions: Sequence[str], passages: Sequence[str] | None = None
) -> list[list[int]]:
    """Token ids of `[start] passage ¶ Question: … Answer:`; without `passages` none is there."""
    asked = backbone.encode([f"Question: {q.strip()}\nAnswer:" for q in questions], start=False)
    heads = passage_ids(backbone, passages) if passages else [[backbone.start_id]] * len(asked)
    return [[*head, *ask] for head, ask in zip(heads, asked, strict=True)]


def passage_ids(backbone: Backbone, passages: Sequence[str]) -> list[list[int]]:
    """Token ids of passages as they come before a question, with the start token."""
    return backbone.encode([f"{passage}\n\n" if passage else "" for passage in passages])


def answer_ids(backbone: Backbone, answers: Sequence[str]) -> list[list[int]]:
    """Token ids of the answers to learn, with the end token."""
    return [
        [*row, backbone.end_id] for row in backbone.encode([f" {a}" for a in answers], start=False)
    ]
