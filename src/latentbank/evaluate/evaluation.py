"""Asks a memory model the questions of a data set and scores the answers.

Knows `MemoryModel`, data and metrics; knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from latentbank.answering import Answer
from latentbank.backbone.generate import DecodingConfig
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.metrics import contains_answer, exact_match, f1, prefix_match
from latentbank.evaluate.stream import chunked
from latentbank.method import Method
from latentbank.model import MemoryModel


@dataclass(frozen=True)
class Evaluation:
    """Scores of each question, in [0, 1], in the order of the data; times in seconds.

    `selected` is 1 where the answer names the question's own document.
    """

    answers: tuple[Answer, ...]
    exact_match: tuple[float, ...]
    f1: tuple[float, ...]
    contains: tuple[float, ...]
    prefix_match: tuple[float, ...]
    selected: tuple[float, ...]

    def summary(self) -> dict[str, float]:
        """Mean scores in percent, and `milliseconds` per question."""
        return {
            "exact_match": 100 * float(np.mean(self.exact_match)),
            "f1": 100 * float(np.mean(self.f1)),
            "contains_answer": 100 * float(np.mean(self.contains)),
            "prefix_match": 100 * float(np.mean(self.prefix_match)),
            "gold_selected": 100 * float(np.mean(self.selected)),
            "milliseconds": 1000 * float(np.mean([a.seconds for a in self.answers])),
        }


def score_answers(answers: Sequence[Answer], data: QADataset) -> Evaluation:
    """Scores one answer for each question of `data`, in their order.

    `data` may hold no documents (closed book); then `selected` is 0 for all.
    """
    wanted = [data.documents[q.document].id if data.documents else "" for q in data.questions]
    pairs = [(a.text, q.answers) for a, q in zip(answers, data.questions, strict=True)]
    return Evaluation(
        answers=tuple(answers),
        exact_match=tuple(exact_match(a, r) for a, r in pairs),
        f1=tuple(f1(a, r) for a, r in pairs),
        contains=tuple(contains_answer(a, r) for a, r in pairs),
        prefix_match=tuple(prefix_match(a, r) for a, r in pairs),
        selected=tuple(
            float(any(id == w for id, _ in a.documents))
            for a, w in zip(answers, wanted, strict=True)
        ),
    )


def ask_data(
    model: MemoryModel,
    data: QADataset,
    gold: bool = False,
    decoding: DecodingConfig | None = None,
    on_answers: Callable[[int], None] | None = None,
) -> Evaluation:
    """Asks every question of `data`; with `gold` each reads its own document.

    `on_answers` gets the number of questions answered by each step.
    """
    texts = [q.text for q in data.questions]
    wanted = [data.documents[q.document].id for q in data.questions] if gold else None
    answers: dict[int, Answer] = {}
    decoding = decoding or DecodingConfig()  # the papers' length, not that of `ask`
    for answered in model.answers(texts, decoding, documents=wanted):
        answers.update(answered)
        if on_answers is not None:
            on_answers(len(answered))
    return score_answers([answers[i] for i in range(len(texts))], data)


def evaluate(method: Method, data: QADataset, gold: bool = False) -> Evaluation:
    """Writes `data` into a fresh bank in memory, asks, and binds the method's own bank again.

    Long documents are cut first, so that a question belongs to one chunk, as in the bench. A method
    without a bank has none afterwards, and nothing of `data` in its working state.
    """
    data = chunked(data, method.backbone.count_tokens, method.chunk_tokens)
    before = method.bank
    model = MemoryModel(method)
    try:
        model.write(data.documents)
        return ask_data(model, data, gold)
    finally:
        model.close()
        if before is not None:
            method.bind(before)
        else:
            MemoryModel(method).close()
            method.bank = None
