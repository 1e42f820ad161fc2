"""Fills a bank with a data set, asks a method its questions and scores the answers: shared by
training, the CLI and the bench.

Knows methods through their contract; knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from latentbank.answering import Answer, in_batches
from latentbank.backbone.generate import DecodingConfig
from latentbank.bank import BankFingerprint, MemoryBank
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.metrics import contains_answer, exact_match, f1, prefix_match
from latentbank.method import Method


@dataclass(frozen=True)
class Evaluation:
    """Per-question scores in the order of the data's questions, in [0, 1]; times in seconds."""

    answers: tuple[Answer, ...]
    exact_match: tuple[float, ...]
    f1: tuple[float, ...]
    contains: tuple[float, ...]
    prefix_match: tuple[float, ...]
    selected: tuple[float, ...]

    def summary(self) -> dict[str, float]:
        """Means; EM, F1 and the like in percent, `milliseconds` per question."""
        return {
            "exact_match": 100 * float(np.mean(self.exact_match)),
            "f1": 100 * float(np.mean(self.f1)),
            "contains_answer": 100 * float(np.mean(self.contains)),
            "prefix_match": 100 * float(np.mean(self.prefix_match)),
            "gold_selected": 100 * float(np.mean(self.selected)),
            "milliseconds": 1000 * float(np.mean([a.seconds for a in self.answers])),
        }


def fresh_bank(method: Method) -> MemoryBank:
    """An empty bank in memory, bound to `method`."""
    bank = MemoryBank.create(
        ":memory:",
        BankFingerprint(
            method.name, "", method.backbone.fingerprint, method.backbone.tokenizer_fingerprint
        ),
    )
    method.bind(bank)
    return bank


def write_all(
    method: Method,
    data: QADataset,
    batch: int = 64,
    advance: Callable[[int], None] | None = None,
) -> float:
    """Writes every document in order; returns the seconds spent in `write`."""
    seconds = 0.0
    for at in range(0, len(data.documents), batch):
        part = data.documents[at : at + batch]
        seconds += method.write(part).seconds
        if advance is not None:
            advance(len(part))
    return seconds


def ask_all(
    method: Method,
    data: QADataset,
    gold: bool = False,
    batch: int = 16,
    decoding: DecodingConfig | None = None,
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """Asks every question of `data` against the bound bank; `gold` gives each its document."""
    wanted = [data.documents[q.document].id for q in data.questions]
    texts = [q.text for q in data.questions]
    found: list[Answer | None] = [None] * len(texts)
    for i, item in in_batches(
        method, texts, wanted if gold else None, batch, decoding, advance=advance
    ):
        found[i] = item
    return score_answers([a for a in found if a is not None], data)


def score_answers(answers: Sequence[Answer], data: QADataset) -> Evaluation:
    """Scores one answer for each question of `data`, in their order.

    `data` may hold no documents (closed book): then none counts as selected.
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
            float(any(name == w for name, _ in a.documents))
            for a, w in zip(answers, wanted, strict=True)
        ),
    )


def evaluate(method: Method, data: QADataset, gold: bool = False, batch: int = 16) -> Evaluation:
    """Writes `data` into a fresh bank in memory, asks, and puts the method's own bank back.

    A method that had none has none afterwards, and nothing of `data` in its working state.
    """
    before = method.bank
    with fresh_bank(method):
        try:
            write_all(method, data)
            return ask_all(method, data, gold, batch)
        finally:
            if before is not None:
                method.bind(before)
            else:
                with fresh_bank(method):
                    method.bank = None
