"""The objective of fading policies: what a full bank can still answer at equal bytes.

Streams are written to real banks in phases. After each phase questions are asked, and what they are
answered from gets hits. No language model answers: a question counts as answered if its answer
stands in the text that the bank's own retrieval puts first. That is what a reader could answer at
most, and it takes a hundredth of the time. Knows methods through their capabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from latentbank.bank.policy import (
    DEFAULT_POLICY,
    FORMULA,
    SIGNALS,
    Signals,
    signals_by_name,
)
from latentbank.bench.budget import bounded_model, least_bytes, write_fitting
from latentbank.capabilities import Retrieving
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, Question
from latentbank.evaluate.metrics import contains_answer, f1
from latentbank.evolve.objective import Array, Objective
from latentbank.functions.expression import Expression
from latentbank.model import MemoryModel

__all__ = ["BLEND", "Played", "PolicyObjective", "Stream", "figures_of"]

BLEND = "age + log1p(hits) / 2.772589 + 0.5 * (1 - redundancy)"
"""The default policy as an expression; log2(1 + hits) / 4 is log1p(hits) / (4 ln 2)."""


@dataclass(frozen=True)
class Stream:
    """How documents come and what is asked.

    Each of `streams` draws `documents` of the data in an order of its own and writes them in
    `phases` to a bank of `budget` bytes per document, beyond what a bank of one needs. After each
    phase `asked` questions are drawn: first one of the phases until then, all alike, then one of
    its documents. Only the share `wanted` of the documents is ever asked about, the k-th most
    wanted with a weight of k^-`skew`.
    """

    budget: int = 64
    documents: int = 160
    streams: int = 4
    phases: int = 6
    asked: int = 40
    wanted: float = 0.5
    skew: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.budget, self.documents, self.streams, self.phases, self.asked) < 1:
            raise InputError("budget, documents, streams, phases and asked are at least 1")
        if not 0 < self.wanted <= 1 or self.skew < 0:
            raise InputError("wanted lies in 0 … 1, and skew is not below 0")


@dataclass(frozen=True)
class Played:
    """What a bank answered: 1 or 0 for each question, see `PolicyObjective`.

    `owners`: the number of the document that each question is about, `ages`: how many phases ago it
    was written. `f1`: of the model's answers to the questions at the end, if it was asked.
    `kept`: documents in the bank at the end.
    """

    answered: Sequence[float]
    owners: Sequence[int]
    ages: Sequence[int]
    f1: Sequence[float]
    f1_owners: Sequence[int]
    kept: int


def figures_of(streams: Sequence[Played]) -> dict[str, float]:
    """The means over all questions, by name; `score` is that of all of them.

    `old` and `new` are about documents of earlier phases and of the last one. `kept` is the mean
    number of documents.
    """
    answered = np.concatenate([one.answered for one in streams])
    ages = np.concatenate([one.ages for one in streams])
    figures = {"score": float(answered.mean())}
    for name, chosen in (("old", ages > 0), ("new", ages == 0)):
        if chosen.any():
            figures[name] = float(answered[chosen].mean())
    if any(one.f1 for one in streams):
        figures["f1"] = float(np.mean([value for one in streams for value in one.f1]))
    return {**figures, "kept": float(np.mean([one.kept for one in streams]))}


class PolicyObjective(Objective):
    """Scores fading policies on streams of documents and questions.

    The score is the share of all questions of all streams that were answered.

    Raises:
        InputError: the method finds no texts, or the data has too few documents for the phases.
    """

    target = "fading policy: the documents with the lowest values lose bytes first"
    names = SIGNALS
    first = BLEND
    terms: Mapping[str, float] = MappingProxyType(
        {"age": 1.0, "log1p(hits)": 0.36, "1 - redundancy": 0.5, "sample": 1.0}
    )
    starts = (
        "sample",
        "sample + log1p(hits)",
        "age",
        "log1p(hits) + 0.1 * age",
        "age + log1p(hits)",
        "max(sample, tanh(hits))",
    )

    def __init__(self, method: Retrieving, data: QADataset, stream: Stream) -> None:
        if not isinstance(method, Retrieving):
            raise InputError("A policy is evolved with a method that finds texts, such as strata.")
        if min(len(data.documents), stream.documents) < 4 * stream.phases:
            raise InputError(
                f"{stream.phases} phases need at least {4 * stream.phases} documents; "
                f"{data.name} has {len(data.documents)}, a stream {stream.documents}."
            )
        self._method, self._data, self._stream = method, data, stream
        self._least = least_bytes(method, data.documents[0])
        self._groups = data.questions_by_document()
        self._played: tuple[str, dict[int, Played]] = "", {}

    def probe(self) -> Mapping[str, Array]:
        """Documents of a stream with hits that few have."""
        draw = np.random.default_rng(1)
        count = 256
        hits = np.floor(draw.exponential(1.0, count)).astype(np.int64)
        near = np.where(draw.random(count) < 0.2, draw.random(count), 0.0)
        signals = Signals(np.arange(count), hits, near, np.ones(count, np.int64))
        return signals_by_name(signals, span=100.0)

    def identity(self) -> dict[str, Any]:
        """Data, stream and method."""
        return {
            "target": "policy",
            "data": {"name": self._data.name, "hash": self._data.hash},
            "stream": vars(self._stream),
            "method": self._method.name,
            "default": DEFAULT_POLICY,
        }

    def figures(self, expression: Expression, share: float) -> dict[str, float]:
        """Those of `figures_of`, on a share of the streams."""
        count = max(1, round(share * self._stream.streams))
        return figures_of(self.play(f"{FORMULA}{expression}", count))

    def outcomes(self, expression: Expression) -> list[float]:
        """1 or 0 for each question of all streams."""
        played = self.play(f"{FORMULA}{expression}")
        return [value for one in played for value in one.answered]

    def play(self, policy: str, count: int | None = None, read: bool = False) -> list[Played]:
        """Plays the first `count` streams with a policy, as `make_policy` reads it.

        With `read` the method's model also answers the questions after the last phase.
        """
        if self._played[0] != policy:
            self._played = policy, {}
        known = self._played[1]
        numbers = range(count or self._stream.streams)
        for number in numbers:
            if number not in known or (read and not known[number].f1):
                known[number] = self._play(policy, number, read)
        return [known[number] for number in numbers]

    def _play(self, policy: str, number: int, read: bool) -> Played:
        """Plays one stream."""
        stream = self._stream
        draw = np.random.default_rng([stream.seed, number])
        order = draw.permutation(len(self._data.documents))[: stream.documents].tolist()
        weights = self._weights(draw, order)
        parts = [[int(i) for i in part] for part in np.array_split(order, stream.phases)]
        size = self._least + stream.budget * len(order)
        model = bounded_model(self._method, ":memory:", size, policy)
        answered: list[float] = []
        owners: list[int] = []
        ages: list[int] = []
        try:
            for now, part in enumerate(parts):
                write_fitting(model, [self._data.documents[i] for i in part])
                asked = self._drawn(draw, parts[: now + 1], weights)
                questions = [self._data.questions[i] for i, _ in asked]
                answered += self._ask(model, questions)
                owners += [one.document for one in questions]
                ages += [now - phase for _, phase in asked]
            scores = self._answers(model, questions) if read else []
            last = owners[len(owners) - len(scores) :]
            return Played(answered, owners, ages, scores, last, len(model.bank))
        finally:
            model.bank.close()

    def _weights(self, draw: np.random.Generator, order: Sequence[int]) -> dict[int, float]:
        """Document → how often it is asked about; only those that ever are."""
        asked = [i for i in draw.permutation(order).tolist() if self._groups[i]]
        asked = asked[: max(1, round(self._stream.wanted * len(asked)))]
        return {i: (rank + 1.0) ** -self._stream.skew for rank, i in enumerate(asked)}

    def _drawn(
        self,
        draw: np.random.Generator,
        parts: Sequence[Sequence[int]],
        weights: Mapping[int, float],
    ) -> list[tuple[int, int]]:
        """(question, phase that it is about), `asked` of them."""
        found = []
        for _ in range(self._stream.asked):
            phase = int(draw.integers(len(parts)))
            own = [i for i in parts[phase] if i in weights]
            if own:
                chances = np.array([weights[i] for i in own])
                group = self._groups[own[int(draw.choice(len(own), p=chances / chances.sum()))]]
                found.append((group[int(draw.integers(len(group)))], phase))
        return found

    def _ask(self, model: MemoryModel, questions: Sequence[Question]) -> list[float]:
        """1 for each question whose answer is in the text that is found first, else 0.

        That text gets a hit, as it does where a model answers from it.
        """
        if not questions:
            return []
        rankings = self._method.retriever.rank([one.text for one in questions], 1)
        scores = []
        for question, ranking in zip(questions, rankings, strict=True):
            text = self._method.text(ranking[0][0]) if ranking else ""
            scores.append(contains_answer(text, question.answers))
        model.bank.note_hits(row[0][0] for row in rankings if row)
        return scores

    @staticmethod
    def _answers(model: MemoryModel, questions: Sequence[Question]) -> list[float]:
        """F1 of the model's own answers, 0 … 1."""
        found = model.ask_many([one.text for one in questions])
        return [
            f1(answer.text, question.answers)
            for answer, question in zip(found, questions, strict=True)
        ]
