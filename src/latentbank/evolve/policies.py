"""The objective of fading policies: what a full bank can still answer at equal bytes.

A stream is written to a real bank in phases. Between phases questions are asked, so that documents
get hits. No language model answers: a question counts as answered if its answer stands in the text
that the bank's own retrieval puts first. That is what a reader could answer at most, and it takes a
hundredth of the time. Knows methods through their capabilities.
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

__all__ = ["BLEND", "PolicyObjective", "Stream"]

BLEND = "age + log1p(hits) / 2.772589 + 0.5 * (1 - redundancy)"
"""The default policy as an expression; log2(1 + hits) / 4 is log1p(hits) / (4 ln 2)."""


@dataclass(frozen=True)
class Stream:
    """How documents come and what is asked.

    `budget`: bytes per document of the stream, beyond what a bank of one needs. `phases`: parts in
    which it is written. After each, `asked` questions are drawn. With the chance `hot` one is about
    the `hot_share` of documents that are asked about again and again, else about any that were
    written.
    """

    budget: int = 64
    phases: int = 6
    asked: int = 60
    hot: float = 0.5
    hot_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.budget, self.phases, self.asked) < 1:
            raise InputError("budget, phases and asked are at least 1")


@dataclass(frozen=True)
class Played:
    """What a bank answered: 1 or 0 for each question, see `PolicyObjective`.

    `f1`: of the model's answers to the questions at the end, if it was asked. `kept`: documents
    in the bank at the end.
    """

    answered: Sequence[float]
    retained: Sequence[float]
    f1: Sequence[float]
    kept: int

    def figures(self) -> dict[str, float]:
        """The means by name, and `score`."""
        answered, retained = float(np.mean(self.answered)), float(np.mean(self.retained))
        figures = {"score": (answered + retained) / 2, "answered": answered, "retained": retained}
        if self.f1:
            figures["f1"] = float(np.mean(self.f1))
        return {**figures, "kept": float(self.kept)}


class PolicyObjective(Objective):
    """Scores fading policies on a stream of documents and questions.

    The score is the mean of two figures: `answered`, the share of as many questions after the
    last phase, and `retained`, the mean over the phases of the share of questions about the first
    phase.

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
        "max(sample, tanh(hits))",
    )

    def __init__(self, method: Retrieving, data: QADataset, stream: Stream) -> None:
        if not isinstance(method, Retrieving):
            raise InputError("A policy is evolved with a method that finds texts, such as strata.")
        if len(data.documents) < 4 * stream.phases:
            raise InputError(
                f"{stream.phases} phases need at least {4 * stream.phases} documents; "
                f"{data.name} has {len(data.documents)}."
            )
        self._method, self._data, self._stream = method, data, stream
        self._least = least_bytes(method, data.documents[0])

    def probe(self) -> Mapping[str, Array]:
        """Documents of a stream with hits that few have."""
        draw = np.random.default_rng(1)
        count = 256
        hits = np.floor(draw.exponential(1.0, count)).astype(np.int64)
        near = np.where(draw.random(count) < 0.2, draw.random(count), 0.0)
        return signals_by_name(Signals(np.arange(count), hits, near), span=100.0)

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
        """`score`, `answered` and `retained`, 0 … 1, and documents `kept`."""
        return self.play_expression(expression, share).figures()

    def outcomes(self, expression: Expression) -> list[float]:
        """1 or 0 for each question at the end, and then for each about the first phase."""
        played = self.play_expression(expression)
        return [*played.answered, *played.retained]

    def play_expression(
        self, expression: Expression, share: float = 1.0, read: bool = False
    ) -> Played:
        """`play` with an expression as the policy."""
        return self.play(f"{FORMULA}{expression}", share, read)

    def play(self, policy: str, share: float = 1.0, read: bool = False) -> Played:
        """Plays the first `share` of the stream with a policy, as `make_policy` reads it.

        With `read` the method's model also answers the questions at the end.
        """
        stream = self._stream
        count = max(4 * stream.phases, round(share * len(self._data.documents)))
        data = self._data.take(count)
        count = len(data.documents)
        stops = [round(count * (i + 1) / stream.phases) for i in range(stream.phases)]
        draw = np.random.default_rng([stream.seed, count])
        hot = set(draw.permutation(count)[: max(1, round(stream.hot_share * count))].tolist())
        groups = data.questions_by_document()
        size = self._least + stream.budget * count
        model = bounded_model(self._method, ":memory:", size, policy)
        retained: list[float] = []
        try:
            begin = 0
            for stop in stops:
                write_fitting(model, data.documents[begin:stop])
                asked = self._drawn(draw, groups, range(stop), hot, stream.asked)
                self._ask(model, [data.questions[i] for i in asked], note=True)
                early = self._drawn(draw, groups, range(stops[0]), set(), stream.asked)
                retained += self._ask(model, [data.questions[i] for i in early], note=False)
                begin = stop
            last = self._drawn(draw, groups, range(count), hot, stream.asked * stream.phases)
            questions = [data.questions[i] for i in last]
            answered = self._ask(model, questions, note=False)
            scores = self._answers(model, questions) if read else []
            return Played(answered, retained, scores, len(model.bank))
        finally:
            model.bank.close()

    def _drawn(
        self,
        draw: np.random.Generator,
        groups: Sequence[Sequence[int]],
        written: Sequence[int],
        hot: set[int],
        count: int,
    ) -> list[int]:
        """Numbers of `count` questions about documents that were written."""
        all_ = [i for i in written if groups[i]]
        often = [i for i in all_ if i in hot]
        found = []
        for _ in range(count if all_ else 0):
            pool = often if often and draw.random() < self._stream.hot else all_
            group = groups[pool[int(draw.integers(len(pool)))]]
            found.append(group[int(draw.integers(len(group)))])
        return found

    def _ask(self, model: MemoryModel, questions: Sequence[Question], note: bool) -> list[float]:
        """1 for each question whose answer is in the text that is found first, else 0.

        With `note` that text gets a hit, as it does where a model answers from it.
        """
        if not questions:
            return [0.0]
        rankings = self._method.retriever.rank([one.text for one in questions], 1)
        scores = []
        for question, ranking in zip(questions, rankings, strict=True):
            text = self._method.text(ranking[0][0]) if ranking else ""
            scores.append(contains_answer(text, question.answers))
        if note:
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
