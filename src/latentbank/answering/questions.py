"""What can be asked, and which questions are asked together.

Knows texts and the backbone's limits; knows no memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import prompt_ids
from latentbank.errors import InputError

__all__ = ["ASKED_TOGETHER", "check_questions", "question_batches"]

ASKED_TOGETHER = 16  # questions
Place = tuple[int, ...]


def check_questions(
    backbone: Backbone,
    questions: Sequence[str],
    decoding: DecodingConfig | None = None,
    places: Sequence[str] = (),
) -> None:
    """Refuses what cannot be asked, before a memory is read for it.

    `places` [B]: where each question stands, for the message.

    Raises:
        InputError: a question that is empty, is not valid text, or does not fit into the backbone's
            positions with its prompt and the answer, memory aside.
    """
    kept = (decoding or DecodingConfig()).max_new_tokens
    positions = backbone.geometry.max_positions
    for i, question in enumerate(questions):
        place = f"{places[i]}: the" if places and places[i] else "The"
        if not question.strip():
            raise InputError(f"{place} question is empty.")
        if any("\ud800" <= character <= "\udfff" for character in question):
            raise InputError(f"{place} question is not valid Unicode text.")
        if 4 * (len(question) + 64) + kept <= positions:  # a character is four tokens at most
            continue
        if len(prompt_ids(backbone, [question])[0]) + kept > positions:
            tokens = backbone.count_tokens([question])[0]
            raise InputError(
                f"{place} question has {tokens} tokens; with its prompt and {kept} for the answer "
                f"it does not fit into the {positions} of {backbone.name}. Shorten it."
            )


def question_batches(
    questions: Sequence[str],
    documents: Sequence[str] | None = None,
    batch: int = ASKED_TOGETHER,
    places: Sequence[Place] | None = None,
) -> list[list[int]]:
    """Positions of the questions that are asked together: those of one document or like length.

    `places`: where the document that each question is about stands in the bank. Neighbours follow
    one another, so that what was read of a document is still there for the next question.
    """
    order = sorted(
        range(len(questions)),
        key=lambda i: (
            documents[i] if documents is not None else "",
            places[i] if places is not None else (),
            len(questions[i]),
        ),
    )
    return [order[at : at + batch] for at in range(0, len(order), batch)]
